#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: memory_plan
short_description: Plan what a model needs of a GPU's memory, before it is deployed
description:
  - Reads a model's C(config.json) and the headers of its safetensors files, never the weights, and reproduces vLLM's
    own arithmetic with them; groups, blocks, tokens as that release prints them, and the longest context.
  - Runs where the model's files are. It changes nothing.
  - An architecture or a kind of layer that isn't known is unsupported; no estimate is made.
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
    description: Directory with C(config.json) and the safetensors files.
    type: path
    required: true
  gpu:
    description: >-
      The GPUs of the instance, which are alike, with C(total_bytes) of one, and C(count), C(free_bytes), C(name),
      C(compute_capability) and C(processes); for a CPU, C(total_bytes) of the host.
    type: dict
    required: true
  engine_version:
    description: Version of vLLM.
    type: str
    required: true
  want:
    description: >-
      Flags by vLLM's names, and C(concurrent_users), the requests wanted at once, and C(accelerator), C(cuda) or
      C(cpu).
    type: dict
    default: {}
  mode:
    description:
      - V(pin) keeps the measured margins free and sets the size of the cache, so that vLLM prints what was planned.
      - V(estimate) says what the engine's own profiling will find.
    type: str
    choices: [pin, estimate]
    default: pin
  calibration:
    description: Bytes on a GPU from an earlier start of the same model, GPU, engine and flags.
    type: dict
  must_fit:
    description: Whether to fail where the plan doesn't fit. An unsupported model fails too.
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
"""

RETURN = r"""
plan:
  description: >-
    The plan, with C(fits), C(confidence), C(per_gpu), C(kv), C(vllm_args), C(errors), C(suggestions), C(warnings) and
    C(sources).
  returned: always
  type: dict
table:
  description: The plan as lines that a person reads.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_model as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_view as view
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError


def main() -> None:
    """Read, plan and return."""
    module = AnsibleModule(
        argument_spec={
            "model_dir": {"type": "path", "required": True},
            "gpu": {"type": "dict", "required": True},
            "engine_version": {"type": "str", "required": True},
            "want": {"type": "dict", "default": {}},
            "mode": {"type": "str", "choices": ["pin", "estimate"], "default": "pin"},
            "calibration": {"type": "dict"},
            "must_fit": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    engine = {"name": "vllm", "version": wanted["engine_version"]}
    directory = wanted["model_dir"]
    try:
        found = reading.read(directory)
        plan = reading.plan_model(found, wanted["gpu"], engine, wanted["want"], wanted["mode"], wanted["calibration"])
    except ModelError as exc:
        plan = reading.unreadable(directory, exc, wanted["mode"], engine)
    lines = view.table([(wanted["gpu"].get("name") or "host", plan)])
    if wanted["must_fit"] and not plan["fits"]:
        module.fail_json(msg="\n".join(lines), plan=plan, table=lines)
    module.exit_json(changed=False, plan=plan, table=lines)


if __name__ == "__main__":
    main()
