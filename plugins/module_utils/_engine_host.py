# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Engine trees on a host: which are there, unpack one beside them, switch, prune."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import pwd
import shutil
import subprocess
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _file_lock

MANIFEST_NAME = "engine.json"
VERIFIED_NAME = ".verified.json"
INCOMING = ".incoming"
UNPACKING = ".unpacking"
LOCK_NAME = ".lock"

#: How long a run waits for another one that unpacks and tries an engine on the same host, in seconds.
LOCK_SECONDS = 300.0

#: Room that must be left on the disk after an engine has been unpacked, in bytes.
SPARE_BYTES = 512 << 20

SMOKE = "import vllm, torch"


class EngineTreeError(Exception):
    """A refusal or a failure that a person can act upon."""


def link_target(path: str) -> t.Optional[str]:
    """Return what a link points at, by its last name; None when there is no link."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return None


def verified(directory: str, key: str) -> bool:
    """Return whether a tree was unpacked whole from the archive with this key, and has run on this host."""
    try:
        with open(os.path.join(directory, VERIFIED_NAME), encoding="utf-8") as handle:
            return bool(json.load(handle).get("key") == key)
    except (OSError, ValueError):
        return False


def referenced(names: t.Sequence[str], patterns: t.Sequence[str]) -> t.Set[str]:
    """Return which of the names occur in any file that one of the glob patterns finds."""
    found: t.Set[str] = set()
    for pattern in patterns:
        for path in glob.glob(pattern):
            try:
                with open(path, encoding="utf-8", errors="replace") as handle:
                    text = handle.read()
            except OSError:
                continue
            found.update(name for name in names if "/%s/" % name in text)
    return found


def prunable(
    names: t.Sequence[str], current: t.Optional[str], previous: t.Optional[str], used: t.AbstractSet[str]
) -> t.List[str]:
    """Return which trees nobody needs: not current, not previous, and named in no unit."""
    return sorted(name for name in names if name not in (current, previous) and name not in used)


def trees(root: str) -> t.List[str]:
    """Return the names of the finished trees below ``root``."""
    try:
        names = os.listdir(root)
    except OSError:
        return []
    return sorted(
        name
        for name in names
        if not name.startswith(".")
        and not name.endswith(UNPACKING)
        and os.path.isdir(os.path.join(root, name))
        and not os.path.islink(os.path.join(root, name))
    )


def leftovers(root: str) -> t.List[str]:
    """Return what an interrupted run left below ``root``."""
    found = glob.glob(os.path.join(root, "*" + UNPACKING))
    found += glob.glob(os.path.join(root, INCOMING, "*"))
    return sorted(found)


@contextlib.contextmanager
def locked(root: str, timeout_seconds: float = LOCK_SECONDS) -> t.Iterator[int]:
    """Hold the lock of the trees below ``root``; give its file descriptor, see :func:`_file_lock.locked`.

    Raises:
        EngineTreeError: somebody else had it for all of ``timeout_seconds``.
    """
    os.makedirs(root, mode=0o755, exist_ok=True)
    path = os.path.join(root, LOCK_NAME)
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(_file_lock.locked(path, timeout_seconds))
        except _file_lock.Held as held:
            raise EngineTreeError(
                "%s: process %s has been working on the engines of this host for more than %d s. Remedy: see what it "
                "does (ps), wait for it, and run again. Nothing was changed." % (path, held.holder, timeout_seconds)
            ) from None
        yield descriptor


def remove(path: str) -> None:
    """Remove a file or a whole directory."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def read_models(models: t.Sequence[t.Mapping[str, t.Any]], check_mode: bool) -> t.Dict[str, str]:
    """Return the resolved directory of each model, by name; refuse one that can't be served.

    In check mode a model that isn't there yet is taken as about to come.
    """
    paths = {}
    faults = []
    for model in models:
        link = model["model_link"]
        real = os.path.realpath(link)
        if os.path.isfile(os.path.join(real, "config.json")):
            paths[model["model"]] = real
        elif check_mode and not os.path.exists(link):
            paths[model["model"]] = link
        else:
            what = "no config.json in it" if os.path.isdir(real) else "no such directory"
            faults.append(
                "model %s: found %s (%s), expected a model directory with config.json" % (model["model"], real, what)
            )
    if faults:
        raise EngineTreeError(
            "%s. Remedy: put the model there with the role model_store, from a source that has vLLM's format "
            "(config.json, safetensors, tokenizer). Nothing was changed." % "; ".join(faults)
        )
    return paths


def check_space(root: str, need_bytes: int, what: str = "archive and tree") -> None:
    """Refuse when what comes, such as the engine's archive and its tree, doesn't fit on the disk."""
    place = root
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    if free < need_bytes + SPARE_BYTES:
        raise EngineTreeError(
            "%s: found %d MiB free, expected %d MiB for the engine's %s. Remedy: free space on that file system, or "
            "mount a larger one at %s. Nothing was changed."
            % (place, free >> 20, (need_bytes + SPARE_BYTES) >> 20, what, root)
        )


def prepare(root: str, remote_user: t.Optional[str]) -> str:
    """Make the directory into which the archive is sent, owned by whoever sends it; return its path."""
    incoming = os.path.join(root, INCOMING)
    os.makedirs(incoming, mode=0o755, exist_ok=True)
    os.chmod(incoming, 0o700)
    owner = os.environ.get("SUDO_UID")
    if owner is None and remote_user:
        try:
            owner = str(pwd.getpwnam(remote_user).pw_uid)
        except KeyError:
            owner = None
    os.chown(incoming, int(owner or os.geteuid()), -1)
    if int(owner or 0) != 0:
        os.chmod(root, 0o755)
    return incoming


def sha256_of(path: str) -> str:
    """Return the sha256 of a file, as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def unpack(root: str, identity: str, key: str, archive: str, sha256: str) -> None:
    """Verify an archive, unpack it beside the other trees, try it on this host, and only then give it its name."""
    found = sha256_of(archive)
    if found != sha256:
        raise EngineTreeError(
            "The engine's archive arrived with sha256 %s, expected %s. Remedy: run again; if it happens again, "
            "the link or the disk of this host damages data. The engine that was there is untouched." % (found, sha256)
        )
    for tool in ("tar", "zstd"):
        if shutil.which(tool) is None:
            raise EngineTreeError("No %s on this host. Remedy: install the package %s." % (tool, tool))
    target = os.path.join(root, identity)
    work = target + UNPACKING
    remove(work)
    os.makedirs(work, mode=0o755)
    os.chmod(work, 0o755)
    done = subprocess.run(
        ["tar", "--use-compress-program=zstd", "--no-same-owner", "-xpf", archive, "-C", work],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        remove(work)
        raise EngineTreeError(
            "tar could not unpack the engine (exit %d): %s"
            % (done.returncode, done.stderr.decode("utf-8", "replace")[-400:])
        )
    with open(os.path.join(work, MANIFEST_NAME), encoding="utf-8") as handle:
        manifest = json.load(handle)
    if manifest.get("key") != key:
        remove(work)
        raise EngineTreeError("The archive holds engine %s, expected %s." % (manifest.get("engine_id"), identity))
    try_tree(work)
    adopt(work, target, {"key": key, "sha256": sha256})


def adopt(tree: str, target: str, mark: t.Mapping[str, str]) -> None:
    """Give a tree that has run on this host its name, with the mark by which :func:`verified` knows it."""
    with open(os.path.join(tree, VERIFIED_NAME), "w", encoding="utf-8") as handle:
        json.dump(dict(mark), handle)
    # A crash after the rename must not leave a tree with holes under a good name.
    os.sync()
    remove(target)
    os.rename(tree, target)


def try_tree(tree: str) -> None:
    """Import the engine from a tree; what is missing on the host shows here, and not in a restart loop."""
    done = subprocess.run(
        [os.path.join(tree, "bin", "python3"), "-I", "-B", "-c", SMOKE],
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "HOME": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        last = done.stdout.decode("utf-8", "replace").strip().splitlines()[-4:]
        remove(tree)
        raise EngineTreeError(
            "The engine doesn't import on this host (exit %d): %s. Remedy: if a shared library is named, install the "
            "package that has it and add it to the release's package list. The engine that was there is untouched."
            % (done.returncode, " | ".join(last))
        )


def switch_link(path: str, target: str) -> None:
    """Point a link at ``target``, atomically."""
    temporary = path + ".new"
    remove(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, path)


def serve_from(root: str, identity: str, patterns: t.Sequence[str], changed: bool) -> t.Tuple[bool, t.List[str]]:
    """Make a tree the current one, and remove those that nobody needs when anything changed.

    Args:
        root: where the trees are.
        identity: name of the tree.
        patterns: glob patterns of the files that name trees still in use.
        changed: whether the tree is new.

    Returns:
        Whether anything changed, and the names of the trees that were removed.
    """
    changed = switch(root, identity) or changed
    pruned: t.List[str] = []
    if changed:
        names = trees(root)
        current, previous = (link_target(os.path.join(root, link)) for link in ("current", "previous"))
        pruned = prunable(names, current, previous, referenced(names, patterns))
        for name in pruned:
            remove(os.path.join(root, name))
    return changed, pruned


def switch(root: str, identity: str) -> bool:
    """Make a tree the current one and remember the one before; return whether that changed anything."""
    current = link_target(os.path.join(root, "current"))
    if current == identity:
        return False
    if current and os.path.isdir(os.path.join(root, current)):
        switch_link(os.path.join(root, "previous"), current)
    switch_link(os.path.join(root, "current"), identity)
    return True
