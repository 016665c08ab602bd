# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of package_set: orders of versions, decisions, waiting for locks, and failures that can't be provoked."""

from __future__ import annotations

import itertools
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _package_apt_family,
    _package_apt_read,
    _package_depends,
    _package_dnf_read,
    _package_host,
    _package_managers,
    _package_plan,
    _package_run,
    _package_version,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._package_apt import Apt
from ansible_collections.gpufleet.llm.plugins.module_utils._package_dnf import Dnf
from ansible_collections.gpufleet.llm.plugins.module_utils._package_plan import PackageError, Record, Request, Step

# Oldest first, each as dpkg --compare-versions and rpm order them.
DEBIAN_ORDER = [
    "0~a",
    "0",
    "1.0~rc1-1",
    "1.0-1",
    "1.0-1ubuntu1",
    "1.0-1+b1",
    "1.0a-1",
    "1.0.1-1",
    "1.9-1",
    "1.10-1",
    "1:0.1-1",
]
RPM_ORDER = [
    "1.0~rc1-1",
    "1.0-1",
    "1.0-1.el9",
    "1.0-2",
    "1.0^git1-1",
    "1.0.a-1",
    "1.0.1-1",
    "1.10-1",
    "1:0.1-1",
    "3:580.1-1",
]


@pytest.mark.parametrize(
    ("order", "key"), [(DEBIAN_ORDER, _package_version.debian_key), (RPM_ORDER, _package_version.rpm_key)]
)
def test_the_order_of_versions(order: list[str], key: t.Callable[[str], t.Any]) -> None:
    for older, newer in itertools.combinations(order, 2):
        assert key(older) < key(newer), "%s is older than %s" % (older, newer)


def test_the_order_is_that_of_dpkg_itself() -> None:
    for older, newer in itertools.combinations(DEBIAN_ORDER, 2):
        subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)


@pytest.mark.parametrize(
    ("before", "after", "action"),
    [
        (None, None, "none"),
        (None, "1-1", "install"),
        ("1-1", None, "remove"),
        ("1-1", "1-1", "reinstall"),
        ("1-1", "2-1", "upgrade"),
        ("1:1-1", "2-1", "downgrade"),
        ("x:1-1", "2-1", "upgrade"),
    ],
)
def test_what_a_change_is(before: str | None, after: str | None, action: str) -> None:
    assert _package_version.action(before, after, _package_version.debian_key) == action


def test_a_bad_epoch_is_none() -> None:
    assert _package_version.rpm_key("(none):1-1") == _package_version.rpm_key("1-1")


@pytest.mark.parametrize(
    ("version", "pattern", "fits"),
    [
        ("580.901.01-1", "580.901.01-*", True),
        ("3:580.901.01-1.el9", "580.901.01-*", True),
        ("3:580.901.01-1.el9", "3:580.901.01-*", True),
        ("2:580.901.01-1.el9", "3:580.901.01-*", False),
        ("580.901.010-1", "580.901.01-*", False),
        ("1.0", "*", True),
    ],
)
def test_a_version_fits_a_pattern(version: str, pattern: str, fits: bool) -> None:
    assert _package_version.matches(version, pattern) is fits


REQUEST = Request({"a": "2-*", "b": "*"}, remove=("old",), hold_also=("lib*", "linux-image-6"))


@pytest.mark.parametrize(
    ("record", "change", "remove", "hold", "repair"),
    [
        (Record({"a": "2-1", "b": "9", "libx": "1"}, held=frozenset({"a", "b", "libx"})), (), (), (), False),
        (Record({"a": "1-1"}), ("a", "b"), (), ("a",), False),
        (Record({"a": "2-1", "b": "9", "libx": "1"}), (), (), ("a", "b", "libx"), False),
        (Record({"a": "2-1", "b": "9"}, residue=frozenset({"old"})), (), ("old",), ("a", "b"), False),
        (Record({"a": "2-1"}, broken={"b": "unpacked 9"}), ("b",), (), ("a", "b"), True),
        (Record({"a": "2-1", "b": "1"}, broken={"stranger": "unpacked 9"}), (), (), ("a", "b"), False),
        (Record({"a": "2-1", "b": "1"}, broken={"old": "half-configured 1"}), (), ("old",), ("a", "b"), True),
    ],
)
def test_what_a_host_needs(record: Record, change: t.Any, remove: t.Any, hold: t.Any, repair: bool) -> None:
    need = _package_plan.decide(record, REQUEST)
    assert (need.change, need.remove, need.hold, need.repair) == (change, remove, hold, repair)
    assert need.transaction is bool(change or remove or repair)


def test_without_hold_nothing_is_held() -> None:
    assert _package_plan.decide(Record({"a": "2-1", "b": "1"}), REQUEST._replace(hold=False)).hold == ()


def test_names_to_hold_that_are_absent_are_reported() -> None:
    assert _package_plan.missing(Record({}), REQUEST) == ["linux-image-6"]


@pytest.mark.parametrize(
    ("steps", "held", "checks"),
    [
        ([Step("a", "1-1", "2-1"), Step("libx", "1-1", "2-1")], {"a", "libx"}, []),
        ([Step("a", "1-1", "2-1"), Step("liby", "1-1", None)], {"liby"}, []),
        ([Step("a", "1-1", "2-1"), Step("liby", "7-1", None)], set(), ["package.removal"]),
        ([Step("a", "1-1", "2-1"), Step("linux-image-6", "6", None)], set(), ["package.removal"]),
        ([Step("old", "1-1", None), Step("liby", "1-1", None)], set(), []),
        ([Step("a", None, "2-1"), Step("stranger", "1", "2")], {"stranger"}, ["package.foreign_hold"]),
        ([Step("stranger", "1", None)], {"stranger"}, ["package.removal", "package.foreign_hold"]),
        ([Step("a", "3-1", "2-1")], set(), []),
    ],
)
def test_what_a_transaction_may_not_do(steps: list[Step], held: set[str], checks: list[str]) -> None:
    installed = {step.name: step.before for step in steps if step.before}
    record = Record(installed, held=frozenset(held))
    findings = _package_plan.guard(steps, record, REQUEST, _package_version.debian_key)
    assert [finding["check"] for finding in findings] == checks


def test_members_that_would_stay_behind_or_run_ahead() -> None:
    one = Request({"a": "2-*", "b": "*"}, hold_also=("lib*", "linux-*"))
    record = Record({"a": "1-1", "libold": "1-1", "libok": "2-1", "libgone": "1-1", "linux-x": "6", "stranger": "1-1"})
    steps = [Step("a", "1-1", "2-1"), Step("libnew", None, "3-1"), Step("libgone", "1-1", None)]
    assert _package_plan.stragglers(steps, record, one) == {"libold": "2-*", "libnew": "2-*", "linux-x": "2-*"}
    two = Request({"a": "2-*", "b": "3-*"}, hold_also=("lib*",))
    assert _package_plan.stragglers(steps, record, two) == {}


def test_a_transaction_that_lied_is_found_out() -> None:
    record = Record({"a": "1-1", "b": "1", "old": "1"}, broken={"libx": "unpacked 1"})
    found = _package_plan.unmet(record, REQUEST)[0]["found"]
    assert found == "a is 1-1; old is still there; libx is unpacked 1"
    assert _package_plan.unmet(Record({"a": "2-1", "b": "1"}), REQUEST) == []


def test_what_dpkg_says_is_read_by_architecture_and_state() -> None:
    text = "".join(
        "\t".join(row) + "\n"
        for row in [
            ("dpkg", "amd64", "1", "install", "installed", "ok", "", "", ""),
            ("liba", "amd64", "2", "hold", "installed", "ok", "", "", "virtual-a (= 2), other"),
            ("liba", "i386", "2", "install", "installed", "ok", "", "", ""),
            ("libb", "amd64", "2", "install", "installed", "ok", "liba (= 2)", "virtual-a (= 2)", ""),
            ("libc", "amd64", "2", "install", "installed", "ok", "", "libd (= 2)", ""),
            ("libe", "amd64", "2", "install", "installed", "ok", "", "libd (= 2) | liba", ""),
            ("gone", "amd64", "2", "deinstall", "config-files", "ok", "", "", ""),
            ("never", "amd64", "", "hold", "not-installed", "ok", "", "", ""),
            ("bad", "amd64", "2", "install", "half-installed", "reinstreq", "", "", ""),
            ("late", "amd64", "2", "hold", "triggers-awaited", "ok", "", "", ""),
        ]
    )
    record = _package_apt_read.parse_packages(text + "rubbish\n")
    assert record.installed == {"dpkg": "1", "liba": "2", "liba:i386": "2", "libb": "2", "libc": "2", "libe": "2"}
    assert record.residue == {"gone"}
    assert record.held == {"liba", "late"}
    assert record.broken == {
        "libc": "2, without libd 2",
        "bad": "half-installed 2, must be installed again",
        "late": "triggers-awaited 2",
    }


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("", []),
        ("a", [[("a", "", "")]]),
        ("a (= 1-1), b:any (>= 2) | c", [[("a", "=", "1-1")], [("b", ">=", "2"), ("c", "", "")]]),
        ("a(<< 2)", [[("a", "<<", "2")]]),
    ],
)
def test_dependencies_are_read(text: str, groups: t.Any) -> None:
    assert [[tuple(one) for one in group] for group in _package_depends.parse_depends(text)] == groups


def test_only_what_must_be_named_is_named() -> None:
    shown = {
        "top=2-1": "Package: top\nVersion: 2-1\nDepends: exact (= 2-1), libmore (>= 2-1), stranger, libless (<< 3), "
        "one (= 2-1) | two (= 2-1), libthere (= 2-1), nowhere (= 2-1)\n",
        "exact=2-1": "Package: exact\nVersion: 2-1\nPre-Depends: deep (= 2-1)\n",
    }
    offers = {
        "exact": [("2-1", "r"), ("3-1", "r")],
        "libmore": [("3-1", "r"), ("2-1", "r")],
        "deep": [("2-1", "r")],
        "libthere": [("2-1", "r")],
    }
    asked: list[list[str]] = []

    def show(names: t.Sequence[str]) -> str:
        asked.append(list(names))
        return "\n\n".join(shown.get(name, "") for name in names)

    def complete(broken: dict[str, str]) -> dict[str, str]:
        return _package_apt_family.complete(
            {"top": "2-1", "two": "2-1"},
            Request({"top": "2-*", "two": "2-*"}, hold_also=("lib*",)),
            Record({"two": "2-1", "libthere": "2-1"}, broken=broken),
            show,
            lambda names: {name: offers[name] for name in names if name in offers},
        )

    assert complete({}) == {"exact": "2-1", "libmore": "2-1", "deep": "2-1"}
    assert asked == [["top=2-1"], ["exact=2-1", "libmore=2-1"], ["deep=2-1"]]
    asked.clear()
    assert complete({"libthere": "2-1, without libz 2-1"})["libthere"] == "2-1"
    assert asked[0] == ["top=2-1", "two=2-1"], "what is installed is looked into as well"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk_full"),
        ("E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend)", "locked"),
        ("Temporary failure resolving 'mirror.example'", "unreachable"),
        ("something new", "unknown"),
    ],
)
def test_troubles_are_told_apart(text: str, kind: str) -> None:
    assert _package_apt_read.trouble(text)[0] == kind


def test_many_lines_are_cut_in_the_middle() -> None:
    lines = _package_apt_read.telling_lines("\n".join("E: %d" % number for number in range(20)))
    assert lines == ["E: 0", "E: 1", "E: 2", "(14 more)", "E: 17", "E: 18", "E: 19"]
    assert _package_apt_read.telling_lines("dpkg: warning: downgrading x\nlast words") == ["last words"]


def test_a_killed_command_is_called_that() -> None:
    found = _package_apt_read.failure("transaction", "a", "Unpacking a", -9, "apt-get install", "")
    assert found["check"] == "package.transaction.killed"
    assert "killed by signal 9" in found["found"]


def test_problems_count_by_their_repository() -> None:
    problems = [
        "W: GPG error: http://a.example/repo  InRelease: NO_PUBKEY 1",
        "E: Failed to fetch http://a.example/repo2/x",
    ]
    assert _package_apt_read.problem_of(problems, ["http://a.example/repo/"]) == problems[:1]


def test_a_source_package_is_no_offer() -> None:
    text = (
        "a | 1-1 | http://r.example/ suite/main amd64 Packages\na | 2-1 | http://r.example/ suite/main Sources\nN: x\n"
    )
    assert _package_apt_read.parse_madison(text) == {"a": [("1-1", "http://r.example/")]}


# --- rpm and dnf ---


def test_locks_hold_the_version_they_name() -> None:
    row = _package_dnf_read.Row("nvidia-driver", "x86_64", "3:580.1-1.el9")
    locks = _package_dnf_read.parse_locks("# a remark\n\nnvidia-driver-3:580.1-1.el9.*  # why\n!excluded-1\n")
    assert locks == [row.lock]
    assert _package_dnf_read.is_locked(row, locks)
    assert _package_dnf_read.is_locked(row, ["nvidia-driver-580.1-*"])
    assert not _package_dnf_read.is_locked(row, ["nvidia-driver-3:580.2-1.el9.*"])
    assert _package_dnf_read.lock_is_of(row.lock, "nvidia-driver")
    assert not _package_dnf_read.lock_is_of("nvidia-driver-cuda-3:580.1-1.el9.*", "nvidia-driver")


def test_several_kernels_are_no_fault_and_two_drivers_are() -> None:
    text = (
        "kernel\tx86_64\t0:5.14.0-1.el9\nkernel\tx86_64\t0:5.14.0-2.el9\nrubbish\n"
        "nvidia-driver\tx86_64\t3:580.1-1.el9\nnvidia-driver\tx86_64\t3:580.2-1.el9\nplain\tnoarch\t0:1-1\n"
    )
    record = _package_dnf_read.record_of(_package_dnf_read.parse_rows(text), ["kernel-0:5.14.0-1.el9.*"])
    assert record.installed["kernel"] == "5.14.0-2.el9"
    assert record.installed["kernel-5.14.0-1.el9.x86_64"] == "5.14.0-1.el9"
    assert record.installed["plain"] == "1-1"
    assert record.held == {"kernel-5.14.0-1.el9.x86_64"}, "the other kernel isn't locked"
    assert record.broken == {"nvidia-driver": "there in 2 versions: 3:580.1-1.el9, 3:580.2-1.el9"}


def test_dnfs_table_is_read_with_its_wrapped_names() -> None:
    text = """Last metadata expiration check: 0:00:01 ago.
Dependencies resolved.
====
 Package          Arch    Version            Repository   Size
====
Installing:
 a-name-that-is-so-long-that-it-is-wrapped
                  x86_64  3:2-1.el9          nv           1 k
     replacing  older.x86_64 1-1
Removing dependent packages:
 gone             x86_64  1-1                @System      1 k
Enabling module streams:
 nvidia-driver            580-open

Transaction Summary
====
Install  1 Package
"""
    steps = _package_dnf_read.parse_transaction(text, {"gone": "1-1"})
    assert steps == [
        Step("a-name-that-is-so-long-that-it-is-wrapped", None, "3:2-1.el9"),
        Step("gone", "1-1", None),
    ]


@pytest.mark.parametrize(
    ("text", "stream"),
    [("[m]\nname=m\nstream=1\nstate=enabled\n", "1"), ("[m]\nstream=1\nstate=disabled\n", ""), ("", "")],
)
def test_an_enabled_stream(text: str, stream: str) -> None:
    assert _package_dnf_read.parse_stream(text) == stream


# --- waiting, and what can't be provoked ---


class FakeHost:
    """A host whose commands answer as they are told, and whose clock goes on only while somebody waits."""

    def __init__(
        self,
        answers: t.Mapping[str, t.Any] | None = None,
        *,
        files: t.Mapping[str, str] | None = None,
        directories: t.Mapping[str, list[str]] | None = None,
        locks: t.Mapping[str, float] | None = None,
    ) -> None:
        self.answers = {key: list(value) for key, value in (answers or {}).items()}
        self.files, self.directories = dict(files or {}), dict(directories or {})
        self.locks, self.clock = dict(locks or {}), 0.0
        self.ran: list[str] = []

    def run(self, argv: t.Sequence[str]) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.ran.append(line)
        for key, answers in self.answers.items():
            if key in line:
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return 0, "", ""

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def names(self, path: str) -> list[str]:
        return self.directories.get(path, [])

    def lock_holder(self, path: str) -> int | None:
        return 42 if self.clock < self.locks.get(path, 0.0) else None

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds


APT_LOCK = "/var/lib/dpkg/lock-frontend"
HELD = {APT_LOCK: 30.0}
CMDLINE = {"/proc/42/cmdline": "/usr/bin/python3\0/usr/bin/unattended-upgrade\0-v\0--debug\0--more\0"}


def row(name: str, version: str, want: str = "install", status: str = "installed") -> str:
    return "\t".join([name, "all", version, want, status, "ok", "", "", ""]) + "\n"


def test_a_lock_is_waited_for_and_who_had_it_is_said() -> None:
    host = FakeHost(locks=HELD, files=CMDLINE)
    waited = Apt(host).wait(_package_host.Deadline(host, 60))
    assert waited == [
        "/var/lib/dpkg/lock-frontend is held by process 42 (/usr/bin/python3 /usr/bin/unattended-upgrade -v --debug)"
    ]
    assert host.clock == 30.0


def test_a_lock_is_given_up_at_the_limit() -> None:
    host = FakeHost(locks=HELD, files={"/proc/42/comm": "apt\n"})
    with pytest.raises(PackageError) as raised:
        Apt(host).wait(_package_host.Deadline(host, 2.5))
    assert "is held by process 42 (apt), expected the package manager free within 2.5 s" in str(raised.value)
    assert host.clock == 2.5


def test_a_holder_of_another_namespace_is_still_named() -> None:
    assert _package_host.who(FakeHost(), 0) == "process 0 (gone, or of another process namespace)"


@pytest.mark.parametrize(
    ("directories", "runs"),
    [
        ({}, False),
        ({"/usr/bin": ["cloud-init"]}, False),
        ({"/usr/bin": ["cloud-init"], "/run/cloud-init": ["status.json"]}, True),
        ({"/usr/bin": ["cloud-init"], "/run/cloud-init": ["status.json", "result.json"]}, False),
        ({"/usr/bin": ["cloud-init"], "/run/cloud-init": ["disabled"]}, False),
        ({"/usr/bin": ["cloud-init"], "/run/cloud-init": ["x"], "/etc/cloud": ["cloud-init.disabled"]}, False),
    ],
)
def test_cloud_init_is_known_by_its_files(directories: dict[str, list[str]], runs: bool) -> None:
    assert _package_host.cloud_init_runs(FakeHost(directories=directories)) is runs
    assert bool(_package_host.busy_reason(FakeHost(directories=directories), [])) is runs


def test_dnfs_locks_are_pid_files_of_living_processes() -> None:
    pid_file = "/var/lib/dnf/rpmdb_lock.pid"
    living = {pid_file: "42", "/proc/42/stat": "42 (dnf)", "/proc/42/comm": "dnf\n"}
    assert Dnf(FakeHost(files=living)).busy() == pid_file + " is held by process 42 (dnf)"
    assert Dnf(FakeHost(files={pid_file: "42"})).busy() == ""
    assert "rpm.lock" in Dnf(FakeHost(locks={"/var/lib/rpm/.rpm.lock": 9.0})).busy()


def test_while_waiting_somebody_else_may_have_done_it() -> None:
    host = FakeHost({"dpkg-query": [(0, "", ""), (0, row("a", "2-1", "hold"), "")]}, locks={APT_LOCK: 1.0})
    result = _package_run.run(Apt(host), Request({"a": "2-*"}), check=False, timeout_seconds=9, update=False)
    assert "msg" not in result
    assert not [line for line in host.ran if line.startswith("apt")]
    assert len(result["waited_for"]) == 1


def test_dpkg_that_cannot_be_asked_is_an_error() -> None:
    host = FakeHost({"dpkg-query": [(2, "", "dpkg-query: error: cannot read the status file")]})
    result = _package_run.run(Apt(host), Request({"a": "2-*"}), check=False, timeout_seconds=9, update=False)
    assert "cannot read the status file" in result["msg"]
    assert result["changed"] is False
    with pytest.raises(PackageError):
        Dnf(FakeHost({"rpm": [(1, "", "error: rpmdb")]})).read()


def test_a_host_without_a_package_manager() -> None:
    assert _package_managers.backend("auto", (), FakeHost()) is None
    result = _package_run.run(None, Request({}), check=False, timeout_seconds=9, update=False)
    assert result["msg"].startswith("package.manager: found neither")
    with pytest.raises(PackageError):
        _package_run.set_hold(None, ["a"], held=True, check=False, timeout_seconds=9)


@pytest.mark.parametrize(("program", "name"), [("apt-get", "apt"), ("dnf", "dnf")])
def test_the_package_manager_is_the_hosts(program: str, name: str) -> None:
    backend = _package_managers.backend("auto", (), FakeHost(directories={"/usr/bin": [program]}))
    assert backend is not None
    assert backend.name == name


def test_a_transaction_that_says_it_went_well_and_did_not() -> None:
    host = FakeHost(
        {
            "dpkg-query": [(0, row("a", "1-1"), "")],
            "madison": [(0, "a | 2-1 | http://r.example/ x amd64 Packages\n", "")],
        }
    )
    result = _package_run.run(Apt(host), Request({"a": "2-*"}), check=False, timeout_seconds=9, update=False)
    assert result["msg"].startswith("package.result: found a is 1-1, expected a 2-*.")
    assert host.ran[-2] == "apt-mark hold a", "what is there stays where it is"


def test_a_failed_hold_is_said_beside_what_failed_before() -> None:
    host = FakeHost(
        {
            "dpkg-query": [(0, row("a", "1-1"), "")],
            "madison": [(0, "a | 2-1 | http://r.example/ x amd64 Packages\n", "")],
            "--simulate": [(0, "Inst a [1-1] (2-1 r [all])\n", "")],
            "apt-get": [(100, "Unpacking a\n", "E: Sub-process /usr/bin/dpkg returned an error code (1)")],
            "apt-mark hold": [(1, "", "E: no")],
        }
    )
    result = _package_run.run(Apt(host), Request({"a": "2-*"}), check=False, timeout_seconds=9, update=False)
    assert [finding["check"] for finding in result["findings"]] == [
        "package.transaction.script",
        "package.hold.unknown",
    ]
    assert "stay held" in result["findings"][0]["detail"]


def test_the_last_read_after_a_failure_may_fail_too() -> None:
    host = FakeHost({"dpkg-query": [(0, row("a", "1-1"), ""), (2, "", "gone"), (2, "", "gone")]})
    request = Request({"a": "2-*"})
    result = _package_run.run(Apt(host), request, check=False, timeout_seconds=9, update=False)
    assert result["changed"] is False
    assert result["packages"]["a"]["from"] == "1-1"


def test_a_list_lock_is_waited_for_until_the_limit() -> None:
    locked = (100, "", "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)")
    host = FakeHost({"update": [locked, (0, "", "")]})
    Apt(host).update(_package_host.Deadline(host, 5))
    assert len(host.ran) == 2
    host = FakeHost({"update": [locked]})
    with pytest.raises(PackageError, match="held by process 7"):
        Apt(host).update(_package_host.Deadline(host, 0))


def test_a_broken_repository_of_somebody_else_is_a_warning() -> None:
    backend = Apt(FakeHost({"update": [(0, "", "W: Failed to fetch http://other.example/x  404  Not Found")]}))
    backend.update(_package_host.Deadline(backend.host, 5))
    assert [f["severity"] for f in backend.update_findings(["http://mine.example/"], False)] == ["warning"]
    assert [f["severity"] for f in backend.update_findings([], True)] == ["error"]
    assert backend.available([]) == {}


def test_a_refused_removal_in_check_mode_is_an_error_too() -> None:
    host = FakeHost(
        {
            "dpkg-query": [(0, row("a", "1-1") + row("other", "1"), "")],
            "madison": [(0, "a | 2-1 | http://r.example/ x amd64 Packages\n", "")],
            "--simulate": [(0, "Inst a [1-1] (2-1 r [all])\nRemv other [1]\n", "")],
        }
    )
    result = _package_run.run(Apt(host), Request({"a": "2-*"}), check=True, timeout_seconds=9, update=False)
    assert result["msg"].startswith("package.removal: found other would be removed")


def test_dnf_without_its_lock_plugin_gets_it() -> None:
    absent = (1, "", "No such command: versionlock.")
    rpm = [(0, "a\tx86_64\t0:1-1\n", "")]
    host = FakeHost({"rpm": rpm, "versionlock add": [absent, (0, "", "")]})
    backend = Dnf(host)
    backend.hold(["a"], _package_host.Deadline(host, 5), backend.read())
    assert [line for line in host.ran if "python3-dnf-plugin-versionlock" in line]
    host = FakeHost({"rpm": rpm, "versionlock add": [absent]})
    with pytest.raises(PackageError, match="No such command"):
        Dnf(host).hold(["a"], _package_host.Deadline(host, 5), Record({"a": "1-1"}))


def test_dnf_that_refuses_a_stream() -> None:
    with pytest.raises(PackageError, match="Nothing was installed"):
        Dnf(FakeHost({"module": [(1, "", "Error: no such stream")]}), ["m:1"]).prepare()
    host = FakeHost(files={"/etc/dnf/modules.d/m.module": "stream=1\nstate=enabled\n"})
    Dnf(host, ["m:1"]).prepare()
    assert host.ran == []
    assert Dnf(host).available([]) == {}


def test_dnf_that_fails_in_the_middle_says_so() -> None:
    host = FakeHost({"install": [(1, "Running transaction\n", "Error: disk")]})
    with pytest.raises(PackageError, match="was cut"):
        Dnf(host).transact({"a": "1-1"}, Record({}), Request({"a": "1-*"}), _package_host.Deadline(host, 5))


def test_dnf_that_only_removes() -> None:
    host = FakeHost({"rpm": [(0, "old\tx86_64\t0:1-1\n", "")]})
    request = Request({}, remove=("old",))
    assert Dnf(host).simulate({}, Record({"old": "1-1"}), request) == [Step("old", "1-1", None)]
    Dnf(host).transact({}, Record({"old": "1-1"}), request, _package_host.Deadline(host, 5))
    assert [line.split()[-2:] for line in host.ran if "remove" in line] == [["remove", "old"]]
    assert not [line for line in host.ran if "install" in line.split()]


# --- this very machine ---


def test_a_real_lock_shows_its_holder(tmp_path: pathlib.Path) -> None:
    host = _package_host.LocalPackageHost()
    path = tmp_path / "lock"
    assert host.lock_holder(str(path)) is None
    path.touch()
    assert host.lock_holder(str(path)) is None
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('x', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert host.lock_holder(str(path)) == holder.pid
        assert str(path) in _package_host.who(host, holder.pid)
        holder.communicate(b"\n")
    assert host.lock_holder(str(path)) is None


def test_commands_speak_c_have_no_terminal_and_their_own_session(tmp_path: pathlib.Path) -> None:
    host = _package_host.LocalPackageHost()
    code = (
        "import os, sys; print(os.environ['LC_ALL'], os.getsid(0) == os.getpid()); sys.exit(4 + len(sys.stdin.read()))"
    )
    assert host.run([sys.executable, "-c", code]) == (4, "C True\n", "")
    assert host.run(["/nowhere/at-all"])[0] == 127
    (tmp_path / "b").touch()
    (tmp_path / "a").touch()
    assert host.names(str(tmp_path)) == ["a", "b"]
    assert host.names("/nowhere") == []
    before = host.monotonic()
    host.sleep(0.01)
    assert host.monotonic() > before
    assert os.path.isdir("/proc")
