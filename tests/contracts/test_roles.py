# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role: its inputs are documented, typed and the same everywhere; its rooms have the size and shape they must."""

from __future__ import annotations

import re

import pytest
from support import ROOT, every_task, load_yaml, roles, strings_in, task_files, task_lists_in, tasks_in, tree_files

ROLES = roles()
SERVICE_MODULES = ("ansible.builtin.systemd_service", "ansible.builtin.systemd", "ansible.builtin.service")
CONDITIONALS = ("when", "failed_when", "changed_when", "until", "that")


def options_of(role):
    """Return every option of a role, over all its entry points."""
    specs = load_yaml(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    merged = {}
    for spec in specs.values():
        merged.update(spec.get("options", {}))
    return merged


def defaults_of(role):
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    return (load_yaml(path) or {}) if path.exists() else {}


def test_there_are_roles():
    assert ROLES


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_its_rooms(role):
    for name in ("README.md", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"):
        assert (ROOT / "roles" / role / name).is_file(), "roles/%s lacks %s" % (role, name)
    info = load_yaml(ROOT / "roles" / role / "meta" / "main.yml")["galaxy_info"]
    assert info["author"] == "gpufleet.llm maintainers"
    assert info["license"] == "GPL-3.0-or-later"
    assert info["description"]
    assert info["min_ansible_version"] == "2.19"


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_the_argument_specs(role):
    """Same inputs and defaults in both; null in defaults is none. What must be given has no default in either."""
    options, defaults = options_of(role), defaults_of(role)
    assert sorted(set(defaults) - set(options)) == [], "in defaults/main.yml only"
    wrong = []
    for name, option in options.items():
        if name not in defaults:
            if "default" in option:
                wrong.append("%s: default %r only in argument_specs" % (name, option["default"]))
        elif option.get("required"):
            wanted = isinstance(defaults[name], str) and re.fullmatch(r"\{\{ gpufleet_\w+ \}\}", defaults[name])
            if not wanted:
                wrong.append("%s: required, and has the default %r" % (name, defaults[name]))
        elif "default" not in option and defaults[name] is None:
            continue
        elif "default" not in option:
            wrong.append("%s: default %r only in defaults/main.yml" % (name, defaults[name]))
        elif option["default"] != defaults[name] or type(option["default"]) is not type(defaults[name]):
            wrong.append("%s: %r in argument_specs, %r in defaults" % (name, option["default"], defaults[name]))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
def test_inputs_are_typed_described_and_prefixed(role):
    wrong = []
    for name, option in options_of(role).items():
        if not name.startswith(role + "_"):
            wrong.append("%s: doesn't start %s_" % (name, role))
        if "type" not in option or not option.get("description"):
            wrong.append("%s: lacks a type or a description" % name)
        if option.get("type") == "list" and "elements" not in option:
            wrong.append("%s: a list without elements" % name)
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_lists_every_input(role):
    text = (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")
    assert [name for name in options_of(role) if "`%s`" % name not in text] == []


@pytest.mark.parametrize("role", ROLES)
def test_internal_names_are_marked(role):
    """Registers, loop variables, set facts and role variables start __role_; a fact that is an output is documented."""
    prefix = "__%s_" % role
    readme = ROOT / "roles" / role / "README.md"
    documented = readme.read_text(encoding="utf-8") if readme.exists() else ""
    wrong = []
    for path in sorted((ROOT / "roles" / role / "vars").glob("*.yml")):
        wrong += ["%s: %s" % (path.name, name) for name in load_yaml(path) or {} if not name.startswith(prefix)]
    for path in task_files():
        if path.parts[:2] != ("roles", role):
            continue
        for task in tasks_in(load_yaml(ROOT / path)):
            names = [task["register"]] if "register" in task else []
            names += [task.get("loop_control", {}).get("loop_var", "%sitem" % prefix)]
            names += [name for name in task.get("ansible.builtin.set_fact", {}) if name != "cacheable"]
            for name in names:
                output = name.startswith(role + "_") and "`%s`" % name in documented
                if not output and not name.startswith(prefix):
                    wrong.append("%s: %s" % (path, name))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
def test_collection_inputs_are_read_in_defaults_only(role):
    """Jinja in tasks, handlers, vars and templates reads the role's own inputs, never gpufleet_*."""
    wrong = []
    for path in tree_files("roles/%s/*/*" % role, "roles/%s/*/*/*" % role):
        if path.parts[2] not in ("tasks", "handlers", "vars", "templates"):
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        expressions = re.findall(r"\{\{.*?\}\}|\{%.*?%\}", text, re.DOTALL)
        if path.parts[2] in ("tasks", "handlers"):
            for task in tasks_in(load_yaml(ROOT / path)):
                for holder in (task, *(value for value in task.values() if isinstance(value, dict))):
                    expressions += [text for key in CONDITIONALS for text in strings_in(holder.get(key))]
        for expression in expressions:
            bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", expression)
            wrong += ["%s: %s" % (path, name) for name in re.findall(r"\bgpufleet_\w+", bare)]
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
def test_every_notification_is_heard(role):
    heard = set()
    for path in task_files():
        if path.parts[:3] == ("roles", role, "handlers"):
            for handler in tasks_in(load_yaml(ROOT / path)):
                listen = handler.get("listen", [])
                heard |= {handler.get("name")} | set([listen] if isinstance(listen, str) else listen)
    unheard = []
    for path in task_files():
        if path.parts[:2] == ("roles", role):
            for task in tasks_in(load_yaml(ROOT / path)):
                notify = task.get("notify", [])
                for topic in [notify] if isinstance(notify, str) else notify:
                    if topic not in heard:
                        unheard.append("%s: %s" % (path, topic))
    assert unheard == []


def test_task_files_are_short():
    long = []
    for path in task_files():
        lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        limit = 40 if path.match("roles/*/tasks/main.yml") else 120
        if lines > limit:
            long.append("%s: %d lines, at most %d" % (path, lines, limit))
    assert long == []


def test_main_is_a_table_of_contents():
    """tasks/main.yml imports, includes and flushes; it does nothing itself."""
    allowed = {"ansible.builtin.import_tasks", "ansible.builtin.include_tasks", "ansible.builtin.meta", "block"}
    wrong = []
    for role in ROLES:
        path = ROOT / "roles" / role / "tasks" / "main.yml"
        for task in tasks_in(load_yaml(path)) if path.exists() else []:
            if not allowed & set(task):
                wrong.append("%s: %s" % (role, task.get("name")))
    assert wrong == []


def test_nothing_swallows_a_failure():
    """No ignore_errors; failed_when: false only where the next task decides by what was registered; no empty proof."""
    wrong = []
    for path, task in every_task():
        where = "%s: %s" % (path, task.get("name"))
        if task.get("ignore_errors") or task.get("ignore_unreachable"):
            wrong.append(where + " ignores errors")
        that = task.get("ansible.builtin.assert", {}).get("that", "x")
        if any(
            str(claim).strip().lower() in ("true", "1 == 1") for claim in (that if isinstance(that, list) else [that])
        ):
            wrong.append(where + " asserts that true is true")
        hidden = any("ansible_check_mode" in text for text in strings_in(task.get("when")))
        if hidden and any(module in task for module in SERVICE_MODULES):
            wrong.append(where + " hides a service from check mode")
    for path in task_files():
        for siblings in task_lists_in(load_yaml(ROOT / path)):
            for task, following in zip(siblings, [*siblings[1:], {}]):
                if task.get("failed_when") is False or task.get("failed_when") == [False]:
                    decided = [key for key in (*CONDITIONALS, "ansible.builtin.assert", "loop") if key in following]
                    text = " ".join(part for key in decided for part in strings_in([following[key]]))
                    if task.get("register", "(nothing)") not in text:
                        wrong.append("%s: %s never fails and nothing decides after it" % (path, task.get("name")))
    assert wrong == []


def test_what_runs_on_the_control_node_does_not_become_root_there():
    """With --become (an AWX credential) a delegated task would: it must say become: false."""
    wrong = []
    for path, task in every_task():
        delegated = task.get("delegate_to") in ("localhost", "127.0.0.1")
        if delegated and path.parts[0] != "molecule" and task.get("become") is not False:
            wrong.append("%s: %s" % (path, task.get("name")))
    assert wrong == []


def test_no_fixed_path_in_tmp():
    wrong = []
    for path, task in every_task():
        if path.parts[0] == "roles":
            wrong += [
                "%s: %s" % (path, task.get("name"))
                for text in strings_in(task)
                if re.search(r"(^|[\s=:'\"])/tmp/", text)
            ]
    assert wrong == []
