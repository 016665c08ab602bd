#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: memory_plan
short_description: Plan what models need of a host's memory, before they are deployed
description:
  - Reads a model's C(config.json) and the headers of its safetensors files, never the weights, and reproduces vLLM's
    own arithmetic with them; groups, blocks, tokens as that release prints them, and the longest context.
  - Plans one model for the GPUs that are named (O(model_dir)), or all models of an inventory for a host (O(models)),
    with the proof that they can share its GPUs.
  - Runs where the model's files are, or on the control node with the models' sources. It changes nothing.
  - An architecture, a kind of layer or a flag that isn't known is unsupported; no estimate is made.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Does the same in check mode, for it changes nothing.
  diff_mode:
    support: none
    description: There is nothing to show, for nothing is changed.
options:
  model_dir:
    description: Directory with C(config.json) and the safetensors files of one model.
    type: path
  models:
    description:
      - Models of an inventory, as in C(gpufleet_models). Read are C(name), C(slot), C(engine), C(context_length),
        C(engine_config), C(concurrent_users) (requests of that length at once), C(gpus) (indices; left out, the first
        ones), C(memory_plan) (V(pin), V(estimate) or V(off)), and C(source), C(revision), C(manifest) where
        O(model_root) is empty.
    type: list
    elements: dict
  model_root:
    description:
      - Directory of the models on this machine, with C(NAME/current) below it. Empty, each model's source is read, of
        a server or a hub the headers alone.
    type: str
    default: /var/lib/gpufleet/models
  gpu:
    description: >-
      With O(model_dir), the GPUs of the instance, which are alike, with C(total_bytes) of one, and C(count),
      C(free_bytes), C(name), C(compute_capability) and C(processes); for a CPU, C(total_bytes) of the host.
    type: dict
  gpus:
    description:
      - With O(models), the host's GPUs, as RV(gpufleet.llm.gpu_info#module:gpus) or declared, each with C(name),
        C(count), C(memory_gib) (of one, as CUDA says it) and C(compute_capability). Left out, they are read.
    type: list
    elements: dict
  accelerator:
    description: With O(models), what the engines compute on.
    type: str
    choices: [cpu, cuda]
    default: cuda
  kv_cache_bytes:
    description: With O(models), KV cache of each engine on a CPU host, in bytes, where its flags don't say it.
    type: int
    default: 1073741824
  memory_bytes:
    description: With O(models) on a CPU host, its memory, which has to hold all of them. 0, it isn't looked at.
    type: int
    default: 0
  engine_version:
    description: Version of vLLM.
    type: str
    required: true
  want:
    description: >-
      With O(model_dir), flags by vLLM's names, and C(concurrent_users), the requests wanted at once, and
      C(accelerator), C(cuda) or C(cpu).
    type: dict
    default: {}
  mode:
    description:
      - V(pin) keeps the measured margins free and sets the size of the cache, so that vLLM prints what was planned.
      - V(estimate) says what the engine's own profiling will find. V(off) plans nothing.
    type: str
    choices: [pin, estimate, "off"]
    default: pin
  calibration:
    description: >-
      With O(model_dir), bytes on a GPU from an earlier start of the same model, GPU, engine and flags,
      RV(gpufleet.llm.vllm_startup_info#module:calibration)'s C(terms).
    type: dict
  calibration_dir:
    description: With O(models), where M(gpufleet.llm.vllm_startup_info) keeps what starts on this host measured.
    type: str
    default: /var/lib/gpufleet/calibration
  plan_dir:
    description:
      - With O(models), directory of what is placed, with C(INSTANCE/plan.json) below it. A plan that was made of the
        same model, GPUs, engine and flags stays as it is, whatever was measured since. Empty, all are made anew.
    type: str
    default: ""
  cache_dir:
    description: Where headers that came over a network are kept. Empty keeps none.
    type: str
    default: ""
  hf_endpoint:
    description: Base URL of the hub.
    type: str
    default: https://huggingface.co
  hf_token:
    description: A token that may read the hub's repositories.
    type: str
  must_fit:
    description: Whether to fail where a plan refuses. What isn't supported refuses too, unless its mode is estimate.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Plan a model for one H100
  gpufleet.llm.memory_plan:
    model_dir: /var/lib/gpufleet/models/llama/current
    gpu: {name: NVIDIA H100 80GB HBM3, total_bytes: 85028765696, compute_capability: "9.0"}
    engine_version: "{{ lookup('gpufleet.llm.release', gpufleet_release).engines.vllm.cuda.version }}"
    want: {max-model-len: 32768, concurrent_users: 16}
  register: planned

- name: Plan what the host serves, with the GPUs that it has
  gpufleet.llm.memory_plan:
    models: "{{ gpufleet_models }}"
    engine_version: "{{ lookup('gpufleet.llm.release', gpufleet_release).engines.vllm.cuda.version }}"
    must_fit: true
"""

RETURN = r"""
plan:
  description: >-
    The plan of the one model, with C(fits), C(confidence), C(per_gpu), C(kv), C(vllm_args), C(errors),
    C(suggestions), C(warnings) and C(sources).
  returned: with O(model_dir)
  type: dict
instances:
  description: >-
    Of each model, C(name) of the instance, C(model), C(mode), C(state) (C(planned), C(unsupported), C(off), C(unread)
    or C(wrong)), C(why), C(gpus), C(plan), C(arguments) (memory flags that the plan gives the engine), C(document)
    (what is placed as C(plan.json)), C(kept) and C(calibrated).
  returned: with O(models)
  type: list
  elements: dict
placement:
  description: The ledger of the host's GPUs with all instances on them, C(fits), C(errors) and C(gpus).
  returned: with O(models)
  type: dict
findings:
  description: What the plans come to. Returned on failure as well.
  returned: with O(models)
  type: list
  elements: dict
refusal:
  description: All reasons why the models can't be served so, empty where they can.
  returned: with O(models)
  type: str
table:
  description: The plans as lines that a person reads.
  returned: always
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _calibration, _deployment_findings, _deployment_plan
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_gpus as devices
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_model as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_view as view
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_source as sources
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import describe, refusal_message, warnings
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info import LIBRARY_PATH, read_gpu_info
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner

Params = t.Dict[str, t.Any]


def plan_one(module: AnsibleModule, wanted: Params) -> None:
    """Plan the model of one directory and end."""
    engine = {"name": "vllm", "version": wanted["engine_version"]}
    directory, gpu, mode = wanted["model_dir"], wanted["gpu"], wanted["mode"]
    if mode == "off":
        module.fail_json(msg="mode: found off, expected pin or estimate. Remedy: off is for models of an inventory.")
    try:
        found = reading.read(directory)
        plan = reading.plan_model(found, gpu, engine, wanted["want"], mode, wanted["calibration"])
    except ModelError as exc:
        plan = reading.unreadable(directory, exc, mode, engine)
    lines = view.table([(gpu.get("name") or "host", plan)])
    if wanted["must_fit"] and not plan["fits"]:
        module.fail_json(msg="\n".join(lines), plan=plan, table=lines)
    module.exit_json(changed=False, plan=plan, table=lines)


def host_of(wanted: Params) -> _deployment_plan.Host:
    """Return what the host has, read where nobody declares it.

    Raises:
        ValueError: declared GPUs that can't be.
    """
    if wanted["accelerator"] == "cpu":
        return _deployment_plan.Host("cpu", None, "", wanted["kv_cache_bytes"], wanted["memory_bytes"])
    given, why = wanted["gpus"], "no GPU was declared"
    if given is None:
        record = read_gpu_info(LIBRARY_PATH, LocalRunner())
        given, driver = record["gpus"], record["driver"]
        why = "the driver says: %s %s" % (driver["state"], driver["message"]) if not given else ""
    if all("memory_mib" in gpu for gpu in given):
        return _deployment_plan.Host("cuda", devices.from_gpu_info(given), why)
    return _deployment_plan.Host("cuda", devices.from_declared(given), why)


def read_models(wanted: Params) -> t.Dict[str, t.Union[reading.Read, str]]:
    """Return of each model what its files say, or why they couldn't be read."""
    options = sources.Options(wanted["cache_dir"], wanted["hf_endpoint"], wanted["hf_token"])
    found: t.Dict[str, t.Union[reading.Read, str]] = {}
    for model in wanted["models"]:
        name = str(model.get("name"))
        if wanted["model_root"]:
            place = "file:%s" % os.path.join(wanted["model_root"], name, "current")
            found[name] = sources.read_source(dict(model, source=place), options)
        else:
            found[name] = sources.read_source(model, options)
    return found


def plan_models(module: AnsibleModule, wanted: Params) -> None:
    """Plan an inventory's models for a host and end."""
    try:
        host = host_of(wanted)
    except ValueError as exc:
        module.fail_json(msg=str(exc))
    planned = _deployment_plan.plan_host(
        wanted["models"],
        read_models(wanted),
        host,
        wanted["engine_version"],
        wanted["mode"],
        _calibration.read_all(wanted["calibration_dir"]) if wanted["calibration_dir"] else (),
        _deployment_plan.read_placed(wanted["plan_dir"], wanted["models"]),
    )
    findings = _deployment_findings.findings_of(planned, wanted["accelerator"])
    refusal = refusal_message(findings, "The memory of this deployment is")
    lines = view.table([(one["name"], one["plan"]) for one in planned["instances"] if one["plan"]])
    result = dict(planned, findings=findings, refusal=refusal, table=lines)
    if wanted["must_fit"] and refusal:
        module.fail_json(msg=refusal, **result)
    for said in warnings(findings):
        module.warn(describe(said))
    module.exit_json(changed=False, **result)


def main() -> None:
    """Read, plan and return."""
    module = AnsibleModule(
        argument_spec={
            "model_dir": {"type": "path"},
            "models": {"type": "list", "elements": "dict"},
            "model_root": {"type": "str", "default": "/var/lib/gpufleet/models"},
            "gpu": {"type": "dict"},
            "gpus": {"type": "list", "elements": "dict"},
            "accelerator": {"type": "str", "choices": ["cpu", "cuda"], "default": "cuda"},
            "kv_cache_bytes": {"type": "int", "default": 1073741824},
            "memory_bytes": {"type": "int", "default": 0},
            "engine_version": {"type": "str", "required": True},
            "want": {"type": "dict", "default": {}},
            "mode": {"type": "str", "choices": ["pin", "estimate", "off"], "default": "pin"},
            "calibration": {"type": "dict"},
            "calibration_dir": {"type": "str", "default": _calibration.CALIBRATION_DIR},
            "plan_dir": {"type": "str", "default": ""},
            "cache_dir": {"type": "str", "default": ""},
            "hf_endpoint": {"type": "str", "default": sources.HF_ENDPOINT},
            "hf_token": {"type": "str", "no_log": True},
            "must_fit": {"type": "bool", "default": False},
        },
        required_one_of=[("model_dir", "models")],
        mutually_exclusive=[("model_dir", "models")],
        required_by={"model_dir": ("gpu",)},
        supports_check_mode=True,
    )
    wanted: Params = module.params
    if wanted["models"] is None:
        plan_one(module, wanted)
    else:
        plan_models(module, wanted)


if __name__ == "__main__":
    main()
