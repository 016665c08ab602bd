# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of engine_install: reads the lock file, and says before a host starts to build for some minutes."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_install as installing
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_python as pythons

display = Display()


class ActionModule(ActionBase):
    """Have a host build its engine when it lacks it."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        task_vars = task_vars or {}
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        args.pop("build", None)
        lock_file = str(args.get("lock_file") or "")
        links = args.get("find_links") or []
        try:
            # Before anything of it gets to the host, and so into its log.
            installing.refuse_secret_links([links] if isinstance(links, str) else list(links))
            with open(lock_file, encoding="utf-8") as handle:
                args["lock"] = handle.read()
        except pythons.EngineError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        except OSError as exc:
            raise AnsibleActionFail(
                "engine_install: %s. Remedy: name the release's lock file, which is on the control node, in lock_file."
                % exc
            ) from exc
        answer = self._call(args, task_vars)
        if answer.get("must_build"):
            display.display(
                "  engine: %s builds engine %s (some minutes); pip's log is %s.log there"
                % (task_vars.get("inventory_hostname", "the host"), answer["engine_id"], answer["path"]),
                color="cyan",
            )
            answer = self._call(dict(args, build=True), task_vars)
        result.update(answer)
        return result

    def _call(self, args: t.Dict[str, t.Any], task_vars: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        answer: t.Dict[str, t.Any] = self._execute_module(
            module_name="gpufleet.llm.engine_install", module_args=args, task_vars=task_vars
        )
        return answer
