# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor with stand-ins for systemd-nspawn."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import time
import typing as t

SUPERVISOR = pathlib.Path(__file__).resolve().parents[3] / "roles" / "lab_host" / "files" / "supervise_host.py"
# Counts its runs in a file and ends as its arguments say, the last for ever.
STAND_IN = """
n=$(($(cat runs 2>/dev/null || echo 0) + 1)); echo $n > runs
shift $(($n < $# ? $n - 1 : $# - 1)); exit $1
"""


def supervise(directory: pathlib.Path, *statuses: int) -> "subprocess.CompletedProcess[str]":
    command: t.List[str] = ["sh", "-c", STAND_IN, "sh", *map(str, statuses)]
    return subprocess.run(
        [sys.executable, str(SUPERVISOR), str(directory), *command],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_reboot_starts_it_again_and_a_power_off_ends_it(tmp_path: pathlib.Path) -> None:
    done = supervise(tmp_path, 133, 133, 0)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "runs").read_text() == "3\n"
    assert (tmp_path / "boots").read_text() == "3\n"


def test_a_failure_is_not_tried_again(tmp_path: pathlib.Path) -> None:
    done = supervise(tmp_path, 1)
    assert done.returncode == 1
    assert (tmp_path / "runs").read_text() == "1\n"
    assert "ended with status 1" in done.stdout


def test_a_reboot_loop_ends(tmp_path: pathlib.Path) -> None:
    done = supervise(tmp_path, 133)
    assert done.returncode == 1
    assert "giving up" in done.stdout
    assert int((tmp_path / "runs").read_text()) == 10


def test_a_stop_is_passed_on_and_waited_for(tmp_path: pathlib.Path) -> None:
    script = "trap 'sleep 0.3; echo bye > said; exit 133' TERM; echo up > up; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [sys.executable, str(SUPERVISOR), str(tmp_path), "sh", "-c", script], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 10
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert (tmp_path / "said").read_text() == "bye\n"
    assert (tmp_path / "boots").read_text() == "1\n"
