# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of place_files: finds and renders contents, then calls the module once."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

SOURCES = ("template", "src", "content")


class ActionModule(ActionBase):
    """Render what place_files is to place."""

    TRANSFERS_FILES = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        task_vars = task_vars or {}
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        args["files"] = [self._resolve(dict(item), task_vars) for item in args.get("files") or []]
        result.update(
            self._execute_module(module_name="gpufleet.llm.place_files", module_args=args, task_vars=task_vars)
        )
        return result

    def _resolve(self, item: t.Dict[str, t.Any], task_vars: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        given = [key for key in SOURCES if item.get(key) is not None]
        if len(given) != 1:
            raise AnsibleActionFail(
                "place_files: %s has %s. Expected exactly one of template, src or content."
                % (item.get("dest", "an entry of files without dest"), " and ".join(given) or "no content")
            )
        source = given[0]
        value = item.pop(source)
        if source == "content":
            text = value if isinstance(value, str) else str(value)
        elif source == "src":
            text = self._text(self._find("files", value))
        else:
            text = self._render(self._find("templates", value), item, task_vars)
        item.pop("vars", None)
        item["secret_content" if item.get("secret") else "content"] = text
        return item

    def _find(self, folder: str, name: str) -> str:
        if os.path.isabs(name):
            return name
        try:
            return str(self._find_needle(folder, name))
        except AnsibleError as exc:
            raise AnsibleActionFail("place_files: %s not found below %s: %s" % (name, folder, exc)) from exc

    @staticmethod
    def _text(path: str) -> str:
        try:
            with open(path, encoding="utf-8") as handle:
                return handle.read()
        except (OSError, UnicodeDecodeError) as exc:
            raise AnsibleActionFail("place_files: can't read %s on the controller: %s" % (path, exc)) from exc

    def _render(self, path: str, item: t.Dict[str, t.Any], task_vars: t.Dict[str, t.Any]) -> str:
        folder = os.path.dirname(path)
        searched = [*task_vars.get("ansible_search_path", []), self._loader.get_basedir(), folder]
        searchpath = [place for base in searched for place in (os.path.join(base, "templates"), base)]
        variables = dict(task_vars, **(item.get("vars") or {}))
        templar = self._templar.copy_with_new_env(searchpath=searchpath, available_variables=variables)
        rendered = templar.template(
            trust_as_template(self._text(path)),
            escape_backslashes=False,
            overrides={"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True},
        )
        return "" if rendered is None else str(rendered)
