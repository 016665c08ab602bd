#!/usr/bin/python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds up the proxy's access log and answers with Prometheus metrics on a unix socket: ``LOG SOCKET``.

It begins at the end of the log; sums begin at 0 with each start, as counters may. A log that was rotated is read to its
end before the next one is begun. Needs the standard library of Python 3.9 only.
"""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import sys
import typing as t

# Seconds; from a cached prompt on a quiet engine to a queue that is minutes long.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
READ_BYTES = 1 << 20
HELP = {
    "llm_proxy_requests_total": "Requests that ended, by what they were answered with.",
    "llm_proxy_prompt_tokens_total": "Tokens of prompts, as the engine counted them.",
    "llm_proxy_completion_tokens_total": "Tokens that came out, as the engine counted them.",
    "llm_proxy_cut_total": "Answers of 200 that didn't come to their end: the engine or the caller broke off.",
    "llm_proxy_log_lines_refused_total": "Lines of the log that were no records.",
}
LATENCY = "llm_proxy_time_to_first_byte_seconds"
Labels = t.Tuple[t.Tuple[str, str], ...]


class Log:
    """Follows a log over its rotations."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.handle: t.Optional[t.BinaryIO] = None
        self.rest = b""
        self._open(at_end=True)

    def _open(self, at_end: bool = False) -> None:
        try:
            self.handle = open(self.path, "rb")  # noqa: SIM115 - it stays open over many calls
        except OSError:
            self.handle = None
            return
        if at_end:
            self.handle.seek(0, os.SEEK_END)

    def _rotated(self) -> bool:
        try:
            now = os.stat(self.path)
        except OSError:
            return False
        if self.handle is None:
            return True
        old = os.fstat(self.handle.fileno())
        return (old.st_dev, old.st_ino) != (now.st_dev, now.st_ino) or now.st_size < self.handle.tell()

    def lines(self) -> t.Iterator[bytes]:
        """Yield the whole lines that came since the last call."""
        while True:
            rotated = self._rotated()
            while self.handle is not None:
                data = self.handle.read(READ_BYTES)
                if not data:
                    break
                *whole, self.rest = (self.rest + data).split(b"\n")
                yield from whole
            if not rotated:
                return
            if self.handle is not None:
                self.handle.close()
            self.rest = b""
            self._open()


class Sums:
    """The counters and the histogram."""

    def __init__(self) -> None:
        self.counters: t.Dict[str, t.Dict[Labels, float]] = {name: {} for name in HELP}
        self.latencies: t.Dict[Labels, t.List[float]] = {}

    def _count(self, name: str, amount: float, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        self.counters[name][key] = self.counters[name].get(key, 0) + amount

    def take(self, line: bytes) -> None:
        """Add a line of the log."""
        try:
            record = json.loads(line)
            caller = {"model": str(record["model"]), "client": str(record["client"])}
            fallback = "true" if record["fallback"] is True else "false"
            status = int(record["status"])
            self._count(
                "llm_proxy_requests_total",
                1,
                **caller,
                route=str(record["route"]),
                status=str(status),
                fallback=fallback,
            )
            for kind in ("prompt", "completion"):
                if record["%s_tokens" % kind] is not None:
                    self._count("llm_proxy_%s_tokens_total" % kind, int(record["%s_tokens" % kind]), **caller)
            if status == 200 and record["end_of_stream"] is False:
                self._count("llm_proxy_cut_total", 1, **caller)
            if record["first_byte_seconds"] is not None:
                self._observe(float(record["first_byte_seconds"]), caller["model"], fallback)
        except (ValueError, KeyError, TypeError):
            self._count("llm_proxy_log_lines_refused_total", 1)

    def _observe(self, seconds: float, model: str, fallback: str) -> None:
        # One number for each bucket, then the sum.
        key = (("fallback", fallback), ("model", model))
        numbers = self.latencies.setdefault(key, [0.0] * (len(BUCKETS) + 2))
        place = next((place for place, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        numbers[place] += 1
        numbers[-1] += seconds

    def render(self) -> str:
        """Return the text format of Prometheus, version 0.0.4."""
        lines: t.List[str] = []
        for name, help_text in HELP.items():
            lines += ["# HELP %s %s" % (name, help_text), "# TYPE %s counter" % name]
            lines += [series(name, labels, value) for labels, value in sorted(self.counters[name].items())]
        lines += ["# HELP %s Until the first data of an answer." % LATENCY, "# TYPE %s histogram" % LATENCY]
        for labels, numbers in sorted(self.latencies.items()):
            total = 0.0
            for bound, number in zip([*map(str, BUCKETS), "+Inf"], numbers):
                total += number
                lines.append(series(LATENCY + "_bucket", (*labels, ("le", bound)), total))
            lines += [series(LATENCY + "_sum", labels, numbers[-1]), series(LATENCY + "_count", labels, total)]
        return "\n".join(lines) + "\n"


def series(name: str, labels: Labels, value: float) -> str:
    """Return one line of the text format."""
    said = ",".join('%s="%s"' % (label, escape(text)) for label, text in labels)
    return "%s%s %s" % (name, "{%s}" % said if said else "", "%d" % value if value == int(value) else "%.6f" % value)


def escape(text: str) -> str:
    """Return a label's value as the text format quotes it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Server(socketserver.UnixStreamServer):
    """Answers one scrape after another, and reads the log meanwhile."""

    request_queue_size = 16

    def __init__(self, path: str, log: Log, sums: Sums) -> None:
        self.log, self.sums = log, sums
        if os.path.exists(path):
            os.unlink(path)
        super().__init__(path, Handler)

    def service_actions(self) -> None:
        for line in self.log.lines():
            self.sums.take(line)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET /metrics."""

    server: Server
    timeout = 5

    def do_GET(self) -> None:
        if self.path != "/metrics":
            self.send_error(404)
            return
        self.server.service_actions()
        text = self.server.sums.render().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_arguments: t.Any) -> None:
        """Say nothing: the proxy logs who asked."""


def main() -> int:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.umask(0o007)
    with Server(sys.argv[2], Log(sys.argv[1]), Sums()) as server:
        server.serve_forever(poll_interval=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
