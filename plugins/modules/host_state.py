#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: Read the states of many packages and units at once
description:
  - Reads package versions by one C(dpkg-query) or C(rpm), and unit states by one C(systemctl show).
  - Meant to gate the tasks that install or start, which cost much more than this even when they change nothing.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
options:
  packages:
    description: Names of packages.
    type: list
    elements: str
    default: []
  units:
    description: Names of systemd units, with their suffix.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Read what is there
  gpufleet.llm.host_state:
    packages: [nginx]
    units: [llm-proxy.service]
  register: found

- name: Install what is missing
  ansible.builtin.apt:
    name: "{{ found.missing_packages }}"
  when: found.missing_packages | length > 0
"""

RETURN = r"""
packages:
  description: Version by package name, null where it isn't installed.
  returned: always
  type: dict
missing_packages:
  description: Those of O(packages) that aren't installed.
  returned: always
  type: list
  elements: str
units:
  description:
    - State by unit name, with the keys load_state, active_state, sub_state, unit_file_state, main_pid, invocation_id,
      need_daemon_reload.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _host_state
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    runner = LocalRunner()
    try:
        packages = _host_state.read_packages(runner, module.params["packages"])
        units = _host_state.read_units(runner, module.params["units"])
    except _host_state.HostStateError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(
        changed=False,
        packages=packages,
        missing_packages=[name for name in module.params["packages"] if packages[name] is None],
        units=units,
    )


if __name__ == "__main__":
    main()
