# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of receipt_measurement: lets the module write on the host, then the copy on the control node."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.gpufleet.llm.plugins.module_utils import _receipt


class ActionModule(ActionBase):
    """Add a measurement in both places."""

    TRANSFERS_FILES = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        result.update(
            self._execute_module(
                module_name="gpufleet.llm.receipt_measurement", module_args=args, task_vars=task_vars or {}
            )
        )
        kept = result.pop("kept", None)
        directory = args.get("control_dir")
        if result.get("failed") or not directory or not kept or self._task.check_mode:
            return result
        target = os.path.join(os.path.expanduser(str(directory)), "%s.json" % args["host"])
        try:
            _receipt.write_text(target, _receipt.render(kept))
        except OSError as exc:
            result["failed"] = True
            result["msg"] = (
                "gpufleet_control_dir: found %s, expected a directory for receipts that can be written on the control "
                "node. Remedy: make %s writable for the user who runs Ansible." % (exc, directory)
            )
            return result
        result["control_path"] = target
        return result
