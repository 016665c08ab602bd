# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/release_check.py, run as `make release-check` runs it: what it prints, and when it fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import yaml

ID = "2026.11.0"
LEGACY = "2026.11.1"


@pytest.fixture
def copied(root, tmp_path):
    """A copy of the releases, and a function that rewrites one of them."""
    place = tmp_path / "releases"
    shutil.copytree(root / "releases", place)

    def rewrite(release_id, change):
        path = place / (release_id + ".yml")
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content))

    rewrite.place = place
    return rewrite


def check(root, *arguments):
    command = [sys.executable, str(root / "tools/release_check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_every_release_holds_and_the_matrix_is_the_documented_one(root):
    ran = check(root)
    assert (ran.returncode, ran.stderr) == (0, "")
    for release_id in (ID, LEGACY):
        assert re.search(
            r"^%s: \d+ links hold, 0 broken, \d+ unsure$" % re.escape(release_id), ran.stdout, re.MULTILINE
        )
    assert "unsure release.cudnn.row" in ran.stdout
    document = (root / "docs/support-matrix.md").read_text()
    shown = document.split("<!-- support-matrix:begin -->")[1].split("<!-- support-matrix:end")[0]
    assert len(shown.splitlines()) > 20
    for line in shown.strip().splitlines():
        assert line in ran.stdout


def test_every_link_can_be_shown(root):
    ran = check(root, "--release", ID, "--all-links")
    assert "  holds  release.driver.end_of_life: 580: end of life 2028-06, supported" in ran.stdout
    assert LEGACY + ":" not in ran.stdout


def test_a_broken_link_is_named_with_its_remedy_and_fails(root, copied):
    copied(ID, lambda content: content["driver"].update(branch="570", version="570.124.06"))
    ran = check(root, "--directory", str(copied.place))
    assert ran.returncode == 1
    assert "  BROKEN release.driver.cuda: found 570.124.06, expected 580.65.06 or newer." in ran.stdout
    assert "  BROKEN release.driver.end_of_life: found 570: end of life 2026-02, end_of_life" in ran.stdout
    assert "Remedy: Pin a newer driver branch" in ran.stdout
    assert "%s: 0 broken" % LEGACY not in ran.stdout
    assert "Release `%s`" % LEGACY in ran.stdout
    assert "Release `%s`" % ID not in ran.stdout


def test_a_file_that_does_not_hold_to_the_schema_fails(root, copied):
    copied(LEGACY, lambda content: content["driver"].update(branch=580))
    ran = check(root, "--directory", str(copied.place))
    assert ran.returncode == 1
    assert "%s: can't be used" % LEGACY in ran.stdout
    assert "At release.driver.branch" in ran.stdout


def test_an_unknown_release_fails(root):
    ran = check(root, "--release", "2031.01.0")
    assert ran.returncode == 1
    assert ID in ran.stdout


def test_no_release_is_no_success(root, tmp_path):
    ran = check(root, "--directory", str(tmp_path))
    assert ran.returncode == 2
    assert "no release there" in ran.stderr
