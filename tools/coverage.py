#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the tests that need no host under coverage, children included, and hold statements and branches to the limit.

  tools/coverage.py [PYTEST-ARGUMENT...]     all of the unit, golden and accuracy tests without an argument

What is measured, and the limit, is in pyproject.toml below tool.coverage. coverage itself compares the sum of
statements and branches with its limit; here each is compared, so that many easy statements can't hide branches that
nothing took.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
COVERAGE = [sys.executable, "-m", "coverage"]
TESTS = ["-n", "2", "-m", "not oracle", "tests/unit", "tests/golden", "tests/accuracy"]
KINDS = (("statements", "covered_lines", "num_statements"), ("branches", "covered_branches", "num_branches"))


def main() -> None:
    """Run, report, and exit with 1 below the limit."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]
    data = (ROOT / settings["run"]["data_file"]).parent
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    tests = sys.argv[1:] or TESTS
    done = subprocess.run([*COVERAGE, "run", "-m", "pytest", "-q", *tests], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit("the tests failed: their coverage says nothing")
    # A child that a test killed leaves half a file, which is passed over.
    combine = subprocess.run(
        [*COVERAGE, "combine", "--quiet"], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False
    )
    if combine.returncode:
        sys.exit("the measurements can't be combined: %s" % combine.stderr)
    subprocess.run([*COVERAGE, "report", "--fail-under=0"], cwd=ROOT, check=True)
    told = data / "coverage.json"
    subprocess.run([*COVERAGE, "json", "--quiet", "--fail-under=0", "-o", os.fspath(told)], cwd=ROOT, check=True)
    measured, limit = json.loads(told.read_text(encoding="utf-8")), settings["report"]["fail_under"]
    names = {Path(path).name for path in measured["files"]}
    unseen = sorted(p.name for p in (ROOT / "plugins/module_utils").glob("_*.py") if p.name not in names)
    if unseen:
        sys.exit("no test imports %s" % ", ".join(unseen))
    totals, low = measured["totals"], []
    for kind, covered, there in KINDS:
        percent = 100 * totals[covered] / totals[there]
        print("%s: %d of %d = %.2f %%, at least %s %%" % (kind, totals[covered], totals[there], percent, limit))
        if percent < limit:
            low.append(kind)
    if low:
        sys.exit("below %s %%: %s" % (limit, ", ".join(low)))


if __name__ == "__main__":
    main()
