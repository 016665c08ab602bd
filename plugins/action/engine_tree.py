# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of engine_tree: asks the host, and sends the archive only if the host lacks the engine."""

from __future__ import annotations

import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class ActionModule(ActionBase):
    """Ship an engine's archive when it is needed."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        task_vars = task_vars or {}
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        args = dict(self._task.args, remote_user=self._sender())
        args.pop("received", None)
        answer = self._call(args, task_vars)
        if answer.get("need_archive"):
            host = task_vars.get("inventory_hostname", "the host")
            mib = int(args.get("size_bytes") or 0) >> 20
            display.display("  engine: sending %d MiB to %s" % (mib, host), color="cyan")
            started = time.monotonic()
            received = "%s/%s.tar.zst.partial" % (answer["incoming"], args["engine_id"])
            self._transfer_file(args["archive"], received)
            display.display(
                "  engine: sent to %s in %d s; unpacking and trying it there (about half a minute)"
                % (host, time.monotonic() - started),
                color="cyan",
            )
            answer = self._call(dict(args, received=received), task_vars)
        result.update(answer)
        return result

    def _sender(self) -> t.Optional[str]:
        user = self._connection.get_option("remote_user") if self._connection.has_option("remote_user") else None
        sender: t.Optional[str] = user or self._play_context.remote_user
        return sender

    def _call(self, args: t.Dict[str, t.Any], task_vars: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        answer: t.Dict[str, t.Any] = self._execute_module(
            module_name="gpufleet.llm.engine_tree", module_args=args, task_vars=task_vars
        )
        return answer
