# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exchange of a loaded driver, cut at each step and run again.

Real: the module in a process of its own, the SIGKILL that ends it at a step, the journal on the disk, the commands as
child processes. Not real: the kernel and systemd, whose state is a directory that host/stand_in.sh changes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
KERNEL = "6.1.0-50-amd64"
OLD, NEW = "100.20.30", "200.20.30"
UNITS = ("vllm@m-a.service", "vllm@m-b.service", "nvidia-persistenced.service")
# The order is part of what is promised: engines first, dependants before what they depend on, and all of it back.
STEPS = (
    "systemctl stop -- vllm@m-a.service",
    "systemctl stop -- vllm@m-b.service",
    "systemctl stop -- nvidia-persistenced.service",
    "rmmod nvidia_drm",
    "rmmod nvidia_modeset",
    "rmmod nvidia_uvm",
    "rmmod nvidia",
    "modprobe nvidia",
    "modprobe nvidia_uvm",
    "systemctl start -- nvidia-persistenced.service",
    "systemctl start --no-block -- nvidia-persistenced.service",
    "systemctl start --no-block -- vllm@m-b.service",
    "systemctl start --no-block -- vllm@m-a.service",
)


class Machine:
    """A host in a directory: its files, its programs, and the module run over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs = root / "programs"
        self.journal = root / "journal/driver-switch.json"
        self.programs.mkdir()
        for name in ("modprobe", "rmmod", "modinfo", "systemctl"):
            (self.programs / name).symlink_to(HERE / "host/stand_in.sh")
        self.write("etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
        for name, text in (("vendor", "0x10de\n"), ("device", "0x2330\n"), ("class", "0x030200\n")):
            self.write("sys/bus/pci/devices/0000:01:00.0/" + name, text)
        for name in ("nvidia_drm", "nvidia_modeset", "nvidia_uvm"):
            self.write("sys/module/%s/refcnt" % name, "0\n")
        self.write("sys/module/nvidia/version", OLD + "\n")
        self.write("lib/modules/%s/modules.dep" % KERNEL, "")
        self.write("boot/vmlinuz-" + KERNEL, "")
        for unit in UNITS:
            self.write("active/" + unit, "")

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def run(self, cut: str = "", **arguments: t.Any) -> dict[str, t.Any] | None:
        """Run the module; return its result, or None when it was killed as it was meant to be."""
        given = {
            "version": NEW,
            "flavour": "open",
            "live_allowed": True,
            "stop_units": ["vllm@*.service", "nvidia-persistenced.service"],
            "enable_units": ["nvidia-persistenced.service"],
            "release_timeout_seconds": 5,
            "journal": str(self.journal),
            **arguments,
        }
        done = subprocess.run(
            [sys.executable, str(HERE / "switch_child.py"), str(self.root), json.dumps(given)],
            # Of the machine's own programs none is to be found that would answer in the stand-in's place.
            env={**os.environ, "PATH": "%s:/bin" % self.programs, "HOST_ROOT": str(self.root), "CUT": cut},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode == -signal.SIGKILL:
            return None
        assert done.stdout, done.stderr
        return t.cast("dict[str, t.Any]", json.loads(done.stdout))

    def log(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    def forget(self) -> None:
        (self.root / "log").unlink(missing_ok=True)

    def loaded(self) -> dict[str, str]:
        found = sorted((self.root / "sys/module").iterdir())
        return {p.name: (p / "version").read_text().strip() if (p / "version").exists() else "" for p in found}

    def active(self) -> set[str]:
        return {path.name for path in (self.root / "active").iterdir()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A host on which the old driver is loaded and in use."""
    return Machine(tmp_path)


def ended(machine: Machine, result: dict[str, t.Any] | None) -> None:
    """Assert that the new driver is whole, that everything runs again, and that nothing is owed."""
    assert result is not None
    assert not result.get("failed"), result
    assert (result["changed"], result["reboot_required"]) == (True, False)
    assert machine.loaded() == {"nvidia": NEW, "nvidia_uvm": ""}
    assert machine.active() == set(UNITS)
    assert list(machine.journal.parent.iterdir()) == []
    machine.forget()
    again = machine.run()
    assert again is not None
    assert (again["action"], again["changed"], again["steps"]) == ("none", False, [])
    assert machine.log() == []


def test_without_a_cut(machine: Machine) -> None:
    result = machine.run()
    assert result is not None
    assert result["action"] == "live"
    assert machine.log() == list(STEPS)
    ended(machine, result)


# Before a step the disk is as after the one before it, but for the first, at which only the journal is there.
@pytest.mark.parametrize("cut", ["before " + STEPS[0], *STEPS])
def test_killed_at_a_step_and_run_again(machine: Machine, cut: str) -> None:
    assert machine.run(cut=cut) is None
    done = STEPS[: STEPS.index(cut) + 1] if cut in STEPS else ()
    assert machine.log() == [*done, "cut " + cut]
    # What was stopped is known to the next run, whenever it comes.
    stopped = [name.split()[-1] for name in done if name.startswith("systemctl stop")]
    assert set(stopped) <= set(json.loads(machine.journal.read_text())["stopped"])
    machine.forget()
    ended(machine, machine.run())


def test_killed_at_every_step_one_after_the_other(machine: Machine) -> None:
    killed = [step for step in STEPS if machine.run(cut=step) is None]
    # Where a cut run had gone past a step, the next has nothing to do there.
    assert killed == list(STEPS)
    assert machine.loaded() == {"nvidia": NEW, "nvidia_uvm": ""}
    ended(machine, machine.run())


def test_the_run_after_a_cut_that_may_not_stop_anything_says_what_is_stopped(machine: Machine) -> None:
    assert machine.run(cut="systemctl stop -- vllm@m-b.service") is None
    result = machine.run(live_allowed=False)
    assert result is not None
    assert (result["action"], result["reboot_required"]) == ("reboot", True)
    assert "start with the boot: vllm@m-a.service, vllm@m-b.service" in result["message"]
    assert machine.loaded()["nvidia"] == OLD
    ended(machine, machine.run())


def test_after_the_reboot_that_was_owed_the_stopped_units_run_again(machine: Machine) -> None:
    assert machine.run(cut="rmmod nvidia_uvm") is None
    machine.write("sys/module/nvidia/version", NEW + "\n")
    ended(machine, machine.run(live_allowed=False))


def test_check_mode_says_that_it_would_go_on_and_does_nothing(machine: Machine) -> None:
    assert machine.run(cut="modprobe nvidia") is None
    before = machine.log()
    result = machine.run(_ansible_check_mode=True)
    assert result is not None
    assert (result["changed"], result["message"]) == (True, "would go on: %s is loaded" % NEW)
    assert machine.log() == before
    assert machine.journal.exists()


def test_nothing_is_stopped_for_a_driver_that_the_next_boot_would_not_have(machine: Machine) -> None:
    machine.write("boot/vmlinuz-6.1.0-99-amd64", "")
    machine.write("lib/modules/6.1.0-99-amd64/modules.dep", "")
    result = machine.run(version=NEW, flavour="proprietary")
    assert result is not None
    assert result["failed"]
    assert "must not be rebooted" in result["msg"]
    assert machine.log() == []
    assert machine.active() == set(UNITS)
