#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Interrupt `make demo` again and again, then let it end: it has to get there, and then change nothing.

Not part of `make test`; run it with `make test-interrupted`. It removes the demo first and keeps the caches. Exit
status 0 when an interrupt ended each run within ENDS_WITHIN_SECONDS, and the runs at the end succeeded.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = (2, 4, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50)
ENDS_WITHIN_SECONDS = 10
RUN_LIMIT_SECONDS = 900


def start(target: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["make", *target.split()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def interrupted(seconds: int) -> bool:
    """Run the demo for some seconds, interrupt its process group as a terminal does; return whether that was fine."""
    child = start("demo")
    try:
        said, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGINT)
    else:
        print(f"after {seconds} s: it had ended by itself with {child.returncode}", flush=True)
        if child.returncode != 0:
            print(said[-4000:])
        return child.returncode == 0
    began = time.monotonic()
    said, _ = child.communicate(timeout=RUN_LIMIT_SECONDS)
    took = time.monotonic() - began
    steps = [line.strip("* ") for line in said.splitlines() if line.startswith(("TASK [", "[")) and "]" in line]
    print(
        f"interrupted after {seconds} s, ended {took:.1f} s later, in: {steps[-1] if steps else '(nothing yet)'}",
        flush=True,
    )
    return took <= ENDS_WITHIN_SECONDS


def whole() -> tuple[bool, int]:
    """Let the demo end; return whether it succeeded, and how many changes it made."""
    began = time.monotonic()
    child = start("demo")
    said, _ = child.communicate(timeout=RUN_LIMIT_SECONDS)
    changes = sum(int(number) for number in re.findall(r"changed=(\d+)", said))
    print(f"a whole run: exit {child.returncode}, {changes} changes, {time.monotonic() - began:.0f} s", flush=True)
    if child.returncode != 0:
        print(said[-4000:])
    return child.returncode == 0, changes


def main() -> int:
    start("demo-down KEEP_CACHE=1").communicate(timeout=RUN_LIMIT_SECONDS)
    fine = [interrupted(seconds) for seconds in SECONDS]
    first, _changes = whole()
    second, changes = whole()
    return 0 if all(fine) and first and second and changes == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
