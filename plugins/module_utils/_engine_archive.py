# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""One hashed archive of an engine tree, built once and kept in a cache; runs on the control node."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_build as building
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_pip as pips
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_python as pythons

# Of the action, which does the work, and of the module, which documents it.
ARGUMENT_SPEC: t.Dict[str, t.Dict[str, t.Any]] = {
    "cache_dir": {"type": "path", "required": True},
    "version": {"type": "str", "required": True},
    "lock_file": {"type": "path", "required": True},
    "python_version": {"type": "str", "required": True},
    "python": {"type": "path"},
    "python_search": {"type": "list", "elements": "str", "default": []},
    "distributions": {"type": "list", "elements": "dict", "default": []},
    "headers": {"type": "bool", "default": False},
    "find_links": {"type": "list", "elements": "str", "default": []},
    "index_url": {"type": "str"},
    "extra_index_urls": {"type": "list", "elements": "str", "default": []},
    "instances": {"type": "list", "elements": "dict", "default": []},
}


def _normalise(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mtime = 0
    info.mode = 0o755 if info.isdir() or info.mode & stat.S_IXUSR else 0o644
    if info.issym():
        info.mode = 0o777
    return info


def pack_tree(tree: str, archive: str, progress: pips.Progress) -> t.Dict[str, t.Any]:
    """Write ``tree`` as a zstd-compressed tar in a fixed order, owned by root, without times.

    Returns:
        ``{sha256, size_bytes, unpacked_bytes, files}``.
    """
    zstd = shutil.which("zstd")
    if zstd is None:
        raise pythons.EngineError(
            "The control node has no zstd command, which packs the engine. Remedy: install the package zstd there."
        )
    digest = hashlib.sha256()
    size = files = unpacked = 0
    with open(archive, "wb") as out:
        child = subprocess.Popen(
            [zstd, "-q", "-T0", "-6", "-c"], stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL
        )
        pipe = t.cast("t.IO[bytes]", child.stdin)
        with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as tar:
            said = time.monotonic()
            for directory, names, plain in os.walk(tree):
                names.sort()
                links = [n for n in names if os.path.islink(os.path.join(directory, n))]
                relative = os.path.relpath(directory, tree)
                if relative != ".":
                    tar.add(directory, relative, recursive=False, filter=_normalise)
                for name in sorted(plain + links):
                    path = os.path.join(directory, name)
                    tar.add(path, os.path.normpath(os.path.join(relative, name)), recursive=False, filter=_normalise)
                    files += 1
                    unpacked += os.lstat(path).st_size
                    if time.monotonic() - said > 10:
                        said = time.monotonic()
                        progress("packed %d files, %d MiB" % (files, unpacked >> 20))
        pipe.close()
        if child.wait() != 0:
            raise pythons.EngineError(
                "zstd could not write %s (exit %d); is the disk full?" % (archive, child.returncode)
            )
        out.flush()
        os.fsync(out.fileno())
    with open(archive, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return {"sha256": digest.hexdigest(), "size_bytes": size, "unpacked_bytes": unpacked, "files": files}


def archive_paths(cache_dir: str, identity: str) -> t.Tuple[str, str]:
    """Return where the archive of an engine lies, and its description."""
    base = os.path.join(cache_dir, "engines", identity)
    return base + ".tar.zst", base + ".json"


def read_archive(cache_dir: str, identity: str, key: str) -> t.Optional[t.Dict[str, t.Any]]:
    """Return the description of a finished archive, or None when it must be built."""
    archive, description = archive_paths(cache_dir, identity)
    try:
        with open(description, encoding="utf-8") as handle:
            record: t.Dict[str, t.Any] = json.load(handle)
        if record.get("key") == key and os.stat(archive).st_size == record.get("size_bytes"):
            return record
    except (OSError, ValueError):
        return None
    return None


@contextlib.contextmanager
def locked(path: str, progress: pips.Progress) -> t.Iterator[None]:
    """Hold an exclusive lock on a file; say so when somebody else has it."""
    with open(path, "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            progress("another run is building this engine; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build(
    cache_dir: str, recipe: building.Recipe, env: t.Mapping[str, str], progress: pips.Progress
) -> t.Dict[str, t.Any]:
    """Return the description of the engine's archive, building it when the cache doesn't hold it.

    An interrupted build leaves a directory that the next one removes; the archive appears by a rename at the very end.

    Args:
        cache_dir: what can be made again; the archive goes to ``engines`` below it.
        recipe: what the engine is made of.
        env: the environment for pip.
        progress: is told how far it is.
    """
    key, identity = recipe.key, recipe.identity
    archive, description = archive_paths(cache_dir, identity)
    engines = os.path.dirname(archive)
    os.makedirs(engines, exist_ok=True)
    with locked(os.path.join(engines, identity + ".lock"), progress):
        record = read_archive(cache_dir, identity, key)
        if record is not None:
            return record
        free = shutil.disk_usage(engines).free
        if free < building.BUILD_BYTES:
            raise pythons.EngineError(
                "gpufleet_cache_dir: %s has %d MiB free, expected at least %d MiB to build an engine. "
                "Remedy: free space there, or point gpufleet_cache_dir at a larger disk."
                % (engines, free >> 20, building.BUILD_BYTES >> 20)
            )
        work = os.path.join(engines, identity + ".building")
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)
        started = time.monotonic()
        progress("building engine %s in %s (about 5 minutes)" % (identity, engines))
        pip = pips.Pip(sys.executable, env, os.path.join(engines, identity + ".log"))
        record = building.make_tree(work, recipe, pip, progress)
        progress("packing the tree (about a minute)")
        packed = pack_tree(os.path.join(work, "tree"), archive + ".partial", progress)
        os.replace(archive + ".partial", archive)
        record = dict(record, **packed)
        record["build_seconds"] = round(time.monotonic() - started, 1)
        building.write_json(description, record)
        shutil.rmtree(work, ignore_errors=True)
        progress("engine %s built in %d s, %d MiB" % (identity, record["build_seconds"], record["size_bytes"] >> 20))
        return record
