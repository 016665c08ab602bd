# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the engine that ``playbooks/build_engine.yml`` built: unpacks it once, and talks to it a line at a time."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import typing as t
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Seconds that all questions of one call may take, the import of the engine among them.
TIMEOUT_SECONDS = 300
Answer = t.Dict[str, t.Any]


class NoEngine(RuntimeError):
    """There is no engine to ask."""


def cache_dir() -> Path:
    """Return the directory for what can be made again."""
    return Path(os.environ.get("GPUFLEET_CACHE_DIR") or "/var/cache/gpufleet")


def archive(version: str) -> Path:
    """Return the engine's archive.

    Raises:
        NoEngine: that version wasn't built.
    """
    found = sorted((cache_dir() / "engines").glob("%s-*.tar.zst" % version))
    if not found:
        raise NoEngine("no engine %s in %s; playbooks/build_engine.yml builds it" % (version, cache_dir() / "engines"))
    return found[-1]


def interpreter(version: str) -> Path:
    """Return the engine's Python, unpacked beside the archive's directory; once for all who ask."""
    source = archive(version)
    tree = cache_dir() / "oracle" / source.name[: -len(".tar.zst")]
    python = tree / "bin" / "python"
    if python.exists():
        return python
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (tree.parent / ("%s.lock" % tree.name)).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not python.exists():
            partial = tree.with_name(tree.name + ".partial")
            subprocess.run(["rm", "-rf", str(partial)], check=True)
            partial.mkdir()
            subprocess.run(["tar", "--zstd", "-xf", str(source), "-C", str(partial)], check=True)
            partial.rename(tree)
    return python


def ask(version: str, questions: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Answer]:
    """Return the engine's answers, in order.

    Raises:
        NoEngine: it wasn't built.
        AssertionError: it ended before it had answered all.
    """
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [str(interpreter(version)), str(HERE / "oracle_child.py")],
        input=lines,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env=environment,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert answers and answers[0].get("vllm") == version, "the engine says %r\n%s" % (answers[:1], done.stderr[-2000:])
    assert len(answers) == len(questions) + 1, "%d answers to %d questions\n%s" % (
        len(answers) - 1,
        len(questions),
        done.stderr[-2000:],
    )
    return answers[1:]
