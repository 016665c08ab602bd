# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proxy costs: direct against proxied, one after the other in every round, HAProxy beside it.

``tests/proxyrig/run.sh bench.proxy [--part streams|handshakes|requests|rules] [--rounds 3] [--json FILE]`` (make
bench-proxy). Engine, proxies and clients share one machine: latencies are upper bounds, and differences are what
counts. Every rule is on; the limits are set so high that none is reached.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import random
import re
import socket
import ssl
import statistics
import sys
import time
import typing as t

import uvloop
from bench import proxy_rules
from proxyrig import peer, rendering, report, rig
from proxyrig.caller import Answer, Caller

TOKENS = 25
STREAMS_EACH = {1: 30, 16: 20, 64: 10}  # by streams at once: streams that each connection makes in a round
# By streams at once: ms added to the time to the first token at p50 and p99, and to the p99 of the gap between tokens.
GOALS = {1: (1.3, 4.0, 0.9), 16: (0.65, 2.1, 0.6), 64: (1.3, 4.1, 0.6)}
GOAL_LEVELS = (16, 64)


@dataclasses.dataclass
class Target:
    """Something that streams: how to call it, and whose processor time it takes."""

    name: str
    caller: t.Callable[[], Caller]
    pids: t.Callable[[], t.List[int]]


@dataclasses.dataclass
class Bench:
    proxy: rig.Rig
    engine: rig.Engine
    haproxy: peer.Peer
    floors: report.Floors
    rounds: int

    def targets(self) -> t.List[Target]:
        key, tls = self.proxy.api_keys["demo"], self.proxy.authority.context("demo")
        return [
            Target("direct", lambda: Caller(path=self.engine.socket), list),
            Target("nginx", lambda: Caller(port=rig.PORT, tls=tls, key=key), self.proxy.workers),
            Target("haproxy", lambda: Caller(port=peer.PORT, tls=tls, key=key), self.haproxy.pids),
        ]


async def stream_run(target: Target, at_once: int, each: int) -> t.Dict[str, float]:
    """Stream over kept connections; times in ms, processor time in us a token."""
    callers = [target.caller() for _number in range(at_once)]
    for caller in callers:
        warm = await caller.stream(rig.MODEL, 1)
        assert warm.whole_stream(1), (target.name, warm)

    async def one(caller: Caller) -> t.List[Answer]:
        answers = []
        for _number in range(each):
            # Callers don't start in step.
            await asyncio.sleep(random.random() * 0.04)
            answers.append(await caller.stream(rig.MODEL, TOKENS))
        return answers

    before = rig.cpu_seconds(target.pids())
    answers = [answer for some in await asyncio.gather(*map(one, callers)) for answer in some]
    spent = rig.cpu_seconds(target.pids()) - before
    for caller in callers:
        caller.close()
    first = [answer.first_token * 1e3 for answer in answers]
    transit = [(received - sent) * 1e3 for answer in answers for _number, sent, received in answer.tokens]
    gaps = [
        (after[2] - now[2]) * 1e3 for answer in answers for now, after in zip(answer.tokens, answer.tokens[1:])
    ]  # fmt: skip
    found = {
        "failed": float(sum(not answer.whole_stream(TOKENS) for answer in answers)),
        "streams": float(len(answers)),
    }
    for name, values in (("first", first), ("transit", transit), ("gap", gaps)):
        found[name + "_p50"] = report.percentile(values, 0.5)
        found[name + "_p99"] = report.percentile(values, 0.99)
    found["cpu_us_token"] = spent * 1e6 / max(1, len(transit))
    return found


def middle(runs: t.Sequence[t.Mapping[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


async def streams(bench: Bench) -> t.Dict[str, t.Any]:
    """Time to the first token, time on the way, and the gap between tokens, at 1, 16 and 64 streams."""
    runs: t.Dict[t.Tuple[int, str], t.List[t.Dict[str, float]]] = {}
    loads = []
    for number in range(bench.rounds):
        for at_once, each in STREAMS_EACH.items():
            order = bench.targets()
            order = order[number % 3 :] + order[: number % 3]
            for target in order:
                runs.setdefault((at_once, target.name), []).append(await stream_run(target, at_once, each))
            loads.append(os.getloadavg()[0])
    rows = []
    for (at_once, name), some in sorted(runs.items()):
        row: t.Dict[str, t.Any] = {"at once": at_once, "by": name, "streams": int(sum(r["streams"] for r in some))}
        for column in ("first_p50", "first_p99", "transit_p50", "transit_p99", "gap_p50", "gap_p99", "cpu_us_token"):
            row[column] = round(middle(some, column), 3)
        row["failed"] = int(sum(r["failed"] for r in some))
        rows.append(row)
    report.table("streams of %d tokens every 20 ms; ms, median of %d rounds" % (TOKENS, bench.rounds), rows)
    added = []
    for at_once in STREAMS_EACH:
        for name in ("nginx", "haproxy"):
            # Differences within a round: what the machine did at that time is in both.
            pairs = list(zip(runs[(at_once, name)], runs[(at_once, "direct")]))
            row = {"at once": at_once, "by": name}
            for column in ("first_p50", "first_p99", "transit_p50", "transit_p99", "gap_p99"):
                row["+" + column] = round(statistics.median(p[column] - d[column] for p, d in pairs), 3)
            added.append(row)
    report.table("added to direct; ms, median of the rounds' differences", added)
    by = {(row["at once"], row["by"]): row for row in added}
    for at_once in GOAL_LEVELS:
        for column, goal in zip(("+first_p50", "+first_p99", "+gap_p99"), GOALS[at_once]):
            bench.floors.at_most("%d streams: %s, ms" % (at_once, column), by[(at_once, "nginx")][column], goal)
    bench.floors.at_most("streams that broke", sum(row["failed"] for row in rows), 0)
    return {"rows": rows, "added": added, "load_by_round": loads}


def handshake(context: ssl.SSLContext, key: str, session: t.Optional[ssl.SSLSession]) -> t.Tuple[float, float, t.Any]:
    """Connect, ask once, close; return ms of the handshake, ms to the answer, and the socket with its session."""
    began = time.monotonic()
    raw = socket.create_connection(("127.0.0.1", rig.PORT))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as made:
        shaken = time.monotonic()
        made.sendall(
            b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n"
            % key.encode()
        )
        answer = b""
        while piece := made.recv(4096):
            answer += piece
        ended = time.monotonic()
        assert b" 200 " in answer[:20] or b" 401 " in answer[:20], answer[:200]
        return (shaken - began) * 1e3, (ended - began) * 1e3, (made.session, made.session_reused)


async def handshakes(bench: Bench, number: int = 150) -> t.Dict[str, t.Any]:
    """New connections: ours, and copies with resumption, without the revocation list, without client certificates."""
    proxy = bench.proxy
    full = proxy.rendered()
    resumed = rendering.without(full, proxy_rules.RESUMPTION)
    unlisted = rendering.without(full, proxy_rules.REVOCATION)
    uncertified = rendering.without(full, proxy_rules.CLIENT_CERTIFICATE)
    variants = [
        ("ours, TLS 1.3", full, "demo", ssl.TLSVersion.TLSv1_3, False),
        ("ours, TLS 1.2", full, "demo", ssl.TLSVersion.TLSv1_2, False),
        ("resumed, TLS 1.3", resumed, "demo", ssl.TLSVersion.TLSv1_3, True),
        ("resumed, TLS 1.2", resumed, "demo", ssl.TLSVersion.TLSv1_2, True),
        ("no revocation list, TLS 1.3", unlisted, "demo", ssl.TLSVersion.TLSv1_3, False),
        ("no client certificate, TLS 1.3", uncertified, "", ssl.TLSVersion.TLSv1_3, False),
    ]  # fmt: skip
    times: t.Dict[str, t.List[t.Tuple[float, float]]] = {}
    spent: t.Dict[str, float] = {}
    reused: t.Dict[str, int] = {}
    for _round in range(bench.rounds):
        for name, rendered, client, tls, resume in variants:
            proxy.place(rendered)
            proxy.reload()
            time.sleep(0.2)
            context, session = proxy.authority.context(client, tls), None
            if resume:
                session = handshake(context, proxy.api_keys["demo"], None)[2][0]
            before = rig.cpu_seconds(proxy.current_workers())
            for _number in range(number):
                shaken, answered, (new, again) = handshake(context, proxy.api_keys["demo"], session)
                session = new if resume else None
                reused[name] = reused.get(name, 0) + bool(again)
                times.setdefault(name, []).append((shaken, answered))
            spent[name] = spent.get(name, 0.0) + rig.cpu_seconds(proxy.current_workers()) - before
    proxy.place(full)
    proxy.reload()
    rows = []
    for name, some in times.items():
        shaken_ms, answered_ms = [a for a, _b in some], [b for _a, b in some]
        rows.append(
            {"connection": name, "number": len(some), "resumed": reused[name],
             "handshake p50 ms": report.percentile(shaken_ms, 0.5), "p99 ms": report.percentile(shaken_ms, 0.99),
             "to the answer p50 ms": report.percentile(answered_ms, 0.5),
             "nginx CPU us": round(spent[name] * 1e6 / len(some))}
        )  # fmt: skip
    report.table("new connections, each with one small request", rows)
    bench.floors.true("ours is never resumed", reused["ours, TLS 1.3"] + reused["ours, TLS 1.2"] == 0)
    bench.floors.true(
        "the copy with resumption really resumes",
        min(reused["resumed, TLS 1.3"], reused["resumed, TLS 1.2"]) == number * bench.rounds,
    )
    return {"rows": rows}


def ab(url: str, at_once: int, number: int, key: str = "") -> t.Dict[str, float]:
    """Run ab over kept connections; requests/s and failures."""
    more = ["-H", "Authorization: Bearer " + key, "-E", "/srv/pki/demo.pem"] if key else []
    done = rig.inside("ab", "-q", "-k", "-c", str(at_once), "-n", str(number), *more, url)
    rate = re.search(r"Requests per second:\s+([0-9.]+)", done.stdout)
    other = re.search(r"Non-2xx responses:\s+(\d+)", done.stdout)
    failed = re.search(r"Failed requests:\s+(\d+)", done.stdout)
    assert rate and failed, done.stdout
    return {"rate": float(rate.group(1)), "failed": int(failed.group(1)) + (int(other.group(1)) if other else 0)}


def use(bench: Bench, path: str) -> None:
    """Put an engine behind both proxies."""
    if bench.haproxy.socket_path != path:
        bench.haproxy.stop()
        bench.haproxy.socket_path = path
        bench.haproxy.start()
    bench.proxy.model["socket"] = path
    bench.proxy.place(bench.proxy.rendered())
    bench.proxy.reload()


def use_static(bench: Bench) -> None:
    """Put an engine that costs next to nothing behind both proxies."""
    pki = bench.proxy.authority.directory
    (pki / "demo.pem").write_bytes((pki / "demo.crt").read_bytes() + (pki / "demo.key").read_bytes())
    if not rig.port_open(peer.STATIC_PORT):
        peer.start_static(bench.proxy)
    use(bench, peer.STATIC_SOCKET)


async def requests(bench: Bench) -> t.Dict[str, t.Any]:
    """Small requests: direct, and through either proxy, with mutual TLS, over kept connections."""
    use_static(bench)
    key, path = bench.proxy.api_keys["demo"], "/v1/models"
    targets: t.List[t.Tuple[str, str, str, t.Callable[[], t.List[int]]]] = [
        ("direct", "http://127.0.0.1:%d%s" % (peer.STATIC_PORT, path), "", list),
        ("nginx", "https://127.0.0.1:%d%s" % (rig.PORT, path), key, bench.proxy.current_workers),
        ("haproxy", "https://127.0.0.1:%d%s" % (peer.PORT, path), key, bench.haproxy.pids),
    ]
    runs: t.Dict[t.Tuple[int, str], t.List[t.Dict[str, float]]] = {}
    for _round in range(bench.rounds):
        for at_once, number in ((1, 3000), (16, 10000), (64, 10000)):
            for name, url, with_key, pids in targets:
                before = rig.cpu_seconds(pids())
                found = ab(url, at_once, number, with_key)
                found["cpu"] = (rig.cpu_seconds(pids()) - before) * 1e6 / number
                runs.setdefault((at_once, name), []).append(found)
    rows = [
        {"at once": at_once, "by": name, "requests/s": round(middle(some, "rate")),
         "CPU us a request": round(middle(some, "cpu"), 1), "failed": int(sum(run["failed"] for run in some))}
        for (at_once, name), some in sorted(runs.items())
    ]  # fmt: skip
    report.table("small requests to an engine that costs nothing (ab, kept connections)", rows)
    bench.floors.at_most("small requests that failed", sum(t.cast(int, row["failed"]) for row in rows), 0)
    return {"rows": rows}


async def rules(bench: Bench) -> t.Dict[str, t.Any]:
    """What each rule costs: a copy without it, beside the whole, in every round."""
    proxy, target = bench.proxy, bench.targets()[1]
    full = proxy.rendered()
    copies = [("every rule on", full)]
    copies += [(rule.name, rendering.without(full, rule)) for rule in proxy_rules.REQUEST_RULES]
    copies.append(("all of these", rendering.without(full, *proxy_rules.REQUEST_RULES)))
    found: t.Dict[str, t.List[t.Dict[str, float]]] = {name: [] for name, _copy in copies}
    for _round in range(bench.rounds):
        for name, copy in copies:
            proxy.place(copy)
            proxy.reload()
            found[name].append(await stream_run(target, 16, 5))
    use_static(bench)
    full = proxy.rendered()
    small = [full] + [rendering.without(full, rule) for rule in proxy_rules.REQUEST_RULES]
    small.append(rendering.without(full, *proxy_rules.REQUEST_RULES))
    for number in range(bench.rounds):
        for (name, _copy), copy in zip(copies, small):
            proxy.place(copy)
            proxy.reload()
            before = rig.cpu_seconds(proxy.current_workers())
            run = ab("https://127.0.0.1:%d/v1/models" % rig.PORT, 16, 6000, proxy.api_keys["demo"])
            found[name][number]["cpu_request"] = (rig.cpu_seconds(proxy.current_workers()) - before) * 1e6 / 6000
            found[name][number]["rate"] = run["rate"]
    proxy.place(full)
    proxy.reload()
    rows = []
    whole = found["every rule on"]
    for name, some in found.items():
        row: t.Dict[str, t.Any] = {"without": "(nothing: every rule on)" if some is whole else name}
        for column, title in (("cpu_request", "CPU us a request"), ("cpu_us_token", "CPU us a token"),
                              ("first_p50", "first token p50 ms"), ("first_p99", "p99 ms"),
                              ("rate", "requests/s")):  # fmt: skip
            value = middle(some, column)
            row[title] = round(value, 2)
            if column.startswith("cpu"):
                row[title.replace("CPU us", "saved us")] = round(middle(whole, column) - value, 2)
        rows.append(row)
    bench.floors.at_most("every rule on: CPU us a token", middle(whole, "cpu_us_token"), 75)
    report.table("what each rule costs: 16 streams, small requests at 16; median of %d rounds" % bench.rounds, rows)
    return {"rows": rows}


async def same_rules(bench: Bench) -> None:
    """Both proxies must refuse what they should: rates of one that lets everything through say nothing."""
    pki, rows = bench.proxy.authority, []
    good, key = pki.context("demo"), bench.proxy.api_keys["demo"]
    cases = [
        ("own certificate and key", good, key, "GET", "/v1/models", 200),
        ("no certificate", pki.context(), key, "GET", "/v1/models", 401),
        ("another's certificate", pki.context("other"), key, "GET", "/v1/models", 401),
        ("wrong key", good, "sk-" + "0" * 64, "GET", "/v1/models", 401),
        ("path that isn't served", good, key, "GET", "/metrics", 404),
        ("method that isn't served", good, key, "DELETE", "/v1/models", 405),
    ]
    for name, tls, with_key, method, path, wanted in cases:
        row: t.Dict[str, t.Any] = {"case": name, "wanted": wanted}
        for by, port in (("nginx", rig.PORT), ("haproxy", peer.PORT)):
            caller = Caller(port=port, tls=tls, key=with_key)
            answer = await caller.send(caller.request(method, path))
            caller.close()
            row[by] = answer.status
            bench.floors.true(
                "%s refuses: %s" % (by, name) if wanted != 200 else by + " serves", answer.status == wanted
            )
        rows.append(row)
    report.table("the same rules", rows)


PARTS = {"streams": streams, "handshakes": handshakes, "requests": requests, "rules": rules}


async def run(arguments: argparse.Namespace) -> int:
    proxy = rig.Rig()
    engine = rig.Engine("/run/gpufleet/mock-a/engine.sock").start()
    proxy.start()
    bench = Bench(proxy, engine, peer.Peer(proxy, engine.path).start(), report.Floors(), arguments.rounds)
    results: t.Dict[str, t.Any] = {
        "bench": "proxy",
        "versions": {name: rig.version(name) for name in ("nginx", "libnginx-mod-http-js", "openssl", "haproxy")},
        "processors": os.cpu_count(),
        "load_average_before": report.load(),
    }
    print("versions: %s; %d processors; load before: %s" % (results["versions"], os.cpu_count(), report.load()))
    await same_rules(bench)
    for name in arguments.part or list(PARTS):
        began = time.monotonic()
        use(bench, engine.path)
        results[name] = await PARTS[name](bench)
        print("%s: %.0f s, load now %s" % (name, time.monotonic() - began, report.load()))
    return bench.floors.end(results, arguments.json)


def main() -> int:
    parser = argparse.ArgumentParser(description="What the proxy costs.")
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="")
    return uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
