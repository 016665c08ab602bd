# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of engine_archive: all of it. It builds one archive and says how far it is."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_archive as archiving
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_build as building
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_pip as pips
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_python as pythons

display = Display()


class ActionModule(ActionBase):
    """Give the archive of an engine, building it when the cache doesn't hold it."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(argument_spec=archiving.ARGUMENT_SPEC)
        try:
            result.update(self._archive(args))
        except pythons.EngineError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        except OSError as exc:
            raise AnsibleActionFail("engine_archive: %s. Remedy: mend that path on the control node." % exc) from exc
        return result

    def _archive(self, args: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        python = pythons.probe_python(args["python_version"], args["python"], args["python_search"])
        with open(args["lock_file"], encoding="utf-8") as handle:
            lock_text = handle.read()
        recipe = building.Recipe(args["version"], lock_text, python, args["distributions"], args["headers"])
        key, identity = recipe.key, recipe.identity
        record = archiving.read_archive(args["cache_dir"], identity, key)
        changed = record is None
        if record is None and not self._task.check_mode:
            pips.check_lock(lock_text, args["lock_file"])
            record = archiving.build(
                args["cache_dir"],
                recipe,
                pips.pip_environment(args["find_links"], args["index_url"], args["extra_index_urls"]),
                lambda message: display.display("  engine: %s" % message, color="cyan"),
            )
        answer: t.Dict[str, t.Any] = {
            "changed": changed,
            "engine_id": identity,
            "key": key,
            "archive": archiving.archive_paths(args["cache_dir"], identity)[0],
        }
        if record is None:
            answer["msg"] = "engine %s would be built" % identity
            return answer
        refusal = planning.unknown_refusal(args["instances"], record["arguments"], record["version"])
        if refusal:
            raise pythons.EngineError(refusal + " Nothing was changed.")
        for name in ("sha256", "size_bytes", "unpacked_bytes", "files", "version", "vllm", "torch", "build_seconds"):
            answer[name] = record[name]
        answer["python_version"] = record["python"]["version"]
        answer["archive_present"] = os.path.exists(answer["archive"])
        return answer
