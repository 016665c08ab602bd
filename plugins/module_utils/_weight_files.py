# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""A model's files where they lie in a directory: whole or in pieces, and only those below it."""

from __future__ import annotations

import os
import stat
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import path_problem
from ansible_collections.gpufleet.llm.plugins.module_utils._weight_record import refuse, shown


class LocalFiles:
    """The files of a directory. Links are followed: a hub cache's snapshot is made of them.

    Args:
        directory: the model's directory.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.where = directory

    def names(self) -> t.List[str]:
        """Return the names at the top, where an engine looks.

        Raises:
            ModelError: there is no such directory.
        """
        try:
            return sorted(entry.name for entry in os.scandir(self.directory) if not entry.name.startswith("."))
        except OSError as exc:
            raise refuse(
                "directory",
                expected="a directory that can be read",
                found=str(exc.strerror),
                where=self.directory,
                remedy="Name the directory that holds config.json and the weights.",
            ) from None

    def _path(self, name: str) -> str:
        problem = path_problem(name)
        if problem:
            raise refuse(
                "path",
                expected="a file below the model's directory",
                found=shown(name, 120),
                where=self.directory,
                detail="%s." % (problem[0].upper() + problem[1:]),
            )
        return os.path.join(self.directory, name)

    def size(self, name: str) -> t.Optional[int]:
        """Return a regular file's size in bytes, None where there is none."""
        try:
            found = os.stat(self._path(name))
        except (OSError, ValueError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, name: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``.

        Raises:
            ModelError: the file can't be read.
        """
        try:
            with open(self._path(name), "rb") as handle:
                handle.seek(start)
                return handle.read(length)
        except OSError as exc:
            raise refuse(
                "unreadable",
                expected="a file that can be read",
                found=str(exc.strerror),
                where="%s of %s" % (name, self.directory),
                remedy="Mend its owner or mode, or the disk.",
            ) from None
