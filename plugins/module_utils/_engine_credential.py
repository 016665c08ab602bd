# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The engine's key on a host: one file for the engine, one for the proxy."""

from __future__ import annotations

import os
import secrets
import stat
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._engine_plan import api_key_fault


def new_key() -> str:
    """Return a fresh key: 32 random bytes as hexadecimal digits."""
    return "sk-" + secrets.token_hex(32)


def key_path(directory: str, instance: str) -> str:
    """Return the file that systemd gives to the engine."""
    return os.path.join(directory, instance + ".api_key")


def header_path(directory: str, instance: str) -> str:
    """Return the file that the proxy includes."""
    return os.path.join(directory, instance + ".authorization.conf")


def header_line(key: str) -> str:
    """Return what the proxy includes to speak to the engine."""
    return 'proxy_set_header Authorization "Bearer %s";\n' % key


def read(path: str) -> t.Optional[str]:
    """Return a file's content, or None when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def write(path: str, text: str) -> None:
    """Replace a secret file atomically; at no moment does anybody but its owner read it."""
    temporary = path + ".new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def private(path: str, mode: int) -> bool:
    """Return whether a path belongs to this account and has exactly this mode."""
    found = os.lstat(path)
    return stat.S_IMODE(found.st_mode) == mode and found.st_uid == os.geteuid() and found.st_gid == os.getegid()


def converge(directory: str, instances: t.Sequence[str], given: t.Optional[str], dry: bool) -> t.Dict[str, t.List[str]]:
    """Have both files for every instance.

    Returns:
        ``touched``: paths that were not as they should be; ``rekeyed``: instances whose key is another one now.
    """
    touched: t.List[str] = []
    rekeyed: t.List[str] = []
    if not os.path.isdir(directory) or not private(directory, 0o700):
        touched.append(directory)
        if not dry:
            os.makedirs(os.path.dirname(directory), mode=0o755, exist_ok=True)
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.chown(directory, os.geteuid(), os.getegid())
            os.chmod(directory, 0o700)
    for instance in instances:
        path = key_path(directory, instance)
        present = read(path)
        good = present is not None and api_key_fault(present) is None
        key = given if given is not None else (present if good and present is not None else new_key())
        if key != present:
            rekeyed.append(instance)
        for file_path, text in ((path, key), (header_path(directory, instance), header_line(key))):
            if read(file_path) == text and private(file_path, 0o600):
                continue
            touched.append(file_path)
            if not dry:
                write(file_path, text)
    return {"touched": touched, "rekeyed": rekeyed}
