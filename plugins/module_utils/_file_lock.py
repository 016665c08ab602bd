# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""One change at a time: a lock on a file, which the kernel drops when its holder is killed.

A run that was interrupted on the control node may go on at the host for a while, and two runs may meet there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t

POLL_SECONDS = 0.2


class Held(Exception):
    """Somebody else had the lock for the whole time.

    Attributes:
        holder: the process id that the holder wrote down, ``unknown`` where there is none.
    """

    def __init__(self, path: str, holder: str) -> None:
        super().__init__("process %s holds %s" % (holder, path))
        self.holder = holder


@contextlib.contextmanager
def locked(path: str, timeout_seconds: float) -> t.Iterator[int]:
    """Hold the lock at ``path``, whose directory must exist; give its file descriptor.

    The lock is held as long as any process has the descriptor: a child that inherits it holds the lock on when its
    parent is killed.

    Raises:
        Held: somebody else had it for all of ``timeout_seconds``.
    """
    with open(path, "a+", encoding="utf-8") as handle:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    handle.seek(0)
                    raise Held(path, handle.read().strip() or "unknown") from None
                time.sleep(POLL_SECONDS)
        handle.seek(0)
        handle.truncate()
        handle.write("%d\n" % os.getpid())
        handle.flush()
        yield handle.fileno()
