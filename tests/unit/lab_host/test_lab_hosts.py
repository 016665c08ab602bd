# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab hosts made, looked at, rebooted, cut and removed, on a machine in a directory (lab_machine.py)."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_hosts as hosts
from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_system as system

CLEAN = ["keys", "lab", "run/%s", "run/%s.lock"]


def left(machine: t.Any) -> list[str]:
    """Return what is left on the machine of a lab."""
    places = [path % machine.network().run_dir.rpartition("/")[2] if "%" in path else path for path in CLEAN]
    found = [path for path in places if (machine.root / path).exists()]
    for folder in ("net", "netns", "nft"):
        found += ["%s/%s" % (folder, path.name) for path in (machine.root / folder).iterdir()]
    return found + machine.processes() + (machine.root / "mounts").read_text().splitlines()


def test_from_nothing_to_two_hosts_and_back(machine: t.Any) -> None:
    made = machine.call("present", "one@3", "two@4")
    assert made["changed"], made
    assert made["diff"]["before"] == {"one": {"state": "absent"}, "two": {"state": "absent"}}
    for name in ("one", "two"):
        assert (made["hosts"][name]["state"], made["hosts"][name]["system"]) == ("running", "running")
        assert made["hosts"][name]["failed_units"] == []
        assert made["hosts"][name]["package_access"] is True
    known = (machine.root / "keys/known_hosts").read_text().split()
    assert (known[0], known[3]) == ("127.77.0.3", "127.77.0.4")
    assert known[2] != known[5]
    # The base has nothing that must differ from host to host, and no package lists.
    base = machine.root / "cache/bases" / made["hosts"]["one"]["base"] / "root"
    assert list((base / "etc/ssh").iterdir()) == []
    assert [path.name for path in (base / "var/cache/apt/archives").iterdir()] == ["lock"]
    assert os.readlink(base / "etc/systemd/system/apt-daily.timer") == "/dev/null"

    again = machine.call("present", "one@3", "two@4")
    assert (again["changed"], again["diff"]["before"]) == (False, again["diff"]["after"])
    assert machine.call("present", "one@3", _ansible_check_mode=True)["changed"] is False

    assert machine.call("absent", "one")["hosts"] == {"one": {"state": "absent"}}
    assert machine.call("checked", "two@4")["hosts"]["two"]["state"] == "running"
    assert (machine.root / "keys/known_hosts").read_text().count("127.77.0.") == 1
    assert machine.call("absent", _ansible_check_mode=True)["changed"] is True
    assert machine.call("absent")["changed"] is True
    assert left(machine) == []
    assert machine.call("absent", "two")["changed"] is False


def test_check_mode_on_a_virgin_machine_says_what_would_be_and_makes_nothing(machine: t.Any) -> None:
    found = machine.call("present", "one@3", _ansible_check_mode=True)
    assert found["changed"]
    assert found["diff"]["after"]["one"]["state"] == "running"
    assert machine.call("prepared", "one@3", _ansible_check_mode=True)["changed"]
    looked = machine.call("checked", "one@3")
    assert (looked["changed"], looked["missing_bases"], looked["missing_packages"]) == (False, ["bookworm"], [])
    assert (left(machine), machine.log()) == ([], [])
    assert machine.call("prepared", "one@3")["changed"]
    assert machine.call("prepared", "one@3")["changed"] is False
    assert machine.call("checked", "one@3")["missing_bases"] == []
    assert left(machine) == ["lab"]


def test_packages_are_installed_in_the_base_through_the_proxy(machine: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        system, "apt_options", lambda: {"Acquire::Check-Date": "false", "Acquire::http::Proxy": "http://p:1"}
    )
    assert machine.call("prepared", "one@3", packages=["jq"])["changed"]
    installs = [line for line in machine.log() if "apt-get" in line]
    assert [line.split(" apt-get ")[1].split()[-1] for line in installs] == ["update", "jq"]
    assert "Acquire::http::Proxy=http://127.0.0.1:4711" in installs[1]
    assert "Acquire::Check-Date=false" in installs[1]
    assert machine.processes() == []


def test_a_base_that_cannot_be_built_says_where_the_log_is_and_leaves_no_half_base(machine: t.Any) -> None:
    machine.fail("setpriv * debootstrap * => E: Release signed by unknown key")
    failed = machine.call("present", "one@3")
    assert "debootstrap of bookworm from http://mirror.example/debian ended with 32" in failed["msg"]
    assert failed["msg"].endswith("E: Release signed by unknown key")
    assert (failed["changed"], machine.processes()) == (False, [])
    bases = machine.root / "cache/bases"
    assert [path.name for path in bases.iterdir() if path.is_dir() and not path.name.endswith(".partial")] == []
    machine.fail()
    assert machine.call("present", "one@3")["changed"]
    assert [path.name for path in bases.iterdir() if path.name.endswith(".partial")] == []


@pytest.mark.parametrize(("code", "said"), [("import sys; sys.exit('no port is free')", "ended: no port is free")])
def test_a_proxy_for_the_build_that_does_not_start_is_said(machine: t.Any, code: str, said: str) -> None:
    (machine.root / "libexec/package_proxy.py").write_text(code)
    assert machine.call("prepared", "one@3")["msg"] == "the package proxy for the build " + said


def test_a_host_that_does_not_boot_shows_the_end_of_its_console(machine: t.Any) -> None:
    (machine.root / "dies").touch()
    (machine.root / "mute").touch()
    failed = machine.call("present", "one@3")
    assert "host one: ssh at 127.77.0.3 didn't answer within 20 s" in failed["msg"]
    assert "Welcome to the stand-in" in failed["msg"]
    assert "ended with status 1" in failed["msg"]
    (machine.root / "dies").unlink()
    (machine.root / "mute").unlink()
    # It was made: the next run only starts it.
    assert machine.call("checked", "one@3")["hosts"]["one"]["state"] == "stopped"
    assert machine.call("present", "one@3")["hosts"]["one"]["state"] == "running"


def test_a_host_whose_ssh_refuses_the_key_is_a_failure(machine: t.Any) -> None:
    machine.fail("ssh *is-system-running* => Permission denied (publickey).")
    (machine.root / "says").write_text("")
    failed = machine.call("present", "one@3")
    assert "host one: ssh root@127.77.0.3 failed: Permission denied (publickey)." in failed["msg"]
    machine.fail()
    (machine.root / "says").write_text("degraded\nfoo.service loaded failed failed Foo\n\n")
    found = machine.call("present", "one@3")["hosts"]["one"]
    assert (found["system"], found["failed_units"]) == ("degraded", ["foo.service"])


def test_all_hosts_that_fail_are_said_together(machine: t.Any) -> None:
    machine.fail("mount * => unknown filesystem type 'overlay'")
    failed = machine.call("present", "one@3", "two@4")
    assert failed["msg"].count("an overlay can't be mounted on ") == 2
    assert "Remedy: put lab_host_state_dir on a file system" in failed["msg"]


def test_what_a_killed_supervisor_left_is_ended_before_the_host_starts_again(machine: t.Any) -> None:
    machine.call("present", "one@3")
    names = machine.names("one")
    supervisor = machine.kill(hosts.SUPERVISOR, names.directory)
    assert system.find_processes("systemd-nspawn", names.root)
    assert machine.call("checked", "one@3")["hosts"]["one"]["state"] == "stopped"
    again = machine.call("present", "one@3")
    assert (again["changed"], again["hosts"]["one"]["state"]) == (True, "running")
    assert len(system.find_processes("systemd-nspawn", names.root)) == 1
    for pattern in ("gpufleet-lab/one-%d", "*/gpufleet-lab/one-%d"):
        for group in list(pathlib.Path("/sys/fs/cgroup").glob(pattern % supervisor)):
            group.rmdir()  # a killed supervisor leaves its group, in which nothing may run any more


def test_a_half_made_host_is_made_anew(machine: t.Any) -> None:
    machine.call("present", "one@3")
    machine.kill(hosts.SUPERVISOR, machine.names("one").directory, signal.SIGTERM)
    record = machine.state_dir / "one/host.json"
    record.unlink()
    assert machine.call("checked", "one@3")["hosts"]["one"] == {"state": "half made"}
    machine.call("present", "two@4")
    again = machine.call("present", "one@3", "two@4")
    assert again["hosts"]["one"]["state"] == "running"
    assert json.loads(record.read_text())["address"] == "127.77.0.3"


def test_a_host_that_is_something_else_is_refused_and_stays(machine: t.Any) -> None:
    machine.call("present", "one@3")
    refused = machine.call("present", "one@5")
    assert refused["failed"]
    assert "lab_host_hosts[one].address: found 127.77.0.5, expected 127.77.0.3" in refused["msg"]
    assert machine.call("checked", "one@3")["hosts"]["one"]["state"] == "running"


def test_an_address_of_another_lab_is_refused_while_that_host_is_there(machine: t.Any) -> None:
    machine.call("present", "one@3")
    other = machine.root / "other"
    refused = machine.call("present", "mine@3", state_dir=str(other))
    assert "127.77.0.3 belongs to host one of %s" % machine.state_dir in refused["msg"]
    # A host whose files were taken away no longer holds its address.
    machine.kill(hosts.SUPERVISOR, machine.names("one").directory, signal.SIGTERM)
    shutil.rmtree(machine.state_dir)
    assert machine.call("present", "mine@3", state_dir=str(other))["hosts"]["mine"]["state"] == "running"
    assert machine.call("absent", state_dir=str(other))["changed"]


def test_a_host_whose_base_is_gone_says_so(machine: t.Any) -> None:
    base = machine.call("present", "one@3")["hosts"]["one"]["base"]
    machine.kill(hosts.SUPERVISOR, machine.names("one").directory, signal.SIGTERM)
    shutil.rmtree(machine.root / "cache/bases" / base)
    failed = machine.call("present", "one@3")
    assert "which isn't there any more. Remedy: destroy the host and create it again." in failed["msg"]


def test_reboot_in_an_orderly_way(machine: t.Any) -> None:
    refused = machine.call("rebooted", "one@3")
    assert refused["msg"] == "lab_host_hosts: one can't be rebooted, not running. Remedy: lab_host_state: present."
    machine.call("present", "one@3")
    assert machine.call("rebooted", "one@3", _ansible_check_mode=True)["changed"]
    assert (machine.state_dir / "one/boots").read_text() == "1\n"
    assert machine.call("rebooted", "one@3")["hosts"]["one"]["system"] == "running"
    assert (machine.state_dir / "one/boots").read_text() == "2\n"
    (machine.root / "stays").touch()
    failed = machine.call("rebooted", "one@3", boot_timeout_seconds=1)
    assert failed["msg"].startswith("host one didn't reboot within 1 s")


def test_package_access_is_given_taken_away_and_ends_with_the_last_host(machine: t.Any) -> None:
    access = os.path.join(machine.network().run_dir, "access")
    made = machine.call("present", "one@3", package_access=False)
    assert made["hosts"]["one"]["package_access"] is False
    assert system.find_processes(hosts.PROXY, access) == []
    given = machine.call("present", "one@3")
    assert (given["changed"], given["hosts"]["one"]["package_access"]) == (True, True)
    allowed = json.loads(pathlib.Path(access, "127.77.0.3").read_text())
    assert allowed == {"http://mirror.example/debian/": "http://mirror.example/debian/"}
    # Killed, it's started again.
    machine.kill(hosts.PROXY, access)
    assert machine.call("checked", "one@3")["hosts"]["one"]["package_access"] is False
    assert machine.call("present", "one@3")["hosts"]["one"]["package_access"] is True
    assert machine.call("present", "one@3", package_access=False)["changed"] is True
    assert system.find_processes(hosts.PROXY, access) == []
    assert os.listdir(access) == []


def test_a_package_proxy_that_does_not_start_is_said(machine: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.call("prepared", "one@3")
    (machine.root / "libexec/package_proxy.py").write_text("import sys; sys.exit('the port is taken')")
    real = system.wait_for
    monkeypatch.setattr(system, "wait_for", lambda condition, seconds: real(condition, min(seconds, 1.0)))
    failed = machine.call("present", "one@3")
    assert "the package proxy didn't start. Remedy: see " in failed["msg"]
    assert failed["msg"].endswith("the port is taken")


def test_two_runs_at_once_wait_for_each_other_and_say_so(machine: t.Any) -> None:
    machine.state_dir.mkdir()
    with system.locked(str(machine.state_dir / ".lock"), 1.0):
        failed = machine.call("present", "one@3")
    assert "is still held after 1 s by another run" in failed["msg"]


def test_a_machine_that_cannot_carry_a_lab_is_refused(machine: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "missing_packages", lambda: ["nftables", "debootstrap"])
    assert "Remedy: apt-get install nftables debootstrap" in machine.call("present", "one@3")["msg"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "found user id 1000. Remedy: become root." in machine.call("present", "one@3")["msg"]
    assert "one of bookworm, trixie" in machine.call("present", hosts=[{"name": "x", "suite": "sid"}])["msg"]
    monkeypatch.setattr(system, "apt_entries", list)
    assert "lab_host_mirror: not set" in machine.call("present", "one@3", mirror=None)["msg"]
    assert left(machine) == []


def test_the_mirror_is_the_one_that_apt_uses(machine: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        {"uri": "https://deb.example/debian", "suites": ["bookworm"], "components": ["main"]},
        {"uri": "https://deb.example/debian-security", "suites": ["bookworm-security"], "components": ["main"]},
    ]
    monkeypatch.setattr(system, "apt_entries", lambda: entries)
    machine.call("present", "one@3", mirror=None)
    record = json.loads((machine.state_dir / "one/host.json").read_text())
    assert record["mirrors"] == ["https://deb.example/debian", "https://deb.example/debian-security"]


def test_what_nspawn_keeps_of_a_machine_goes_with_it(machine: t.Any) -> None:
    machine.call("present", "one@3")
    kept = machine.root / "nspawn/propagate" / machine.names("one").machine
    kept.mkdir(parents=True)
    machine.call("absent")
    assert (kept.exists(), left(machine)) == (False, [])
