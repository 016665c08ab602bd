#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_parity
short_description: Prove the whole chain from driver package to torch, link by link
description:
  - Reads every version between the driver's package and the engine's torch, holds them against each other and against
    the release, and says which link breaks and what to do about it.
  - The links, each a finding C(parity.<link>), are gpu, driver, package_library, driver_library (libraries and the
    kernel module in memory), module_disk and module_next_boot (module on disk for the running kernel and for the one
    that boots next), module_gpu (flavour and branch), driver_release, driver_cuda, forward_compatibility, cuda_toolkit,
    cudnn_host, fabric_manager, fabric, container_toolkit, cdi, engine, engine_release, torch_release, glibc,
    torch_driver, cudnn_engine, compute_capability (torch's architectures and the GPUs), ptx,
    engine_compute_capability, and compute.
  - An error that CUDA itself tells, in the driver's library or in torch, is laid at the link that it names. Those are
    802 (fabric_manager), 803 and NVML's library version mismatch (driver_library), 804 (forward_compatibility), 209 no
    kernel image (compute_capability), 35 driver too old and 222 unsupported PTX (driver_cuda).
  - The engine's side runs in the engine's own interpreter, in a child process with a deadline. Where a GPU has enough
    free memory, torch multiplies two matrices on it and every element of the product is compared with the CPU's.
  - A host without GPU and a GPU host without driver are told as such.
  - It changes nothing.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
notes:
  - While torch computes, the child holds a CUDA context, the workspace of cuBLAS and a few matrices on each GPU, one
    GPU after another, and gives them back when it ends. The context and the workspace take some hundred MiB, which
    differs by GPU and driver. O(memory_free_mib_min) keeps that away from a GPU that an engine has filled. What the
    tensors took is in the finding C(parity.compute).
  - Run it as root. Otherwise the fabric manager, the kernel modules and other users' processes can't be seen.
attributes:
  check_mode:
    support: full
    description: It only reads, and computes in check mode too.
  diff_mode:
    support: none
    description: It only reads.
options:
  release:
    description: The release as the P(gpufleet.llm.release#lookup) lookup returns it, with NVIDIA's C(facts) in it.
    type: dict
    required: true
  engine:
    description: Name of the engine in the release.
    type: str
    default: vllm
  accelerator:
    description: Which of the engine's builds this host serves.
    type: str
    default: cuda
  interpreter:
    description: The engine's own interpreter. Empty leaves the engine's side out.
    type: str
    default: /opt/gpufleet/engines/vllm/current/bin/python3
  engine_required:
    description: Whether it's an error that there is no such interpreter. Set to V(false) before an engine is deployed.
    type: bool
    default: true
  environment:
    description:
      - What the engine is given as environment, C(LD_LIBRARY_PATH) for example. Nothing else is inherited, so a
        library of the engine's is found here as there.
      - It's visible to every user of the host while the child runs. No secret belongs here.
    type: dict
    default: {}
  expect_gpus:
    description: Whether a host without GPU is an error.
    type: bool
    default: true
  compute:
    description: Whether torch multiplies matrices on the GPUs.
    type: bool
    default: true
  memory_free_mib_min:
    description:
      - Memory in MiB that must be free on a GPU for it to compute. With less, a finding of severity info says that it
        was skipped, and why.
    type: int
    default: 2048
  matrix_size:
    description: Rows and columns of the matrices. With 4096 or less every sum is exact.
    type: int
    default: 256
  timeout_seconds:
    description: Limit in seconds for the engine's child process. Importing torch from a cold disk takes its time.
    type: float
    default: 180
  driver_timeout_seconds:
    description: Limit in seconds for the child process that asks the CUDA driver library.
    type: float
    default: 60
  cuda_toolkit_wanted:
    description: Whether the host is meant to have the release's CUDA toolkit.
    type: bool
    default: false
  cudnn_wanted:
    description: Whether the host is meant to have a cuDNN of its own.
    type: bool
    default: false
  container_toolkit_wanted:
    description: Whether the host is meant to have the release's container toolkit.
    type: bool
    default: false
  library_path:
    description: Directory on the host in which C(pynvml.py) lies.
    type: path
    default: /usr/local/lib/gpufleet/python
  fail:
    description: Whether a broken link fails the task. With V(false) it's for the caller to decide by RV(findings).
    type: bool
    default: true
seealso:
  - module: gpufleet.llm.gpu_info
  - module: gpufleet.llm.gpu_state
"""

EXAMPLES = r"""
- name: Prove the chain, and stop where it breaks
  gpufleet.llm.cuda_parity:
    release: "{{ lookup('gpufleet.llm.release', gpufleet_release) }}"

- name: Look at the driver's side before an engine is deployed
  gpufleet.llm.cuda_parity:
    release: "{{ lookup('gpufleet.llm.release', gpufleet_release) }}"
    engine_required: false
    fail: false
  register: parity

- name: Show which links are broken
  ansible.builtin.debug:
    var: parity.broken
"""

RETURN = r"""
findings:
  description:
    - One or more findings for each link, in the order of the chain, each with C(check), C(ok), C(severity),
      C(expected), C(found), C(detail) and C(remedy). Returned on failure as well.
    - A link of severity warning that isn't ok couldn't be decided; one of severity info wasn't looked at on purpose.
  returned: always
  type: list
  elements: dict
broken:
  description: Names of the links that are broken, in the order of the chain.
  returned: always
  type: list
  elements: str
  sample: [driver_library]
summary:
  description: One line for each finding.
  returned: always
  type: list
  elements: str
record:
  description: What was read. Returned on failure as well.
  returned: always
  type: dict
  contains:
    kernel:
      description: Running kernel, installed ones, the one that boots next and how that is known.
      type: dict
    pci:
      description: GPUs and NVSwitches on the PCI bus.
      type: dict
    module:
      description: The kernel module in memory, and those on disk by kernel.
      type: dict
    libraries:
      description: Path, version and package of the driver's libraries by name, null where there is none.
      type: dict
    packages:
      description: Versions of the stack's packages.
      type: dict
    driver_api:
      description: What the CUDA driver library says, with C(library), C(version) (13000 for 13.0), C(init_code),
        C(devices), C(error), C(state).
      type: dict
    gpu:
      description: What M(gpufleet.llm.gpu_info) returns.
      type: dict
    compat:
      description: Forward compatibility libraries on disk.
      type: list
      elements: dict
    toolkits:
      description: CUDA toolkits below /usr/local, and where /usr/local/cuda points.
      type: dict
    cudnn:
      description: The host's own cuDNN libraries.
      type: list
      elements: dict
    fabric_manager:
      description: Package and unit of the fabric manager.
      type: dict
    cdi:
      description: CDI specifications for GPUs, and the driver versions they mention.
      type: list
      elements: dict
    glibc:
      description: Version of the C library.
      type: str
    architecture:
      description: The machine's.
      type: str
    engine:
      description: What the engine's interpreter says (driver, torch, compute, distributions), null where there is none.
      type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity, _gpu_info
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_read as reading
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import describe, refusal_message, warnings

OPTIONS = (
    "engine",
    "accelerator",
    "interpreter",
    "engine_required",
    "environment",
    "expect_gpus",
    "compute",
    "memory_free_mib_min",
    "matrix_size",
    "timeout_seconds",
    "driver_timeout_seconds",
    "cuda_toolkit_wanted",
    "cudnn_wanted",
    "container_toolkit_wanted",
)


def check(params: t.Mapping[str, t.Any]) -> str:
    """Return what is wrong with the parameters, empty when nothing is."""
    release = params["release"]
    builds = (release.get("engines") or {}).get(params["engine"]) or {}
    if params["accelerator"] not in builds:
        return "release: found no engine %s for %s, expected one of %s. Remedy: mend engine or accelerator." % (
            params["engine"],
            params["accelerator"],
            ", ".join(sorted(builds)) or "the release's engines",
        )
    if not release.get("facts"):
        return "release: found no facts in it, expected NVIDIA's. Remedy: give what the release lookup returns."
    if not 1 <= params["matrix_size"] <= reading.LARGEST_MATRIX:
        return "matrix_size: found %d, expected 1 to %d." % (params["matrix_size"], reading.LARGEST_MATRIX)
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "dict", "required": True},
            "engine": {"type": "str", "default": "vllm"},
            "accelerator": {"type": "str", "default": "cuda"},
            "interpreter": {"type": "str", "default": "/opt/gpufleet/engines/vllm/current/bin/python3"},
            "engine_required": {"type": "bool", "default": True},
            "environment": {"type": "dict", "default": {}},
            "expect_gpus": {"type": "bool", "default": True},
            "compute": {"type": "bool", "default": True},
            "memory_free_mib_min": {"type": "int", "default": 2048},
            "matrix_size": {"type": "int", "default": 256},
            "timeout_seconds": {"type": "float", "default": 180},
            "driver_timeout_seconds": {"type": "float", "default": 60},
            "cuda_toolkit_wanted": {"type": "bool", "default": False},
            "cudnn_wanted": {"type": "bool", "default": False},
            "container_toolkit_wanted": {"type": "bool", "default": False},
            "library_path": {"type": "path", "default": "/usr/local/lib/gpufleet/python"},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params: t.Dict[str, t.Any] = module.params
    wrong = check(params)
    if wrong:
        module.fail_json(msg=wrong)
    host = reading.LocalParityHost()
    options = {name: params[name] for name in OPTIONS}
    options["package"] = params["release"]["engines"][params["engine"]][params["accelerator"]]["package"]
    record = reading.read_chain(host, lambda: _gpu_info.read_gpu_info(params["library_path"], host), options)
    findings = _cuda_parity.decide(record, params["release"], options)
    result = {
        "findings": findings,
        "record": record,
        "broken": _cuda_parity.broken_links(findings),
        "summary": _cuda_parity.summary(findings),
    }
    message = refusal_message(findings, "The chain from driver to engine is")
    if message and params["fail"]:
        module.fail_json(msg=message, **result)
    for said in warnings(findings):
        module.warn(describe(said))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
