# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _proxy_probe as probe

STAT = "%d (nginx: (odd) x) S %d 7 7 0 -1 4194624 0 0 0 0 0 0 0 0 20 0 1 0 %d 1000 1 2"


def make_proc(root: t.Any, workers: dict[int, tuple[int, int, str]], uptime: float) -> None:
    (root / "uptime").write_text("%.2f 1.0\n" % uptime)
    (root / "self").mkdir()
    for pid, (parent, ticks, title) in workers.items():
        (root / str(pid)).mkdir()
        (root / str(pid) / "stat").write_text(STAT % (pid, parent, ticks))
        (root / str(pid) / "cmdline").write_bytes(title.encode() + b"\0")


def test_workers_are_the_masters_children_with_their_age(tmp_path: t.Any) -> None:
    second = os.sysconf("SC_CLK_TCK")
    make_proc(
        tmp_path,
        {
            11: (10, 100 * second, "nginx: worker process is shutting down"),
            12: (10, 190 * second, "nginx: worker process"),
            13: (99, 1, "nginx: worker process"),
            14: (10, 1, "nginx: cache manager process"),
        },
        200.0,
    )
    found = sorted(probe.read_workers(10, str(tmp_path)))
    assert [(w.pid, w.leaving) for w in found] == [(11, True), (12, False)]
    assert [w.age_seconds for w in found] == [pytest.approx(100), pytest.approx(10)]


@pytest.mark.parametrize(
    ("ages", "changed_ago", "owed"),
    [
        ([(10.0, False)], 20.0, False),
        ([(30.0, False)], 20.0, True),
        ([(30.0, True), (10.0, False)], 20.0, False),
        ([(30.0, False), (10.0, False)], 20.0, True),
        ([(10.0, True)], 20.0, True),
        ([], 20.0, True),
    ],
)
def test_reload_is_owed_while_an_older_worker_serves(
    ages: list[tuple[float, bool]], changed_ago: float, owed: bool
) -> None:
    workers = [probe.Worker(n, age, leaving) for n, (age, leaving) in enumerate(ages)]
    assert probe.reload_owed(workers, 1000.0 - changed_ago, 1000.0) is owed


def test_newest_change_looks_into_trees_and_at_files(tmp_path: t.Any) -> None:
    tree = tmp_path / "tree" / "deep"
    tree.mkdir(parents=True)
    for path, when in ((tree / "a", 100), (tree / "b", 300), (tmp_path / "c", 200)):
        path.write_text("")
        os.utime(path, (when, when))
    assert probe.newest_change([str(tmp_path / "tree"), str(tmp_path / "c")]) == (300.0, str(tree / "b"))
    assert probe.newest_change([str(tmp_path / "c"), str(tmp_path / "absent")]) == (200.0, str(tmp_path / "c"))


def test_nobody_listening_is_a_finding(tmp_path: t.Any) -> None:
    found = probe.check_port("127.0.0.1", 1, str(tmp_path / "absent.crt"), 0.2)
    assert not found["ok"]
    assert "absent.crt" in found["found"]
