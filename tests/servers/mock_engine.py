# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine without a model: OpenAI's paths on a unix socket, a token every few milliseconds.

``python3 mock_engine.py SOCKET [--model NAME] [--token-seconds 0.02]``. It writes every request's head as a JSON line
to the file given by ``--record``, so that a test sees what the proxy let through. ``/metrics`` and ``/invocations``
answer like the real engine's, without asking for a key: a proxy that lets them through is caught.

A prompt may tell it to fail: ``status 503`` (or another; ``status 503 of mock-a`` only the engine whose socket is in a
directory of that name), ``die`` (takes the request and breaks the connection), ``die later`` (in the middle of the
stream), ``comments`` (an event stream is silent for half a second, but for comments), ``silent 3`` (seconds).
Needs the standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import typing as t


class Engine:
    """Answers requests."""

    def __init__(self, model: str, token_seconds: float, record: str, instance: str) -> None:
        self.model = model
        self.token_seconds = token_seconds
        self.record = record
        self.instance = instance

    def note(self, head: t.List[str]) -> None:
        if self.record:
            with open(self.record, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(head) + "\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1").split("\r\n")[:-2]
                self.note(head)
                headers = {n.lower(): v for n, _s, v in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self.answer(writer, head[0].split(" "), body)
                if headers.get("connection", "").lower() == "close":
                    break
        except (asyncio.IncompleteReadError, asyncio.TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, line: t.List[str], body: bytes) -> None:
        path = line[1].split("?")[0]
        if path == "/v1/models":
            await self.send(writer, 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        elif path in ("/metrics", "/invocations", "/health", "/version"):
            await self.send(writer, 200, {"leaked": path})
        elif path in ("/v1/chat/completions", "/v1/completions"):
            await self.complete(writer, path, body)
        else:
            await self.send(writer, 404, {"error": {"message": "Not Found", "type": "NotFound", "code": 404}})

    async def complete(self, writer: asyncio.StreamWriter, path: str, body: bytes) -> None:
        try:
            asked = json.loads(body or b"{}")
        except ValueError:
            await self.send(writer, 400, {"error": {"message": "bad JSON", "type": "BadRequestError", "code": 400}})
            return
        order = str(asked.get("prompt") or "").split(" ")
        if await self.fail(writer, order):
            return
        tokens = int(asked.get("max_tokens") or 16)
        chat = path.endswith("chat/completions")
        usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": tokens + 3}
        if not asked.get("stream"):
            await asyncio.sleep(self.token_seconds)
            text = " ".join("token%d" % number for number in range(tokens))
            choice: t.Dict[str, t.Any] = {"index": 0, "finish_reason": "stop"}
            choice.update({"message": {"role": "assistant", "content": text}} if chat else {"text": text})
            answer = {"id": "cmpl-1", "object": "chat.completion", "model": self.model, "choices": [choice]}
            await self.send(writer, 200, dict(answer, created=1, usage=usage))
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await writer.drain()
        for _number in range(10 if order == ["comments"] else 0):
            await self.chunk(writer, b": keep-alive\n\n")
            await asyncio.sleep(0.05)
        for number in range(tokens):
            if order == ["die", "later"] and number == tokens // 2:
                writer.transport.abort()
                return
            await asyncio.sleep(self.token_seconds)
            text = "token%d " % number
            part: t.Dict[str, t.Any] = {"index": 0, "finish_reason": "stop" if number == tokens - 1 else None}
            part.update({"delta": {"content": text}} if chat else {"text": text})
            event = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": self.model}
            await self.chunk(writer, b"data: " + json.dumps(dict(event, choices=[part])).encode() + b"\n\n")
        if (asked.get("stream_options") or {}).get("include_usage"):
            event = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": self.model}
            await self.chunk(writer, b"data: " + json.dumps(dict(event, choices=[], usage=usage)).encode() + b"\n\n")
        await self.chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def fail(self, writer: asyncio.StreamWriter, order: t.List[str]) -> bool:
        """Fail as a prompt orders; return whether that was the answer."""
        if order == ["die"]:
            writer.transport.abort()
            return True
        if order[0] == "silent" and len(order) == 2:
            await asyncio.sleep(min(float(order[1]), 60))
        if order[0] != "status" or len(order) not in (2, 4) or (len(order) == 4 and order[3] != self.instance):
            return False
        error = {"message": "secret of the engine", "type": "Mock", "code": int(order[1])}
        await self.send(writer, int(order[1]), {"error": error})
        return True

    @staticmethod
    async def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()

    @staticmethod
    async def send(writer: asyncio.StreamWriter, status: int, content: t.Dict[str, t.Any]) -> None:
        data = json.dumps(content).encode()
        writer.write(
            b"HTTP/1.1 %d Status\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s"
            % (status, b"Location: http://elsewhere.example/\r\n" if 300 <= status < 400 else b"", len(data), data)
        )
        await writer.drain()


async def run(arguments: argparse.Namespace) -> None:
    instance = os.path.basename(os.path.dirname(arguments.socket))
    engine = Engine(arguments.model, arguments.token_seconds, arguments.record, instance)
    if os.path.exists(arguments.socket):
        os.unlink(arguments.socket)
    os.umask(0o007)
    server = await asyncio.start_unix_server(engine.serve, arguments.socket)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="An engine without a model.")
    parser.add_argument("socket")
    parser.add_argument("--model", default="mock")
    parser.add_argument("--token-seconds", type=float, default=0.02)
    parser.add_argument("--record", default="")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
