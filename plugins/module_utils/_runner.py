# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The narrow interface through which plugins touch a host, so that tests can stand in for it."""

from __future__ import annotations

import subprocess
import typing as t


class Runner(t.Protocol):
    """What reading code may ask of a host."""

    def run(self, argv: t.Sequence[str]) -> t.Tuple[int, str, str]:
        """Run a command without a shell; return exit status, stdout, stderr. 127 when it's absent."""

    def read(self, path: str) -> t.Optional[str]:
        """Return a text file's content, or None when it's absent or unreadable."""


class LocalRunner:
    """A Runner over this very host."""

    def __init__(self, timeout_seconds: float = 30.0) -> None:
        self.timeout_seconds = timeout_seconds

    def run(self, argv: t.Sequence[str]) -> t.Tuple[int, str, str]:
        try:
            done = subprocess.run(
                list(argv),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                timeout=self.timeout_seconds,
                check=False,
            )
        except FileNotFoundError as exc:
            return 127, "", str(exc)
        except subprocess.TimeoutExpired:
            return 124, "", "%s gave no answer in %s s" % (argv[0], self.timeout_seconds)
        return (
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )

    def read(self, path: str) -> t.Optional[str]:
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                return handle.read()
        except OSError:
            return None
