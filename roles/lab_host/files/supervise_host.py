#!/usr/bin/env python3
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

REBOOT_STATUS = 133
BURST_LIMIT = 10
BURST_SECONDS = 30.0


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
    sys.exit(supervise(sys.argv[1], sys.argv[2:]))
