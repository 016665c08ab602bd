# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the contract, packaging and AWX tests share: the files of the tree, its YAML, its tasks, a clean copy."""

from __future__ import annotations

import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
TASK_LISTS = ("block", "rescue", "always")


class _Loader(yaml.SafeLoader):
    """Reads Ansible's own tags as plain text."""


_Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def load_yaml(path: Path) -> t.Any:
    """Return a YAML file's content; None for an empty file."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)


def tree_files(*patterns: str) -> list[Path]:
    """Return the files of the tree, relative to its root: what git tracks, and what it neither tracks nor ignores.

    With patterns (as of ``Path.match``), only those that match one of them.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    found = [Path(name) for name in sorted(listed.split("\0")) if name and (ROOT / name).exists()]
    return [path for path in found if not patterns or any(path.match(pattern) for pattern in patterns)]


def text_files() -> t.Iterator[tuple[Path, str]]:
    """Yield every text file of the tree with its content; links are left out."""
    for path in tree_files():
        full = ROOT / path
        if full.is_symlink() or full.is_dir():
            continue
        try:
            yield path, full.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def export_tree(target: Path) -> None:
    """Copy the files of the tree, links as links, to a new directory."""
    for path in tree_files():
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, place, follow_symlinks=False)


def roles() -> list[str]:
    """Return the names of the roles."""
    return (
        sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir()) if (ROOT / "roles").is_dir() else []
    )


def tasks_in(content: t.Any) -> t.Iterator[dict[str, t.Any]]:
    """Yield every task of a list of tasks, those in blocks too."""
    for siblings in task_lists_in(content):
        yield from siblings


def task_lists_in(content: t.Any) -> t.Iterator[list[dict[str, t.Any]]]:
    """Yield every list of sibling tasks: the outer one, and those of blocks."""
    if not isinstance(content, list):
        return
    siblings = [task for task in content if isinstance(task, dict)]
    yield siblings
    for task in siblings:
        for key in TASK_LISTS:
            yield from task_lists_in(task.get(key))


def plays_of(path: Path) -> list[dict[str, t.Any]]:
    """Return the plays of a playbook."""
    return [play for play in load_yaml(path) or [] if isinstance(play, dict)]


def task_files() -> list[Path]:
    """Return every file of tasks or handlers in roles and playbooks, relative to the root."""
    wanted = re.compile(r"^(roles/[^/]+/(tasks|handlers)/.+|playbooks/tasks/.+)\.yml$")
    return [path for path in tree_files("*.yml") if wanted.match(str(path))]


def every_task() -> t.Iterator[tuple[Path, dict[str, t.Any]]]:
    """Yield every task of roles, playbooks and scenarios, with the file it is in."""
    for path in task_files():
        for task in tasks_in(load_yaml(ROOT / path)):
            yield path, task
    for path in tree_files("playbooks/*.yml", "molecule/*/*.yml", "*.yml"):
        content = load_yaml(ROOT / path) if re.match(r"^(playbooks|molecule/[^/]+)/[^/]+\.yml$", str(path)) else None
        for play in content if isinstance(content, list) else []:
            if isinstance(play, dict) and "hosts" in play:
                for key in ("pre_tasks", "tasks", "post_tasks", "handlers"):
                    for task in tasks_in(play.get(key)):
                        yield path, task


def strings_in(value: t.Any) -> t.Iterator[str]:
    """Yield every string in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)
