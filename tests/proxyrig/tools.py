# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools that were written elsewhere say about the proxy.

``run.sh proxyrig.tools [--only NAME] [--json FILE]``; ``make proxy-tools`` runs it on both Debians' nginx. From PyPI,
by requirements/proxy-tools-*.txt: crossplane, gixy-ng, sslyze, openai. From Debian: nginx, testssl.sh, slowhttptest,
wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import typing as t
from importlib import metadata

import httpx2
import openai

from proxyrig import report, rig
from proxyrig.caller import Answer, Caller
from proxyrig.overload import statuses, steadily

BIN = pathlib.Path(sys.executable).parent
CONFIG = str(rig.ROOT) + rig.TREE + "/nginx.conf"
URL = "https://127.0.0.1:%d" % rig.PORT
# What testssl.sh says of any private CA, of Mozilla's profile, or of itself; each with the reason why it may.
TESTSSL_ACCEPTED = {
    "cert_revocation": "revocation is the proxy's own list, not a URI: clients are checked by it, servers are renewed",
    "cert_crlDistributionPoints": "the same",
    "cert_ocspURL": "the same",
    "cert_chain_of_trust": "the trial's own CA",
    "cert_trust": "the trial's own CA",
    "cert_trust_wildcard": "the trial's own CA",
    "DNS_CAArecord": "an address has no CAA record",
    "cipher_order": "Mozilla's intermediate profile leaves the order to the client: all six suites are sound",
    "engine_problem": "about the openssl that testssl.sh runs with, not about what it looks at",
    "sessionresumption_ticket": "it tries with a ticket, and none is given: what we want",
    "sessionresumption_ID": "the same, with a session's id",
}
# What gixy-ng says: plugin, a text of the configuration that it must be about, and the reason why it may.
GIXY_ACCEPTED = (
    (
        "ssl_ecdh_curve",
        "X25519MLKEM768",
        "named only where the platform's OpenSSL knows it; nginx -t comes before a reload",
    ),
    (
        "hsts_header",
        "server_name",
        "it looks for the header in the server; ours is in every location (headers.conf), and tested",
    ),
    ("worker_rlimit_nofile_vs_connections", "worker_connections", "the limit is the unit's: LimitNOFILE=65536"),
    ("try_files_is_evil_too", "try_files /none", "it looks up one path that doesn't exist, after the authentication"),
    ("missing_resolver", "proxy_pass http://$", "the variable holds names of upstream blocks only, from a map"),
    ("proxy_pass_normalized", "proxy_pass", "the path at the engine is a constant: there is nothing to normalise"),
    ("status_page_exposed", "location = /status", "behind the certificate of an admin, on the admin listener"),
)


class Verdict(t.NamedTuple):
    """What a tool said: its version, whether that is good, and in few words what it was."""

    version: str
    good: bool
    said: str


def run(*argv: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout)


def nginx_prints(proxy: rig.Rig) -> Verdict:
    """nginx -T: it reads all of it, warns of nothing, and prints every file that we placed."""
    done = proxy.nginx("-T", check=False)
    files = re.findall(r"^# configuration file (\S+):", done.stdout, re.M)
    warnings = [line for line in done.stderr.splitlines() if re.search(r"\[(warn|error|crit|alert|emerg)\]", line)]
    placed = [name for name in proxy.rendered() if name.startswith(rig.TREE) and name.endswith((".conf", ".map"))]
    missing = sorted(set(placed) - set(files))
    return Verdict(
        rig.version("nginx"), done.returncode == 0 and not warnings and not missing,
        "%d files read, %d warnings%s" % (len(files), len(warnings), ", not read: %s" % missing if missing else ""),
    )  # fmt: skip


def crossplane(proxy: rig.Rig) -> Verdict:
    """crossplane parses every file, and what it builds from that is accepted by nginx again."""
    done = run(str(BIN / "crossplane"), "parse", CONFIG)
    parsed = json.loads(done.stdout or "{}")
    errors = parsed.get("errors", [{"error": done.stderr}])
    return Verdict(
        metadata.version("crossplane"), parsed.get("status") == "ok",
        "%d files parsed, %d errors%s"
        % (len(parsed.get("config", [])), len(errors), "".join(": " + one["error"] for one in errors[:1])),
    )  # fmt: skip


def gixy(proxy: rig.Rig) -> Verdict:
    """gixy-ng finds nothing but what is accepted, each with a reason."""
    done = run(str(BIN / "gixy"), "--format", "json", CONFIG)
    found = json.loads(done.stdout or "[]")
    new = [
        one for one in found
        if not any(one["plugin"] == name and text in (one.get("config") or "") for name, text, _why in GIXY_ACCEPTED)
    ]  # fmt: skip
    names = sorted({"%s (%s)" % (one["plugin"], one["severity"]) for one in new})
    accepted = sorted({one["plugin"] for one in found if one not in new})
    said = "%d issues%s; accepted with a reason: %s" % (
        len(new),
        ": " + ", ".join(names) if names else "",
        ", ".join(accepted),
    )
    return Verdict(metadata.version("gixy-ng"), bool(done.stdout) and not new, said)


def sslyze(proxy: rig.Rig) -> Verdict:
    """sslyze finds the TLS to be what Mozilla's intermediate profile asks for."""
    pki = proxy.authority.directory
    done = run(
        str(BIN / "sslyze"), "--mozilla_config=intermediate", "--certinfo_ca_file=%s/ca.crt" % pki,
        "--cert=%s/demo.crt" % pki, "--key=%s/demo.key" % pki, "127.0.0.1:%d" % rig.PORT,
    )  # fmt: skip
    lines = [line.strip() for line in done.stdout.splitlines()]
    start = next((number for number, line in enumerate(lines) if "COMPLIANCE AGAINST" in line.upper()), len(lines))
    said = " ".join(line for line in lines[start + 1 :] if line).partition("127.0.0.1:%d: " % rig.PORT)[2][:300]
    return Verdict(
        metadata.version("sslyze"), done.returncode == 0 and "OK - Compliant" in said, said or done.stderr[-200:]
    )


def testssl(proxy: rig.Rig) -> Verdict:
    """testssl.sh: no finding above LOW but those that are accepted, each with a reason; an A where it grades."""
    out = "/tmp/testssl.json"
    rig.inside(
        "testssl", "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "min", "--ip", "127.0.0.1", "--add-ca",
        "/srv/pki/ca.crt", "--jsonfile", out, "127.0.0.1:%d" % rig.PORT, check=False,
    )  # fmt: skip
    found = json.loads((rig.ROOT / out.lstrip("/")).read_text())
    bad = [one for one in found if one["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN")]
    ours = [one for one in bad if one["id"].split(" ")[0] not in TESTSSL_ACCEPTED]
    grade = next((one["finding"] for one in found if one["id"] == "overall_grade"), "not graded by this version")
    score = next((one["finding"] for one in found if one["id"] == "final_score"), "-")
    said = "grade %s, score %s; %d findings above LOW: %s%s" % (
        grade, score, len(ours), "; ".join("%s: %s" % (one["id"], one["finding"][:60]) for one in ours),
        "; accepted with a reason: %s" % ", ".join(sorted({one["id"] for one in bad} - {one["id"] for one in ours})),
    )  # fmt: skip
    sound = not ours and len(found) > 50 and (score == "-" or grade.startswith("A"))
    return Verdict(rig.version("testssl.sh"), sound, said)


def beside(proxy: rig.Rig, attack: t.Sequence[str], seconds: float) -> t.Tuple[str, t.List[Answer]]:
    """Run an attack and a good client beside it; return what the tool printed, and what the client got."""
    printed: t.List[str] = []
    thread = threading.Thread(target=lambda: printed.append(rig.inside(*attack, check=False).stdout))
    thread.start()
    time.sleep(1)
    tls, key = proxy.authority.context("demo"), proxy.api_keys["demo"]
    callers = [Caller(port=rig.PORT, tls=tls, key=key, timeout=10) for _number in range(2)]
    answers = asyncio.run(steadily(callers, 8, seconds))
    # One more on a new connection: is there still room for one?
    fresh = [Caller(port=rig.PORT, tls=tls, key=key, timeout=10) for _number in range(4)]
    answers += asyncio.run(steadily(fresh, 8, 0.5))
    thread.join(60)
    return (printed or [""])[0], answers


def judged(answers: t.Sequence[Answer]) -> t.Tuple[bool, str]:
    good = [answer.seconds * 1e3 for answer in answers if answer.status == 200]
    said = "good client beside it: %s, p99 %.0f ms" % (statuses(answers), report.percentile(good, 0.99))
    return len(good) == len(answers) and len(answers) > 8, said


def slow(kind: str, *more: str) -> t.Callable[[rig.Rig], Verdict]:
    def attack(proxy: rig.Rig) -> Verdict:
        argv = [
            "slowhttptest",
            *more,
            "-c",
            "400",
            "-r",
            "100",
            "-l",
            "15",
            "-i",
            "5",
            "-p",
            "3",
            "-u",
            URL + "/v1/models",
        ]
        printed, answers = beside(proxy, argv, 12)
        good, said = judged(answers)
        plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", printed)
        closed = re.findall(r"closed:\s+(\d+)", plain)
        said = "%s: 400 connections, closed by the proxy at the end %s; %s" % (
            kind,
            closed[-1] if closed else "?",
            said,
        )
        return Verdict(rig.version("slowhttptest"), good and bool(closed), said)

    attack.__doc__ = "slowhttptest, %s: the good client doesn't notice." % kind
    return attack


def wrk(proxy: rig.Rig) -> Verdict:
    """wrk, which has no certificate: every request refused, none reaches the engine, the good client served."""
    printed, answers = beside(proxy, ["wrk", "-t", "1", "-c", "32", "-d", "6", URL + "/v1/models"], 4)
    total, refused = re.search(r"(\d+) requests in", printed), re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    good, said = judged(answers)
    numbers = (int(total.group(1)) if total else 0, int(refused.group(1)) if refused else 0)
    return Verdict(
        rig.version("wrk"), good and 0 < numbers[0] == numbers[1], "%d requests, %d refused; %s" % (*numbers, said)
    )


def openai_client(proxy: rig.Rig) -> Verdict:
    """The openai client: models, completion, stream with usage, and its own exceptions for what the proxy refuses."""
    tls = proxy.authority.context("demo")
    client = openai.OpenAI(
        base_url=URL + "/v1",
        api_key=proxy.api_keys["demo"],
        http_client=openai.DefaultHttpxClient(verify=tls),
        max_retries=2,
    )
    messages: t.Any = [{"role": "user", "content": "Hello"}]
    models = [model.id for model in client.models.list()]
    whole = client.chat.completions.create(model=rig.MODEL, messages=messages, max_tokens=5)
    pieces = list(
        client.chat.completions.create(
            model=rig.MODEL, messages=messages, max_tokens=10, stream=True, stream_options={"include_usage": True}
        )
    )
    raised = []
    for name, other in (("key", {"api_key": "sk-" + "0" * 64}), ("path", {}), ("body", {})):
        try:
            if name == "path":
                client.files.list()
            elif name == "body":
                client.completions.create(model=rig.MODEL, prompt="x" * 9_000_000)
            else:
                client.with_options(**other).models.list()
        except openai.APIStatusError as exc:
            raised.append("%s: %s %s" % (name, type(exc).__name__, exc.code))
    wanted = [
        "key: AuthenticationError invalid_api_key",
        "path: NotFoundError not_found",
        "body: APIStatusError request_too_large",
    ]
    tokens = [piece for piece in pieces if piece.choices]
    good = (
        models == [rig.MODEL]
        and bool(whole.usage)
        and len(tokens) == 10
        and bool(pieces[-1].usage)
        and raised == wanted
    )
    return Verdict(
        openai.__version__, good, "models %s, %d pieces and usage; %s" % (models, len(tokens), "; ".join(raised))
    )


TOOLS: t.Dict[str, t.Callable[[rig.Rig], Verdict]] = {
    "nginx -T": nginx_prints,
    "crossplane": crossplane,
    "gixy-ng": gixy,
    "sslyze": sslyze,
    "testssl.sh": testssl,
    "slowhttptest headers": slow("slow headers", "-H"),
    "slowhttptest body": slow("slow body", "-B"),
    "slowhttptest reading": slow("slow reading", "-X"),
    "wrk": wrk,
    "openai": openai_client,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="What tools that were written elsewhere say about the proxy.")
    parser.add_argument("--only", action="append", choices=list(TOOLS))
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    os.environ["PATH"] = "%s:%s" % (BIN, os.environ["PATH"])
    proxy = rig.Rig(fallback=True)
    engines = [rig.Engine("/run/gpufleet/mock-%s/engine.sock" % name).start() for name in ("a", "fallback")]
    proxy.start()
    floors, rows = report.Floors(), []
    for name, tool in TOOLS.items():
        if arguments.only and name not in arguments.only:
            continue
        began = time.monotonic()
        try:
            verdict = tool(proxy)
        except (
            OSError,
            ValueError,
            RuntimeError,
            subprocess.TimeoutExpired,
            openai.OpenAIError,
            httpx2.HTTPError,
        ) as exc:
            verdict = Verdict("?", False, repr(exc)[:300])
        rows.append({"tool": name, "version": verdict.version, "verdict": "ok" if verdict.good else "FAILED",
                     "seconds": round(time.monotonic() - began), "said": verdict.said})  # fmt: skip
        floors.true(name, verdict.good, verdict.said[:60])
    report.table("on %s, nginx %s" % (proxy.platform, rig.version("nginx")), rows)
    status = floors.end({"trial": "tools", "platform": proxy.platform, "rows": rows}, arguments.json)
    for engine in engines:
        engine.stop()
    return status


if __name__ == "__main__":
    sys.exit(main())
