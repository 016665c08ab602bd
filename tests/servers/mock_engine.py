# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine without a model: OpenAI's paths on a unix socket, a token every few milliseconds.

``python3 mock_engine.py SOCKET [--model NAME] [--token-seconds 0.02]``. It writes every request's head as a JSON line
to the file given by ``--record``, so that a test sees what the proxy let through. ``/metrics`` and ``/invocations``
answer like the real engine's, without asking for a key: a proxy that lets them through is caught.
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

    def __init__(self, model: str, token_seconds: float, record: str) -> None:
        self.model = model
        self.token_seconds = token_seconds
        self.record = record

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
        for number in range(tokens):
            await asyncio.sleep(self.token_seconds)
            text = "token%d " % number
            part: t.Dict[str, t.Any] = {"index": 0, "finish_reason": "stop" if number == tokens - 1 else None}
            part.update({"delta": {"content": text}} if chat else {"text": text})
            event = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": self.model}
            await self.chunk(writer, b"data: " + json.dumps(dict(event, choices=[part])).encode() + b"\n\n")
        await self.chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    @staticmethod
    async def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()

    @staticmethod
    async def send(writer: asyncio.StreamWriter, status: int, content: t.Dict[str, t.Any]) -> None:
        data = json.dumps(content).encode()
        writer.write(
            b"HTTP/1.1 %d Status\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (status, len(data), data)
        )
        await writer.drain()


async def run(arguments: argparse.Namespace) -> None:
    engine = Engine(arguments.model, arguments.token_seconds, arguments.record)
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
