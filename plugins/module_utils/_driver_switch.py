# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Bring the installed driver into memory: decide how, and do it so that a cut at any step can be taken up again.

``decide`` is pure. ``Switch`` acts through a Runner. What was stopped is written to a journal before it's stopped, and
the journal goes when everything runs again: a second run finds there what it owes.
"""

from __future__ import annotations

import fnmatch
import json
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner

Record = t.Mapping[str, t.Any]

# In the order in which they can be unloaded; the last one is the driver itself.
MODULES = ("nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nvidia_fs", "gdrdrv", "nvidia_uvm", "nvidia")
# What must be there again for CUDA; modesetting comes back when something asks for it.
LOAD = ("nvidia", "nvidia_uvm")


class Decision(t.NamedTuple):
    """What is to be done, and why.

    Attributes:
        action: ``none``, ``load``, ``live`` (stop, unload, load), ``reboot``, or ``nothing_to_load``.
        reason: a clause for a person, of what was found.
    """

    action: str
    reason: str


def stoppable(unit: str, patterns: t.Sequence[str]) -> bool:
    """Tell whether a unit is one of those that may be stopped for a switch."""
    return any(fnmatch.fnmatchcase(unit, pattern) for pattern in patterns)


def name_client(client: Record) -> str:
    """Return a process as a person looks for it."""
    return "%s (pid %d%s)" % (client["name"], client["pid"], ", " + client["unit"] if client["unit"] else "")


def decide(record: Record, wanted: t.Mapping[str, t.Any], stop_units: t.Sequence[str], live_allowed: bool) -> Decision:
    """Return how the wanted driver gets into memory.

    Args:
        record: the host, of ``_driver_state_read.read_state``, after the packages were installed.
        wanted: ``{version, flavour}``; a flavour of null or auto isn't compared.
        stop_units: patterns of the units that may be stopped.
        live_allowed: whether engines and NVML clients may be stopped for it now.
    """
    module, running = record["module"], record["kernel"]["running"]
    if not record["gpus"]:
        return Decision("nothing_to_load", "no NVIDIA GPU is on this host's PCI bus")
    flavour_fits = wanted.get("flavour") not in ("open", "proprietary") or module["flavour"] in (
        None,
        wanted["flavour"],
    )
    if module["loaded"] and module["version"] == wanted["version"] and flavour_fits:
        return Decision("none", "%s is loaded" % wanted["version"])
    found = "%s is loaded" % module["version"] if module["loaded"] else "no NVIDIA driver is loaded"
    if module["loaded"] and module["version"] == wanted["version"]:
        found = "the %s kernel module is loaded, %s is wanted" % (module["flavour"], wanted["flavour"])
    on_disk = module["on_disk"].get(running)
    if not on_disk or on_disk["version"] != wanted["version"]:
        has = on_disk["version"] if on_disk else "none"
        return Decision(
            "reboot", "%s, and the running kernel %s has no module of it (it has: %s)" % (found, running, has)
        )
    if not module["loaded"]:
        if record["nouveau"]["loaded"]:
            return Decision("reboot", "nouveau is loaded and drives the GPUs until the next boot")
        return Decision("load", found)
    if not live_allowed:
        return Decision("reboot", "%s, and stopping what uses it wasn't allowed" % found)
    others = [client for client in record["clients"] if not stoppable(client["unit"], stop_units)]
    if others:
        names = ", ".join(name_client(client) for client in others[:5])
        return Decision("reboot", "%s, and it's used by what isn't ours to stop: %s" % (found, names))
    return Decision("live", found)


class Journal:
    """That a switch is under way, and what it stopped and hasn't started again, on the host's disk.

    The file is ``{wanted, stopped: [units]}``; it's there before the first step and goes after the last one.

    Attributes:
        open: whether an earlier run, or this one, began a switch and didn't end it.
        stopped: the units that it stopped, in that order.
    """

    def __init__(self, runner: Runner, write: t.Callable[[t.Optional[str]], None], path: str) -> None:
        self._write = write
        text = runner.read(path)
        try:
            content = json.loads(text) if text else {}
        except ValueError:
            content = None
        self.open = isinstance(content, dict) and bool(content)
        content = content if isinstance(content, dict) else {}
        self.stopped: t.List[str] = [unit for unit in content.get("stopped", []) if isinstance(unit, str)]

    def owe(self, units: t.Sequence[str], wanted: str) -> None:
        """Remember units before they're stopped, and that the modules may be half exchanged."""
        self.open = True
        self.stopped += [unit for unit in units if unit not in self.stopped]
        self._write(json.dumps({"wanted": wanted, "stopped": self.stopped}, sort_keys=True) + "\n")

    def paid(self) -> None:
        """Forget it: the driver is whole, and what was stopped runs again."""
        self.open = False
        self.stopped = []
        self._write(None)


class SwitchError(Exception):
    """A step of the switch failed; the message says which, and what was said."""


class Switch:
    """Acts on the host. Every step can be done twice."""

    def __init__(
        self,
        runner: Runner,
        journal: Journal,
        stop_units: t.Sequence[str],
        timeout_seconds: float,
        clock: t.Callable[[], float] = time.monotonic,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self.runner = runner
        self.journal = journal
        self.stop_units = stop_units
        self.timeout_seconds = timeout_seconds
        self._clock = clock
        self._sleep = sleep
        self.steps: t.List[str] = []

    def _must(self, argv: t.Sequence[str], step: str) -> None:
        status, out, err = self.runner.run(argv)
        if status != 0:
            said = (err.strip() or out.strip()).replace("\n", "; ")
            raise SwitchError("%s: %s exited with %d: %s" % (step, " ".join(argv), status, said))
        self.steps.append(step)

    def active_units(self) -> t.List[str]:
        """Return the running units that may be stopped, in the order of the patterns: engines first."""
        argv = ["systemctl", "list-units", "--plain", "--no-legend", "--full", "--type=service"]
        status, out, err = self.runner.run([*argv, "--state=active,activating,reloading", "--", *self.stop_units])
        if status != 0:
            raise SwitchError("list units: %s" % err.strip())
        names = [line.split()[0] for line in out.splitlines() if line.split()]
        return sorted(
            names, key=lambda n: (next(i for i, p in enumerate(self.stop_units) if fnmatch.fnmatchcase(n, p)), n)
        )

    def drain(self, wanted: str) -> t.List[str]:
        """Stop what may be stopped, gracefully: each unit's own TimeoutStopSec bounds how long it ends its work."""
        units = self.active_units()
        if units:
            self.journal.owe(units, wanted)
        for unit in units:
            self._must(["systemctl", "stop", "--", unit], "stop %s" % unit)
        return units

    def wait_for_release(self, clients: t.Callable[[], t.Sequence[Record]]) -> None:
        """Wait until no process has a device of the driver open."""
        deadline = self._clock() + self.timeout_seconds
        while True:
            left = clients()
            if not left:
                self.steps.append("no client left")
                return
            if self._clock() >= deadline:
                names = ", ".join(name_client(client) for client in left[:5])
                raise SwitchError("wait for clients: still open after %d s: %s" % (self.timeout_seconds, names))
            self._sleep(0.5)

    def unload(self, loaded: t.Container[str]) -> None:
        """Unload the modules that are loaded, dependants first."""
        for name in MODULES:
            if name in loaded:
                self._must(["rmmod", name], "unload %s" % name)

    def load(self) -> None:
        """Load the driver, and have its device nodes made."""
        for name in LOAD:
            self._must(["modprobe", name], "load %s" % name)

    def start_again(self) -> t.Tuple[t.List[str], t.List[str]]:
        """Start what was stopped, the last first; return (started, failed) and forget it when all run."""
        started, failed = [], []
        for unit in reversed(self.journal.stopped):
            status, _out, err = self.runner.run(["systemctl", "start", "--no-block", "--", unit])
            if status == 0:
                started.append(unit)
            else:
                failed.append("%s: %s" % (unit, err.strip()))
        if not failed and self.journal.open:
            self.journal.paid()
        return started, failed


def sentence(decision: Decision, wanted: str, left_stopped: t.Sequence[str]) -> str:
    """Return the plain sentence that says what is owed."""
    text = "The NVIDIA driver %s is installed, and this host must be rebooted to use it: %s." % (
        wanted,
        decision.reason,
    )
    text += " Until then new CUDA processes may fail with a driver/library version mismatch."
    if left_stopped:
        text += " These units were stopped and start with the boot: %s." % ", ".join(left_stopped)
    return text + (
        " Remedy: reboot it, or run again with nvidia_driver_reboot_allowed=true (or, where nothing else uses the "
        "GPUs, nvidia_driver_live_upgrade_allowed=true)."
    )
