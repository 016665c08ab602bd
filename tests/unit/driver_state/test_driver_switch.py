# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing a driver into memory: what is decided, what is run in which order, and how a cut is taken up."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_switch as switching
from driver_support import KERNEL, WANTED, FakeHost, record

UNITS = ["vllm@*.service", "nvidia-dcgm.service", "nvidia-persistenced.service"]
JOURNAL = "/var/lib/gpufleet/driver-switch.json"


def old(**changes: t.Any) -> dict[str, t.Any]:
    """A host on which another version is loaded."""
    return record(module__loaded=True, module__version="99.1", module__flavour="open", **changes)


def client(unit: str) -> dict[str, t.Any]:
    return {"pid": 40, "name": "python3", "unit": unit, "devices": ["/dev/nvidia0"]}


@pytest.mark.parametrize(
    ("host", "live", "action", "reason"),
    [
        (record(gpus=[]), True, "nothing_to_load", "no NVIDIA GPU"),
        (record(module__loaded=True, module__version="100.20.30", module__flavour="open"), False, "none", "is loaded"),
        (record(module__loaded=True, module__version="100.20.30"), False, "none", "is loaded"),
        (record(), False, "load", "no NVIDIA driver is loaded"),
        (record(nouveau__loaded=True), True, "reboot", "nouveau is loaded"),
        (record(module__on_disk={}), True, "reboot", "no module of it (it has: none)"),
        (old(), False, "reboot", "stopping what uses it wasn't allowed"),
        (old(), True, "live", "99.1 is loaded"),
        (old(clients=[client("vllm@m-a.service")]), True, "live", "99.1 is loaded"),
        (old(clients=[client("docker.service")]), True, "reboot", "python3 (pid 40, docker.service)"),
        (old(clients=[client("")]), True, "reboot", "python3 (pid 40)"),
        (old(module__on_disk={KERNEL: {"version": "99.1"}}), True, "reboot", "(it has: 99.1)"),
        (
            record(module__loaded=True, module__version="100.20.30", module__flavour="proprietary"),
            False,
            "reboot",
            "the proprietary kernel module is loaded, open is wanted",
        ),
    ],
)
def test_decision(host: dict[str, t.Any], live: bool, action: str, reason: str) -> None:
    decision = switching.decide(host, WANTED, UNITS, live)
    assert decision.action == action
    assert reason in decision.reason


def test_the_flavour_auto_takes_either() -> None:
    host = record(module__loaded=True, module__version="100.20.30", module__flavour="proprietary")
    assert switching.decide(host, dict(WANTED, flavour="auto"), UNITS, False).action == "none"


def make(host: FakeHost) -> tuple[switching.Switch, switching.Journal]:
    def write(text: str | None) -> None:
        if text is None:
            host.files.pop(JOURNAL, None)
        else:
            host.files[JOURNAL] = text

    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    journal = switching.Journal(host, write, JOURNAL)
    return switching.Switch(host, journal, UNITS, 2.0, clock=lambda: now[0], sleep=sleep), journal


def listing(*units: str) -> tuple[int, str, str]:
    return (0, "".join("%s loaded active running A unit\n" % unit for unit in units) + "\n", "")


def test_engines_are_stopped_first_and_written_down_before(host: FakeHost) -> None:
    host.answers["systemctl list-units *"] = listing(
        "nvidia-persistenced.service", "vllm@m-b.service", "vllm@m-a.service"
    )
    host.answers["systemctl stop -- vllm@*"] = (0, "", "")
    host.answers["systemctl stop -- nvidia-*"] = (0, "", "")
    switch, journal = make(host)
    assert switch.drain("100.20.30") == ["vllm@m-a.service", "vllm@m-b.service", "nvidia-persistenced.service"]
    assert json.loads(host.files[JOURNAL]) == {"wanted": "100.20.30", "stopped": journal.stopped}
    assert [step.split()[1] for step in switch.steps] == journal.stopped
    assert host.ran[1:] == ["systemctl stop -- " + unit for unit in journal.stopped]


def test_a_second_run_after_a_cut_owes_what_the_first_stopped(host: FakeHost) -> None:
    host.files[JOURNAL] = json.dumps({"wanted": "1", "stopped": ["vllm@m-a.service"]})
    host.answers["systemctl list-units *"] = listing("nvidia-dcgm.service")
    host.answers["systemctl *"] = (0, "", "")
    switch, journal = make(host)
    assert switch.drain("1") == ["nvidia-dcgm.service"]
    assert journal.stopped == ["vllm@m-a.service", "nvidia-dcgm.service"]
    assert switch.start_again() == (["nvidia-dcgm.service", "vllm@m-a.service"], [])
    assert JOURNAL not in host.files and journal.stopped == []
    assert switch.start_again() == ([], [])


def test_nothing_running_is_nothing_owed(host: FakeHost) -> None:
    host.answers["systemctl list-units *"] = listing()
    switch, _journal = make(host)
    assert switch.drain("1") == []
    assert JOURNAL not in host.files


def test_a_unit_that_does_not_start_stays_owed(host: FakeHost) -> None:
    host.files[JOURNAL] = json.dumps({"wanted": "1", "stopped": ["a.service", 7]})
    host.answers["systemctl start *"] = (1, "", "no such unit\n")
    switch, journal = make(host)
    assert switch.start_again() == ([], ["a.service: no such unit"])
    assert journal.stopped == ["a.service"] and JOURNAL in host.files


def test_a_damaged_journal_owes_nothing(host: FakeHost) -> None:
    host.files[JOURNAL] = "{"
    assert make(host)[1].stopped == []


def test_a_stop_that_fails_ends_the_drain_with_the_journal_written(host: FakeHost) -> None:
    host.answers["systemctl list-units *"] = listing("vllm@m-a.service")
    host.answers["systemctl stop *"] = (1, "", "Job timed out\n")
    switch, journal = make(host)
    with pytest.raises(switching.SwitchError, match=r"stop vllm@m-a.service: .* exited with 1: Job timed out"):
        switch.drain("1")
    assert journal.stopped == ["vllm@m-a.service"]


def test_units_that_cannot_be_listed_are_an_error(host: FakeHost) -> None:
    with pytest.raises(switching.SwitchError, match="not found"):
        make(host)[0].active_units()


def test_modules_go_in_order_and_only_those_that_are_there(host: FakeHost) -> None:
    host.answers["rmmod *"] = (0, "", "")
    host.answers["modprobe *"] = (0, "", "")
    switch, _journal = make(host)
    switch.unload(["nvidia", "nvidia_uvm", "nvidia_drm", "virtio"])
    switch.load()
    assert host.ran == [
        "rmmod nvidia_drm",
        "rmmod nvidia_uvm",
        "rmmod nvidia",
        "modprobe nvidia",
        "modprobe nvidia_uvm",
    ]


def test_a_module_in_use_is_an_error_that_says_what_was_said(host: FakeHost) -> None:
    host.answers["rmmod nvidia"] = (1, "", "rmmod: ERROR: Module nvidia is in use\n")
    with pytest.raises(switching.SwitchError, match=r"unload nvidia: rmmod nvidia exited with 1: .*in use"):
        make(host)[0].unload(["nvidia"])


def test_waiting_for_the_devices_ends(host: FakeHost) -> None:
    answers = [[client("x.service")], [client("x.service")], []]
    switch, _journal = make(host)
    switch.wait_for_release(lambda: answers.pop(0))
    assert answers == [] and switch.steps == ["no client left"]
    with pytest.raises(switching.SwitchError, match=r"still open after 2 s: python3 \(pid 40, x.service\)"):
        make(host)[0].wait_for_release(lambda: [client("x.service")])


def test_the_sentence_is_plain() -> None:
    decision = switching.Decision("reboot", "nouveau is loaded")
    text = switching.sentence(decision, "100.20.30", ["vllm@m-a.service"])
    assert text.startswith(
        "The NVIDIA driver 100.20.30 is installed, and this host must be rebooted to use it: nouveau"
    )
    assert "start with the boot: vllm@m-a.service." in text
    assert "nvidia_driver_reboot_allowed=true" in text
    assert "start with the boot" not in switching.sentence(decision, "1", [])
