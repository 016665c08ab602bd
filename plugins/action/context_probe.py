# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of context_probe: all of it. It calls as a client does, and says what each load came to."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpufleet.llm.plugins.module_utils import _context_probe as probing

display = Display()


class ActionModule(ActionBase):
    """Measure the largest context."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(argument_spec=probing.ARGUMENT_SPEC)
        result.update(changed=False, skipped_load=bool(self._task.check_mode), measurement=None)
        if self._task.check_mode:
            result.update(probing.verdict(args["findings"]))
            result["msg"] = "check mode: no load is put on %s" % args["model"]
            return result
        try:
            found = probing.probe(args, lambda line: display.display("  context: %s" % line, color="cyan"))
        except probing.ProbeError as exc:
            raise AnsibleActionFail("context_probe: %s" % exc, result={"levels": exc.levels}) from exc
        result.update(found)
        return result
