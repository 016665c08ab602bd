# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watchdog does about engines on a host, and what callers see meanwhile."""

from __future__ import annotations

import re
import secrets
import time

import pytest
from conftest import UNIT, Caller

OUT_WITHIN_SECONDS = 5.0
KILLED_WITHIN_SECONDS = 10.0


def freeze(box, unit: str = UNIT) -> float:
    """Stop every process of a unit where it stands; return when."""
    at = time.time()
    box.run("systemctl kill --signal=SIGSTOP %s", unit)
    return at


def kinds(calls) -> list[tuple[int, bool]]:
    """Return the kinds of answers: (status, from the fallback)."""
    return sorted({(call.status, call.fallback) for call in calls})


def show(box, what: str, lines: list[str]) -> None:
    print("\nmeasured on %s: %s" % (box.name, what))
    for line in lines:
        print("  " + line)


def test_the_watchdog_is_hardened_and_keeps_its_key_to_itself(box):
    text = box.run("systemd-analyze --no-pager security llm-watchdog.service")
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", text).group(1))
    show(box, "exposure of llm-watchdog.service %.1f" % exposure, [])
    assert exposure <= 1.0
    key = box.run("cat /etc/gpufleet/credentials/mock-a.api_key")
    pid = box.run("systemctl show --property=MainPID --value llm-watchdog")
    for place in ("cmdline", "environ"):
        assert key not in box.run("cat /proc/%s/%s", pid, place)
    for command in ("journalctl --no-pager", "cat /etc/gpufleet/watchdog.json", "systemctl show --all llm-watchdog"):
        assert key not in box.run(command)


def test_a_hung_engine_is_out_killed_and_back_and_callers_get_the_fallback(box, site):
    before = box.invocation()
    with Caller(site) as caller, Caller(site, {"X-Allow-Fallback": "no"}) as strict:
        time.sleep(1)
        stopped = freeze(box)
        out = box.wait_for("mock-a: taken out", stopped)
        effective = box.wait_for("reloaded in", stopped)
        killed = box.wait_for("mock-a: killed", stopped)
        back = box.wait_for("mock-a: put back", stopped)
        reopened = box.wait_for("reloaded in", back)
        time.sleep(1)
    ordered = sorted(caller.calls, key=lambda call: call.began)
    first_fallback = min((call.began - stopped) for call in ordered if call.fallback)
    caught = [call for call in ordered if (call.began - stopped) > -0.2 and call.ended - call.began > 1]
    caught_strict = [call for call in strict.calls if call.ended - call.began > 1]
    during = [call for call in ordered if effective + 0.3 < call.began < back]
    during_strict = [call for call in strict.calls if effective + 0.3 < call.began < back]
    after = [call for call in ordered if call.began > reopened + 0.3]
    show(box, "a stopped engine (SIGSTOP to the whole unit)", [
        "+%5.2f s taken out: breaker written, proxy told" % (out - stopped),
        "+%5.2f s proxy reloaded; first answer of the fallback to a request begun at +%.2f s"
        % ((effective - stopped), first_fallback),
        "+%5.2f s killed" % (killed - stopped),
        "+%5.2f s put back, proxy reloaded at +%.2f s" % ((back - stopped), (reopened - stopped)),
        "%d requests caught in the hang: %s, %.1f-%.1f s" % (
            len(caught), kinds(caught), min(c.ended - c.began for c in caught), max(c.ended - c.began for c in caught)),
        "%d caught that forbid the fallback: %s" % (len(caught_strict), kinds(caught_strict)),
        "%d begun while it was out: %s; %d that forbid the fallback: %s" % (
            len(during), kinds(during), len(during_strict), kinds(during_strict)),
        "%d begun after it was back: %s" % (len(after), kinds(after)),
        "all: %d, without an answer of HTTP: %d" % (
            len(ordered) + len(strict.calls), sum(c.status == 0 for c in ordered + strict.calls)),
    ])  # fmt: skip
    assert (effective - stopped) <= OUT_WITHIN_SECONDS
    assert first_fallback <= OUT_WITHIN_SECONDS
    assert (killed - stopped) <= KILLED_WITHIN_SECONDS
    assert box.invocation() != before
    assert during
    assert kinds(during) == [(200, True)]
    assert kinds(during_strict) == [(503, False)]
    assert after
    assert kinds(after) == [(200, False)]
    assert caught
    assert {call.status for call in caught} <= {200, 503}
    assert max((call.ended - stopped) for call in caught) <= KILLED_WITHIN_SECONDS + 1
    assert box.status()["kills_total"] >= 1


@pytest.mark.one_host
def test_a_killed_engine_comes_back_by_itself_and_nobody_is_blamed(box):
    before, kills, began = box.invocation(), box.status()["kills_total"], time.time()
    box.run("systemctl kill --signal=SIGKILL %s", UNIT)
    back = box.wait_for("mock-a: serving", began)
    show(box, "an engine killed by others serves again %.1f s later" % (back - began), [])
    assert box.invocation() != before
    assert box.status()["kills_total"] == kills
    assert [line for _at, line in box.said(began) if "taken out" in line] == []


@pytest.mark.one_host
def test_an_answer_is_no_hang(box):
    """Six seconds of each refusal: more than the deadline and the time to the kill together."""
    before, began = box.invocation(), time.time()
    for status in (401, 404, 429, 503):
        box.run("sh -c %s", "echo %d > /run/fault-mock-a" % status)
        try:
            time.sleep(6)
        finally:
            box.run("rm /run/fault-mock-a")
    said = [line for _at, line in box.said(began)]
    assert [line for line in said if "taken out" in line or "killed" in line] == []
    for status in (401, 404, 429, 503):
        assert [line for line in said if "answered with %d" % status in line]
    assert box.invocation() == before


@pytest.mark.one_host
def test_a_planned_stop_and_a_marker_are_left_alone(box):
    began = time.time()
    box.run("touch /run/llm-watchdog/maintenance/mock-a")
    freeze(box)
    time.sleep(8)
    box.run("systemctl kill --signal=SIGCONT %s", UNIT)
    box.run("rm /run/llm-watchdog/maintenance/mock-a")
    box.wait_until_serving()
    box.run("systemctl restart %s", UNIT)
    box.wait_until_serving()
    said = [line for _at, line in box.said(began)]
    assert [line for line in said if "taken out" in line or "killed" in line] == []
    assert [line for line in said if line == "mock-a: maintenance"]


@pytest.mark.one_host
def test_a_breaker_that_a_person_wrote_is_theirs(box, site):
    breaker = "/run/gpufleet/breakers/mock.conf"
    box.run("sh -c %s", "echo '\"\" down;' > %s && systemctl reload llm-proxy" % breaker)
    time.sleep(3)
    try:
        assert box.run("cat %s", breaker) == '"" down;'
        assert box.status()["phase"] == "held"
    finally:
        box.run("sh -c %s", "rm %s && systemctl reload llm-proxy" % breaker)
    box.wait_until_serving()
    assert site.completes()


@pytest.mark.one_host
def test_a_new_key_on_the_disk_is_taken_up(box, site):
    key, began = "sk-" + secrets.token_hex(32), time.time()
    credentials = "/etc/gpufleet/credentials/mock-a"
    box.run("sh -c %s", "printf %%s %s > %s.api_key" % (key, credentials))
    line = 'proxy_set_header Authorization "Bearer %s";' % key
    box.run("sh -c %s", "printf '%%s\\n' '%s' > %s.authorization.conf" % (line, credentials))
    box.run("systemctl restart %s vllm@mock-fallback", UNIT)
    box.run("systemctl reload llm-proxy")
    back = box.wait_for("mock-a: serving", box.wait_for("the key was refused", began))
    show(box, "a new key: serving for the watchdog after %.1f s" % (back - began), [])
    assert site.completes()


@pytest.mark.one_host
def test_the_budget_ends_it_stays_out_and_says_so(box, site):
    """Three kills, each another way, and the fourth hang is one for a person."""
    began = time.time()
    box.run("sh -c %s", "echo 500 > /run/fault-mock-a")
    try:
        killed = box.wait_for("mock-a: killed", began)
    finally:
        box.run("rm /run/fault-mock-a")
    back = box.wait_for("mock-a: put back", began)
    show(box, "500 to every probe: killed after %.1f s, back after %.1f s" % (killed - began, back - began), [])
    box.wait_until_serving()

    box.run("systemctl stop llm-proxy")
    began = freeze(box)
    try:
        killed = box.wait_for("mock-a: killed", began)
    finally:
        box.run("systemctl start llm-proxy")
    show(box, "without a proxy: killed after %.1f s" % (killed - began), [])
    assert killed - began <= KILLED_WITHIN_SECONDS
    box.wait_until_serving()

    began = freeze(box)
    box.wait_for("mock-a: taken out", began)
    box.run("systemctl restart llm-watchdog")
    killed = box.wait_for("mock-a: killed", began)
    back = box.wait_for("mock-a: put back", began)
    show(box, "the watchdog restarted while the engine hung: killed after %.1f s, back after %.1f s"
         % (killed - began, back - began), [])  # fmt: skip
    box.wait_until_serving()

    stopped = freeze(box)
    alert = box.wait_for("restarts within 600 s are used up", stopped)
    time.sleep(6)
    assert [line for _at, line in box.said(alert) if "killed" in line] == []
    metrics = box.run("cat /run/llm-watchdog/llm_watchdog.prom")
    assert 'llm_watchdog_budget_exhausted{instance="mock-a",model="mock"} 1' in metrics
    assert site.completes()  # by the fallback
    box.run("systemctl kill --signal=SIGKILL %s", UNIT)
    back = box.wait_for("mock-a: put back", alert)
    show(box, "three restarts, then out for good: alert %.1f s after the fourth hang; back after somebody acted"
         % (alert - stopped), [])  # fmt: skip
    assert back > alert
    assert box.status()["budget_exhausted"] == 0


@pytest.mark.one_host
def test_a_watchdog_that_hangs_is_started_again_by_systemd(box):
    stopped = time.time()
    box.run("systemctl kill --signal=SIGSTOP llm-watchdog")
    again = box.wait_for("watches mock-a", stopped, 40)
    show(box, "the watchdog itself stopped: systemd had it back after %.1f s" % (again - stopped), [])
    box.wait_until_serving()
