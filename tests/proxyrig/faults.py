# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What breaks, what the client sees of it, and how long until all is as before.

``run.sh proxyrig.faults [--only NAME] [--json FILE]``. Each fault begins with a sound proxy in front of an engine and
its fallback, and ends with the engine repaired by the trial, as systemd or the watchdog would: the time to recover
counts from there to the first answer of the engine itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

from proxyrig import report, rig
from proxyrig.caller import Answer, Caller
from proxyrig.overload import statuses

READ_TIMEOUT_SECONDS = 600
Outcome = t.Dict[str, t.Any]


class Bed:
    """A proxy, its engine and its fallback."""

    def __init__(self) -> None:
        self.proxy = rig.Rig(fallback=True)
        self.primary = rig.Engine("/run/gpufleet/mock-a/engine.sock").start()
        self.fallback = rig.Engine("/run/gpufleet/mock-fallback/engine.sock").start()
        self.proxy.start()
        self.tls = self.proxy.authority.context("demo")
        self.number = 0

    def caller(self, timeout: float = 20) -> Caller:
        return Caller(port=rig.PORT, tls=self.tls, key=self.proxy.api_keys["demo"], timeout=timeout)

    def prompt(self) -> str:
        self.number += 1
        return "prompt %d" % self.number

    async def ask(self, caller: t.Optional[Caller] = None, headers: t.Sequence[str] = (), tokens: int = 2) -> Answer:
        made = caller or self.caller()
        answer = await made.stream(rig.MODEL, tokens, self.prompt(), headers)
        if caller is None:
            made.close()
        return answer

    async def one_by_one(self, number: int, headers: t.Sequence[str] = ()) -> t.List[Answer]:
        return [await self.ask(headers=headers) for _number in range(number)]

    async def recovered(self, seconds: float = 15) -> float:
        """Return the seconds until the engine itself answers again."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            answer = await self.ask()
            if answer.status == 200 and not answer.header("x-fallback"):
                return time.monotonic() - began
            await asyncio.sleep(0.02)
        raise TimeoutError("the engine doesn't answer again within %g s" % seconds)

    async def counters(self, engine: rig.Engine) -> t.Dict[str, int]:
        caller = Caller(path=engine.socket)
        answer = await caller.get("/counters")
        caller.close()
        return t.cast(t.Dict[str, int], json.loads(answer.body))

    async def behave(self, engine: rig.Engine, **how: t.Any) -> None:
        caller = Caller(path=engine.socket)
        await caller.send(caller.request("POST", "/behave", how))
        caller.close()


def described(answers: t.Sequence[Answer]) -> str:
    """Return the statuses, where they came from, and the longest time."""
    marked = sum(bool(answer.header("x-fallback")) for answer in answers)
    longest = max(answer.seconds for answer in answers)
    return "%s%s, at most %.2f s" % (statuses(answers), "; %d by the fallback" % marked if marked else "", longest)


def outcome(saw: str, recovered: t.Optional[float], **held: bool) -> Outcome:
    return {"saw": saw, "recovered": recovered, "held": held}


def refused(answers: t.Sequence[Answer]) -> bool:
    """Say whether each is the proxy's own 503: OpenAI's shape, when to come back, which request it was."""
    return all(
        answer.status == 503 and answer.header("retry-after") == "2" and answer.header("x-request-id")
        and json.loads(answer.body)["error"]["code"] == "model_unavailable"
        for answer in answers
    )  # fmt: skip


def by_fallback(answers: t.Sequence[Answer]) -> bool:
    return all(answer.status == 200 and answer.header("x-fallback") == "true" for answer in answers)


async def kill_during_streams(bed: Bed) -> Outcome:
    """The engine is killed (-9) while it streams to 20 clients."""
    callers = [bed.caller() for _number in range(20)]
    tasks = [asyncio.ensure_future(bed.ask(caller, tokens=200)) for caller in callers]
    await asyncio.sleep(1)
    bed.primary.stop(signal.SIGKILL)
    killed = time.monotonic()
    cut = await asyncio.gather(*tasks)
    noticed = time.monotonic() - killed
    after = await bed.one_by_one(6)
    bed.primary.start()
    recovered = await bed.recovered()
    ended_whole = sum(answer.whole_stream(200) or answer.body.endswith(b"0\r\n\r\n") for answer in cut)
    saw = "%d of 20 streams cut, each noticed within %.0f ms; next: %s" % (
        20 - ended_whole,
        noticed * 1e3,
        described(after),
    )
    return outcome(
        saw, recovered, none_looks_whole=ended_whole == 0, noticed_at_once=noticed < 1, next_answered=by_fallback(after)
    )


async def kill_before_first_byte(bed: Bed) -> Outcome:
    """The engine is killed (-9) while 8 requests wait for their first byte: they may have run, so none is repeated."""
    await bed.behave(bed.primary, first_seconds=5)
    tasks = [asyncio.ensure_future(bed.ask()) for _number in range(8)]
    await asyncio.sleep(1)
    before = await bed.counters(bed.fallback)
    bed.primary.stop(signal.SIGKILL)
    answers = await asyncio.gather(*tasks)
    after = await bed.counters(bed.fallback)
    repeated = after["begun"] - before["begun"]
    bed.primary.start()
    saw = "%s; %d repeated elsewhere" % (described(answers), repeated)
    return outcome(saw, await bed.recovered(), refused=refused(answers), none_ran_twice=repeated == 0)


async def dead(bed: Bed) -> Outcome:
    """The engine is dead, its socket there: what a killed engine leaves behind."""
    bed.primary.stop(signal.SIGKILL)
    answers = await bed.one_by_one(12)
    forbidden = await bed.one_by_one(3, ["X-Allow-Fallback: no"])
    bed.primary.start()
    saw = "%s; fallback forbidden: %s" % (described(answers), described(forbidden))
    return outcome(saw, await bed.recovered(), answered=by_fallback(answers), forbidden_refused=refused(forbidden))


async def socket_gone(bed: Bed) -> Outcome:
    """The engine's socket is removed under it."""
    pathlib.Path(bed.primary.socket).unlink()
    # Connections that are kept to the engine live on; new ones find nothing.
    answers = await asyncio.gather(*(bed.ask(tokens=20) for _number in range(80)))
    bed.primary.stop(signal.SIGKILL)
    later = await bed.one_by_one(4)
    bed.primary.start()
    saw = "%s; kept connections gone too: %s" % (described(answers), described(later))
    good = all(answer.whole_stream(20) for answer in answers)
    return outcome(saw, await bed.recovered(), answered=good, later_answered=by_fallback(later))


async def refuses(bed: Bed) -> Outcome:
    """The engine answers 503: a full queue, or it drains."""
    await bed.behave(bed.primary, status=503)
    answers = await bed.one_by_one(12)
    forbidden = await bed.one_by_one(3, ["X-Allow-Fallback: no"])
    await bed.behave(bed.primary, status=200)
    saw = "%s; fallback forbidden: %s" % (described(answers), described(forbidden))
    return outcome(saw, await bed.recovered(), answered=by_fallback(answers), forbidden_refused=refused(forbidden))


async def both_dead(bed: Bed) -> Outcome:
    """The engine and its fallback are dead."""
    bed.primary.stop(signal.SIGKILL)
    bed.fallback.stop(signal.SIGKILL)
    answers = await bed.one_by_one(8)
    quick = max(answer.seconds for answer in answers)
    bed.primary.start()
    recovered = await bed.recovered()
    bed.fallback.start()
    return outcome(described(answers), recovered, refused=refused(answers), at_once=quick < 1)


async def hangs(bed: Bed) -> Outcome:
    """The engine hangs (SIGSTOP) with 6 requests in it; the watchdog's two moves are made by hand after 4 s and 7 s."""
    await bed.behave(bed.primary, first_seconds=1)
    tasks = [asyncio.ensure_future(bed.ask()) for _number in range(6)]
    await asyncio.sleep(0.5)
    bed.primary.send_signal(signal.SIGSTOP)
    await asyncio.sleep(4)
    open_seconds = await asyncio.get_running_loop().run_in_executor(None, bed.proxy.break_circuit, True)
    new = await bed.one_by_one(6)
    forbidden = await bed.one_by_one(2, ["X-Allow-Fallback: no"])
    await asyncio.sleep(3)
    bed.primary.stop(signal.SIGKILL)
    caught = await asyncio.gather(*tasks)
    bed.primary.start()
    await asyncio.get_running_loop().run_in_executor(None, bed.proxy.break_circuit, False)
    saw = "caught: %s; new, once it is out (reload %.2f s): %s; fallback forbidden: %s" % (
        described(caught), open_seconds, described(new), described(forbidden),
    )  # fmt: skip
    return outcome(
        saw, await bed.recovered(), caught_told=refused(caught), new_answered=by_fallback(new),
        forbidden_refused=refused(forbidden),
    )  # fmt: skip


async def logs_full(bed: Bed) -> Outcome:
    """The file system of the logs is full."""
    directory = bed.proxy.access_log().parent
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0755", "tmpfs", str(directory)], check=True)
    rig.inside("chown", "www-data:root", "/var/log/gpufleet/proxy")
    bed.proxy.reload()
    filler = directory / "filler"
    subprocess.run(["dd", "if=/dev/zero", "of=" + str(filler), "bs=4k"], check=False, stderr=subprocess.DEVNULL)
    size = bed.proxy.access_log().stat().st_size
    answers = await bed.one_by_one(40)
    lines_lost = bed.proxy.access_log().stat().st_size - size < 40 * 100
    reload_seconds = bed.proxy.reload()
    after_reload = await bed.one_by_one(4)
    filler.unlink()
    began = time.monotonic()
    while bed.proxy.access_log().stat().st_size <= size and time.monotonic() - began < 5:
        await bed.ask()
        await asyncio.sleep(0.1)
    recovered = time.monotonic() - began
    subprocess.run(["umount", "--lazy", str(directory)], check=True)
    bed.proxy.reload()
    saw = "%s; lines of the log are lost; a reload meanwhile took %.2f s: %s" % (
        described(answers), reload_seconds, described(after_reload),
    )  # fmt: skip
    good = all(answer.status == 200 for answer in answers + after_reload)
    return outcome(saw, recovered, all_answered=good, the_disk_was_full=lines_lost)


async def worker_killed(bed: Bed) -> Outcome:
    """A worker of nginx is killed (-9) while 16 streams run; the master starts another one."""
    callers = [bed.caller() for _number in range(16)]
    tasks = [asyncio.ensure_future(bed.ask(caller, tokens=100)) for caller in callers]
    await asyncio.sleep(0.5)
    os.kill(bed.proxy.current_workers()[0], signal.SIGKILL)
    answers = await asyncio.gather(*tasks)
    whole = sum(answer.whole_stream(100) for answer in answers)
    lies = sum(not answer.error and not answer.whole_stream(100) for answer in answers)
    recovered_at = time.monotonic()
    after = await bed.one_by_one(6)
    saw = "%d of 16 streams whole, the others cut; next: %s" % (whole, described(after))
    good = all(answer.status == 200 for answer in after)
    return outcome(saw, time.monotonic() - recovered_at, next_answered=good, none_looks_whole=lies == 0)


async def client_leaves(bed: Bed) -> Outcome:
    """8 clients go away in the middle of their streams: the engine must stop working for them."""
    before = (await bed.counters(bed.primary))["given_up"]
    callers = [bed.caller() for _number in range(8)]
    tasks = [asyncio.ensure_future(bed.ask(caller, tokens=500)) for caller in callers]
    await asyncio.sleep(0.5)
    for caller in callers:
        caller.close()
    left = time.monotonic()
    while (await bed.counters(bed.primary))["given_up"] - before < 8 and time.monotonic() - left < 5:
        await asyncio.sleep(0.01)
    seconds = time.monotonic() - left
    for task in tasks:
        task.cancel()
    return outcome("all 8 given up by the engine", seconds, engine_freed=seconds < 1)


async def idle_connections(bed: Bed) -> Outcome:
    """Requests come just when the engine closes its idle connections, 5 s after the one before."""
    callers = [bed.caller() for _number in range(40)]
    answers = list(await asyncio.gather(*(bed.ask(caller) for caller in callers)))
    for pause in (4.9, 5.0):
        await asyncio.sleep(pause)

        async def late(caller: Caller, number: int) -> Answer:
            await asyncio.sleep(number * 0.005)
            return await bed.ask(caller)

        answers += await asyncio.gather(*(late(caller, number) for number, caller in enumerate(callers)))
    good = all(answer.status == 200 and not answer.header("x-fallback") for answer in answers)
    return outcome(described(answers), None, all_answered=good)


FAULTS: t.Dict[str, t.Callable[[Bed], t.Awaitable[Outcome]]] = {
    "killed during streams": kill_during_streams,
    "killed before the first byte": kill_before_first_byte,
    "dead": dead,
    "socket gone": socket_gone,
    "answers 503": refuses,
    "engine and fallback dead": both_dead,
    "hangs": hangs,
    "disk of the logs full": logs_full,
    "worker of nginx killed": worker_killed,
    "client leaves": client_leaves,
    "idle connections": idle_connections,
}
MOST_SECONDS = {"client leaves": 1.0, "disk of the logs full": 3.0}


async def run(arguments: argparse.Namespace) -> int:
    bed, floors = Bed(), report.Floors()
    load_before = report.load()
    rows: t.List[t.Dict[str, t.Any]] = []
    for name, fault in FAULTS.items():
        if arguments.only not in ("", name):
            continue
        await bed.recovered()
        try:
            found = await fault(bed)
        except (OSError, RuntimeError, TimeoutError) as exc:
            found = outcome("the trial stopped: %r" % exc, None, ran=False)
        recovered = found["recovered"]
        rows.append(
            {
                "fault": name,
                "the client saw": found["saw"],
                "recovered s": "" if recovered is None else round(recovered, 2),
            }
        )
        for what, held in found["held"].items():
            floors.true("%s: %s" % (name, what.replace("_", " ")), held)
        if recovered is not None:
            floors.at_most("%s: recovered, s" % name, round(recovered, 2), MOST_SECONDS.get(name, 3.0))
    twice = sum([(await bed.counters(engine))["ran_twice"] for engine in (bed.primary, bed.fallback)])
    floors.at_most("prompts that one engine ran twice", twice, 0)
    versions = {"nginx": rig.version("nginx"), "suite": bed.proxy.platform}
    print("versions: %s; load %s before, %s after" % (versions, load_before, report.load()))
    for row in rows:
        print("\n%s  (%s)\n  %s" % (row["fault"], (FAULTS[row["fault"]].__doc__ or "").strip(), row["the client saw"]))
        if row["recovered s"] != "":
            print("  recovered after %s s" % row["recovered s"])
    results = {"trial": "faults", "versions": versions, "rows": rows, "load_average_before": load_before}
    status = floors.end(results, arguments.json)
    for engine in (bed.primary, bed.fallback):
        engine.stop()
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description="What breaks, and what the client sees of it.")
    parser.add_argument("--only", default="", choices=["", *FAULTS])
    parser.add_argument("--json", default="")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
