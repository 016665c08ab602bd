# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep one lab host running: start systemd-nspawn, start it again when the host reboots, pass a stop on.

Usage: supervise_host.py HOST_DIRECTORY COMMAND...

systemd-nspawn ends with 133 when the host inside asks for a reboot and with 0 when it powers off. Whatever else it
ends with is a failure: it's said in the log and not tried again. SIGTERM here becomes SIGTERM there, which is an
orderly power-off. ``boots`` in the host's directory holds how often the host was started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
import typing as t

CGROUPS = "/sys/fs/cgroup"
REBOOT_STATUS = 133
BURST_LIMIT = 10
BURST_SECONDS = 30.0


def own_cgroups(name: str) -> t.List[str]:
    """Return the host's own group in every hierarchy that systemd inside uses.

    Without them all hosts share one tree: two that run a unit of the same name see, count and kill each other's
    processes. Where systemd is PID 1 here, the host runs as a unit of its own, which is such a group already.
    """
    if os.path.isdir("/run/systemd/system"):
        return []
    named = [os.path.join(CGROUPS, hierarchy) for hierarchy in ("systemd", "unified")]
    roots = [path for path in named if os.path.exists(os.path.join(path, "cgroup.procs"))]
    if not roots and os.path.exists(os.path.join(CGROUPS, "cgroup.procs")):
        roots = [CGROUPS]
    return [os.path.join(root, "gpufleet-lab", name) for root in roots]


def enter(groups: t.Sequence[str]) -> None:
    """Make the groups and move this process, and so every later child, into them."""
    for group in groups:
        os.makedirs(group, exist_ok=True)
        with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as handle:
            handle.write("%d\n" % os.getpid())


def leave(groups: t.Sequence[str]) -> None:
    """Move this process back to the roots and remove the groups; what still runs in one is said and left."""
    for group in groups:
        parent = os.path.dirname(group)
        with open(os.path.join(os.path.dirname(parent), "cgroup.procs"), "w", encoding="ascii") as handle:
            handle.write("%d\n" % os.getpid())
        for path, _folders, _files in os.walk(group, topdown=False):
            try:
                os.rmdir(path)
            except OSError as exc:
                say("can't remove %s: %s" % (path, exc))
        try:
            os.rmdir(parent)
        except OSError:
            pass  # another host's group is still in it


def too_many(starts: t.Sequence[float]) -> bool:
    """Say whether the newest start is one of more than BURST_LIMIT within BURST_SECONDS."""
    return len(starts) > BURST_LIMIT and starts[-1] - starts[-1 - BURST_LIMIT] < BURST_SECONDS


def say(text: str) -> None:
    """Write one line to the log, which is this process's standard output."""
    print("%s supervise_host: %s" % (time.strftime("%Y-%m-%dT%H:%M:%S%z"), text), flush=True)


def count_boot(directory: str, number: int) -> None:
    """Write the number of starts so that a reader never sees half of it."""
    path = os.path.join(directory, "boots")
    with open(path + ".new", "w", encoding="ascii") as handle:
        handle.write("%d\n" % number)
    os.replace(path + ".new", path)


def supervise(directory: str, command: t.Sequence[str]) -> int:
    """Run the host until it powers off, is told to stop, or fails; return an exit status."""
    child: t.Optional[subprocess.Popen[bytes]] = None
    stopping = False

    def stop(_number: int, _frame: t.Optional[types.FrameType]) -> None:
        nonlocal stopping
        stopping = True
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    starts: t.List[float] = []
    while not stopping:
        starts.append(time.monotonic())
        if too_many(starts):
            say("the host rebooted more than %d times in %d s: giving up" % (BURST_LIMIT, BURST_SECONDS))
            return 1
        # The signal must not fall between the start of the child and its being known here.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT}) and None,
        )
        count_boot(directory, len(starts))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        status = child.wait()
        say("start %d ended with status %d%s" % (len(starts), status, ", as told" if stopping else ""))
        if status != REBOOT_STATUS:
            return 0 if stopping or status == 0 else 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    own = own_cgroups(os.path.basename(os.path.abspath(sys.argv[1])) + "-%d" % os.getpid())
    enter(own)
    try:
        ended = supervise(sys.argv[1], sys.argv[2:])
    finally:
        leave(own)
    sys.exit(ended)
