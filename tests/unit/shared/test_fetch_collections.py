# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unpacking of one collection out of a wheel."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "fetch_collections.py"
spec = importlib.util.spec_from_file_location("fetch_collections", SCRIPT)
fetch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fetch)


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "dist.whl"
    with zipfile.ZipFile(path, "w") as archive:
        manifest = json.dumps({"collection_info": {"version": "2.0.0"}})
        archive.writestr("ansible_collections/a/b/MANIFEST.json", manifest)
        archive.writestr("ansible_collections/a/bc/MANIFEST.json", manifest)
    return path


def test_only_the_named_collection_is_unpacked_over_an_older_one(tmp_path, wheel):
    target = tmp_path / "c"
    (target / "a" / "b").mkdir(parents=True)
    (target / "a" / "b" / "stale").write_text("")
    fetch.unpack(wheel, target, "a.b", "2.0.0")
    assert fetch.installed(target, "a.b") == "2.0.0"
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()) == ["a/b/MANIFEST.json"]


def test_another_version_than_asked_is_refused_and_nothing_is_replaced(tmp_path, wheel):
    target = tmp_path / "c"
    target.mkdir()
    with pytest.raises(SystemExit, match=r"3\.0\.0 is asked, the pinned wheel holds 2\.0\.0"):
        fetch.unpack(wheel, target, "a.b", "3.0.0")
    assert fetch.installed(target, "a.b") is None
