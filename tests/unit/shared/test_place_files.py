# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""place_files: what it plans, what it leaves alone, and what a fault leaves behind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _place_files as placing


def wanted(**parts):
    return {"directories": [], "files": [], "links": [], "absent": [], **parts}


def file_item(path: Path, text: str, mode: str = "0644", **more):
    return {"dest": str(path), "data": text.encode(), "mode": mode, "owner": None, "group": None, **more}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_plan_writes_nothing_and_apply_makes_the_plan_empty(tmp_path):
    everything = wanted(
        directories=[{"path": str(tmp_path / "d"), "mode": "0750", "owner": None, "group": None}],
        files=[file_item(tmp_path / "d" / "a", "one\n", "0640")],
        links=[{"path": str(tmp_path / "d" / "l"), "target": "a"}],
    )
    changes = placing.plan(everything)
    assert [c.path for c in changes] == [str(tmp_path / name) for name in ("d", "d/a", "d/l")]
    assert names(tmp_path) == []
    placing.apply(changes)
    assert (tmp_path / "d" / "l").read_text() == "one\n"
    assert stat.S_IMODE((tmp_path / "d" / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    assert placing.plan(everything) == []


def test_only_the_mode_differs(tmp_path):
    target = tmp_path / "a"
    target.write_text("same")
    target.chmod(0o600)
    inode = target.stat().st_ino
    (change,) = placing.plan(wanted(files=[file_item(target, "same", "0644")]))
    assert not change.content
    assert (change.before, change.after) == ("mode: 0600\n", "mode: 0644\n")
    placing.apply([change])
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert target.stat().st_ino != inode  # replaced, never written in place


def test_a_secret_is_in_no_diff(tmp_path):
    target = tmp_path / "key"
    target.write_text("old-secret")
    changes = placing.plan(wanted(files=[file_item(target, "new-secret", "0600", secret=True)]))
    shown = repr(placing.diffs(changes))
    assert "secret content" in shown
    assert "old-secret" not in shown and "new-secret" not in shown


def test_a_full_disk_replaces_nothing(tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("served")
    changes = placing.plan(wanted(files=[file_item(first, "new"), file_item(second, "more")]))
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        placing.apply(changes)
    assert first.read_text() == "served"
    assert names(tmp_path) == ["a"]


def test_an_unknown_owner_is_planned_and_then_refused_with_nothing_replaced(tmp_path):
    target = tmp_path / "a"
    target.write_text("served")
    item = {**file_item(target, "new"), "owner": "no-such-user-here"}
    changes = placing.plan(wanted(files=[item]))
    assert len(changes) == 1
    with pytest.raises(placing.PlaceError, match=r"owner 'no-such-user-here' doesn't exist.*Remedy"):
        placing.apply(changes)
    assert target.read_text() == "served"


@pytest.mark.parametrize("path", ["relative", "/etc/../etc/shadow", "//double", "/a/./b"])
def test_a_path_that_is_not_plain_is_refused(path):
    with pytest.raises(placing.PlaceError, match="absolute path"):
        placing.plan(wanted(absent=[path]))


def test_a_path_listed_twice_is_refused(tmp_path):
    with pytest.raises(placing.PlaceError, match="listed twice"):
        placing.plan(wanted(files=[file_item(tmp_path / "a", "1"), file_item(tmp_path / "a", "2")]))


@pytest.mark.parametrize("kind", ["directories", "files", "links"])
def test_another_kind_of_file_in_the_way_is_refused(tmp_path, kind):
    taken = tmp_path / "x"
    if kind == "files":
        taken.mkdir()
    else:
        taken.write_text("")
    item = {
        "directories": {"path": str(taken), "mode": "0755", "owner": None, "group": None},
        "files": file_item(taken, "1"),
        "links": {"path": str(taken), "target": "y"},
    }[kind]
    with pytest.raises(placing.PlaceError, match="Remedy: move it away"):
        placing.plan(wanted(**{kind: [item]}))


def test_a_link_is_switched_and_a_link_at_a_files_place_becomes_a_file(tmp_path):
    (tmp_path / "l").symlink_to("one")
    (tmp_path / "f").symlink_to("/etc/hostname")
    changes = placing.plan(
        wanted(links=[{"path": str(tmp_path / "l"), "target": "two"}], files=[file_item(tmp_path / "f", "mine")])
    )
    placing.apply(changes)
    assert os.readlink(tmp_path / "l") == "two"
    assert not (tmp_path / "f").is_symlink() and (tmp_path / "f").read_text() == "mine"
    assert names(tmp_path) == ["f", "l"]


def test_absent_removes_files_links_and_trees_but_not_what_a_link_points_to(tmp_path):
    kept = tmp_path / "kept"
    (kept / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(kept)
    gone = [str(tmp_path / name) for name in ("tree", "file", "link", "never-there")]
    placing.apply(placing.plan(wanted(absent=gone)))
    assert names(tmp_path) == ["kept"]
    assert (kept / "deep").is_dir()


def test_the_stage_mirrors_absolute_paths_and_is_private(tmp_path):
    root = Path(
        placing.stage(wanted(files=[file_item(Path("/etc/x/key"), "s")], links=[{"path": "/etc/x/l", "target": "key"}]))
    )
    try:
        assert (root / "etc/x/l").read_text() == "s"
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        assert stat.S_IMODE((root / "etc/x/key").stat().st_mode) == 0o600
    finally:
        placing.shutil.rmtree(root)


def test_what_a_pattern_matches_and_nobody_lists_goes(tmp_path):
    for name in ("keep.conf", "old.conf", "other.txt"):
        (tmp_path / name).write_text("x")
    wanted = {
        "directories": [],
        "files": [{"dest": str(tmp_path / "keep.conf"), "data": b"x", "mode": "0644"}],
        "links": [],
        "absent": [],
    }
    assert placing.unlisted(wanted, [str(tmp_path / "*.conf"), str(tmp_path / "nowhere" / "*")]) == [
        str(tmp_path / "old.conf")
    ]
    assert placing.unlisted(wanted, []) == []
