#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Read what a host's NVIDIA GPUs are and how they are
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
description:
  - Asks NVML through nvidia-ml-py on the host. Where nvidia-ml-py or NVML's library is missing, asks C(nvidia-smi),
    only for the fields that it knows.
  - Whatever a driver or a GPU doesn't support is null. A GPU that is lost says so in its own record, and the others
    are read.
  - Doesn't fail for what a host lacks or suffers from. RV(driver.state) says which it is, RV(driver.message) what was
    found, RV(driver.remedy) what to do. M(gpufleet.llm.gpu_state) makes findings of it.
  - NVML is asked in a process of its own that is killed after O(timeout_seconds), so that a driver that hangs doesn't
    hang the play. What was read until then is returned.
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
options:
  library_path:
    description:
      - Directory on the host where C(pynvml.py) of nvidia-ml-py is. An installed nvidia-ml-py is used where it isn't
        there.
    type: path
    default: /usr/local/lib/gpufleet/python
  timeout_seconds:
    description: How long NVML may take, in seconds. Each call of C(nvidia-smi) may take as long.
    type: int
    default: 20
notes:
  - Through C(nvidia-smi) there is no architecture, NVLink or MIG device, and only compute processes are listed. A GPU
    that is lost may keep C(nvidia-smi) from listing any.
seealso:
  - module: gpufleet.llm.gpu_state
"""

EXAMPLES = r"""
- name: Read the GPUs
  gpufleet.llm.gpu_info:
    timeout_seconds: 30
  register: gpu

- name: Say what is wrong
  ansible.builtin.debug:
    msg: "{{ gpu.driver.state }}: {{ gpu.driver.message }} {{ gpu.driver.remedy }}"
  when: gpu.driver.state != 'ok'

- name: Say what there is
  ansible.builtin.debug:
    msg: "{{ item.index }}: {{ item.name }}, {{ item.memory_mib.free }} of {{ item.memory_mib.total }} MiB free"
  loop: "{{ gpu.gpus }}"
  loop_control:
    label: "{{ item.index }}"
"""

RETURN = r"""
driver:
  description: The driver as a whole.
  returned: always
  type: dict
  contains:
    state:
      description:
        - V(ok) when the driver and every GPU answered. V(gpu_lost), V(reset_required) and V(no_permission) also when
          it is so of one GPU; its C(state) says of which.
        - V(no_answer) when NVML gave none in O(timeout_seconds).
      type: str
      choices:
        - ok
        - driver_not_loaded
        - library_not_found
        - version_mismatch
        - gpu_lost
        - reset_required
        - no_permission
        - no_answer
        - unknown_error
    message:
      description: What was found, empty when all is well.
      type: str
    remedy:
      description: What a person does about it, empty when all is well.
      type: str
    version:
      description: Version of the loaded driver; by C(/proc/driver/nvidia/version) where NVML doesn't tell it.
      type: str
    nvml_version:
      description: Version of NVML's library.
      type: str
    cuda_version:
      description: Newest CUDA that the driver runs, by the CUDA library that a process would load.
      type: str
      sample: "13.0"
    cuda_version_plain:
      description: The same by NVML itself, not misled by forward compatibility libraries.
      type: str
      sample: "13.0"
    source:
      description: Who answered.
      type: str
      choices: [nvml, nvidia-smi, none]
gpus:
  description: The GPUs in NVML's order. Each key is always there, and null where it isn't known.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: NVML's index.
      type: int
    state:
      description: As RV(driver.state), of this GPU.
      type: str
    error:
      description: Why this GPU couldn't be read to its end.
      type: str
    uuid:
      description: Unique name.
      type: str
    name:
      description: Model.
      type: str
    serial:
      description: Serial number of the board.
      type: str
    pci_address:
      description: Address as Linux writes it.
      type: str
      sample: "0000:1b:00.0"
    pci_device_id:
      description: PCI device id, four hexadecimal digits in lower case.
      type: str
      sample: "2330"
    pci_subsystem_id:
      description: PCI subsystem, vendor and device.
      type: str
      sample: "10de:16c1"
    architecture:
      description: Name of the architecture.
      type: str
      sample: hopper
    compute_capability:
      description: CUDA compute capability.
      type: str
      sample: "9.0"
    memory_mib:
      description: "Memory in MiB: total, free, used, reserved (by the driver; null where it is counted as used)."
      type: dict
    ecc:
      description:
        - Whether ECC is on now (current) and after the next reset (pending), and the errors counted since the driver
          was loaded (corrected_volatile, uncorrected_volatile) and ever (corrected_aggregate, uncorrected_aggregate).
      type: dict
    remapped_rows:
      description:
        - Rows of memory that were replaced because of correctable and uncorrectable errors, whether one waits for a
          reset (pending), whether one failed (failure), and how many banks have max, high, partial, low and none of
          their spares left (histogram).
      type: dict
    retired_pages:
      description:
        - Pages retired for single_bit and double_bit errors, on GPUs of before row remapping; whether any is pending.
      type: dict
    recovery_action:
      description: What the driver asks for.
      type: str
      sample: none
    clocks_event_reasons:
      description: What holds the clocks down at this moment.
      type: list
      elements: str
      sample: [sw_power_cap]
    temperature_celsius:
      description:
        - Temperatures in degrees Celsius (gpu, memory), the way left to the next slowdown (margin), thresholds
          (shutdown, slowdown, memory_max, gpu_max), and on newer GPUs those thresholds as margins (shutdown_margin,
          slowdown_margin, memory_max_margin, gpu_max_margin).
      type: dict
    power_watts:
      description: "Power in watts: draw, limit (enforced), limit_default, limit_min, limit_max."
      type: dict
    pcie:
      description:
        - Generation and width of the link now, and the most of GPU and slot together (generation_max, width_max) and
          of the GPU alone (generation_gpu_max). The generation drops while the GPU is idle.
      type: dict
    nvlink:
      description: Number of links, of active ones, the inactive_links by number, and the version.
      type: dict
    fabric:
      description:
        - Registration with the NVLink fabric. State is not_supported, not_started, in_progress or completed; status,
          clique_id and cluster_uuid are known when it is completed; health is healthy, unhealthy or limited_capacity.
      type: dict
    mig:
      description:
        - Whether MIG is on now (current) and after the next reset (pending), how many devices there may be
          (devices_max), and those there are (devices, with uuid, gpu_instance_id, compute_instance_id, memory_mib).
      type: dict
    persistence:
      description: Whether persistence mode is on.
      type: bool
    processes:
      description:
        - The processes that use the GPU, with pid, kind (compute, graphics, mps), name, memory_mib, user and systemd
          unit; user and unit are null where the process can't be seen, as one of another container.
      type: list
      elements: dict
took_ms:
  description: How long the reading took, in milliseconds.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_info
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner

# A host without a driver is nothing to warn of: it is what a driver is installed on.
NOT_A_FAULT = ("ok", "driver_not_loaded", "library_not_found")


def main() -> None:
    """Read and return."""
    module = AnsibleModule(
        argument_spec={
            "library_path": {"type": "path", "default": _gpu_info.LIBRARY_PATH},
            "timeout_seconds": {"type": "int", "default": int(_gpu_info.TIMEOUT_SECONDS)},
        },
        supports_check_mode=True,
    )
    timeout = module.params["timeout_seconds"]
    record = _gpu_info.read_gpu_info(module.params["library_path"], LocalRunner(timeout), timeout)
    driver = record["driver"]
    if driver["state"] not in NOT_A_FAULT:
        module.warn("%s: %s. %s" % (driver["state"], driver["message"].rstrip("."), driver["remedy"]))
    module.exit_json(changed=False, **record)


if __name__ == "__main__":
    main()
