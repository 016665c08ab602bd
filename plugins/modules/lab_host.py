#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_host
short_description: Creates, reboots and destroys throw-away booted systemd hosts
version_added: 0.1.0
description:
  - Boots Debian hosts with systemd-nspawn on overlay mounts over cached debootstrap bases, each with a network
    namespace and an address of its own, reached by ssh with a generated key.
  - Hosts reach each other, the control node's ssh and, while O(package_access=true), the Debian mirror through a proxy.
    Nothing else.
  - All hosts of a call are handled at once. Everything can be run again after an interruption.
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    description: Says what would change and changes nothing.
    support: full
  diff_mode:
    description: Shows each host's state before and after.
    support: full
  platform:
    description: The control node is Debian, as root.
    platforms: debian
    support: full
options:
  state:
    description:
      - V(present) has the hosts made, running and answering on ssh.
      - V(absent) has them gone without a trace; without O(hosts), all hosts of O(state_dir).
      - V(rebooted) reboots them and waits until they answer.
      - V(prepared) only builds the bases that the hosts need and that aren't cached.
      - V(checked) only says what's missing on the control node, and changes nothing.
    type: str
    choices: [present, absent, rebooted, prepared, checked]
    default: present
  hosts:
    description: The hosts.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The host name; one label.
        type: str
        required: true
      suite:
        description: The Debian suite.
        type: str
        default: bookworm
      address:
        description: The IPv4 address in O(network). Needed unless O(state=absent).
        type: str
        default: ""
  state_dir:
    description: Directory of the hosts' own files. Its file system must carry an overlay's upper directory.
    type: path
    required: true
  ssh_dir:
    description: Directory of the generated key (C(id_ed25519)) and of C(known_hosts).
    type: path
    required: true
  cache_dir:
    description: Directory of what can be rebuilt, the bases (C(bases/)) and the fetched packages (C(packages/)).
    type: path
    required: true
  libexec_dir:
    description: Directory of the supervisor and the package proxy, C(files/) of the role P(gpufleet.llm.lab_host#role).
    type: path
    required: true
  network:
    description: The IPv4 network of the lab; its first address becomes the control node's.
    type: str
    default: 198.18.77.0/24
  mirror:
    description: URL of the Debian archive. Without it, the one of the control node's own apt sources.
    type: str
  security_mirror:
    description: URL of the Debian security archive. Without it and without O(mirror), the one of the control node.
    type: str
  packages:
    description: Packages in the bases besides the ones a host needs to be managed.
    type: list
    elements: str
    default: []
  package_access:
    description: Whether the hosts reach the mirrors.
    type: bool
    default: true
  boot_timeout_seconds:
    description: How long a host may take to answer on ssh.
    type: int
    default: 120
  stop_timeout_seconds:
    description: How long a host may take to power off before it's killed.
    type: int
    default: 30
  lock_timeout_seconds:
    description: How long to wait for another run on the same O(state_dir).
    type: int
    default: 1800
"""

EXAMPLES = r"""
- name: Boot two hosts
  gpufleet.llm.lab_host:
    hosts:
      - {name: lab1, suite: bookworm, address: 198.18.77.11}
      - {name: lab2, suite: trixie, address: 198.18.77.12}
    state_dir: "{{ gpufleet_control_dir }}/hosts"
    ssh_dir: "{{ gpufleet_control_dir }}/ssh"
    cache_dir: "{{ gpufleet_cache_dir }}"
    libexec_dir: "{{ role_path }}/files"
"""

RETURN = r"""
hosts:
  description: The hosts by name. After V(present) and V(rebooted) with C(system) (what
    systemctl is-system-running says), C(failed_units) and C(boot_seconds) (how long ssh took to answer).
  type: dict
  returned: always
  sample:
    lab1:
      address: 198.18.77.11
      boot_seconds: 1.6
      failed_units: []
      state: running
      suite: bookworm
      system: running
missing_packages:
  description: Debian packages that the control node lacks.
  type: list
  elements: str
  returned: when O(state=checked)
missing_bases:
  description: Bases that aren't cached, by suite.
  type: list
  elements: str
  returned: when O(state=checked)
ssh_key:
  description: The private key's path.
  type: str
  returned: always
known_hosts:
  description: The path of known_hosts.
  type: str
  returned: always
supervision:
  description: What keeps the hosts running; V(systemd) where it is PID 1 of the control node, else V(process).
  type: str
  returned: always
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_system as system
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusal_message
from ansible_collections.gpufleet.llm.plugins.module_utils._lab_hosts import RESERVED_NAMES, Lab, Settings
from ansible_collections.gpufleet.llm.plugins.module_utils._lab_plan import check_inputs
from ansible_collections.gpufleet.llm.plugins.module_utils._lab_system import LabError

Hosts = t.List[t.Dict[str, str]]


def look(lab: Lab, names: t.Sequence[str]) -> t.Dict[str, t.Dict[str, t.Any]]:
    """Return what each host is now."""
    found: t.Dict[str, t.Dict[str, t.Any]] = {}
    for name in names:
        state = lab.state(name)
        found[name] = {"state": state}
        if state in ("running", "stopped"):
            recorded = lab.recorded(name)
            found[name].update(
                suite=recorded["suite"],
                address=recorded["address"],
                base=recorded["base"],
                package_access=lab.has_access(name),
            )
    return found


def foresee(
    lab: Lab, hosts: Hosts, names: t.Sequence[str], before: t.Dict[str, t.Any], state: str
) -> t.Dict[str, t.Any]:
    """Return what each host would be after a real run."""
    if state == "absent":
        return {name: {"state": "absent"} for name in names}
    if state == "prepared":
        return before
    after: t.Dict[str, t.Any] = {}
    for host in hosts:
        base = before[host["name"]].get("base") or lab.key(host["suite"])
        after[host["name"]] = {
            "state": "running",
            "suite": host["suite"],
            "address": host["address"],
            "base": base,
            "package_access": lab.settings.package_access,
        }
    return after


def refuse_unable() -> None:
    """Refuse to go on where the control node can't carry a lab."""
    if os.geteuid() != 0:
        raise LabError(
            "lab_host: runs as root on the control node, found user id %d. Remedy: become root." % os.geteuid()
        )
    missing = system.missing_packages()
    if missing:
        raise LabError(
            "lab_host: the control node lacks what a lab needs. Remedy: apt-get install %s, or set "
            "lab_host_install_requirements: true." % " ".join(missing)
        )


def act(
    lab: Lab, state: str, hosts: Hosts, names: t.Sequence[str], check_mode: bool
) -> t.Tuple[bool, t.Dict[str, t.Any]]:
    """Bring the hosts into a state; return whether that changed anything and what's known of each."""
    before = look(lab, names)
    missing = [h["suite"] for h in hosts if state in ("present", "prepared") and not lab.recorded(h["name"])]
    missing = [suite for suite in missing if not lab.base_built(lab.key(suite))]
    if state == "rebooted":
        down = [name for name in names if before[name]["state"] != "running"]
        if down:
            raise LabError(
                "lab_host_hosts: %s can't be rebooted, not running. Remedy: lab_host_state: present." % ", ".join(down)
            )
    if check_mode:
        after = before if state == "rebooted" else foresee(lab, hosts, names, before, state)
        return state == "rebooted" or before != after or bool(missing), {"before": before, "after": after, "live": {}}
    live: t.Dict[str, t.Any] = {}
    if state == "absent":
        changed = lab.absent(names)
    elif state == "prepared":
        changed = lab.build_bases([h["suite"] for h in hosts if not lab.recorded(h["name"])])
    elif state == "rebooted":
        changed, live = True, lab.rebooted(names)
    else:
        changed, live = lab.present(hosts)
    return changed, {"before": before, "after": look(lab, names), "live": live}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["present", "absent", "rebooted", "prepared", "checked"],
                "default": "present",
            },
            "hosts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "suite": {"type": "str", "default": "bookworm"},
                    "address": {"type": "str", "default": ""},
                },
            },
            "state_dir": {"type": "path", "required": True},
            "ssh_dir": {"type": "path", "required": True},
            "cache_dir": {"type": "path", "required": True},
            "libexec_dir": {"type": "path", "required": True},
            "network": {"type": "str", "default": "198.18.77.0/24"},
            "mirror": {"type": "str"},
            "security_mirror": {"type": "str"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "package_access": {"type": "bool", "default": True},
            "boot_timeout_seconds": {"type": "int", "default": 120},
            "stop_timeout_seconds": {"type": "int", "default": 30},
            "lock_timeout_seconds": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    parameters: t.Dict[str, t.Any] = module.params
    state: str = parameters["state"]
    hosts: Hosts = parameters["hosts"]
    os.umask(0o022)
    os.environ["PATH"] = system.tool_path()
    result: t.Dict[str, t.Any] = {"changed": False, "hosts": {}}
    try:
        bad = check_inputs(hosts, parameters["network"], RESERVED_NAMES, places=state not in ("absent", "rebooted"))
        if bad:
            raise LabError(refusal_message(bad, "lab_host"))
        lab = Lab(
            Settings(
                **{key: parameters[key] for key in Settings._fields if key not in ("mirror", "security_mirror")},
                mirror=(parameters["mirror"] or "").rstrip("/") or None,
                security_mirror=(parameters["security_mirror"] or "").rstrip("/") or None,
            )
        )
        result["ssh_key"], result["known_hosts"] = lab.ssh_key, lab.known_hosts
        result["supervision"] = "systemd" if system.pid_one_is_systemd() else "process"
        if state != "absent":
            lab.resolve_mirrors()
        names = [host["name"] for host in hosts] or (lab.known() if state == "absent" else [])
        if state == "checked":
            result["missing_packages"] = system.missing_packages()
            suites = {h["suite"] for h in hosts if not lab.recorded(h["name"])}
            result["missing_bases"] = sorted(suite for suite in suites if not lab.base_built(lab.key(suite)))
            result["hosts"] = look(lab, names)
            module.exit_json(**result)
        if state == "absent" and not lab.known():
            module.exit_json(**{**result, "hosts": {name: {"state": "absent"} for name in names}})
        if not module.check_mode:
            refuse_unable()
        if state == "present":
            lab.refuse_drift(hosts)
        if module.check_mode:
            changed, seen = act(lab, state, hosts, names, True)
        else:
            os.makedirs(lab.state_dir, mode=0o700, exist_ok=True)
            with system.locked(lab.lock_file, parameters["lock_timeout_seconds"]):
                names = names if hosts or state != "absent" else lab.known()
                changed, seen = act(lab, state, hosts, names, False)
    except LabError as exc:
        module.fail_json(msg=str(exc), **{**result, "changed": False})
    result["changed"] = changed
    result["hosts"] = {name: {**seen["after"][name], **seen["live"].get(name, {})} for name in seen["after"]}
    result["diff"] = {"before": seen["before"], "after": seen["after"]}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
