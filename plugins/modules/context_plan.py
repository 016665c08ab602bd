#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: context_plan
short_description: Say which context a running instance should serve at a concurrency
description:
  - Reads the flags and the KV cache of the instance's current start from its journal and metrics, plans the model again
    with them, and returns the context that O(concurrency) requests have at once - by the plan, and by the blocks that
    the engine printed.
  - M(gpufleet.llm.context_probe) measures the same. It changes nothing.
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
  instance:
    description: The engine's instance, C(MODEL-SLOT).
    type: str
    required: true
  model_dir:
    description: Directory with the model's C(config.json) and its weights' headers.
    type: path
    required: true
  engine_version:
    description: Version of vLLM, where the start doesn't say it.
    type: str
    required: true
  accelerator:
    description: What the engine computes with.
    type: str
    choices: [cpu, cuda]
    required: true
  gpus:
    description: RV(gpufleet.llm.gpu_info#module:gpus) of the host. Empty on a CPU host.
    type: list
    elements: dict
    default: []
  kv_cache_bytes:
    description: Size of the KV cache where no flag says it, as on a CPU host; C(0) is none.
    type: int
    default: 0
  concurrency:
    description: Requests at the same time.
    type: int
    default: 1
"""

EXAMPLES = r"""
- name: Ask which context 12 users should have
  gpufleet.llm.context_plan:
    instance: smollm2-a
    model_dir: /var/lib/gpufleet/models/smollm2/current
    engine_version: "{{ pins.version }}"
    accelerator: cpu
    kv_cache_bytes: "{{ 1024 ** 3 }}"
    concurrency: 12
  register: planned
"""

RETURN = r"""
planned_tokens:
  description: Tokens of each request by the plan; null where the model can't be planned.
  returned: always
  type: int
engine_tokens:
  description: Tokens of each request by the blocks that the engine printed; null where it printed none.
  returned: always
  type: int
batch_tokens:
  description: Tokens that the engine computes in one step.
  returned: always
  type: int
plan:
  description: The plan, as M(gpufleet.llm.memory_plan) returns it.
  returned: always
  type: dict
measured:
  description: What the start said, as M(gpufleet.llm.vllm_startup_info) returns it.
  returned: always
  type: dict
findings:
  description: Whether the engine printed the tokens that the plan has.
  returned: always
  type: list
  elements: dict
"""

import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _context_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_model as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _startup_info
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import Connection, Failure
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner
from ansible_collections.gpufleet.llm.plugins.module_utils._startup_log import parse_arguments

SECONDS = 10.0


def ask_metrics(instance: str) -> str:
    """Return the running engine's metrics, empty where nobody answers."""
    try:
        with Connection.open_unix("/run/gpufleet/%s/engine.sock" % instance, SECONDS) as connection:
            answer = connection.ask("GET", "/metrics", seconds=SECONDS)
            return answer.text if answer.status == 200 else ""
    except Failure:
        return ""


def memory_bytes(text: str) -> t.Optional[int]:
    """Return a host's memory from the text of /proc/meminfo."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instance": {"type": "str", "required": True},
            "model_dir": {"type": "path", "required": True},
            "engine_version": {"type": "str", "required": True},
            "accelerator": {"type": "str", "choices": ["cpu", "cuda"], "required": True},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "kv_cache_bytes": {"type": "int", "default": 0},
            "concurrency": {"type": "int", "default": 1},
        },
        supports_check_mode=True,
    )
    params: t.Dict[str, t.Any] = module.params
    instance = params["instance"]
    if not _startup_info.INSTANCE_RE.match(instance) or params["concurrency"] < 1:
        module.fail_json(
            msg="instance, concurrency: found %r and %d, expected MODEL-SLOT and a positive number. Remedy: state both."
            % (instance, params["concurrency"])
        )
    text, properties = _startup_info.read_startup(LocalRunner(), "vllm@%s.service" % instance)
    if properties.get("ActiveState") != "active":
        module.fail_json(
            msg="vllm@%s.service: found %s, expected active. Remedy: start it; nothing is to be measured of "
            "what does not run." % (instance, properties.get("ActiveState") or "no such unit")
        )
    measured = _startup_info.measure(text, ask_metrics(instance))
    engine = {"name": "vllm", "version": measured["vllm_version"] or params["engine_version"]}
    total = measured["total_bytes"]
    if not params["gpus"] and total is None:
        total = memory_bytes(LocalRunner().read("/proc/meminfo") or "")
    gpu = planning.gpu_of(params["gpus"], total)
    want = planning.want_of(parse_arguments(text), params["concurrency"], params["accelerator"])
    try:
        model = reading.read(params["model_dir"])
    except ModelError as exc:
        unreadable = reading.unreadable(params["model_dir"], exc, "pin", engine)
        found: t.Dict[str, t.Any] = {"planned": unreadable, "engine": None}
    else:
        mode = "estimate" if params["accelerator"] == "cuda" else "pin"
        found = planning.contexts(
            lambda flags: reading.plan_model(model, gpu, engine, flags, mode), want, measured, params["kv_cache_bytes"]
        )
    module.exit_json(
        changed=False,
        planned_tokens=planning.tokens_of(found["planned"]),
        engine_tokens=planning.tokens_of(found["engine"]),
        batch_tokens=(found["planned"].get("vllm_args") or {}).get("max-num-batched-tokens") or 2048,
        plan=found["planned"],
        measured=measured,
        findings=planning.decide(instance, found, measured),
    )


if __name__ == "__main__":
    main()
