# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and streams while everything is exchanged under them: nothing may be lost.

``run.sh proxyrig.zero_loss [--requests 10000] [--streams 50] [--rounds 2] [--json FILE]``. In each round the engine is
switched for a new one and the old one drained and stopped, the configuration reloaded, the server's certificate
exchanged, a client revoked, and the API key rotated. It goes on until the rounds are over and the requests were made.

Lost is a request that a client which tries once more, where a kept connection was closed before a single byte of an
answer, didn't get whole. Those first tries are counted apart as idle races.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import hashlib
import random
import ssl
import sys
import time
import typing as t

from proxyrig import identity, report, rig
from proxyrig.caller import Answer, Caller

MAX_SECONDS = 240
LONG_TOKENS, SHORT_TOKENS = 500, 25


class Load:
    """Clients that go on until told otherwise, and what became of their requests."""

    def __init__(self, proxy: rig.Rig) -> None:
        self.proxy = proxy
        self.going = True
        self.counts: t.Counter[str] = collections.Counter()
        self.lost: t.List[str] = []
        self.running = self.most_running = self.prompts = 0
        self.key = proxy.api_keys["demo"]
        self.tls = proxy.authority.context("demo")

    def note(self, kind: str, answer: Answer, whole: bool) -> None:
        self.counts[kind] += 1
        self.counts["idle races"] += answer.race
        if not whole:
            self.lost.append("%s: status %s, %s %s" % (kind, answer.status, answer.error, answer.body[-80:]))

    async def streams(self, fresh: bool) -> None:
        caller = Caller(port=rig.PORT, tls=self.tls)
        while self.going:
            tokens = LONG_TOKENS if random.random() < 0.1 else SHORT_TOKENS
            self.prompts += 1
            caller.key = self.key
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            answer = await caller.stream(rig.MODEL, tokens, "prompt %d" % self.prompts)
            self.running -= 1
            self.note("long streams" if tokens == LONG_TOKENS else "streams", answer, answer.whole_stream(tokens))
            if fresh:
                caller.close()
            await asyncio.sleep(random.random() * 0.02)

    async def requests(self, fresh: bool, pause: float) -> None:
        caller = Caller(port=rig.PORT, tls=self.tls)
        while self.going:
            caller.key = self.key
            answer = await caller.get()
            self.note("requests on new connections" if fresh else "requests", answer, answer.status == 200)
            if fresh:
                caller.close()
            await asyncio.sleep(pause)


def served_certificate() -> str:
    """Return the SHA-256 of the certificate that a new connection is shown."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", rig.PORT)))).hexdigest()


async def refused(proxy: rig.Rig, client: str, key: str) -> bool:
    caller = Caller(port=rig.PORT, tls=proxy.authority.context(client), key=key)
    answer = await caller.get()
    caller.close()
    return answer.status == 401


class Changes:
    """What is exchanged, in the order in which a round does it; each returns what it saw."""

    def __init__(self, proxy: rig.Rig, load: Load, engine: rig.Engine) -> None:
        self.proxy, self.load, self.engine, self.number = proxy, load, engine, 0
        self.ran_twice = self.given_up = 0

    async def counters(self, engine: rig.Engine) -> t.Dict[str, int]:
        import json

        caller = Caller(path=engine.socket)
        answer = await caller.get("/counters")
        caller.close()
        return t.cast(t.Dict[str, int], json.loads(answer.body))

    async def drained(self, engine: rig.Engine, seconds: float = 40) -> float:
        """Wait until an engine has run nothing twice in a row."""
        began, idle = time.monotonic(), 0
        while idle < 2:
            idle = idle + 1 if (await self.counters(engine))["running"] == 0 else 0
            if time.monotonic() - began > seconds:
                raise TimeoutError("the old engine still runs something after %s s" % seconds)
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    async def in_thread(self, work: t.Callable[[], t.Any]) -> t.Any:
        return await asyncio.get_running_loop().run_in_executor(None, work)

    async def switch(self) -> str:
        slot = "b" if self.engine.path.endswith("mock-a/engine.sock") else "a"
        new = await self.in_thread(rig.Engine("/run/gpufleet/mock-%s/engine.sock" % slot).start)
        self.proxy.model["socket"] = new.path
        self.proxy.switch(new.path)
        seconds = await self.in_thread(self.proxy.reload)
        old, self.engine = self.engine, new
        drain = await self.drained(old)
        await self.collect(old)
        await self.in_thread(old.stop)
        return "to slot %s in %.2f s, the old one was idle after %.1f s more" % (slot, seconds, drain)

    async def collect(self, engine: rig.Engine) -> None:
        counters = await self.counters(engine)
        self.ran_twice += counters["ran_twice"]
        self.given_up += counters["given_up"]

    async def reload(self) -> str:
        return "new workers after %.2f s" % await self.in_thread(self.proxy.reload)

    async def certificate(self) -> str:
        before = await self.in_thread(served_certificate)
        self.proxy.authority.issue("server", server=True)
        self.proxy.place_identity()
        began = time.monotonic()
        await self.in_thread(self.proxy.reload)
        assert await self.in_thread(served_certificate) != before, "the old certificate is still shown"
        return "the new one shown after %.2f s" % (time.monotonic() - began)

    async def revocation(self) -> str:
        self.number += 1
        name = "leaver%d" % self.number
        serial = self.proxy.authority.issue(name)
        key, digest = identity.new_api_key()
        self.proxy.digests[name] = [digest]
        self.proxy.place(self.proxy.rendered())
        await self.in_thread(self.proxy.reload)
        assert not await refused(self.proxy, name, key), "a new client is refused"
        self.proxy.authority.revoked.append(serial)
        self.proxy.authority.write_crl()
        self.proxy.place_identity()
        began = time.monotonic()
        await self.in_thread(self.proxy.reload)
        assert await refused(self.proxy, name, key), "a revoked client is served"
        return "a client came and was refused %.2f s after its revocation" % (time.monotonic() - began)

    async def api_key(self) -> str:
        key, digest = identity.new_api_key()
        old = self.load.key
        self.proxy.digests["demo"].append(digest)
        self.proxy.place(self.proxy.rendered())
        await self.in_thread(self.proxy.reload)
        self.load.key = key
        # A request that was made with the old key may still be on its way.
        await asyncio.sleep(1)
        self.proxy.digests["demo"] = [digest]
        self.proxy.place(self.proxy.rendered())
        began = time.monotonic()
        await self.in_thread(self.proxy.reload)
        assert await refused(self.proxy, "demo", old), "the old key is still good"
        return "both were good for a while, the old one was refused after %.2f s" % (time.monotonic() - began)


async def run(arguments: argparse.Namespace) -> int:
    proxy = rig.Rig()
    engine = rig.Engine("/run/gpufleet/mock-a/engine.sock").start()
    proxy.start()
    began, load_before = time.monotonic(), report.load()
    load = Load(proxy)
    work = [load.streams(number % 5 == 0) for number in range(arguments.streams)]
    work += [load.requests(number % 3 == 0, 0.02) for number in range(6)]
    tasks = [asyncio.ensure_future(one) for one in work]
    changes = Changes(proxy, load, engine)
    done: t.List[t.Dict[str, t.Any]] = []
    await asyncio.sleep(2)
    made = 0
    for number in range(1, arguments.rounds + 1):
        for change in (changes.switch, changes.reload, changes.certificate, changes.revocation, changes.api_key):
            at = time.monotonic() - began
            saw = await change()
            done.append({"round": number, "at s": round(at, 1), "change": change.__name__, "saw": saw})
            await asyncio.sleep(0.5)
    while made < arguments.requests and time.monotonic() - began < MAX_SECONDS:
        await asyncio.sleep(0.5)
        made = sum(count for kind, count in load.counts.items() if kind != "idle races")
    load.going = False
    await asyncio.gather(*tasks)
    await changes.collect(changes.engine)
    seconds = time.monotonic() - began
    made = sum(count for kind, count in load.counts.items() if kind != "idle races")

    versions = {"nginx": rig.version("nginx"), "openssl": rig.version("openssl"), "suite": proxy.platform}
    print("versions: %s; load %s before, %s after; %.0f s" % (versions, load_before, report.load(), seconds))
    report.table("changes under load", done)
    rows = [{"kind": kind, "count": count} for kind, count in sorted(load.counts.items())]
    rows += [{"kind": "at most at once: streams", "count": load.most_running}]
    rows += [{"kind": "lost", "count": len(load.lost)}, {"kind": "ran twice", "count": changes.ran_twice}]
    report.table("requests", rows)
    for line in load.lost[:10]:
        print("lost: %s" % line)
    floors = report.Floors()
    floors.at_least("requests made", made, arguments.requests)
    floors.at_least("streams at once", load.most_running, arguments.streams)
    floors.at_least("changes", len(done), 5 * arguments.rounds)
    floors.at_most("lost", len(load.lost), 0)
    floors.at_most("generations that ran twice", changes.ran_twice, 0)
    floors.at_most("generations given up", changes.given_up, 0)
    results = {"trial": "zero_loss", "versions": versions, "seconds": seconds, "changes": done, "requests": rows,
               "lost": load.lost, "load_average_before": load_before}  # fmt: skip
    status = floors.end(results, arguments.json)
    changes.engine.stop()
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description="Everything is exchanged under load; nothing may be lost.")
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", default="")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
