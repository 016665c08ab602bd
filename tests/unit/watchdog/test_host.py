# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watchdog reads of a host, and what it writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from llm_watchdog import host, report

SHOWN = """Id=vllm@a.service
ActiveState=active
InvocationID=0123
ControlGroup=/system.slice/vllm@a.service
ExecMainStartTimestampMonotonic=1500000

Id=vllm@b.service
ActiveState=inactive
InvocationID=
ControlGroup=
ExecMainStartTimestampMonotonic=0
"""


def test_units_are_read_by_name():
    assert host.parse_units(SHOWN) == {
        "vllm@a.service": host.Unit("active", "0123", "/system.slice/vllm@a.service", 1.5),
        "vllm@b.service": host.Unit("inactive", "", "", 0.0),
    }


@pytest.fixture
def child():
    """A process that computes."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process
        process.kill()


def labour_of(pid):
    labour = host.Labour()
    for _number in range(5):
        labour.note(time.monotonic(), *host.usage([pid, 4000000]))
        time.sleep(0.05)
    return labour


def test_a_process_that_computes_works_and_a_stopped_one_does_not(child):
    assert labour_of(child.pid).working()
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(0.1)
    labour = labour_of(child.pid)
    assert not labour.working()
    labour.forget()
    assert not labour.working()


def test_one_that_waits_for_a_processor_works_too():
    labour = host.Labour()
    for now in range(4):
        labour.note(now / 10, 7.0, now % 2 == 0)
    assert labour.working()


def test_a_control_groups_processes_are_found_in_what_hierarchy_there_is(tmp_path):
    below = tmp_path / "two/system.slice/x.service/below"
    below.mkdir(parents=True)
    (below / "cgroup.procs").write_text("12\n13\n")
    (below.parent / "cgroup.procs").write_text("11\n")
    roots = (str(tmp_path / "one"), str(tmp_path / "two"))
    assert sorted(host.processes("/system.slice/x.service", roots)) == [11, 12, 13]
    assert host.processes("/system.slice/y.service", roots) == []
    assert host.processes("", roots) == []


def test_a_breaker_holds_the_proxys_line_and_says_whose_it_is(tmp_path):
    path = str(tmp_path / "m.conf")
    assert host.breaker_state(path) == (False, False)
    host.write_breaker(path, 'it\nhangs; `"" up;`')
    with open(path, encoding="utf-8") as handle:
        lines = handle.read().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ['"" down;']
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert host.breaker_state(path) == (True, False)
    host.remove_breaker(path)
    host.remove_breaker(path)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write('"" down;\n')
    assert host.breaker_state(path) == (True, True)


def test_a_marker_is_forgotten_after_its_time(tmp_path):
    path = tmp_path / "m-a"
    assert not host.in_maintenance(str(path), 60)
    path.touch()
    assert host.in_maintenance(str(path), 60)
    os.utime(path, (time.time() - 61, time.time() - 61))
    assert not host.in_maintenance(str(path), 60)


def test_what_is_remembered_is_of_this_boot(tmp_path, monkeypatch):
    path = str(tmp_path / "state.json")
    assert host.load(path) == {}
    host.save(path, {"kills": [1.5]})
    assert host.load(path)["kills"] == [1.5]
    assert os.stat(path).st_mode & 0o777 == 0o600
    monkeypatch.setattr(host, "boot_id", lambda: "another")
    assert host.load(path) == {}


def test_metrics_are_prometheus_text():
    status = dict.fromkeys(report.METRICS, 1)
    status.update(name='we"ird', model="m", phase="out", probe_seconds=0.25)
    lines = report.metrics([status]).splitlines()
    assert 'llm_watchdog_probe_seconds{instance="we\\"ird",model="m"} 0.25' in lines
    assert 'llm_watchdog_phase{instance="we\\"ird",model="m",phase="out"} 1' in lines
    assert 'llm_watchdog_phase{instance="we\\"ird",model="m",phase="serving"} 0' in lines
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {line.split("{")[0] for line in lines if not line.startswith("#")} == named
