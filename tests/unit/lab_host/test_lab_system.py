# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks, processes and files of the lab, on this machine."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
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
    with pytest.raises(system.LabError, match="sleep 5 gave no answer in 0 s"):
        system.run(["sleep", "5"], timeout_seconds=0.1)


def test_a_lock_whose_directory_goes_meanwhile_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "makedirs", lambda path, exist_ok: None)
    assert system.take_lock("/nowhere/lock") is None


def test_a_lock_that_its_holder_removes_between_opening_and_locking_is_not_taken(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = system.fcntl.flock

    def flock(number: int, how: int) -> None:
        real(number, how)
        (tmp_path / "lock").unlink()

    monkeypatch.setattr(system.fcntl, "flock", flock)
    before = len(os.listdir("/proc/self/fd"))
    assert system.take_lock(str(tmp_path / "lock")) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_json_that_is_half_written_or_no_object_is_nothing(tmp_path: pathlib.Path) -> None:
    for text in ('{"address": "198.1', "[1]", "\xff"):
        (tmp_path / "host.json").write_text(text, encoding="latin-1")
        assert system.read_json(str(tmp_path / "host.json")) == {}
    assert system.read_json(str(tmp_path / "absent.json")) == {}


def test_what_ignores_a_polite_end_is_killed(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "stubborn.py"
    ready = tmp_path / "ready"
    program.write_text(
        "import pathlib, signal, time\nsignal.signal(15, signal.SIG_IGN)\npathlib.Path(%r).touch()\ntime.sleep(60)\n"
        % str(ready)
    )
    process = subprocess.Popen([sys.executable, str(program), str(tmp_path)])
    assert system.wait_for(ready.exists, 10)
    waiter = threading.Thread(target=process.wait)
    waiter.start()
    assert system.stop_processes("stubborn.py", str(tmp_path), 0.3) is True
    waiter.join()
    assert process.returncode == -signal.SIGKILL


def test_what_no_signal_ends_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: t.List[int] = []
    monkeypatch.setattr(system, "find_processes", lambda program, argument: [4711])
    monkeypatch.setattr(system, "send_signal", lambda pid, number, program, argument: sent.append(number))
    monkeypatch.setattr(system, "wait_for", lambda condition, seconds: condition())
    with pytest.raises(system.LabError, match="nspawn for /lab/one can't be ended"):
        system.stop_processes("nspawn", "/lab/one", 0.1)
    assert sent == [signal.SIGTERM, signal.SIGKILL]


def test_a_process_that_ended_meanwhile_is_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    system.send_signal(process.pid, 15, "true", "x")  # nobody is there: no error, and nobody else is hit
    other = subprocess.Popen(["sleep", "60"])

    def gone(descriptor: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(system.signal, "pidfd_send_signal", gone)
    monkeypatch.setattr(system, "is_process", lambda *_args: True)
    before = len(os.listdir("/proc/self/fd"))
    system.send_signal(other.pid, 15, "sleep", "60")
    assert len(os.listdir("/proc/self/fd")) == before
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_process_outlives_its_starter_and_writes_to_its_log(tmp_path: pathlib.Path, machine: t.Any) -> None:
    log = tmp_path / "console.log"
    system.start_detached(
        ["sh", "-c", 'echo "$COLOUR $(ps -o sid= -p $$) $$"'], "a.service", str(log), {"COLOUR": "red"}
    )
    assert system.wait_for(lambda: bool(system.read_text(str(log)).strip()), 10)
    colour, session, pid = system.read_text(str(log)).split()
    assert (colour, session) == ("red", pid)
    assert system.tail(str(log), 1).startswith("red")
    assert system.tail(str(tmp_path / "absent")) == ""


def test_where_systemd_is_pid_1_it_becomes_a_transient_unit(
    tmp_path: pathlib.Path, machine: t.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "pid_one_is_systemd", lambda: True)
    machine.fail("systemctl reset-failed * => Unit a.service not loaded.")
    system.start_detached(["prog", "arg"], "a.service", str(tmp_path / "x.log"), {"COLOUR": "red"})
    run = machine.log()[-1]
    assert run.startswith("systemd-run --quiet --collect --unit=a.service -pDelegate=yes")
    assert "-pEnvironment=COLOUR=red" in run
    assert run.endswith("-- prog arg")
    machine.fail("systemd-run * => Failed to start transient service unit: Connection refused")
    with pytest.raises(system.LabError, match="Connection refused"):
        system.start_detached(["prog"], "a.service", str(tmp_path / "x.log"))
    monkeypatch.setattr(system, "pid_one_is_systemd", lambda: False)


def test_whose_machine_was_booted_by_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/run/systemd/system")
    assert system.pid_one_is_systemd() is True


def test_the_control_nodes_own_apt_says_where_packages_come_from(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = tmp_path / "mirrors.txt"
    mirrors.write_text("# near\nhttps://near.example/debian/ priority:1\nhttps://far.example/debian/\n")
    deb822 = tmp_path / "debian.sources"
    deb822.write_text("Types: deb\nURIs: mirror+file:%s\nSuites: bookworm\nComponents: main\n" % mirrors)
    one_line = tmp_path / "more.list"
    one_line.write_text("deb mirror+file:%s/none trixie main\ndeb http://third.example/x y main\n" % tmp_path)
    found = {"/etc/apt/sources.list.d/*.sources": [str(deb822)], "/etc/apt/sources.list.d/*.list": [str(one_line)]}
    monkeypatch.setattr(system.glob, "glob", lambda pattern: found[pattern])
    real = system.read_text
    monkeypatch.setattr(system, "read_text", lambda path: "" if path == "/etc/apt/sources.list" else real(path))
    uris = [entry["uri"] for entry in system.apt_entries()]
    assert uris == ["https://near.example/debian/", "mirror+file:%s/none" % tmp_path, "http://third.example/x"]


def test_what_apt_says_about_dates_and_its_proxy(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(system, "tool_path", lambda: str(tmp_path))
    assert system.apt_options() == {}
    program = tmp_path / "apt-config"
    program.write_text(
        "#!/bin/sh\n/bin/echo 'Acquire \"\";'\n/bin/echo 'Acquire::Check-Date \"false\";'\n"
        "/bin/echo 'Acquire::http::Proxy \"\";'\n/bin/echo 'Acquire::Check-Valid-Until \"0\";'\n"
    )
    program.chmod(0o755)
    assert system.apt_options() == {"Acquire::Check-Date": "false", "Acquire::Check-Valid-Until": "0"}


def test_mounts_are_found_deepest_first_and_only_below(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "".join("1 1 0:1 / %s rw - x y z\n" % point for point in ("/a", "/a/b/c", "/ab", "/a/with\\040space"))
    )
    monkeypatch.setattr(system, "MOUNTS_FILE", str(table))
    assert system.mounts_under("/a") == ["/a/with space", "/a/b/c", "/a"]
    assert system.mounts_under("/a/b/") == ["/a/b/c"]


def test_a_mount_that_is_busy_is_let_go_lazily(machine: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.time, "sleep", lambda seconds: None)
    (machine.root / "mounts").write_text("1 1 0:1 / /lab/one/root rw - overlay overlay rw\n")
    (machine.root / "busy").touch()
    assert system.unmount("/lab/one") is True
    assert machine.log() == ["umount /lab/one/root"] * 20 + ["umount --lazy /lab/one/root"]
    assert system.unmount("/lab/one") is False


def test_an_overlay_is_mounted_once(machine: t.Any) -> None:
    directory = str(machine.root / "host")
    assert system.mount_overlay("/base", directory, directory + "/root") is True
    assert system.mount_overlay("/base", directory, directory + "/root") is False
    assert len(machine.log()) == 1
    assert system.unmount(directory)
    assert system.remove_tree(directory) is True
    assert system.remove_tree(directory) is False


def test_a_network_that_the_machine_uses_already_is_refused(machine: t.Any) -> None:
    (machine.root / "addresses.json").write_text(
        '[{"ifname": "lo"}, {"ifname": "eth0", "addr_info": [{"local": "127.77.0.9"}, {"local": "10.0.0.1"}, {}]}]'
    )
    with pytest.raises(system.LabError, match=r"127.77.0.0/28 is in use on this machine by eth0 \(127.77.0.9\)"):
        system.ensure_network(machine.network())
    assert [line for line in machine.log() if line.startswith("ip link")] == []


def test_what_is_missing_of_a_network_is_made_again_and_nothing_else(machine: t.Any) -> None:
    network, names = machine.network(), machine.names("one")
    assert system.ensure_network(network) is True
    assert system.ensure_namespace(names, network, "127.77.0.3") is True
    assert system.ensure_network(network) is False
    assert system.ensure_namespace(names, network, "127.77.0.3") is False
    (machine.root / "nft" / network.table).unlink()
    assert system.ensure_network(network) is True
    (machine.root / "netns" / names.namespace / "address").unlink()
    assert system.ensure_namespace(names, network, "127.77.0.3") is True
    assert system.ensure_namespace(names, network, "127.77.0.3") is False
    assert system.remove_network_if_unused(network) is False  # the cable is still in the bridge
    assert system.remove_namespace(names) is True
    assert system.remove_namespace(names) is False
    assert system.remove_network_if_unused(network) is True
    assert system.remove_network_if_unused(network) is False


def test_a_network_with_a_host_on_it_stays(machine: t.Any) -> None:
    network = machine.network()
    system.ensure_network(network)
    claims = pathlib.Path(network.run_dir) / "hosts"
    claims.mkdir()
    (claims / "127.77.0.3").write_text("{}")
    assert system.remove_network_if_unused(network) is False
    assert system.link_exists(network.bridge)
    (claims / "127.77.0.3").unlink()
    assert system.remove_network_if_unused(network) is True


@pytest.mark.parametrize(("greeting", "answer"), [(b"SSH-2.0-x\r\n", True), (b"HTTP/1.1 400\r\n", False), (b"", False)])
def test_only_an_ssh_server_says_ssh(monkeypatch: pytest.MonkeyPatch, greeting: bytes, answer: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        real = socket.create_connection
        monkeypatch.setattr(socket, "create_connection", lambda where, timeout: real((where[0], port), timeout))

        def greet() -> None:
            connection, _address = server.accept()
            with connection:
                connection.sendall(greeting)

        greeter = threading.Thread(target=greet)
        greeter.start()
        assert system.says_ssh("127.0.0.1") is answer
        greeter.join()
    assert system.says_ssh("127.0.0.1") is False
