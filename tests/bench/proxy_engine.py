# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proxy adds in front of a real engine: the engine's socket against the endpoint, turn by turn.

``python -m bench.proxy_engine [--rounds 10] [--tokens 16] [--json FILE]`` with the variables of ``make demo-env``, as
root on the machine that runs the lab host: the engine's socket and key are read through the host's file system.
Answers of a real engine vary by more than the proxy adds; what is judged is the median of the differences within the
turns.
"""

from __future__ import annotations

import argparse
import asyncio
import glob
import os
import pathlib
import re
import ssl
import statistics
import sys
import typing as t
import urllib.parse

import uvloop
from proxyrig import report
from proxyrig.caller import Answer, Caller

PROMPT = "Write a short sentence about a cat."
MOST_ADDED_MS = {1: 5.0, 16: 25.0}


def engine_socket(address: str) -> t.Tuple[str, str]:
    """Return the engine's socket and its key, on the lab host that has this address, as seen from here."""
    for found in sorted(glob.glob("/proc/[0-9]*/root/run/gpufleet/*/engine.sock")):
        process = pathlib.Path(*pathlib.Path(found).parts[:3])
        if address not in (process / "net/fib_trie").read_text():
            continue
        instance = pathlib.Path(found).parent.name
        include = process / ("root/etc/gpufleet/credentials/%s.authorization.conf" % instance)
        key = re.search(r"Bearer ([^\"';]+)", include.read_text()) if include.exists() else None
        return found, key.group(1) if key else ""
    raise SystemExit("no engine's socket is seen for %s. Remedy: make demo on this machine, and root here" % address)


async def ask(callers: t.Sequence[Caller], tokens: int) -> t.List[Answer]:
    model = os.environ["GPUFLEET_MODEL"]

    async def one(caller: Caller) -> Answer:
        body = {
            "model": model,
            "prompt": PROMPT,
            "max_tokens": tokens,
            "stream": True,
            "ignore_eos": True,
            "temperature": 0,
        }
        return await caller.send(caller.request("POST", "/v1/completions", body))

    return list(await asyncio.gather(*map(one, callers)))


async def run(arguments: argparse.Namespace) -> int:
    url = urllib.parse.urlsplit(os.environ["GPUFLEET_URL"])
    host, port = url.hostname or "", url.port or 443
    path, engine_key = engine_socket(host)
    tls = ssl.create_default_context(cafile=os.environ["GPUFLEET_CA"])
    tls.load_cert_chain(os.environ["GPUFLEET_CERT"], os.environ["GPUFLEET_KEY"])
    load_before = report.load()
    makers: t.Dict[str, t.Callable[[], Caller]] = {
        "direct": lambda: Caller(path=path, key=engine_key, timeout=200),
        "proxied": lambda: Caller(host, port, tls=tls, key=os.environ["GPUFLEET_API_KEY"], timeout=200),
    }
    rows, added, failed, floors = [], [], 0, report.Floors()
    for at_once in (1, 16):
        turns = arguments.rounds * (3 if at_once == 1 else 1)
        callers = {name: [make() for _number in range(at_once)] for name, make in makers.items()}
        first: t.Dict[str, t.List[t.List[float]]] = {name: [] for name in makers}
        gaps: t.Dict[str, t.List[float]] = {name: [] for name in makers}
        for turn in range(-1, turns):  # the turn before the first one makes the connections, and isn't counted
            for name in list(makers)[:: 1 if turn % 2 else -1]:
                answers = await ask(callers[name], arguments.tokens)
                failed += sum(answer.status != 200 or b"[DONE]" not in answer.body for answer in answers)
                if turn >= 0:
                    first[name].append([answer.events[0] * 1e3 for answer in answers if answer.events])
                    gaps[name] += [
                        (after - now) * 1e3 for a in answers for now, after in zip(a.events, a.events[1:])
                    ]  # fmt: skip
                # The share of a client is 10 requests a second.
                await asyncio.sleep(max(0.0, at_once / 8 - 1))
        for name in makers:
            flat = [value for turn_values in first[name] for value in turn_values]
            rows.append(
                {"at once": at_once, "by": name, "streams": len(flat), "first p50": report.percentile(flat, 0.5),
                 "first p99": report.percentile(flat, 0.99), "gap p50": report.percentile(gaps[name], 0.5),
                 "gap p99": report.percentile(gaps[name], 0.99)}
            )  # fmt: skip
        differences = [
            statistics.median(p) - statistics.median(d) for p, d in zip(first["proxied"], first["direct"]) if p and d
        ]
        quarter = statistics.quantiles(differences, n=4) if len(differences) > 1 else [float("nan")] * 3
        floors.at_least("%d at once: turns that say something" % at_once, len(differences), turns)
        added.append(
            {"at once": at_once, "turns": len(differences),
             "+first p50": statistics.median(differences or [float("nan")]),
             "half of the turns": "%.2f to %.2f" % (quarter[0], quarter[2]),
             "+gap p50": report.percentile(gaps["proxied"], 0.5) - report.percentile(gaps["direct"], 0.5)}
        )  # fmt: skip
        for some in callers.values():
            for caller in some:
                caller.close()
    print("engine: %s; load %s before, %s after" % (path.split("/root", 1)[1], load_before, report.load()))
    report.table("streams of %d tokens; ms" % arguments.tokens, rows)
    report.table("added by the proxy; ms, median over turns", added)
    floors.at_most("streams that broke", failed, 0)
    for row in added:
        at_once = t.cast(int, row["at once"])
        floors.at_most(
            "%d at once: added to the first token, ms" % at_once,
            round(t.cast(float, row["+first p50"]), 2),
            MOST_ADDED_MS[at_once],
        )
    return floors.end(
        {"bench": "proxy_engine", "rows": rows, "added": added, "load_average_before": load_before}, arguments.json
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="What the proxy adds in front of a real engine.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--json", default="")
    return uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
