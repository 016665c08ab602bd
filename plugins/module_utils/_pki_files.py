# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Writes into a fleet's certificate directory: whole files only, for nobody else, one writer at a time.

Every file is written beside its name, synced and renamed: a writer that is killed leaves the old content or the new.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _file_lock

LOCK = ".lock"
# What tempfile makes of the prefix below.
UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}")


def make_directory(path: str) -> None:
    """Make a directory that is its owner's only, and its parents."""
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        if parent != path:
            os.makedirs(parent, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: str, content: bytes) -> bool:
    """Write a file, 0600. Returns whether its content changed; a file that holds it already isn't touched."""
    try:
        with open(path, "rb") as handle:
            if handle.read() == content:
                return False
    except FileNotFoundError:
        pass
    folder = os.path.dirname(path)
    descriptor, temporary = tempfile.mkstemp(prefix=".%s." % os.path.basename(path), dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_directory(folder)
    return True


def write_json(path: str, value: t.Mapping[str, t.Any]) -> bool:
    """Write a dictionary as JSON with sorted keys, 0600. Returns whether its content changed."""
    return write(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode("utf-8"))


def move(source: str, destination: str) -> None:
    """Rename a file over another one of the same directory, and have the disk know it."""
    os.replace(source, destination)
    _sync_directory(os.path.dirname(destination))


def remove(path: str) -> bool:
    """Remove a file. Returns whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    _sync_directory(os.path.dirname(path))
    return True


def sweep(directory: str) -> None:
    """Remove what killed writers left beside the names that they meant. Only for who holds the lock."""
    for folder, _directories, names in os.walk(directory):
        for name in names:
            if UNFINISHED.fullmatch(name):
                os.unlink(os.path.join(folder, name))


@contextlib.contextmanager
def locked(directory: str, timeout_seconds: float) -> t.Iterator[None]:
    """Hold the directory for writing; it is made if it isn't there.

    Raises:
        _file_lock.Held: somebody else wrote there for all of ``timeout_seconds``.
    """
    make_directory(directory)
    path = os.path.join(directory, LOCK)
    # The kernel drops the lock of a killed writer; the file stays, and is nobody else's either.
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    with _file_lock.locked(path, timeout_seconds):
        sweep(directory)
        yield
