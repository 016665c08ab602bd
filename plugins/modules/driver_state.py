#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_state
short_description: Read what a host's NVIDIA driver depends on, and plan the GPU stack for it
description:
  - Reads GPUs on the PCI bus, the running kernel and the next one to boot, the driver in memory and on disk for both,
    DKMS, nouveau, Secure Boot with the certificates that the kernel takes, processes that hold the driver's devices,
    cloud-init, packages, repositories, and container runtimes.
  - With O(release) it also makes the plan of the GPU stack by that release on the control node, and fails with all
    reasons at once if the plan or the host says no.
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
  release:
    description: A release, as the lookup P(gpufleet.llm.release#lookup) returns it. Without it the host is only read.
    type: dict
  options:
    description: What is asked of the plan, as P(gpufleet.llm.gpu_stack_plan#filter) takes it.
    type: dict
    default: {}
  gpus:
    description:
      - GPUs that count instead of those on the PCI bus, which a machine that prepares a disk for another hasn't got.
        Each has C(pci_device_id).
    type: list
    elements: dict
    default: []
  component:
    description: Whose files and findings are wanted.
    type: str
    choices: [driver, cuda_toolkit, container_toolkit]
    default: driver
  mirror_key_file:
    description: On the control node, the key of a mirror; it's proved there against the plan's fingerprint.
    type: path
  nvml_library:
    description: On the control node, C(pynvml.py) of nvidia-ml-py. Unset takes that of the control node's Python.
    type: path
  blacklist:
    description: Path of the file that keeps nouveau out.
    type: path
    default: /etc/modprobe.d/gpufleet-nvidia.conf
  files:
    description: Paths whose SHA-256 is wanted. Set by the action.
    type: list
    elements: path
    default: []
  fail:
    description: Whether to fail when the plan or the host says no. Else the reasons are only returned.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Read the host, plan its GPU stack, refuse what can't work
  gpufleet.llm.driver_state:
    release: "{{ lookup('gpufleet.llm.release', gpufleet_release) }}"
    options: {flavour: auto, packages: compute}
  register: found

- name: Show what would be installed
  ansible.builtin.debug:
    msg: "{{ found.plan.driver.packages }}"
"""

RETURN = r"""
record:
  description: What was read.
  returned: always
  type: dict
plan:
  description: The plan of the GPU stack.
  returned: when O(release) is given
  type: dict
findings:
  description: What the plan and the host say, one record each.
  returned: when O(release) is given
  type: list
  elements: dict
refusal:
  description: All reasons to refuse in one text, empty if there is none.
  returned: when O(release) is given
  type: str
source:
  description: C(keys) and C(files) of the component, as M(gpufleet.llm.package_source) takes them.
  returned: when O(release) is given
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_host, _driver_state_read


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "dict"},
            "options": {"type": "dict", "default": {}},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "component": {
                "type": "str",
                "choices": ["driver", "cuda_toolkit", "container_toolkit"],
                "default": "driver",
            },
            "mirror_key_file": {"type": "path", "no_log": False},
            "nvml_library": {"type": "path"},
            "blacklist": {"type": "path", "default": "/etc/modprobe.d/gpufleet-nvidia.conf"},
            "files": {"type": "list", "elements": "path", "default": []},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    record = _driver_state_read.read_state(
        _driver_state_host.LocalDriverHost(), blacklist=module.params["blacklist"], files=module.params["files"]
    )
    module.exit_json(changed=False, record=record)


if __name__ == "__main__":
    main()
