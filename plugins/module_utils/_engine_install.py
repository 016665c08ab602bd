# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Build an engine's tree on the very host that serves it, beside the others."""

from __future__ import annotations

import json
import os
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_build as building
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_host as host
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_pip as pips
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_python as pythons

THIS_HOST = "this host"

#: How long a run waits for another one that builds an engine on the same host, in seconds.
LOCK_SECONDS = 3600.0

#: Wheels that were fetched and the tree that is made of them, as a multiple of the tree.
BUILD_FACTOR = 2


def refuse_secret_links(find_links: t.Sequence[str]) -> None:
    """Refuse a wheel directory with a password in its address: only index addresses are kept out of every log.

    Raises:
        _engine_python.EngineError: one has a user part.
    """
    bad = [pips.redact_urls(link) for link in find_links if pips.redact_urls(link) != link]
    if bad:
        raise pythons.EngineError(
            "vllm_engine_find_links: found %s with a user part, expected addresses without. Remedy: name that place in "
            "vllm_engine_index_url or vllm_engine_extra_index_urls, which no log shows, or use a directory of the host."
            % ", ".join(bad)
        )


def needed_bytes(disk_bytes: int) -> int:
    """Return the free space that a build takes.

    Args:
        disk_bytes: size of the finished tree, 0 where the release doesn't say it.
    """
    return BUILD_FACTOR * disk_bytes if disk_bytes else building.BUILD_BYTES


def known_arguments(tree: str) -> t.List[str]:
    """Return the arguments that the engine of a verified tree knows."""
    with open(os.path.join(tree, building.ARGUMENTS_NAME), encoding="utf-8") as handle:
        names: t.List[str] = json.load(handle)["arguments"]
    return names


def install(root: str, recipe: building.Recipe, env: t.Mapping[str, str], lock_descriptor: int) -> float:
    """Build a tree beside the others, try it, and only then give it its name; return how many seconds that took.

    Args:
        root: where the trees are.
        recipe: what it is made of.
        env: the environment for pip, see :func:`_engine_pip.pip_environment`.
        lock_descriptor: of the lock of the trees, which pip holds on when this process is killed.

    Raises:
        _engine_python.EngineError: it can't be built; no tree of that name is there, and the log of pip is kept.
    """
    started = time.monotonic()
    target = os.path.join(root, recipe.identity)
    work = target + host.UNPACKING
    log = target + ".log"
    for left in host.leftovers(root):
        host.remove(left)
    temporary = os.path.join(work, "tmp")
    os.makedirs(temporary)
    try:
        pip = pips.Pip(
            python=recipe.python["path"],
            # Everything that pip writes is below the directory that the next run removes.
            env=dict(env, TMPDIR=temporary, PIP_NO_CACHE_DIR="1"),
            log=log,
            where=THIS_HOST,
            keep_open=lock_descriptor,
        )
        building.make_tree(work, recipe, pip, lambda _message: None)
        host.adopt(os.path.join(work, "tree"), target, {"key": recipe.key})
        host.remove(log)
    finally:
        host.remove(work)
    return round(time.monotonic() - started, 1)
