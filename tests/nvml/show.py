#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints what the module gpu_state finds in each scenario of the stub, read by the real nvidia-ml-py.

Usage: tests/nvml/show.py [--remedies] [--all] [SCENARIO...]

Without --all only the checks that don't hold are printed. Each scenario is read by a process of its own that finds the
library by LD_LIBRARY_PATH, as a host finds it by ldconfig.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import conftest  # noqa: E402 - it is beside the directory that was just added
from nvml import build  # noqa: E402 - the same

conftest.pytest_configure()

TIMEOUT_SECONDS = 2.0


def read() -> None:
    """Print the record of the GPUs that this process's NVML has, as JSON."""
    from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_info, _runner

    print(json.dumps(_gpu_info.read_gpu_info("", _runner.LocalRunner(TIMEOUT_SECONDS), TIMEOUT_SECONDS)))


def findings_of(name: str, scratch: Path) -> tuple[dict[str, t.Any], list[dict[str, t.Any]]]:
    """Return what a scenario's GPUs are read as, and what is found about them."""
    from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_state

    scenario = build.install(scratch / name, name)
    done = subprocess.run(
        [sys.executable, __file__, "--read"],
        env={**os.environ, "LD_LIBRARY_PATH": str(scratch / name)},
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads(done.stdout)
    return record, _gpu_state.decide(record, scenario["expect"])


def where(finding: dict[str, t.Any]) -> str:
    """Return which GPU a finding is about, ``host`` where it is about all."""
    gpu = re.match(r"GPU \d+", finding["detail"])
    return gpu.group(0) if gpu else "host"


def rows_of(name: str, found: list[dict[str, t.Any]], everything: bool, remedies: bool) -> list[tuple[str, ...]]:
    """Return a scenario's rows: scenario, check, where, expected, found, and the remedy if asked for."""
    rows = []
    for finding in found:
        if finding["ok"] and not everything:
            continue
        mark = "ok" if finding["ok"] else finding["severity"]
        row = [name, mark, finding["check"], where(finding), finding["expected"], finding["found"]]
        rows.append(tuple(map(str, [*row, finding["remedy"]] if remedies else row)))
    return rows or [(name, "ok", "all %d checks" % len(found), *[""] * (4 if remedies else 3))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenario", nargs="*", help="all of them if none is named")
    parser.add_argument("--all", action="store_true", help="the checks that hold too")
    parser.add_argument("--remedies", action="store_true", help="with what a person does about it")
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read()
        return
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.scenario or build.names():
            _record, found = findings_of(name, Path(scratch))
            rows += rows_of(name, found, given.all, given.remedies)
    heads: tuple[str, ...] = ("scenario", "result", "check", "where", "expected", "found")
    heads += ("remedy",) if given.remedies else ()
    print("| %s |" % " | ".join(heads))
    print("|%s" % ("---|" * len(heads)))
    for row in rows:
        print("| %s |" % " | ".join(row))


if __name__ == "__main__":
    main()
