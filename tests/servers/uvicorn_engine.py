# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine without a model on the HTTP server that vLLM runs on: uvicorn with httptools and uvloop.

``python uvicorn_engine.py SOCKET [--model NAME] [--token-seconds 0.02]``. A stream's first token comes at once, the
others every ``--token-seconds``; each carries its number and the instant it was sent, in nanoseconds of the monotonic
clock, so that a reader on this machine can tell the time on the way and see that none is missing. As vLLM does, it
closes an idle connection after 5 s, ends what it has begun on SIGTERM, and reports usage. ``/counters`` tells how many
generations began, ended and were given up, and how often each prompt ran; ``POST /behave {"status": 503}`` or
``{"first_seconds": 9}`` changes what it answers. Needs what requirements/proxy-tools.in lists.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import time
import typing as t

import uvicorn

Scope = t.Dict[str, t.Any]
Send = t.Callable[[t.Dict[str, t.Any]], t.Awaitable[None]]
Receive = t.Callable[[], t.Awaitable[t.Dict[str, t.Any]]]
JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Engine:
    """The application that uvicorn serves."""

    def __init__(self, model: str, token_seconds: float) -> None:
        self.model = model
        self.behaviour: t.Dict[str, t.Any] = {"status": 200, "first_seconds": 0.0, "token_seconds": token_seconds}
        self.counters = {"requests": 0, "begun": 0, "ended": 0, "given_up": 0, "running": 0}
        self.runs: t.Counter[str] = collections.Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        path = scope["path"]
        if path == "/counters":
            twice = sum(1 for count in self.runs.values() if count > 1)
            await self.answer(send, 200, dict(self.counters, ran_twice=twice))
        elif path == "/behave":
            self.behaviour.update(json.loads(body))
            await self.answer(send, 200, self.behaviour)
        elif self.behaviour["status"] != 200:
            error = {"message": "no", "type": "ServiceUnavailable", "code": self.behaviour["status"]}
            await self.answer(send, self.behaviour["status"], {"error": error})
        elif path in ("/v1/chat/completions", "/v1/completions"):
            await self.complete(path, json.loads(body), receive, send)
        elif path == "/v1/models":
            self.counters["requests"] += 1
            await self.answer(send, 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        elif path in ("/metrics", "/health", "/invocations", "/version"):
            await self.answer(send, 200, {"leaked": path})
        else:
            await self.answer(send, 404, {"error": {"message": "Not Found", "type": "NotFound", "code": 404}})

    async def answer(self, send: Send, status: int, content: t.Dict[str, t.Any]) -> None:
        data = json.dumps(content).encode()
        headers = JSON + [(b"content-length", b"%d" % len(data))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    async def complete(self, path: str, asked: t.Dict[str, t.Any], receive: Receive, send: Send) -> None:
        self.counters["begun"] += 1
        self.counters["running"] += 1
        self.runs[str(asked.get("prompt") or asked.get("messages"))] += 1
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.sleep(self.behaviour["first_seconds"])
            await self.generate(path, asked, gone, send)
        finally:
            gone.cancel()
            self.counters["running"] -= 1

    async def generate(
        self, path: str, asked: t.Dict[str, t.Any], gone: asyncio.Future[t.Dict[str, t.Any]], send: Send
    ) -> None:
        tokens, chat = int(asked.get("max_tokens") or 16), "chat" in path
        usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": tokens + 3}
        part: t.Dict[str, t.Any]
        if not asked.get("stream"):
            text = " ".join("token%d" % number for number in range(tokens))
            part = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choice = dict(part, index=0, finish_reason="stop")
            await self.answer(send, 200, {"id": "cmpl-1", "model": self.model, "choices": [choice], "usage": usage})
            self.counters["ended"] += 1
            return
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        began = time.monotonic()
        for number in range(tokens):
            # The next instant, not the next sleep: delays don't add up.
            await asyncio.sleep(began + number * self.behaviour["token_seconds"] - time.monotonic())
            if gone.done():
                self.counters["given_up"] += 1
                return
            text = "%d:%d " % (number, time.monotonic_ns())
            part = {"delta": {"content": text}} if chat else {"text": text}
            part.update(index=0, finish_reason="stop" if number == tokens - 1 else None)
            await self.event(send, {"id": "cmpl-1", "created": 1, "model": self.model, "choices": [part]})
        if (asked.get("stream_options") or {}).get("include_usage"):
            await self.event(send, {"id": "cmpl-1", "created": 1, "model": self.model, "choices": [], "usage": usage})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.counters["ended"] += 1

    @staticmethod
    async def event(send: Send, content: t.Dict[str, t.Any]) -> None:
        body = b"data: " + json.dumps(content).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})


def main() -> None:
    parser = argparse.ArgumentParser(description="An engine without a model, on uvicorn.")
    parser.add_argument("socket")
    parser.add_argument("--model", default="mock")
    parser.add_argument("--token-seconds", type=float, default=0.02)
    parser.add_argument("--drain-seconds", type=int, default=30)
    arguments = parser.parse_args()
    if os.path.exists(arguments.socket):
        os.unlink(arguments.socket)
    engine = Engine(arguments.model, arguments.token_seconds)
    uvicorn.run(
        engine,  # type: ignore[arg-type]
        uds=arguments.socket,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="error",
        access_log=False,
        backlog=2048,
        timeout_graceful_shutdown=arguments.drain_seconds,
    )


if __name__ == "__main__":
    main()
