# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine without a model that also refuses and is overloaded, and has the counters of a real one.

``python3 faulty_engine.py SOCKET --key-file FILE [--fault FILE]``, beside ``mock_engine.py``: completions want the key,
``/metrics`` has vLLM's counters, and while the file ``--fault`` holds a status, every completion is answered with it.
Needs the standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import os
import sys
import typing as t

from mock_engine import Engine

#: The Authorization header of the request that this task answers.
AUTHORIZATION: contextvars.ContextVar[str] = contextvars.ContextVar("AUTHORIZATION", default="")


class FaultyEngine(Engine):
    """Answers requests, as long as nobody told it otherwise."""

    def __init__(self, key: str, fault: str) -> None:
        super().__init__("mock", 0.02, "", "faulty")
        self.key = key
        self.fault = fault
        self.running = self.tokens = 0

    def note(self, head: t.List[str]) -> None:
        headers = {n.lower(): v for n, _s, v in (line.partition(": ") for line in head[1:])}
        AUTHORIZATION.set(headers.get("authorization", ""))

    def status(self) -> int:
        """Return with which status a completion is answered."""
        if os.path.exists(self.fault):
            with open(self.fault, encoding="ascii") as handle:
                return int(handle.read() or 200)
        return 200 if AUTHORIZATION.get() == "Bearer " + self.key else 401

    async def answer(self, writer: asyncio.StreamWriter, line: t.List[str], body: bytes) -> None:
        if line[1] == "/metrics":
            page = "vllm:num_requests_running %d.0\nvllm:generation_tokens_total %d.0\n" % (self.running, self.tokens)
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page.encode()))
            await writer.drain()
            return
        status = self.status() if line[1].endswith("completions") else 200
        if status != 200:
            await self.send(writer, status, {"error": {"message": "a fault", "type": "Fault", "code": status}})
            return
        self.running += 1
        self.tokens += 1
        try:
            await super().answer(writer, line, body)
        finally:
            self.running -= 1


async def run(arguments: argparse.Namespace) -> None:
    with open(arguments.key_file, encoding="ascii") as handle:
        engine = FaultyEngine(handle.read().strip(), arguments.fault)
    if os.path.exists(arguments.socket):
        os.unlink(arguments.socket)
    os.umask(0o007)
    server = await asyncio.start_unix_server(engine.serve, arguments.socket)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="An engine without a model, with faults.")
    parser.add_argument("socket")
    parser.add_argument("--key-file", required=True)
    parser.add_argument("--fault", default="/nonexistent")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
