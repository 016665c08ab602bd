#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_startup_info
short_description: Read what vLLM measured when it started, and keep it
description:
  - Reads the journal of an instance's unit, of the start that runs now, and returns what the engine says of its memory.
    From the running engine's own metrics it takes the number of blocks and tokens, which are exact.
  - Tried on the log of a real start on a CPU, and on short texts in the wordings of other releases with the figures of
    public logs; not on a host with a GPU. What a release doesn't say is null, and never guessed.
  - Keeps the measured terms as a calibration in O(directory), one file for each model, kind of GPU, engine version and
    set of flags that change memory. M(gpufleet.llm.memory_plan) and M(gpufleet.llm.host_preflight) read them; a plan of
    the same four uses what was measured.
  - A start that measured the same as far as vLLM prints it leaves the file alone.
  - Which start it was is kept beside it, so that one that was read isn't read again; that is no change.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Says whether the calibration would change.
  diff_mode:
    support: full
    description: Shows the calibration before and after.
options:
  instance:
    description: The engine's instance, C(MODEL-SLOT).
    type: str
    required: true
  unit:
    description: Its unit. Left out, C(vllm@INSTANCE.service).
    type: str
  socket:
    description:
      - The engine's socket, whose metrics are asked for. Where nobody answers the log alone counts.
      - Left out, C(/run/gpufleet/INSTANCE/engine.sock).
    type: path
  gpus:
    description:
      - RV(gpufleet.llm.gpu_info#module:gpus) of the host, for the calibration's key. Empty on a CPU host.
      - Left out, they are read where a driver is loaded.
    type: list
    elements: dict
  log:
    description: A file to read in place of the journal, for a log that was kept elsewhere.
    type: path
  directory:
    description: Where calibrations are kept. Empty keeps none.
    type: str
    default: /var/lib/gpufleet/calibration
"""

EXAMPLES = r"""
- name: Read what the engine measured
  gpufleet.llm.vllm_startup_info:
    instance: smollm2-a
    gpus: "{{ gpu.gpus }}"
  register: startup

- name: Show it
  ansible.builtin.debug:
    msg: "{{ startup.summary }}"
"""

RETURN = r"""
measured:
  description:
    - What the start says, in bytes per GPU of the fullest one - C(weights_bytes), C(activation_bytes) (without the
      estimate of the graphs), C(non_torch_bytes), C(graphs_bytes), C(graphs_estimate_bytes), C(available_kv_bytes),
      C(total_bytes), C(free_bytes), C(requested_bytes); C(kv_tokens), C(num_blocks), C(block_size),
      C(max_concurrency), C(max_model_len), C(attention_backend), C(kv_cache_layout), C(vllm_version), C(ranks).
    - vLLM prints two decimals of a GiB; C(precision_bytes) is how far off a value may be for that.
    - C(refusal) is the engine's own reason, where it refused to start for want of memory.
  returned: always
  type: dict
calibration:
  description: What is kept, with C(key), C(terms) and C(kv). Null where the start said too little.
  returned: always
  type: dict
path:
  description: The calibration's file, null where none is kept.
  returned: always
  type: str
memory:
  description: The instance to C(measured) and C(start_read), for a receipt.
  returned: always
  type: dict
findings:
  description: Whether the log could be read, and whether the engine refused.
  returned: always
  type: list
  elements: dict
summary:
  description: What was measured as lines for a person.
  returned: always
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _calibration, _memory_proof, _receipt, _startup_info
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import describe
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info import LIBRARY_PATH, read_gpu_info
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner
from ansible_collections.gpufleet.llm.plugins.module_utils._startup_log import parse_arguments

DRIVER = "/proc/driver/nvidia/version"


def gpus_of(given: t.Optional[t.List[t.Dict[str, t.Any]]], runner: LocalRunner) -> t.List[t.Dict[str, t.Any]]:
    """Return the host's GPUs, read where nobody gives them and a driver is loaded."""
    if given is not None or not os.path.exists(DRIVER):
        return given or []
    return t.cast("t.List[t.Dict[str, t.Any]]", read_gpu_info(LIBRARY_PATH, runner)["gpus"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instance": {"type": "str", "required": True},
            "unit": {"type": "str"},
            "socket": {"type": "path"},
            "gpus": {"type": "list", "elements": "dict"},
            "log": {"type": "path"},
            "directory": {"type": "str", "default": _calibration.CALIBRATION_DIR},
        },
        supports_check_mode=True,
    )
    params: t.Dict[str, t.Any] = module.params
    instance = params["instance"]
    if not _startup_info.INSTANCE_RE.match(instance):
        module.fail_json(
            msg="instance: found %r, expected MODEL-SLOT of a-z, 0-9, '.' and '-'. Remedy: name one." % instance
        )
    unit = params["unit"] or "vllm@%s.service" % instance
    runner = LocalRunner()
    if params["log"]:
        text, properties = runner.read(params["log"]) or "", {"LoadState": "read from %s" % params["log"]}
        metrics = ""
    else:
        text, properties = _startup_info.read_startup(runner, unit)
        metrics = _memory_proof.ask_metrics(params["socket"] or "/run/gpufleet/%s/engine.sock" % instance)
    record = _startup_info.measure(text, metrics)
    findings = _startup_info.decide(record, unit, properties)
    result: t.Dict[str, t.Any] = {
        "changed": False,
        "measured": record,
        "memory": {instance: {"measured": _memory_proof.kept_of(record), "start_read": True}},
        "calibration": None,
        "path": None,
        "findings": findings,
        "summary": _startup_info.summary(record),
    }
    if not all(found["ok"] for found in findings):
        for found in findings:
            module.warn(describe(found))
        module.exit_json(**result)
    arguments = parse_arguments(text)
    model = _calibration.model_identity(runner, str(arguments.get("model") or arguments.get("model_tag") or instance))
    calibration = _calibration.calibration_of(
        record, arguments, model, _calibration.gpu_identity(gpus_of(params["gpus"], runner), record)
    )
    result["calibration"] = calibration
    if params["directory"]:
        keep(module, params["directory"], calibration, result)
        invocation = properties.get("InvocationID")
        if invocation and not module.check_mode:
            text = _memory_proof.start_text(invocation, record, os.path.basename(result["path"]))
            write(module, _memory_proof.start_path(params["directory"], instance), text)
    module.exit_json(**result)


def keep(module: AnsibleModule, directory: str, calibration: t.Dict[str, t.Any], result: t.Dict[str, t.Any]) -> None:
    """Write a calibration unless the one that is there says the same; add to the result what came of it."""
    path = os.path.join(directory, _calibration.calibration_name(calibration["key"]))
    before = _receipt.read_text(path)
    result["path"] = path
    if _calibration.is_same(_calibration.parse_calibration(before), calibration):
        return
    result["changed"] = True
    after = _calibration.render(calibration)
    if module._diff:
        result["diff"] = {"before": before or "", "after": after, "before_header": path, "after_header": path}
    if not module.check_mode:
        write(module, path, after)


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Replace a file at once, or fail with the reason."""
    try:
        _receipt.write_text(path, text)
    except OSError as exc:
        module.fail_json(
            msg="directory: found %s, expected one that can be written. Remedy: free or repair %s."
            % (exc, os.path.dirname(path))
        )


if __name__ == "__main__":
    main()
