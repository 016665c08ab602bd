# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints the plans of several hosts as one table, and keeps them as JSON on the control node."""

from __future__ import annotations

import json
import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_view as view
from ansible_collections.gpufleet.llm.plugins.module_utils._receipt import read_text, write_text

display = Display()


class ActionModule(ActionBase):
    """Print and keep."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("plans", "path", "question"))

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        plans = self._task.args.get("plans") or {}
        path = (
            os.path.abspath(os.path.expanduser(str(self._task.args.get("path")))) if self._task.args.get("path") else ""
        )
        lines = view.fleet(plans)
        question = str(self._task.args.get("question") or "")
        for line in ([question, ""] if question else []) + lines:
            display.display(line)
        result.update(changed=False, table=lines, path=path)
        result["fits"] = sorted(host for host, plan in plans.items() if not plan["refusal"] and not plan["warnings"])
        if path:
            text = json.dumps({"question": question, "hosts": plans}, indent=2, sort_keys=True) + "\n"
            result["changed"] = read_text(path) != text
            if result["changed"] and not self._task.check_mode:
                try:
                    write_text(path, text)
                except OSError as exc:
                    result.update(failed=True, msg="path: found %s, expected a file that can be written." % exc)
                    return result
            said = "would be in" if self._task.check_mode else "is in"
            display.display("\nThe whole plan as JSON %s %s" % (said, path))
        return result
