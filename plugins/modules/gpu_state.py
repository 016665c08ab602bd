#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_state
short_description: Assert that a host's NVIDIA GPUs are as they should be
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
description:
  - Reads the GPUs as M(gpufleet.llm.gpu_info) does, compares them with O(expect), and returns findings.
  - A check that every GPU passes is one finding. Of a check that some fail, each of those is one, with what a person
    does about it.
  - Fails when a finding of severity C(error) didn't hold, with all of them in one message. Warnings are said.
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
options:
  expect:
    description:
      - What is expected. What is left out isn't looked at, but for those with a default, which are about health.
    type: dict
    default: {}
    suboptions:
      count:
        description: How many GPUs answer, exactly.
        type: int
      names:
        description: The models that a GPU may be of, by NVML's name.
        type: list
        elements: str
      driver_version:
        description: Version of the loaded driver, exactly.
        type: str
      memory_free_mib_min:
        description: Free memory of each GPU, in MiB.
        type: int
      ecc:
        description: Mode of now. A GPU without ECC passes as V(disabled).
        type: str
        choices: [enabled, disabled]
      mig:
        description: Mode of now. A GPU without MIG passes as V(disabled).
        type: str
        choices: [enabled, disabled]
      persistence:
        description: Whether persistence mode is on.
        type: bool
      pcie_width_full:
        description:
          - Whether each GPU uses all the lanes that it and its slot have. The generation isn't judged, as it drops
            while the GPU is idle.
        type: bool
      nvlink_active:
        description: Whether no NVLink is inactive. GPUs without NVLink, or with MIG on, pass.
        type: bool
      no_foreign_processes:
        description:
          - Whether only processes of O(expect.allowed_users), O(expect.allowed_units) or O(expect.allowed_pids) use
            the GPUs. Without any of these, no process may.
        type: bool
      allowed_users:
        description: Users whose processes may use the GPUs.
        type: list
        elements: str
        default: []
      allowed_units:
        description:
          - Systemd units, by shell pattern, whose processes may use the GPUs; a process's cgroup says its unit.
        type: list
        elements: str
        default: []
      allowed_pids:
        description: Processes that may use the GPUs.
        type: list
        elements: int
        default: []
      temperature_celsius_max:
        description: Each GPU is below this, in degrees Celsius.
        type: int
      temperature_below_slowdown:
        description: Whether each GPU is below the temperature at which it slows down, where it tells that.
        type: bool
        default: true
      no_slowdown:
        description: Whether no GPU is slowed down by heat or its power supply at this moment. A warning if not.
        type: bool
        default: true
      no_pending_modes:
        description: Whether no change of ECC or MIG waits for a reset.
        type: bool
        default: true
      no_pending_remap:
        description: Whether no remapping of memory rows waits for a reset, and none has failed.
        type: bool
        default: true
      no_retired_pages_pending:
        description: Whether no memory page waits to be retired.
        type: bool
        default: true
      recovery_action_none:
        description: Whether the driver asks for no reset, reboot or other recovery.
        type: bool
        default: true
      fabric_completed:
        description: Whether each GPU that has an NVLink fabric is registered with it. GPUs without one pass.
        type: bool
        default: true
  info:
    description: What M(gpufleet.llm.gpu_info) returned; read anew if left out.
    type: dict
  fail:
    description: Whether to fail when a finding didn't hold. Otherwise the findings are returned only.
    type: bool
    default: true
  library_path:
    description: As of M(gpufleet.llm.gpu_info).
    type: path
    default: /usr/local/lib/gpufleet/python
  timeout_seconds:
    description: As of M(gpufleet.llm.gpu_info), in seconds.
    type: int
    default: 20
seealso:
  - module: gpufleet.llm.gpu_info
"""

EXAMPLES = r"""
- name: The GPUs are healthy, whatever they are
  gpufleet.llm.gpu_state:
    expect: {}

- name: The host is what the inventory says, and an engine can start
  gpufleet.llm.gpu_state:
    expect:
      count: 8
      names: [NVIDIA H100 80GB HBM3]
      ecc: enabled
      mig: disabled
      persistence: true
      pcie_width_full: true
      memory_free_mib_min: 72000
      no_foreign_processes: true
      allowed_units: ["vllm@*.service"]

- name: Look, and decide later
  gpufleet.llm.gpu_state:
    info: "{{ gpu }}"
    fail: false
  register: state
"""

RETURN = r"""
findings:
  description: The findings, with check, ok, severity, expected, found, detail and remedy.
  returned: always
  type: list
  elements: dict
info:
  description: What was judged, as M(gpufleet.llm.gpu_info) returns it.
  returned: always
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _finding, _gpu_info, _gpu_state
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner


def expectations() -> t.Dict[str, t.Any]:
    """Return the argument spec of ``expect``."""
    options: t.Dict[str, t.Any] = {
        "count": {"type": "int"},
        "names": {"type": "list", "elements": "str"},
        "driver_version": {"type": "str"},
        "memory_free_mib_min": {"type": "int"},
        "ecc": {"type": "str", "choices": ["enabled", "disabled"]},
        "mig": {"type": "str", "choices": ["enabled", "disabled"]},
        "persistence": {"type": "bool"},
        "pcie_width_full": {"type": "bool"},
        "nvlink_active": {"type": "bool"},
        "no_foreign_processes": {"type": "bool"},
        "allowed_users": {"type": "list", "elements": "str", "default": []},
        "allowed_units": {"type": "list", "elements": "str", "default": []},
        "allowed_pids": {"type": "list", "elements": "int", "default": []},
        "temperature_celsius_max": {"type": "int"},
    }
    options.update({name: {"type": "bool", "default": value} for name, value in _gpu_state.HEALTH.items()})
    return options


def main() -> None:
    """Read, decide, answer."""
    module = AnsibleModule(
        argument_spec={
            "expect": {"type": "dict", "default": {}, "options": expectations()},
            "info": {"type": "dict"},
            "fail": {"type": "bool", "default": True},
            "library_path": {"type": "path", "default": _gpu_info.LIBRARY_PATH},
            "timeout_seconds": {"type": "int", "default": int(_gpu_info.TIMEOUT_SECONDS)},
        },
        supports_check_mode=True,
    )
    given = module.params
    timeout = given["timeout_seconds"]
    info = given["info"] or _gpu_info.read_gpu_info(given["library_path"], LocalRunner(timeout), timeout)
    try:
        findings = _gpu_state.decide(info, given["expect"])
    except (KeyError, TypeError) as exc:
        module.fail_json(msg="info isn't what gpu_info returns: %r. Give the registered result of gpu_info." % exc)
    for warning in _finding.warnings(findings):
        module.warn(_finding.describe(warning))
    result = {
        "changed": False,
        "findings": findings,
        "info": {key: info.get(key) for key in ("driver", "gpus", "took_ms")},
    }
    refusal = _finding.refusal_message(findings, "The GPUs")
    if refusal and given["fail"]:
        module.fail_json(msg=refusal, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
