#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a play until it changes nothing, then count the tasks and seconds of that run on each host.

  no_change.py INVENTORY PLAYBOOK

Fails above the limits; above that of seconds only where the machine had nothing else to do. Tasks are all that the
recap counts, skipped ones too. Seconds are of the whole command, with the start of Ansible, one host at a time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

MAXIMUM_TASKS, MAXIMUM_SECONDS = 12, 5.0
QUIET = 0.7  # processes that want a processor, for each that there is
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=0\s+failed=0\s+skipped=(\d+)", re.MULTILINE)


def play(inventory: str, playbook: str, *options: str) -> tuple[dict[str, tuple[int, int]], float]:
    """Return ``{host: (tasks, changes)}`` and seconds."""
    began = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", inventory, playbook, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
    )
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    counted = RECAP.findall(done.stdout)
    return {host: (int(ok) + int(skipped), int(changed)) for host, ok, changed, skipped in counted}, seconds


def main() -> None:
    inventory, playbook = sys.argv[1:]
    hosts, _seconds = play(inventory, playbook)
    wrong = []
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    for host in sorted(hosts):
        runs = [play(inventory, playbook, "--limit", host) for _run in range(3)]
        tasks = max(found[host][0] for found, _took in runs)
        changes = max(found[host][1] for found, _took in runs)
        seconds = sorted(took for _found, took in runs)[1]
        print("%s: %d tasks, %d changed, %.1f s (the middle of three runs)" % (host, tasks, changes, seconds))
        if tasks > MAXIMUM_TASKS or changes or (seconds > MAXIMUM_SECONDS and busy < QUIET):
            wrong.append(host)
    print("load when it began: %.1f a processor" % busy)
    if wrong or not hosts:
        sys.exit("above %d tasks, %.0f s, or changed: %s" % (MAXIMUM_TASKS, MAXIMUM_SECONDS, wrong or "no host"))


if __name__ == "__main__":
    main()
