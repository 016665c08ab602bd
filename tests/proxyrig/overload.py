# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One client takes ten times its share; what it gets, and what the other one notices of it.

``run.sh proxyrig.overload [--seconds 12] [--json FILE]``, with the role's default limits. All callers have one address.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import sys
import time
import typing as t

from proxyrig import report, rig
from proxyrig.caller import Answer, Caller

SHARE_PER_SECOND, BURST, AT_ONCE = 10, 20, 16
GOOD_PER_SECOND = 8
GUESSES_PER_SECOND = 60


def statuses(answers: t.Sequence[Answer]) -> str:
    """Return for instance ``102 x 200, 698 x 429 (Retry-After 1)``."""
    kinds = collections.Counter(
        (answer.status, answer.header("retry-after"), answer.error.split(":")[0]) for answer in answers
    )
    return ", ".join(
        ("%d x %s%s %s" % (count, status or "none", " (Retry-After %s)" % after if after else "", error)).strip()
        for (status, after, error), count in sorted(kinds.items())
    ).strip()


def count(answers: t.Sequence[Answer], status: int) -> int:
    return sum(answer.status == status for answer in answers)


async def steadily(callers: t.Sequence[Caller], per_second: float, seconds: float) -> t.List[Answer]:
    """Make requests at a rate, whatever the answers do, over as many connections as there are callers."""
    answers: t.List[Answer] = []
    free = list(callers)

    async def one() -> None:
        caller = free.pop() if free else callers[0]
        answers.append(await caller.get())
        free.append(caller)

    tasks, began = [], time.monotonic()
    for number in range(int(per_second * seconds)):
        await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
        if free:
            tasks.append(asyncio.ensure_future(one()))
    await asyncio.gather(*tasks)
    return answers


async def run(arguments: argparse.Namespace) -> int:
    proxy = rig.Rig(limits=None)
    engine = rig.Engine("/run/gpufleet/mock-a/engine.sock").start()
    proxy.start()
    load_before = report.load()

    def callers(name: str, number: int, key: str = "") -> t.List[Caller]:
        tls = proxy.authority.context(name)
        return [Caller(port=rig.PORT, tls=tls, key=key or proxy.api_keys[name]) for _number in range(number)]

    rows: t.List[t.Dict[str, t.Any]] = []

    def note(phase: str, who: str, answers: t.Sequence[Answer]) -> t.Sequence[Answer]:
        good = [answer.seconds * 1e3 for answer in answers if answer.status == 200]
        rows.append(
            {"phase": phase, "who": who, "got": statuses(answers), "p50 ms": report.percentile(good, 0.5),
             "p99 ms": report.percentile(good, 0.99)}
        )  # fmt: skip
        return answers

    good = callers("demo", 4)
    await steadily(good, GOOD_PER_SECOND, 1)
    alone = note("alone", "good, 8/s", await steadily(good, GOOD_PER_SECOND, arguments.seconds))
    noisy, during = await asyncio.gather(
        steadily(callers("other", 16), SHARE_PER_SECOND * 10, arguments.seconds),
        steadily(good, GOOD_PER_SECOND, arguments.seconds),
    )
    note("beside a client at 10 x its rate", "the other, 100/s", noisy)
    note("beside a client at 10 x its rate", "good, 8/s", during)

    await asyncio.sleep(3)
    many = callers("other", 60)
    streams, beside = await asyncio.gather(
        asyncio.gather(*(caller.stream(rig.MODEL, 100) for caller in many)),
        steadily(good, GOOD_PER_SECOND, 2),
    )
    note("beside 60 streams at once", "the other", streams)
    note("beside 60 streams at once", "good, 8/s", beside)

    guesses, meanwhile = await asyncio.gather(
        steadily(callers("demo", 8, "sk-" + "0" * 64), GUESSES_PER_SECOND, 5), steadily(good, GOOD_PER_SECOND, 5)
    )
    note("beside guesses of keys, one address", "guessing, 60/s", guesses)
    note("beside guesses of keys, one address", "good, 8/s", meanwhile)

    versions = {"nginx": rig.version("nginx"), "suite": proxy.platform}
    print("versions: %s; load %s before, %s after" % (versions, load_before, report.load()))
    report.table("overload; one client's share is 10/s, 20 beyond it at once, 16 at a time", rows)
    floors = report.Floors()
    allowed = SHARE_PER_SECOND * arguments.seconds + BURST
    floors.at_most("the other: answers beyond its share", count(noisy, 200) - allowed, 0.05 * allowed)
    floors.at_least("the other: answers of its share", count(noisy, 200) - allowed, -0.05 * allowed)
    floors.at_most("the other: neither 200 nor 429", len(noisy) - count(noisy, 200) - count(noisy, 429), 0)
    limited = [answer for answer in [*noisy, *streams, *guesses] if answer.status == 429]
    floors.true("every 429 says Retry-After", all(answer.header("retry-after") for answer in limited))
    floors.at_most("streams beyond 16 at once", count(streams, 200) - AT_ONCE, 0)
    floors.at_least("streams up to 16 at once", count(streams, 200) - AT_ONCE, 0)
    floors.at_most("guesses that weren't limited", count(guesses, 401), 5 * 5 + 10 + 5)
    for phase, answers in (("alone", alone), ("overload", during), ("streams", beside), ("guessing", meanwhile)):
        floors.at_most("good client's failures, %s" % phase, len(answers) - count(answers, 200), 0)
    p99 = {row["phase"]: row["p99 ms"] for row in rows if row["who"].startswith("good")}
    floors.at_most(
        "good client's p99 beside the overload, ms more than alone",
        round(p99["beside a client at 10 x its rate"] - p99["alone"], 2), 20,
    )  # fmt: skip
    results = {"trial": "overload", "versions": versions, "rows": rows, "load_average_before": load_before}
    status = floors.end(results, arguments.json)
    engine.stop()
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description="One client takes ten times its share.")
    parser.add_argument("--seconds", type=int, default=12)
    parser.add_argument("--json", default="")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
