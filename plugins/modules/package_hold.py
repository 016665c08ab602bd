#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_hold
short_description: Hold installed packages at their version, or let them change again
description:
  - Holds by dpkg's selections (apt) or by version locks (dnf); whatever upgrades the host leaves held packages alone.
  - Names and patterns that match nothing are no error; a package that isn't installed can't be held.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Says which would be held or freed.
  diff_mode:
    support: full
    description: Holds before and after.
options:
  packages:
    description: Names and glob patterns of packages.
    type: list
    elements: str
    required: true
  state:
    description: Whether they are held or free to change.
    type: str
    choices: [held, free]
    default: held
  lock_timeout_seconds:
    description: How long cloud-init and the locks of the package manager may be waited for in all, in seconds.
    type: int
    default: 300
  manager:
    description: The package manager; V(auto) takes the one that the host has.
    type: str
    choices: [auto, apt, dnf]
    default: auto
seealso:
  - module: gpufleet.llm.package_set
"""

EXAMPLES = r"""
- name: Keep the kernel and its headers where they are
  gpufleet.llm.package_hold:
    packages: ["linux-image-*", "linux-headers-*"]

- name: Let them go again
  gpufleet.llm.package_hold:
    packages: ["linux-image-*", "linux-headers-*"]
    state: free
"""

RETURN = r"""
held:
  description: Names of the matching packages that are held at the end.
  returned: always
  type: list
  elements: str
changed_packages:
  description: Names of those that were held or freed.
  returned: success
  type: list
  elements: str
waited_for:
  description: Who had the locks.
  returned: always
  type: list
  elements: str
findings:
  description: Why it failed.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_managers, _package_run
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_plan as planning


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["held", "free"], "default": "held"},
            "lock_timeout_seconds": {"type": "int", "default": 300},
            "manager": {"type": "str", "choices": ["auto", "apt", "dnf"], "default": "auto"},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        outcome = _package_run.set_hold(
            _package_managers.backend(given["manager"]),
            given["packages"],
            held=given["state"] == "held",
            check=module.check_mode,
            timeout_seconds=given["lock_timeout_seconds"],
        )
    except planning.PackageError as exc:
        module.fail_json(msg=str(exc), findings=exc.findings, held=[], waited_for=[])
    module.exit_json(
        changed=outcome.changed,
        held=sorted(name for name in outcome.after.held if planning.any_match(name, given["packages"])),
        changed_packages=sorted(outcome.before.held ^ outcome.after.held),
        waited_for=outcome.waited,
        findings=outcome.findings,
        diff=planning.differences(outcome.before, outcome.after),
    )


if __name__ == "__main__":
    main()
