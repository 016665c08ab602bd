# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine that hangs on a serving host, as the watchdog meets it."""

from __future__ import annotations

import json
import time

import pytest
from test_faults import UNIT, invocation, wait_until_served


@pytest.mark.one_host
def test_a_hung_engine_is_killed_by_the_watchdog_and_comes_back(host, site):
    """Health and sockets look well on a stopped engine. Without a fallback callers get 503 meanwhile, at once."""
    wait_until_served(site)
    host.check_output("systemctl reset-failed %s", UNIT)
    before = invocation(host)
    began = time.time()
    host.check_output("systemctl kill --signal=SIGSTOP %s", UNIT)
    time.sleep(5)
    asked = time.monotonic()
    assert not site.completes()
    refused_after = time.monotonic() - asked
    wait_until_served(site)
    seconds = time.time() - began
    text = host.check_output("journalctl --no-pager -o json -u llm-watchdog --since=@%s", "%.3f" % began)
    lines = [json.loads(line) for line in text.splitlines()]
    said = [(int(line["__REALTIME_TIMESTAMP"]) / 1e6 - began, line["MESSAGE"]) for line in lines]
    words = ("taken out", "reloaded in", "killed", "put back")
    moments = {word: min(at for at, line in said if word in line) for word in words}
    shown = ", ".join("%s at %.1f s" % (word, at) for word, at in moments.items())
    print(f"\nmeasured: hung engine (SIGSTOP): {shown}; a request at 5 s was refused in {refused_after:.2f} s; "
          f"tokens again after {seconds:.1f} s")  # fmt: skip
    assert moments["reloaded in"] <= 5
    assert moments["killed"] <= 10
    assert refused_after < 1
    assert invocation(host) != before
