#!/usr/bin/python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run inside a lab host: fail unless systemd is up with no failed unit on the suite named as argument."""

from __future__ import annotations

import platform
import subprocess
import sys


def say(*argv: str) -> str:
    """Return what a command prints, whatever its exit status."""
    return subprocess.run(argv, stdout=subprocess.PIPE, universal_newlines=True, check=False).stdout.strip()


def main(suite: str) -> "list[str]":
    """Return what isn't as it should be."""
    wrong = []
    state = say("systemctl", "is-system-running", "--wait")
    if state != "running":
        failed = say("systemctl", "list-units", "--state=failed", "--plain", "--no-legend")
        wrong.append("systemd is %s, failed units: %s" % (state, failed or "none"))
    found = platform.freedesktop_os_release()["VERSION_CODENAME"]
    if found != suite:
        wrong.append("the suite is %s, not %s" % (found, suite))
    return wrong


if __name__ == "__main__":
    problems = main(sys.argv[1])
    print("\n".join(problems) or "as it should be")
    sys.exit(1 if problems else 0)
