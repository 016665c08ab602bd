# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Run package managers on this host, see who holds their locks, and wait."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import finding
from ansible_collections.gpufleet.llm.plugins.module_utils._package_plan import PackageError
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner, Runner

ENVIRONMENT = {
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBIAN_PRIORITY": "critical",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_SUSPEND": "1",
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# struct flock where file offsets have 64 bits: type, whence, start, length, pid.
FLOCK = "hhqqi4x"
POLL_SECONDS = 1.0
SHOWN_ARGUMENTS = 4


class PackageHost(Runner, t.Protocol):
    """A Runner that can also list directories, see locks and wait."""

    def names(self, path: str) -> t.List[str]:
        """Return the names in a directory, an empty list when it can't be read."""

    def lock_holder(self, path: str) -> t.Optional[int]:
        """Return the process id that holds a POSIX lock on a file, None when nobody does."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class LocalPackageHost(LocalRunner):
    """This very host.

    A command has no deadline, gets a session of its own and writes into a file: when this process is killed in the
    middle, a transaction that has begun still comes to its end, as its output has a place to go.
    """

    def run(self, argv: t.Sequence[str]) -> t.Tuple[int, str, str]:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                done = subprocess.run(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=ENVIRONMENT,
                    start_new_session=True,
                    check=False,
                )
            except FileNotFoundError as exc:
                return 127, "", str(exc)
            out.seek(0)
            err.seek(0)
            return done.returncode, out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")

    def names(self, path: str) -> t.List[str]:
        try:
            return sorted(os.listdir(path))
        except OSError:
            return []

    def lock_holder(self, path: str) -> t.Optional[int]:
        try:
            with open(path, "rb") as handle:
                asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                answer = struct.unpack(FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
        except OSError:
            return None
        return None if answer[0] == fcntl.F_UNLCK else int(answer[4])

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def who(host: PackageHost, pid: int) -> str:
    """Return a process as a person knows it: its id and the beginning of its command."""
    words = [word for word in (host.read("/proc/%d/cmdline" % pid) or "").split("\0") if word]
    command = " ".join(words[:SHOWN_ARGUMENTS]) or (host.read("/proc/%d/comm" % pid) or "").strip()
    return "process %d (%s)" % (pid, command or "gone, or of another process namespace")


def cloud_init_runs(host: PackageHost) -> bool:
    """Tell by its files whether cloud-init, which installs packages too, has still to end."""
    if "cloud-init" not in host.names("/usr/bin") or "cloud-init.disabled" in host.names("/etc/cloud"):
        return False
    state = host.names("/run/cloud-init")
    return bool(state) and "disabled" not in state and "result.json" not in state


class Deadline:
    """What is left of one limit that all waiting of a run shares."""

    def __init__(self, host: PackageHost, seconds: float) -> None:
        self.host, self.limit = host, seconds
        self.end = host.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, 0 when it's over."""
        return max(0.0, self.end - self.host.monotonic())

    def wait(self, busy: t.Callable[[], str]) -> t.List[str]:
        """Wait until ``busy`` says nothing more; return what was waited for.

        Raises:
            PackageError: the limit is over; it says who is in the way.
        """
        waited: t.List[str] = []
        while True:
            reason = busy()
            if not reason:
                return waited
            if reason not in waited:
                waited.append(reason)
            if self.left() <= 0:
                raise PackageError([locked_finding(reason, self.limit)])
            self.host.sleep(min(POLL_SECONDS, self.left()))


def locked_finding(reason: str, limit: float) -> t.Dict[str, t.Any]:
    """Return the finding of a lock that wasn't given up in time."""
    return finding(
        "package.lock",
        False,
        expected="the package manager free within %g s (lock_timeout_seconds)" % limit,
        found=reason,
        detail="Nothing was changed.",
        remedy="Let it end, or stop it its own way (systemctl stop apt-daily-upgrade.service), run again.",
    )


def busy_reason(host: PackageHost, locks: t.Sequence[str]) -> str:
    """Return who has one of the locks or has still to install packages; empty when nobody does."""
    if cloud_init_runs(host):
        return "cloud-init still runs (/run/cloud-init/result.json isn't there)"
    for path in locks:
        pid = host.lock_holder(path)
        if pid is not None:
            return "%s is held by %s" % (path, who(host, pid))
    return ""
