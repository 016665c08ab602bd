# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of driver_state: plans by the release and refuses; the release itself is never sent to a host."""

from __future__ import annotations

import importlib.util
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _driver_state_files,
    _driver_state_plan,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._release import ReleaseError

OF_THE_CONTROL_NODE = ("release", "options", "mirror_key_file", "nvml_library", "fail", "component", "gpus")


class ActionModule(ActionBase):
    """Read a host, then plan."""

    TRANSFERS_FILES = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        release = args.get("release")
        component = str(args.get("component") or "driver")
        library = self._library(args.get("nvml_library")) if release and component == "driver" else None
        sent = {name: value for name, value in args.items() if name not in OF_THE_CONTROL_NODE}
        sent["files"] = [_driver_state_files.NVML_LIBRARY] if library is not None else []
        result.update(
            self._execute_module(module_name="gpufleet.llm.driver_state", module_args=sent, task_vars=task_vars or {})
        )
        if result.get("failed") or not release:
            return result
        try:
            outcome = _driver_state_plan.plan_for(
                result["record"],
                release,
                args.get("options") or {},
                component=component,
                given_gpus=args.get("gpus") or [],
                mirror_key=self._text(args.get("mirror_key_file"), "mirror_key_file"),
                library=library,
            )
        except ReleaseError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        result.setdefault("warnings", []).extend(outcome["said"])
        if outcome["refusal"] and args.get("fail", True):
            # What was read would bury the reasons.
            result.pop("record")
            failed = [finding for finding in outcome["findings"] if not finding["ok"]]
            result.update(failed=True, msg=outcome["refusal"], findings=failed, refusal=outcome["refusal"])
        else:
            result.update(outcome)
        return result

    @staticmethod
    def _text(path: t.Any, option: str) -> str:
        if not path:
            return ""
        try:
            with open(path, encoding="utf-8") as handle:
                return handle.read()
        except (OSError, UnicodeDecodeError) as exc:
            raise AnsibleActionFail(
                "%s: found %s, which can't be read on the control node: %s. Expected an armoured OpenPGP key."
                % (option, path, exc)
            ) from exc

    def _library(self, path: t.Any) -> str:
        """Return the text of pynvml.py, the given one or that of this Python."""
        if not path:
            spec = importlib.util.find_spec("pynvml")
            path = spec.origin if spec else None
        if not path:
            raise AnsibleActionFail(
                "nvml_library: the control node's Python has no pynvml. Expected nvidia-ml-py, whose pynvml.py goes to "
                "the hosts. Remedy: install it there (pip install nvidia-ml-py), or name the file."
            )
        return self._text(path, "nvml_library")
