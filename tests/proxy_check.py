# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tests/proxy_cases.yml and the cases about time against one endpoint, and prints a line for each.

The endpoint comes from the variables of ``make demo-env``: GPUFLEET_URL, GPUFLEET_CA, GPUFLEET_CERT, GPUFLEET_KEY,
GPUFLEET_API_KEY, GPUFLEET_MODEL. Optional, and what needs them is left out without:

* GPUFLEET_OTHER_CERT, _OTHER_KEY, _OTHER_API_KEY: a second client; GPUFLEET_REVOKED_CERT, _REVOKED_KEY: a revoked one;
* GPUFLEET_CA_KEY with GPUFLEET_CA_PASSPHRASE_FILE: to sign certificates that must be refused;
* GPUFLEET_ADMIN_URL, _ADMIN_CERT, _ADMIN_KEY: the listener for metrics and who may read there;
* GPUFLEET_JWT_KEYS (a directory with the issuer's es256.pem and rs256.pem), _JWT_ISSUER, _JWT_AUDIENCE, _JWT_SUBJECT;
* GPUFLEET_MOCK=yes: the engine is tests/servers/mock_engine.py, which fails on demand; GPUFLEET_FALLBACK=yes: and there
  is a fallback like it.

API keys are given as they are, or as ``@path``. ``--only NAME`` runs one case, ``--group NAME`` one part of the table,
``--no-time`` leaves the cases about time out, ``--json FILE`` writes the results there. What was left out, by these
options' absence or because only a trial on a host of its own can do it, is counted as not run, never as held. Exit
status 1 if a case did not hold, or none ran.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import re
import sys
import tempfile
import time
import typing as t

import proxy_timed
import yaml
from proxy_client import Answer, Case, Endpoint, complete, exchange
from proxy_credentials import Missing

__all__ = ["Answer", "Endpoint", "Missing", "complete", "exchange", "stream"]
CASES = pathlib.Path(__file__).with_name("proxy_cases.yml")
stream = proxy_timed.stream
# The cases about time that are about what the engine does wrong; the others are about how answers flow.
FAULTS = ("errors of the engine", "fallback answers, marked", "nothing runs twice", "body that never ends")


def expand(case: Case) -> t.List[t.Dict[str, t.Any]]:
    """Return the cases that a case with ``each`` stands for: every combination of the values of its keys."""
    each = case.get("each", {})
    if not each:
        return [dict(case)]
    cases = []
    for values in itertools.product(*each.values()):
        chosen = dict(zip(each, values))
        said = " ".join(str(value) for value in values)
        cases.append({**case, **chosen, "name": "%s: %s" % (case["name"], said), "each": {}})
    return cases


def load() -> t.List[t.Dict[str, t.Any]]:
    """Return all cases of the table with their group."""
    table = yaml.safe_load(CASES.read_text())
    return [dict(one, group=group) for group, cases in table.items() for case in cases for one in expand(case)]


def sound(answer: Answer, case: Case) -> str:
    """Return what is wrong with an answer whatever was asked: every answer of the proxy has this."""
    identifier = answer.headers.get("x-request-id", "")
    if not re.fullmatch("[0-9a-f]{32}", identifier):
        return "X-Request-Id is %r" % identifier
    if not case.get("plain") and answer.headers.get("strict-transport-security") != "max-age=63072000":
        return "Strict-Transport-Security is %r" % answer.headers.get("strict-transport-security")
    if answer.headers.get("server", "nginx") != "nginx":
        return "Server is %r" % answer.headers["server"]
    if answer.status < 400 or case["expect"].get("by_engine") or case.get("method") == "HEAD":
        return ""
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return "an error of %r" % answer.headers.get("content-type")
    wrong = [name for name in ("message", "type", "code") if not isinstance(answer.error.get(name), str)]
    if wrong or set(answer.error) != {"message", "type", "param", "code"}:
        return "error without %s: %r" % (wrong, answer.body[:200])
    if identifier.encode() not in answer.body:
        return "the body doesn't name the request"
    needed = {401: "www-authenticate", 405: "allow", 429: "retry-after", 503: "retry-after"}.get(answer.status)
    if needed and not answer.headers.get(needed):
        return "%d without %s" % (answer.status, needed)
    return ""


def judge(case: Case, answer: Answer) -> str:
    """Return what is wrong with an answer, or an empty string."""
    expect = case["expect"]
    statuses = expect["status"] if isinstance(expect["status"], list) else [expect["status"]]
    if answer.status not in statuses:
        return "status %s, expected %s: %r" % (answer.status, statuses, answer.body[:200])
    if answer.status == 0:
        return "" if not answer.body else "no answer was expected: %r" % answer.body[:80]
    if "code" in expect and answer.code != expect["code"]:
        return "code %r, expected %r: %r" % (answer.code, expect["code"], answer.body[:200])
    for name, value in expect.get("header", {}).items():
        if answer.headers.get(name) != value:
            return "header %s is %r, expected %r" % (name, answer.headers.get(name), value)
    for text in expect.get("without", []):
        if text.encode() in answer.body:
            return "the body holds %r" % text
    if "with" in expect and expect["with"].encode() not in answer.body:
        return "the body hasn't %r: %r" % (expect["with"], answer.body[:200])
    return sound(answer, case)


def judge_raw(case: Case, answers: t.Sequence[Answer]) -> str:
    """Return what is wrong with the answers to raw bytes: ``statuses`` lists what may come, in each place."""
    wanted = case["expect"]["statuses"]
    got = [answer.status for answer in answers]
    fits = [
        len(got) == len(row) and all(one in (want if isinstance(want, list) else [want]) for one, want in zip(got, row))
        for row in wanted
    ]
    if not any(fits):
        return "answers %s, expected one of %s: %r" % (got, wanted, [answer.body[:80] for answer in answers])
    return next((wrong for wrong in (sound(answer, case) for answer in answers if answer.status) if wrong), "")


def run_case(endpoint: Endpoint, case: Case) -> str:
    """Run a case; a limit that the cases before it filled is waited out."""
    if "trial" in case:
        raise Missing("make proxy-trials TRIALS=%s does it" % case["trial"])
    for name in case.get("needs", []):
        endpoint.variable(name)
    handshake = case["expect"].get("handshake")
    for _attempt in range(20):
        try:
            answers = endpoint.send_raw(case) if "statuses" in case["expect"] else [endpoint.send(case)]
        except (ConnectionError, OSError) as exc:
            return "" if handshake == "refused" else "%s: %s" % (type(exc).__name__, exc)
        limited = [answer for answer in answers if answer.status == 429]
        if not limited:
            break
        time.sleep(float(limited[0].headers.get("retry-after", 1)))
    if handshake == "refused":
        return "the handshake wasn't refused: %s" % [answer.status for answer in answers]
    return judge_raw(case, answers) if "statuses" in case["expect"] else judge(case, answers[0])


def checks(with_time: bool) -> t.List[t.Tuple[str, str, t.Callable[[Endpoint], str]]]:
    """Return every check with its group and name."""
    every: t.List[t.Tuple[str, str, t.Callable[[Endpoint], str]]] = [
        (case["group"], case["name"], lambda endpoint, case=case: run_case(endpoint, case))  # type: ignore[misc]
        for case in load()
    ]
    timed = [("faults" if name in FAULTS else "flow", name, check) for name, check in proxy_timed.TIMED.items()]
    return every + (timed if with_time else [])


def run_check(endpoint: Endpoint, check: t.Callable[[Endpoint], str]) -> t.Tuple[str, str]:
    """Return what became of a check - held, failed, not run - and why."""
    try:
        wrong = check(endpoint)
    except Missing as exc:
        return "not run", str(exc)
    except OSError as exc:
        wrong = "%s: %s" % (type(exc).__name__, exc)
    return ("failed" if wrong else "held"), wrong


def summary(results: t.Sequence[t.Mapping[str, str]]) -> None:
    """Print how many of each group held, failed, and weren't run, and what the latter need."""
    row = "%-10s %6s %6s %7s"
    print("\n" + row % ("group", "held", "failed", "not run"))
    for group in [*dict.fromkeys(result["group"] for result in results), "all"]:
        ends = [result["end"] for result in results if group in ("all", result["group"])]
        print(row % (group, ends.count("held"), ends.count("failed"), ends.count("not run")))
    missing = [result["why"] for result in results if result["end"] == "not run"]
    for why in dict.fromkeys(missing):
        print("not run here: %d, %s" % (missing.count(why), why))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the proxy's cases against one endpoint.")
    parser.add_argument("--only", help="name of the one case to run")
    parser.add_argument("--group", help="name of the part of the table to run")
    parser.add_argument("--no-time", action="store_true", help="leave the cases about time out")
    parser.add_argument("--json", type=pathlib.Path, help="file for the results")
    arguments = parser.parse_args()
    results: t.List[t.Dict[str, str]] = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            endpoint = Endpoint(os.environ, directory)
        except Missing as exc:
            sys.exit('proxy_check: %s. Remedy: make demo, then eval "$(make -s demo-env)"' % exc)
        for group, name, check in checks(not arguments.no_time):
            if arguments.only not in (None, name) or arguments.group not in (None, group):
                continue
            end, why = run_check(endpoint, check)
            results.append({"group": group, "name": name, "end": end, "why": why})
            said = "%-8s  %s: %s%s" % ("FAILED" if end == "failed" else end, group, name, ": " + why if why else "")
            print(said.encode("unicode_escape").decode(), flush=True)
    summary(results)
    if arguments.json:
        arguments.json.write_text(json.dumps({"url": os.environ["GPUFLEET_URL"], "cases": results}, indent=1) + "\n")
    ends = [result["end"] for result in results]
    print("%d held, %d failed, %d not run" % (ends.count("held"), ends.count("failed"), ends.count("not run")))
    return 1 if "failed" in ends or "held" not in ends else 0


if __name__ == "__main__":
    sys.exit(main())
