#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_switch
short_description: Bring the installed NVIDIA driver into memory, or say that a reboot is owed
description:
  - Loads the driver where none is loaded. Where another version is loaded it stops engines and NVML clients gracefully,
    unloads, loads, verifies and starts them again, if O(live_allowed); else, and where that fails, a reboot is owed.
  - Checks that the kernel that boots next has the driver's module, of the wanted flavour, and under Secure Boot signed
    by an enrolled certificate. It fails if not, so that no reboot is done into a host without its GPUs.
  - Rebuilds the initramfs when that still brings nouveau, and enables the units of the driver.
  - What it stops is written to a journal first. A run that was cut is taken up by the next one.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Says what would be done. Of packages that aren't installed yet it can't tell whether a reboot is due.
  diff_mode:
    support: none
    description: What it does has no difference to show.
options:
  version:
    description: The version of the driver that is wanted in memory.
    type: str
    required: true
  flavour:
    description: The kernel module's flavour. V(auto) takes either.
    type: str
    choices: [auto, open, proprietary]
    default: auto
  state:
    description:
      - V(switched) does what is said above. V(drained) only stops what O(stop_units) names, for a reboot.
    type: str
    choices: [switched, drained]
    default: switched
  packages_pending:
    description: In check mode, whether packages would be installed, so that the host's state says nothing yet.
    type: bool
    default: false
  live_allowed:
    description: Whether engines and NVML clients may be stopped for a switch without a reboot.
    type: bool
    default: false
  reboot_allowed:
    description: Whether the caller reboots when that is owed. It's reported as a change then.
    type: bool
    default: false
  stop_units:
    description: Patterns of the units that may be stopped, in that order.
    type: list
    elements: str
    default: []
  enable_units:
    description: Units of the driver, enabled always and started when the driver is loaded.
    type: list
    elements: str
    default: []
  release_timeout_seconds:
    description: How long the devices may take to be free once everything was stopped, in seconds.
    type: float
    default: 30
  drain_timeout_seconds:
    description: How long stopping one unit may take, in seconds; the unit's own limit counts when it's shorter.
    type: float
    default: 900
  blacklist:
    description: Path of the file that keeps nouveau out.
    type: path
    default: /etc/modprobe.d/gpufleet-nvidia.conf
  journal:
    description: Path of the journal.
    type: path
    default: /var/lib/gpufleet/driver-switch.json
"""

EXAMPLES = r"""
- name: Bring the driver into memory
  gpufleet.llm.driver_switch:
    version: "{{ lookup('gpufleet.llm.release', gpufleet_release).driver.version }}"
    stop_units: [vllm@*.service, nvidia-persistenced.service]
    enable_units: [nvidia-persistenced.service]
    live_allowed: true
  register: switched

- name: Say what is owed
  ansible.builtin.debug:
    msg: "{{ switched.message }}"
"""

RETURN = r"""
action:
  description: What was decided; none, load, live, reboot or nothing_to_load.
  returned: always
  type: str
reboot_required:
  description: Whether a reboot is owed. Also given as the fact C(nvidia_driver_reboot_required).
  returned: always
  type: bool
message:
  description: One sentence for a person.
  returned: always
  type: str
steps:
  description: What was done, in order.
  returned: always
  type: list
  elements: str
findings:
  description: What was found of the next boot.
  returned: always
  type: list
  elements: dict
"""

import os
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _driver_state,
    _driver_state_host,
    _driver_state_read,
    _driver_switch,
    _finding,
    _host_state,
)


def journal_writer(path: str) -> t.Callable[[t.Optional[str]], None]:
    """Return what writes the journal atomically, or removes it."""

    def write(text: t.Optional[str]) -> None:
        if text is None:
            if os.path.exists(path):
                os.unlink(path)
            return
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=os.path.dirname(path))
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(beside, path)

    return write


class Run:
    """One call of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.given: t.Dict[str, t.Any] = module.params
        self.host = _driver_state_host.LocalDriverHost(timeout_seconds=self.given["drain_timeout_seconds"])
        self.journal = _driver_switch.Journal(self.host, journal_writer(self.given["journal"]), self.given["journal"])
        self.switch = _driver_switch.Switch(
            self.host, self.journal, self.given["stop_units"], self.given["release_timeout_seconds"]
        )
        self.wanted = {"version": self.given["version"], "flavour": self.given["flavour"]}
        self.findings: t.List[_finding.Finding] = []
        self.changed = False

    def read(self) -> t.Dict[str, t.Any]:
        return _driver_state_read.read_state(self.host, blacklist=self.given["blacklist"])

    def end(self, action: str, reboot: bool, message: str) -> None:
        if reboot:
            self.module.warn(message)
        self.module.exit_json(
            changed=self.changed or (reboot and self.given["reboot_allowed"]),
            action=action,
            reboot_required=reboot,
            message=message,
            steps=self.switch.steps,
            findings=self.findings,
            ansible_facts={"nvidia_driver_reboot_required": reboot},
        )

    def initramfs(self, record: t.Dict[str, t.Any]) -> None:
        """Rebuild the next boot's initramfs if it was built before nouveau was forbidden and brings it."""
        nouveau = record["nouveau"]
        if not nouveau["initramfs"] or not nouveau["in_initramfs"]:
            return
        self.changed = True
        kernel = record["kernel"]["next_boot"]
        if self.module.check_mode:
            self.switch.steps.append("would rebuild %s" % nouveau["initramfs"])
            return
        argv = ["update-initramfs", "-u", "-k", kernel]
        if nouveau["initramfs"].startswith("/boot/initramfs-"):
            argv = ["dracut", "--force", nouveau["initramfs"], kernel]
        status, out, err = self.host.run(argv)
        if status != 0:
            self.module.fail_json(
                msg="%s exited with %d: %s. The next boot would load nouveau instead of the driver. Remedy: mend it, "
                "run again." % (" ".join(argv), status, (err or out).strip())
            )
        self.switch.steps.append("rebuilt %s" % nouveau["initramfs"])

    def units(self, loaded: bool) -> None:
        """Enable the driver's units; start them when the driver is loaded."""
        for unit, state in _host_state.read_units(self.host, self.given["enable_units"]).items():
            if state["load_state"] != "loaded":
                if not self.given["packages_pending"]:
                    self.module.fail_json(
                        msg="%s: found %s, expected a unit of the installed packages. Remedy: reinstall the package "
                        "that brings it." % (unit, state["load_state"])
                    )
                continue
            wanted = []
            if state["unit_file_state"] not in ("enabled", "static", "indirect", "generated"):
                wanted.append("enable")
            if loaded and state["active_state"] != "active":
                wanted.append("start")
            for verb in wanted:
                self.changed = True
                if self.module.check_mode:
                    self.switch.steps.append("would %s %s" % (verb, unit))
                    continue
                status, _out, err = self.host.run(["systemctl", verb, "--", unit])
                if status != 0:
                    self.module.fail_json(msg="systemctl %s %s exited with %d: %s" % (verb, unit, status, err.strip()))
                self.switch.steps.append("%s %s" % (verb, unit))

    def refuse(self) -> None:
        """Fail when the driver wouldn't load at the next boot."""
        stopped = _finding.refusals(self.findings)
        if stopped:
            lines = ["%d. %s" % (number, _finding.describe(f)) for number, f in enumerate(stopped, 1)]
            self.module.fail_json(
                msg="The NVIDIA driver %s would not load at the next boot, so that this host must not be rebooted:\n%s"
                % (self.wanted["version"], "\n".join(lines)),
                findings=self.findings,
                steps=self.switch.steps,
                reboot_required=False,
            )

    def act(self, decision: _driver_switch.Decision) -> _driver_switch.Decision:
        """Load or switch, or end what a cut run began; what fails leaves a reboot owed."""
        self.changed = True
        try:
            # Before anything is touched: a cut between two modules would look like a driver that is loaded.
            self.journal.owe([], self.wanted["version"])
            if decision.action == "live":
                self.switch.drain(self.wanted["version"])
                self.switch.wait_for_release(lambda: _driver_state_read.read_clients(self.host))
                self.switch.unload(self.host.names("/sys/module"))
            self.switch.load()
        except _driver_switch.SwitchError as exc:
            return _driver_switch.Decision("reboot", "it could not be done without (%s)" % exc)
        after = _driver_switch.decide(self.read(), self.wanted, self.given["stop_units"], False)
        if after.action != "none":
            return _driver_switch.Decision("reboot", "after loading it, %s" % after.reason)
        if decision.action == "none":
            return decision
        how = "it took the place of the one before" if decision.action == "live" else "it was loaded now"
        return _driver_switch.Decision(decision.action, "%s, without a reboot" % how)

    def drained(self) -> None:
        if self.module.check_mode:
            units = self.switch.active_units()
            self.changed = bool(units)
            self.end("drain", False, "would stop %s" % (", ".join(units) or "nothing"))
        try:
            units = self.switch.drain(self.wanted["version"])
        except _driver_switch.SwitchError as exc:
            self.module.fail_json(msg="%s. The host was not rebooted. Remedy: stop it by hand, run again." % exc)
        self.changed = bool(units)
        self.end("drain", False, "stopped %s" % (", ".join(units) or "nothing"))

    def switched(self) -> None:
        if self.module.check_mode and self.given["packages_pending"]:
            self.changed = True
            self.end("install", False, "would install %s, then load it or owe a reboot" % self.wanted["version"])
        record = self.read()
        self.findings = _driver_state.after(record, self.wanted)
        self.initramfs(record)
        decision = _driver_switch.decide(record, self.wanted, self.given["stop_units"], self.given["live_allowed"])
        if decision.action == "live" and not self.journal.open:
            # Nothing is stopped for a driver that the next boot wouldn't have.
            self.refuse()
        # Of a run that was cut after the driver itself was loaded the rest is owed.
        owed = decision.action == "none" and self.journal.open
        if (decision.action in ("load", "live") or owed) and self.module.check_mode:
            self.refuse()
            self.changed = True
            self.end(decision.action, False, "would %s: %s" % ("go on" if owed else decision.action, decision.reason))
        if decision.action in ("load", "live") or owed:
            decision = self.act(decision)
        loaded = decision.action in ("none", "load", "live")
        self.units(loaded)
        failed: t.List[str] = []
        if decision.action != "reboot" and self.journal.open and not self.module.check_mode:
            self.changed = True
            started, failed = self.switch.start_again()
            self.switch.steps += ["start %s" % unit for unit in started]
        self.refuse()
        if failed:
            self.module.fail_json(msg="stopped for the driver, and not started again: %s" % "; ".join(failed))
        if decision.action == "reboot":
            message = _driver_switch.sentence(decision, self.wanted["version"], self.journal.stopped)
            self.end("reboot", True, message)
        said = {"nothing_to_load": "The NVIDIA driver %s is installed and can't be loaded here: %s."}
        text = said.get(decision.action, "The NVIDIA driver %s is installed and loaded (%s).")
        self.end(decision.action, False, text % (self.wanted["version"], decision.reason))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "flavour": {"type": "str", "choices": ["auto", "open", "proprietary"], "default": "auto"},
            "state": {"type": "str", "choices": ["switched", "drained"], "default": "switched"},
            "packages_pending": {"type": "bool", "default": False},
            "live_allowed": {"type": "bool", "default": False},
            "reboot_allowed": {"type": "bool", "default": False},
            "stop_units": {"type": "list", "elements": "str", "default": []},
            "enable_units": {"type": "list", "elements": "str", "default": []},
            "release_timeout_seconds": {"type": "float", "default": 30},
            "drain_timeout_seconds": {"type": "float", "default": 900},
            "blacklist": {"type": "path", "default": "/etc/modprobe.d/gpufleet-nvidia.conf"},
            "journal": {"type": "path", "default": "/var/lib/gpufleet/driver-switch.json"},
        },
        supports_check_mode=True,
    )
    run = Run(module)
    try:
        if module.params["state"] == "drained":
            run.drained()
        run.switched()
    except (_host_state.HostStateError, _driver_switch.SwitchError) as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
