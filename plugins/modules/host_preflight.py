#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_preflight
short_description: Read a host and refuse what it can't carry
description:
  - Reads the host once (platform, kernel, systemd, Python, C library, CPU, memory, disks with their measured
    sequential read rate, ports, clock),
    holds it and the inventory against the release, and fails with B(all) reasons at once.
  - Of each model it reads C(config.json) and the headers of the weights on the control node, a few kilobytes where they
    come over a network, and refuses what doesn't fit into the host's GPUs or its KV cache before anything is
    downloaded, with what would make it fit.
  - What is only worth saying comes as a warning.
  - It changes nothing. To measure the read rate it may write at most 64 MiB into a file that has no name, for at most
    half a second. In check mode
    it writes not even that.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  action:
    support: full
    description: Models are read and planned on the controller.
  check_mode:
    support: full
    description: Does the same in check mode, except that the read rate is then only measured by reading a file that's
      there.
  diff_mode:
    support: none
    description: There is nothing to show, for nothing is changed.
options:
  release:
    description: The release as the P(gpufleet.llm.release#lookup) lookup returns it.
    type: dict
    required: true
  accelerator:
    description: What the engines compute with, one the release builds engines for.
    type: str
    required: true
  models:
    description: The models to serve, as in C(gpufleet_models). Keys used are C(name), C(slot), C(engine), C(port),
      C(source), C(revision), C(manifest),
      C(manifest_file), C(context_length), C(engine_config), C(concurrent_users), C(gpus), C(memory_plan) and
      C(size_bytes); others are left alone.
    type: list
    elements: dict
    required: true
  sources:
    description: What the P(gpufleet.llm.model_sources#lookup) lookup says of O(models), in the same order.
    type: list
    elements: dict
    default: []
  clients:
    description: Who may call, as in C(gpufleet_clients). The key used is C(name).
    type: list
    elements: dict
    required: true
  memory_plan:
    description:
      - What is planned of models that don't say; V(pin) sets the size of the KV cache, V(estimate) has the engine size
        it, V(off) plans nothing.
    type: str
    choices: [pin, estimate, "off"]
    default: pin
  gpus:
    description: GPUs that the inventory declares, for a host whose driver isn't there yet. Read ones count before them.
    type: list
    elements: dict
    default: []
  plan_dir:
    description: Directory of the plans that are placed, with C(INSTANCE/plan.json) below it.
    type: path
    default: /etc/gpufleet/vllm
  calibration_dir:
    description: Where M(gpufleet.llm.vllm_startup_info) keeps what starts on this host measured.
    type: path
    default: /var/lib/gpufleet/calibration
  cache_dir:
    description: Directory on the control node for headers that came over a network. Empty keeps none.
    type: str
    default: ""
  hf_endpoint:
    description: Base URL of the hub.
    type: str
    default: https://huggingface.co
  hf_token:
    description: A token that may read the hub's repositories. It stays on the control node.
    type: str
  reserved_clients:
    description: Names the collection uses for clients of its own.
    type: list
    elements: str
    default: [gpu-validate]
  model_root:
    description: Directory the models live in.
    type: path
    default: /var/lib/gpufleet/models
  engine_root:
    description: Directory the engines live in.
    type: path
    default: /opt/gpufleet/engines/vllm
  receipt:
    description: The host's receipt. A read rate it remembers for the same device isn't measured again.
    type: path
    default: /var/lib/gpufleet/receipt.json
  proxy_unit:
    description: Unit that may hold the models' ports already.
    type: str
    default: llm-proxy.service
  cpu_features:
    description: Features of C(/proc/cpuinfo) an x86-64 CPU must have to compute. Used with O(accelerator=cpu) only.
    type: list
    elements: str
    default: [avx2]
  kv_cache_bytes:
    description: Bytes of KV cache each CPU engine is given.
    type: int
    default: 1073741824
  engine_bytes:
    description: Bytes an engine takes on disk where the release doesn't say, by accelerator.
    type: dict
    default: {cpu: 4294967296, cuda: 17179869184}
  disk_reserve_bytes:
    description: Bytes to be left free on each filesystem.
    type: int
    default: 2147483648
  minimum_free_inodes:
    description: Inodes that must be free on each filesystem.
    type: int
    default: 150000
  minimum_read_mib_per_second:
    description: Sequential read rate in MiB/s below which a warning is given.
    type: float
    default: 100
  read_rate_maximum_age_seconds:
    description: How long a remembered read rate counts, in seconds.
    type: int
    default: 2592000
"""

EXAMPLES = r"""
- name: Read the host and refuse what it can't carry
  gpufleet.llm.host_preflight:
    release: "{{ lookup('gpufleet.llm.release', gpufleet_release) }}"
    accelerator: "{{ gpufleet_accelerator }}"
    models: "{{ gpufleet_models }}"
    sources: "{{ query('gpufleet.llm.model_sources', gpufleet_models) }}"
    clients: "{{ gpufleet_clients }}"
  register: result
"""

RETURN = r"""
findings:
  description: All findings, each with C(check), C(ok), C(severity), C(expected), C(found), C(detail) and C(remedy).
    Returned on failure as well.
  returned: always
  type: list
  elements: dict
record:
  description: What was read of the host. Returned on failure as well.
  returned: always
  type: dict
  contains:
    platform:
      description: Key in the release, name, kernel, architecture, kind of container.
      type: dict
    python:
      description: Version of the interpreter.
      type: str
    glibc:
      description: Version of the C library.
      type: str
    systemd:
      description: Version, and whether it is process 1.
      type: dict
    cgroup_version:
      description: 1 or 2.
      type: int
    cpu:
      description: Model, threads, and the features that were asked for or are known to matter.
      type: dict
    memory:
      description: Total, available and swap in bytes, and bytes our own engines hold.
      type: dict
    disks:
      description: The filesystems of models and engines, with free bytes and inodes, and the read rate where the
        models live.
      type: dict
    held:
      description: Source and revision of each model's current version, and names of the engines that are there.
      type: dict
    ports:
      description: Who listens on ports that were asked for.
      type: list
      elements: dict
    time:
      description: Whether the clock is synchronised, null where the host can't say.
      type: dict
    gpu:
      description: C(driver) and C(gpus) as M(gpufleet.llm.gpu_info) returns them; null on a CPU host.
      type: dict
memory:
  description: What M(gpufleet.llm.memory_plan) returns for the models, C(instances) and C(placement). Returned on
    failure as well, unless the inventory itself is refused.
  returned: when planned
  type: dict
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _calibration,
    _deployment_plan,
    _host_disk,
    _preflight,
    _receipt,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import describe, refusal_message, warnings
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info import LIBRARY_PATH, read_gpu_info
from ansible_collections.gpufleet.llm.plugins.module_utils._host_read import LocalHost, read_host
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner

WANTED_KEYS = (
    "release",
    "accelerator",
    "clients",
    "reserved_clients",
    "proxy_unit",
    "cpu_features",
    "kv_cache_bytes",
    "engine_bytes",
    "disk_reserve_bytes",
    "minimum_free_inodes",
    "minimum_read_mib_per_second",
)
# CPU features that are worth a line in the record beside those that were asked for.
NOTED_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "hypervisor", "asimd", "sve")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "dict", "required": True},
            "accelerator": {"type": "str", "required": True},
            "models": {"type": "list", "elements": "dict", "required": True},
            "sources": {"type": "list", "elements": "dict", "default": []},
            "clients": {"type": "list", "elements": "dict", "required": True},
            "memory_plan": {"type": "str", "choices": ["pin", "estimate", "off"], "default": "pin"},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "plan_dir": {"type": "path", "default": "/etc/gpufleet/vllm"},
            "calibration_dir": {"type": "path", "default": _calibration.CALIBRATION_DIR},
            "cache_dir": {"type": "str", "default": ""},
            "hf_endpoint": {"type": "str", "default": "https://huggingface.co"},
            "hf_token": {"type": "str", "no_log": True},
            "reserved_clients": {"type": "list", "elements": "str", "default": ["gpu-validate"]},
            "model_root": {"type": "path", "default": "/var/lib/gpufleet/models"},
            "engine_root": {"type": "path", "default": "/opt/gpufleet/engines/vllm"},
            "receipt": {"type": "path", "default": "/var/lib/gpufleet/receipt.json"},
            "proxy_unit": {"type": "str", "default": "llm-proxy.service"},
            "cpu_features": {"type": "list", "elements": "str", "default": ["avx2"]},
            "kv_cache_bytes": {"type": "int", "default": 1073741824},
            "engine_bytes": {"type": "dict", "default": {"cpu": 4294967296, "cuda": 17179869184}},
            "disk_reserve_bytes": {"type": "int", "default": 2147483648},
            "minimum_free_inodes": {"type": "int", "default": 150000},
            "minimum_read_mib_per_second": {"type": "float", "default": 100},
            "read_rate_maximum_age_seconds": {"type": "int", "default": 2592000},
        },
        supports_check_mode=True,
    )
    params: t.Dict[str, t.Any] = module.params
    wanted = _preflight.build_wanted(params["models"], params["sources"], **{key: params[key] for key in WANTED_KEYS})
    host = LocalHost()
    record = read_host(
        host,
        model_root=params["model_root"],
        engine_root=params["engine_root"],
        models=[m["name"] for m in params["models"] if _preflight.valid_model_name(m.get("name"))],
        ports=[m["port"] for m in params["models"] if _preflight.is_integer(m.get("port"))],
    )
    disk = record["disks"]["models"]
    disk["read"] = _host_disk.read_rate(
        params["model_root"],
        device=disk["device"],
        filesystem=disk["filesystem"],
        free_bytes=disk["free_bytes"],
        may_write=not module.check_mode,
        remembered=_receipt.remembered_read_rate(host.read(params["receipt"])),
        now=time.time(),
        maximum_age_seconds=params["read_rate_maximum_age_seconds"],
    )
    if params["accelerator"] == "cuda":
        record["gpu"] = read_gpu_info(LIBRARY_PATH, LocalRunner())
    # For the half on the controller, which takes it out again.
    kept = {
        "placed": _deployment_plan.read_placed(params["plan_dir"], params["models"]),
        "calibrations": _calibration.read_all(params["calibration_dir"]),
    }
    findings = _preflight.decide_inventory(wanted) + _preflight.decide_host(record, wanted)
    noted = set(NOTED_FEATURES) | set(params["cpu_features"])
    record["cpu"]["features"] = [feature for feature in record["cpu"]["features"] if feature in noted]
    message = refusal_message(findings, "This deployment is")
    if message:
        module.fail_json(msg=message, findings=findings, record=record, kept=kept)
    for said in warnings(findings):
        module.warn(describe(said))
    module.exit_json(changed=False, findings=findings, record=record, kept=kept)


if __name__ == "__main__":
    main()
