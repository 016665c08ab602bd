# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One engine as seen from its socket: a one-token probe, its counters, and what both say together.

Times are seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import json
import time
import typing as t

from llm_watchdog import decide

#: What grows when an engine gets on, by engine: tokens, prompts, steps.
PROGRESS = (
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:iteration_tokens_total_count",
    "llamacpp:n_decode_total",
    "llamacpp:tokens_predicted_total",
    "llamacpp:prompt_tokens_total",
)
RUNNING = ("vllm:num_requests_running", "llamacpp:requests_processing")

#: The engine is asked too much, or by the wrong one: it lives.
BUSY = (429, 503)
REFUSED = (400, 401, 403, 404, 405, 422)

ANSWER_BYTES = 4 * 1024 * 1024


class Answer(t.NamedTuple):
    """An HTTP answer, or why there is none (``status`` 0)."""

    status: int
    body: bytes
    error: str = ""


async def ask(path: str, method: str, url: str, key: str, body: t.Optional[t.Mapping[str, t.Any]] = None) -> Answer:
    """Send one request over a unix socket and read the answer to its end; waits as long as it takes."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as exc:
        return Answer(0, b"", "%s: %s" % (path, exc.strerror or exc))
    try:
        data = b"" if body is None else json.dumps(body).encode()
        # HTTP/1.0: an answer in one piece, and the connection ends with it.
        head = [method + " " + url + " HTTP/1.0", "Host: localhost", "Connection: close"]
        if key:
            head.append("Authorization: Bearer " + key)
        if body is not None:
            head += ["Content-Type: application/json", "Content-Length: %d" % len(data)]
        writer.write("\r\n".join([*head, "", ""]).encode() + data)
        await writer.drain()
        return await read_answer(reader)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as exc:
        return Answer(0, b"", "%s: %s" % (path, exc or type(exc).__name__))
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read status, header and body. Raises EOFError or ValueError when it isn't HTTP."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    if not head[0].startswith("HTTP/") or head[0].count(" ") < 1:
        raise ValueError("no HTTP: %r" % head[0][:40])
    status = int(head[0].split(" ")[1])
    length = None
    for line in head[1:]:
        name, _separator, value = line.partition(":")
        if name.strip().lower() == "content-length":
            length = int(value)
    if length is not None:
        return Answer(status, await reader.readexactly(min(length, ANSWER_BYTES)))
    return Answer(status, await reader.read(ANSWER_BYTES))


def has_token(body: bytes) -> bool:
    """Return whether a completion's answer holds a token."""
    try:
        answer = json.loads(body)
        return bool(answer["usage"]["completion_tokens"] >= 1) and isinstance(answer["choices"][0], dict)
    except (ValueError, KeyError, IndexError, TypeError):
        return False


def verdict(answer: Answer) -> str:
    """Return ``token``, ``busy``, ``refused`` (its configuration or ours is wrong), ``wrong`` or ``silent``."""
    if answer.status == 0:
        return "silent"
    if answer.status == 200 and has_token(answer.body):
        return "token"
    if answer.status in BUSY:
        return "busy"
    return "refused" if answer.status in REFUSED else "wrong"


def counters(text: bytes) -> t.Optional[t.Tuple[float, int]]:
    """Return (sum of what grows with progress, requests that run) of a metrics page; None if it has neither."""
    progress, running, known = 0.0, 0.0, False
    for line in text.decode("utf-8", "replace").splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name not in PROGRESS and name not in RUNNING:
            continue
        try:
            value = float(line.rpartition("}")[2].split()[0] if "}" in line else line.split()[1])
        except (IndexError, ValueError):
            continue
        known = True
        if name in RUNNING:
            running += value
        else:
            progress += value
    return (progress, int(running)) if known else None


class Evidence:
    """What is known of one engine since its start; fed by probes and metrics, read by the decision."""

    def __init__(self, deadline: float, clock: t.Callable[[], float] = time.monotonic) -> None:
        self.deadline = deadline
        self.clock = clock
        self.verdict = ""
        self.probe_seconds = 0.0
        self.asked: t.Dict[str, float] = {}
        self.forget()

    def forget(self) -> None:
        """Begin anew: another process serves from here on."""
        self.asked.clear()
        self.unanswered: t.Optional[float] = None
        self.token_at: t.Optional[float] = None
        self.moved_at: t.Optional[float] = None
        self.measured_at: t.Optional[float] = None
        self.running_since: t.Optional[float] = None
        self.progress: t.Optional[float] = None
        self.timely = self.wrong = self.running = 0

    def ask(self, what: str) -> float:
        """Note that a request of this kind (``probe`` or ``metrics``) is on its way; return when it began."""
        self.asked[what] = self.clock()
        return self.asked[what]

    def answered(self, what: str, began: float, answer: Answer) -> str:
        """Note an answer and return its verdict. One to a process that is gone is left out."""
        if self.asked.get(what) != began:
            return ""
        del self.asked[what]
        if answer.status == 0:
            self.unanswered = began if self.unanswered is None else self.unanswered
        if what == "metrics":
            self._measured(answer)
            return "metrics"
        found = self.verdict = verdict(answer)
        now = self.clock()
        self.probe_seconds = now - began
        if found != "silent":
            self.unanswered = None
            self.wrong = self.wrong + 1 if found == "wrong" else 0
        in_time = found == "token" and self.probe_seconds <= self.deadline
        self.timely = self.timely + 1 if in_time else 0
        if found == "token":
            self.token_at = now
        return found

    def _measured(self, answer: Answer) -> None:
        found = counters(answer.body) if answer.status == 200 else None
        if found is None:
            return
        now = self.clock()
        if self.progress is not None and found[0] != self.progress:
            self.moved_at = now
        self.measured_at = now
        self.progress, self.running = found
        if self.running == 0:
            self.running_since = None
        elif self.running_since is None:
            self.running_since = now

    def pending_since(self) -> t.Optional[float]:
        """Return when the first request was sent that nobody has answered, None if there is none."""
        waiting = list(self.asked.values()) + ([self.unanswered] if self.unanswered is not None else [])
        return min(waiting) if waiting else None

    def seen(self, **more: t.Any) -> decide.Seen:
        """Return it as the decision takes it, with what was seen elsewhere."""
        return decide.Seen(
            pending_since=self.pending_since(),
            token_at=self.token_at,
            timely=self.timely,
            wrong=self.wrong,
            running=self.running,
            running_since=self.running_since,
            measured_at=self.measured_at,
            moved_at=self.moved_at,
            **more,
        )
