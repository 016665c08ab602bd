# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that notes when each piece came, and how a request ended. HTTP/1.1 on asyncio, with connections that are
kept."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import ssl
import time
import typing as t

TOKEN = re.compile(rb'(?:"text"|"content"): ?"(\d+):(\d+) "')
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")


@dataclasses.dataclass
class Answer:
    """What came of a request. Times in seconds; ``tokens``: (number, sent, received) on the monotonic clock, of
    the engine without a model; ``events``: when each event of a stream came, of any engine.

    ``error`` is empty for an answer that came whole. ``race`` says that a kept connection was closed by the other side
    just as the request went out, before a single byte of an answer: the case in which a client tries again.
    """

    status: int = 0
    head: bytes = b""
    body: bytes = b""
    first_byte: float = 0.0
    first_token: float = 0.0
    seconds: float = 0.0
    tokens: t.List[t.Tuple[int, float, float]] = dataclasses.field(default_factory=list)
    events: t.List[float] = dataclasses.field(default_factory=list)
    error: str = ""
    race: bool = False
    retried: bool = False

    def header(self, name: str) -> str:
        found = re.search(rb"(?i)\r\n%s: ([^\r]*)" % name.encode(), self.head + b"\r\n")
        return found.group(1).decode() if found else ""

    def whole_stream(self, asked: int) -> bool:
        """Say whether every token came, in order, with the end of the stream after it."""
        numbers = [number for number, _sent, _received in self.tokens]
        return self.status == 200 and not self.error and numbers == list(range(asked)) and b"[DONE]" in self.body


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: t.Any = None
        self.closed = False
        self.done: t.Optional[asyncio.Future[None]] = None
        self.answer = Answer()
        self.scanned = self.began = 0.0
        self.at = 0

    def connection_made(self, transport: t.Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        answer = self.answer
        if not answer.first_byte:
            answer.first_byte = now - self.began
        answer.body += data
        if not answer.head:
            head, separator, body = answer.body.partition(b"\r\n\r\n")
            if not separator:
                return
            answer.head, answer.body = head, body
            answer.status = int(head[9:12])
        for match in TOKEN.finditer(answer.body, self.at):
            self.at = match.end()
            answer.tokens.append((int(match.group(1)), int(match.group(2)) / 1e9, now))
            if not answer.first_token:
                answer.first_token = now - self.began
        answer.events += [now - self.began] * (answer.body.count(b"data: {") - len(answer.events))
        length = LENGTH.search(answer.head)
        whole = len(answer.body) >= int(length.group(1)) if length else answer.body.endswith(b"0\r\n\r\n")
        if whole:
            self.finish("")

    def finish(self, error: str) -> None:
        if self.done is not None and not self.done.done():
            self.answer.seconds = time.monotonic() - self.began
            self.answer.error = error
            self.done.set_result(None)

    def connection_lost(self, exc: t.Optional[BaseException]) -> None:
        self.closed = True
        self.finish("closed: %s" % (exc or "end of file"))

    async def ask(self, request: bytes, timeout: float) -> Answer:
        self.done = asyncio.get_running_loop().create_future()
        self.answer, self.at = Answer(), 0
        self.began = time.monotonic()
        self.transport.write(request)
        try:
            await asyncio.wait_for(self.done, timeout)
        except asyncio.TimeoutError:
            self.answer.error = "no end within %g s" % timeout
            self.answer.seconds = time.monotonic() - self.began
            self.transport.abort()
            self.closed = True
        if b"connection: close" in self.answer.head.lower():
            self.transport.close()
            self.closed = True
        return self.answer


class Caller:
    """A client with one connection: over TLS, TCP or a unix socket."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "",
        tls: t.Optional[ssl.SSLContext] = None,
        key: str = "",
        timeout: float = 60,
    ) -> None:
        self.host, self.port, self.path, self.tls, self.key, self.timeout = host, port, path, tls, key, timeout
        self.connection: t.Optional[Connection] = None
        self.handshakes = 0

    async def connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        self.handshakes += 1
        if self.path:
            _transport, made = await loop.create_unix_connection(Connection, self.path)
        else:
            name = self.host if self.tls else None
            opening = loop.create_connection(Connection, self.host, self.port, ssl=self.tls, server_hostname=name)
            _transport, made = await asyncio.wait_for(opening, self.timeout)
        return made

    def close(self) -> None:
        if self.connection is not None and not self.connection.closed:
            self.connection.transport.abort()
        self.connection = None

    def request(
        self, method: str, path: str, body: t.Optional[t.Mapping[str, t.Any]] = None, headers: t.Sequence[str] = ()
    ) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        lines = ["%s %s HTTP/1.1" % (method, path), "Host: %s" % self.host, *headers]
        if self.key:
            lines.append("Authorization: Bearer %s" % self.key)
        if body is not None:
            lines += ["Content-Type: application/json", "Content-Length: %d" % len(content)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + content

    async def send(self, request: bytes, retry: bool = True) -> Answer:
        """Send a request; one that met a kept connection as it was closed is sent once more, as good clients do."""
        reused = self.connection is not None and not self.connection.closed
        if not reused:
            try:
                self.connection = await self.connect()
            except (OSError, asyncio.TimeoutError) as exc:
                self.connection = None
                return Answer(error="%s: %s" % (type(exc).__name__, exc))
        assert self.connection is not None
        answer = await self.connection.ask(request, self.timeout)
        if answer.error:
            self.close()
        if answer.error and reused and not answer.first_byte and answer.error.startswith("closed"):
            answer.race = True
            if retry:
                again = await self.send(request, retry=False)
                again.race, again.retried = True, True
                return again
        return answer

    async def get(self, path: str = "/v1/models") -> Answer:
        return await self.send(self.request("GET", path))

    async def stream(self, model: str, tokens: int, prompt: str = "Hello", headers: t.Sequence[str] = ()) -> Answer:
        asked = {"model": model, "prompt": prompt, "max_tokens": tokens, "stream": True}
        asked["stream_options"] = {"include_usage": True}
        return await self.send(self.request("POST", "/v1/completions", asked, headers))
