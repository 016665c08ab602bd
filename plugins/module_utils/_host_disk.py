# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Measure how fast a directory's disk reads in sequence, in a bounded time, without the page cache's help."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import time
import typing as t

CHUNK_BYTES = 4 * 1024 * 1024
LIMIT_BYTES = 64 * 1024 * 1024
WRITE_SECONDS = 0.12
READ_SECONDS = 0.12
# A read shorter than this says more about the start than about the disk.
LEAST_BYTES = 8 * 1024 * 1024
# Filesystems that are memory: a read rate there says nothing about a disk.
MEMORY_FILESYSTEMS = frozenset(["tmpfs", "ramfs"])

Measurement = t.Dict[str, t.Any]


def nothing_measured(reason: str) -> Measurement:
    """Return the record of a rate that wasn't measured, with the reason why."""
    return {"mib_per_second": None, "bytes": 0, "seconds": 0.0, "method": "none", "reason": reason}


def nearest_existing(path: str) -> str:
    """Return the path itself or the nearest parent that exists."""
    here = os.path.abspath(path)
    while not os.path.isdir(here):
        parent = os.path.dirname(here)
        if parent == here:
            break
        here = parent
    return here


def largest_file(directory: str, at_least_bytes: int = LEAST_BYTES) -> t.Optional[str]:
    """Return the largest regular file below a directory if it's big enough to be measured by."""
    best: t.Optional[str] = None
    best_bytes = at_least_bytes - 1
    for root, _directories, names in os.walk(directory):
        for name in names:
            path = os.path.join(root, name)
            with contextlib.suppress(OSError):
                if not os.path.islink(path) and os.path.isfile(path) and os.path.getsize(path) > best_bytes:
                    best, best_bytes = path, os.path.getsize(path)
    return best


def _read_rate(
    fd: int, size: int, buffer: mmap.mmap, clock: t.Callable[[], float], read_seconds: float
) -> t.Tuple[int, float]:
    """Read from the start until the file's end, the byte limit or the time limit; return bytes and seconds."""
    done = 0
    started = clock()
    while done < min(size, LIMIT_BYTES) and clock() - started < read_seconds:
        got = os.preadv(fd, [buffer], done)
        if got <= 0:
            break
        done += got
    return done, clock() - started


def _measurement(done: int, seconds: float, method: str) -> Measurement:
    if not done or seconds <= 0:
        return nothing_measured("nothing could be read")
    return {
        "mib_per_second": round(done / seconds / 1048576, 1),
        "bytes": done,
        "seconds": round(seconds, 4),
        "method": method,
        "reason": "",
    }


def _open_uncached(path: str) -> t.Tuple[int, str]:
    """Open a file for reading past the page cache; return the descriptor and how it's done."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT), "O_DIRECT"
    except OSError:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return fd, "posix_fadvise"


def measure_existing(
    path: str, clock: t.Callable[[], float] = time.monotonic, read_seconds: float = READ_SECONDS
) -> Measurement:
    """Measure by reading the beginning of a file that's there; writes nothing."""
    size = os.path.getsize(path)
    buffer = mmap.mmap(-1, CHUNK_BYTES)
    fd, how = _open_uncached(path)
    try:
        try:
            done, seconds = _read_rate(fd, size, buffer, clock, read_seconds)
        except OSError as exc:
            return nothing_measured("%s can't be read past the page cache: %s" % (path, exc))
    finally:
        os.close(fd)
        buffer.close()
    return _measurement(done, seconds, "existing file, %s" % how)


def _scratch(directory: str) -> int:
    """Return a descriptor of a file that has no name, so that nothing stays behind whatever happens."""
    try:
        return os.open(directory, os.O_RDWR | os.O_TMPFILE, 0o600)
    except (OSError, AttributeError):
        fd, path = tempfile.mkstemp(prefix=".gpufleet-read-rate-", dir=directory)
        os.unlink(path)
        return fd


def measure_scratch(
    directory: str,
    clock: t.Callable[[], float] = time.monotonic,
    write_seconds: float = WRITE_SECONDS,
    read_seconds: float = READ_SECONDS,
) -> Measurement:
    """Measure by a nameless file of at most 64 MiB: written for at most 0.12 s, read past the cache."""
    buffer = mmap.mmap(-1, CHUNK_BYTES)
    buffer.write(os.urandom(65536) * (CHUNK_BYTES // 65536))
    try:
        fd = _scratch(directory)
    except OSError as exc:
        buffer.close()
        return nothing_measured("no file can be made in %s: %s" % (directory, exc.strerror))
    path = "/proc/self/fd/%d" % fd
    try:
        how = "O_DIRECT"
        try:
            direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        except OSError:
            how = "posix_fadvise"
            direct = os.open(path, os.O_RDWR)
        try:
            size = 0
            started = clock()
            while size < LIMIT_BYTES and (size < LEAST_BYTES or clock() - started < write_seconds):
                size += os.pwritev(direct, [buffer], size)
                if clock() - started > 4 * write_seconds:
                    break
            if how == "posix_fadvise":
                os.fdatasync(direct)
                os.posix_fadvise(direct, 0, 0, os.POSIX_FADV_DONTNEED)
            done, seconds = _read_rate(direct, size, buffer, clock, read_seconds)
        except OSError as exc:
            return nothing_measured("a scratch file in %s can't be written or read: %s" % (directory, exc.strerror))
        finally:
            os.close(direct)
    finally:
        os.close(fd)
        buffer.close()
    return _measurement(done, seconds, "scratch file, %s" % how)


def recall(
    remembered: t.Optional[t.Mapping[str, t.Any]], device: str, now: float, maximum_age_seconds: float
) -> t.Optional[Measurement]:
    """Return a remembered measurement of the same device that's young enough, else None.

    Args:
        remembered: a Measurement with ``device`` and ``measured_at`` (seconds since the epoch).
        device: ``major:minor`` of the device asked about.
        now: seconds since the epoch.
        maximum_age_seconds: older ones don't count.
    """
    if not remembered or remembered.get("device") != device or not remembered.get("mib_per_second"):
        return None
    age = now - float(remembered.get("measured_at") or 0)
    if not 0 <= age <= maximum_age_seconds:
        return None
    kept = dict(remembered)
    kept["age_seconds"] = int(age)
    return kept


def read_rate(
    store: str,
    *,
    device: str,
    filesystem: str,
    free_bytes: int,
    may_write: bool,
    remembered: t.Optional[t.Mapping[str, t.Any]],
    now: float,
    maximum_age_seconds: float,
) -> Measurement:
    """Return the sequential read rate of the disk under the model store, measured or remembered.

    A remembered one of the same device wins; then a model file that's there; then, if writing is allowed, a nameless
    scratch file. Never raises: what can't be measured comes back as null with the reason.
    """
    kept = recall(remembered, device, now, maximum_age_seconds)
    if kept is not None:
        return kept
    if filesystem in MEMORY_FILESYSTEMS:
        result = nothing_measured("%s is memory, not a disk" % filesystem)
    else:
        existing = largest_file(store) if os.path.isdir(store) else None
        if existing is not None:
            try:
                result = measure_existing(existing)
            except OSError as exc:
                result = nothing_measured("%s can't be opened: %s" % (existing, exc.strerror))
        elif not may_write:
            result = nothing_measured("check mode writes nothing and the store holds no file to read")
        elif free_bytes < 4 * LIMIT_BYTES:
            result = nothing_measured("too little free disk for a scratch file")
        else:
            result = measure_scratch(nearest_existing(store))
    result["device"] = device
    result["measured_at"] = int(now)
    result["age_seconds"] = 0
    return result
