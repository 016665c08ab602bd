# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks, processes and files of the lab, on this machine."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import threading
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_system as system


@pytest.fixture(name="sleeper")
def fixture_sleeper(tmp_path: pathlib.Path) -> t.Iterator[t.Tuple[str, str, "subprocess.Popen[bytes]"]]:
    """A process known by its program's name and one argument."""
    program = tmp_path / "sleeper.py"
    program.write_text("import time\ntime.sleep(60)\n", encoding="ascii")
    process = subprocess.Popen([sys.executable, str(program), str(tmp_path)])
    assert system.wait_for(lambda: bool(system.find_processes("sleeper.py", str(tmp_path))), 10)
    yield "sleeper.py", str(tmp_path), process
    process.kill()
    process.wait()


def test_a_process_is_known_by_what_it_runs(sleeper: t.Tuple[str, str, "subprocess.Popen[bytes]"]) -> None:
    program, argument, process = sleeper
    assert system.find_processes(program, argument) == [process.pid]
    assert system.find_processes(program, argument[:-1]) == []
    assert system.find_processes("other.py", argument) == []


def test_a_number_that_belongs_to_another_process_now_is_not_signalled(
    sleeper: t.Tuple[str, str, "subprocess.Popen[bytes]"],
) -> None:
    _program, argument, process = sleeper
    system.send_signal(process.pid, 15, "supervise_host.py", argument)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)


def test_stopping_ends_the_process_and_says_so_once(sleeper: t.Tuple[str, str, "subprocess.Popen[bytes]"]) -> None:
    program, argument, process = sleeper
    waiter = threading.Thread(target=process.wait)
    waiter.start()
    assert system.stop_processes(program, argument, 5.0) is True
    waiter.join()
    assert process.returncode == -15
    assert system.stop_processes(program, argument, 5.0) is False


def test_a_lock_is_held_against_another_and_given_back(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "there" / "lock")
    with system.locked(path, 1.0):
        assert system.take_lock(path) is None
        with pytest.raises(system.LabError, match="still held"), system.locked(path, 0.1):
            pass
    with system.locked(path, 0.1):
        pass


def test_a_lock_that_its_holder_removed_is_taken_anew(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "there" / "lock")
    with system.locked(path, 1.0):
        system.remove_lock(path)
        assert not os.path.exists(os.path.dirname(path))
        with system.locked(path, 1.0):
            assert os.path.exists(path)


def test_a_file_is_written_whole_with_its_mode_and_only_when_it_differs(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "file")
    assert system.write_file(path, "a\n", 0o600) is True
    assert system.write_file(path, "a\n", 0o600) is False
    assert system.write_file(path, "a\n", 0o644) is True
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["file"]


def test_a_tree_is_not_removed_across_a_mount(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree" / "root").mkdir(parents=True)
    monkeypatch.setattr(system, "mounts_under", lambda path: [path + "/root"])
    monkeypatch.setattr(system, "unmount", lambda path: False)
    with pytest.raises(system.LabError, match="still mounted"):
        system.remove_tree(str(tmp_path / "tree"))
    assert (tmp_path / "tree" / "root").is_dir()


def test_what_the_control_node_lacks_is_named_by_package_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.shutil, "which", lambda name, path=None: None if name.startswith("ssh") else "/bin/x")
    monkeypatch.setattr(system.os.path, "exists", lambda path: True)
    assert system.missing_packages() == ["openssh-client"]


def test_a_failed_command_says_what_it_said() -> None:
    with pytest.raises(system.LabError, match="ended with 3: why"):
        system.run(["sh", "-c", "echo why >&2; exit 3"])
    with pytest.raises(system.LabError, match="isn't there"):
        system.run(["no-such-command-here"])
