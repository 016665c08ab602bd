# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of host_preflight: plans the models' memory by their headers, for the host that was read."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_findings as judging
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_gpus as devices
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_source as sources
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import (
    Finding,
    describe,
    finding,
    refusal_message,
    refusals,
    warnings,
)

display = Display()

#: What concerns the control node alone; no host gets it.
CONTROL_ONLY = ("cache_dir", "hf_endpoint", "hf_token", "gpus", "memory_plan")
SUBJECT = "This deployment is"

Result = t.Dict[str, t.Any]


class ActionModule(ActionBase):
    """Read the host, plan the models, and give all reasons at once."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        sent = {key: value for key, value in args.items() if key not in CONTROL_ONLY}
        result.update(
            self._execute_module(module_name="gpufleet.llm.host_preflight", module_args=sent, task_vars=task_vars or {})
        )
        kept = result.pop("kept", None)
        if kept is None or self._is_refused(result["findings"]):
            return result
        planned, findings = self._plan(args, result["record"], kept)
        result["memory"] = planned
        result["findings"] = list(result["findings"]) + findings
        for said in warnings(findings):
            display.warning(describe(said))
        message = refusal_message(result["findings"], SUBJECT)
        if message:
            result.update(failed=True, msg=message)
        return result

    @staticmethod
    def _is_refused(findings: t.Sequence[Finding]) -> bool:
        """Whether the inventory itself makes no sense: then there is nothing to plan."""
        return any(one["check"].startswith("inventory.") for one in refusals(findings))

    @staticmethod
    def _plan(args: Result, record: Result, kept: Result) -> t.Tuple[Result, t.List[Finding]]:
        """Return the plans of the host's models, and what they come to."""
        accelerator, mode = str(args["accelerator"]), str(args.get("memory_plan") or "pin")
        build = (args["release"].get("engines") or {}).get(planning.ENGINE, {}).get(accelerator) or {}
        wrong: t.List[Finding] = []
        try:
            host = host_of(args, record, accelerator)
        except ValueError as exc:
            host = planning.Host(accelerator, None, str(exc))
            wrong = [
                finding(
                    "memory.gpus",
                    False,
                    expected="GPUs as an inventory declares them",
                    found=str(exc),
                    remedy="Correct gpufleet_gpus.",
                )
            ]
        options = sources.Options(
            str(args.get("cache_dir") or ""),
            str(args.get("hf_endpoint") or sources.HF_ENDPOINT),
            args.get("hf_token") or None,
        )
        found = {
            str(model.get("name")): sources.read_source(model, options)
            for model in args["models"]
            if model.get("engine", planning.ENGINE) == planning.ENGINE
            and str(model.get("memory_plan") or mode) != "off"
        }
        planned = planning.plan_host(
            args["models"], found, host, str(build.get("version")), mode, kept["calibrations"], kept["placed"]
        )
        return planned, wrong + judging.findings_of(planned, accelerator)


def host_of(args: Result, record: Result, accelerator: str) -> planning.Host:
    """Return what the host has: GPUs as they were read, else as the inventory declares them.

    Raises:
        ValueError: declared GPUs that can't be.
    """
    if accelerator == planning.CPU:
        return planning.Host(
            accelerator, None, kv_cache_bytes=int(args.get("kv_cache_bytes") or planning.KV_CACHE_BYTES)
        )
    read = record.get("gpu") or {"gpus": [], "driver": {"state": "unknown_error", "message": "nobody looked"}}
    gpus = devices.from_gpu_info(read["gpus"]) or devices.from_declared(args.get("gpus") or ())
    driver = read["driver"]
    return planning.Host(
        accelerator, gpus or None, "the driver says %s (%s)" % (driver["state"], driver["message"] or "no GPU")
    )
