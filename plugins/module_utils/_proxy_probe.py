# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Proves that nginx serves what lies on the disk: asks every port, and compares the workers' age with the files'."""

from __future__ import annotations

import json
import os
import socket
import ssl
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _finding

CLOCK_TICK_SECONDS = 1.0 / os.sysconf("SC_CLK_TCK")
REQUEST = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Worker(t.NamedTuple):
    """A worker process of nginx; ``age_seconds`` since it was started."""

    pid: int
    age_seconds: float
    leaving: bool


def parse_stat(text: str) -> t.Tuple[int, float]:
    """Return parent and start time (seconds after boot) out of /proc/<pid>/stat. See proc(5), fields 4 and 22."""
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[1]), int(fields[19]) * CLOCK_TICK_SECONDS


def read_workers(master: int, proc: str = "/proc") -> t.List[Worker]:
    """Return the workers of a master."""
    with open(os.path.join(proc, "uptime"), encoding="ascii") as handle:
        uptime = float(handle.read().split()[0])
    workers: t.List[Worker] = []
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            with open(os.path.join(proc, entry, "stat"), encoding="utf-8", errors="replace") as handle:
                parent, started = parse_stat(handle.read())
            if parent != master:
                continue
            with open(os.path.join(proc, entry, "cmdline"), "rb") as binary:
                title = binary.read().replace(b"\0", b" ").decode("utf-8", "replace")
        except (OSError, ValueError):
            continue
        if "worker process" in title:
            workers.append(Worker(int(entry), uptime - started, "shutting down" in title))
    return workers


def newest_change(paths: t.Iterable[str]) -> t.Tuple[float, str]:
    """Return the time of the newest change of a file below the paths (seconds since the epoch), and which it is."""
    newest, which = 0.0, ""
    for path in paths:
        files = [path] if os.path.isfile(path) else []
        for parent, _directories, names in os.walk(path):
            files.extend(os.path.join(parent, name) for name in names)
        for name in files:
            try:
                changed = os.lstat(name).st_mtime
            except OSError:
                continue
            if changed > newest:
                newest, which = changed, name
    return newest, which


def reload_owed(workers: t.Sequence[Worker], changed: float, now: float) -> bool:
    """Say whether the workers that serve were started before the files' last change (seconds since the epoch)."""
    serving = [worker for worker in workers if not worker.leaving]
    return not serving or any(now - worker.age_seconds < changed - 2 * CLOCK_TICK_SECONDS for worker in serving)


def ask(address: str, port: int, timeout_seconds: float) -> t.Tuple[bytes, int, str]:
    """Ask a port for the models without a certificate; return server certificate (DER), status and error code.

    Raises:
        OSError: nothing answers, or not in TLS.
        ValueError: the answer isn't ours.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The certificate is compared with the one on the disk below, which is stricter than any verification.
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, port), timeout_seconds) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            shown = tls.getpeercert(binary_form=True) or b""
            tls.sendall(REQUEST)
            answer = b""
            while len(answer) < 65536:
                chunk = tls.recv(4096)
                if not chunk:
                    break
                answer += chunk
    head, _separator, body = answer.partition(b"\r\n\r\n")
    try:
        status = int(head.split(b" ", 2)[1])
        code = json.loads(body.decode("utf-8"))["error"]["code"]
    except (IndexError, KeyError, TypeError, ValueError) as exc:
        raise ValueError("an answer that isn't the proxy's: %r" % head[:80]) from exc
    return shown, status, str(code)


def check_port(address: str, port: int, certificate_path: str, timeout_seconds: float) -> _finding.Finding:
    """Return the finding about one port: it refuses a caller without a certificate, as the proxy does."""
    expected = "401 client_certificate, from the server certificate %s" % certificate_path
    remedy = "Look at `journalctl -u llm-proxy.service` and /var/log/gpufleet/proxy/error.log."
    try:
        with open(certificate_path, encoding="ascii") as handle:
            wanted = ssl.PEM_cert_to_DER_cert(handle.read()[:65536].strip())
        shown, status, code = ask(address, port, timeout_seconds)
    except (OSError, ValueError) as exc:
        found, good = str(exc), False
    else:
        found = "%d %s, from %s certificate" % (status, code, "that" if shown == wanted else "another server")
        good = shown == wanted and (status, code) == (401, "client_certificate")
    return _finding.finding(
        "proxy.port_answers",
        good,
        expected=expected,
        found=found,
        detail="Port %d of %s." % (port, address),
        remedy=remedy,
    )
