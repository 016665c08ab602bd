# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a host from recorded trees: fixtures/<host> is a root directory, fixtures/<host>/answers.json the rest."""

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _host_disk, _host_proc, _host_read

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


class RecordedHost:
    """A Host over a recorded tree."""

    def __init__(self, name: str) -> None:
        self.root = FIXTURES / name
        self.answers: dict[str, t.Any] = json.loads((self.root / "answers.json").read_text())

    def run(self, argv: t.Sequence[str]) -> tuple[int, str, str]:
        answer = self.answers["run"].get(" ".join(argv))
        return (0, answer, "") if answer is not None else (127, "", "not recorded")

    def read(self, path: str) -> str | None:
        file = self.root / path.lstrip("/")
        return file.read_text() if file.is_file() else None

    def names(self, path: str) -> list[str]:
        directory = self.root / path.lstrip("/")
        return sorted(p.name for p in directory.iterdir()) if directory.is_dir() else []

    def link(self, path: str) -> str:
        return str(self.answers["links"].get(path, ""))

    def usage(self, path: str) -> dict[str, t.Any]:
        return dict(self.answers["usage"])

    def clock(self) -> tuple[int, int, int] | None:
        clock = self.answers["clock"]
        return tuple(clock) if clock else None  # type: ignore[return-value]

    def machine(self) -> dict[str, str]:
        return dict(self.answers["machine"])


def read(name: str, ports: t.Sequence[int] = (8443,)) -> dict[str, t.Any]:
    return _host_read.read_host(
        RecordedHost(name),
        model_root="/var/lib/gpufleet/models",
        engine_root="/opt/gpufleet/engines/vllm",
        models=["smollm2"],
        ports=ports,
    )


@pytest.mark.parametrize(
    ("name", "key", "systemd", "glibc", "container"),
    [("debian12", "debian12", 252, "2.36", "systemd-nspawn"), ("debian13", "debian13", 257, "2.41", "")],
)
def test_platforms_are_read(name: str, key: str, systemd: int, glibc: str, container: str) -> None:
    record = read(name)
    assert record["platform"]["key"] == key
    assert record["platform"]["container"] == container
    assert record["systemd"] == {"version": systemd, "is_pid_1": True}
    assert record["glibc"] == glibc
    assert record["gpu"] is None


def test_cgroup_version_follows_the_unified_hierarchy() -> None:
    assert read("debian12")["cgroup_version"] == 1
    assert read("debian13")["cgroup_version"] == 2


def test_memory_is_in_bytes_and_counts_what_our_engines_hold() -> None:
    memory = read("debian13")["memory"]
    assert memory["total_bytes"] == 4026532 * 1024
    assert memory["available_bytes"] == 512000 * 1024
    assert memory["held_by_engines_bytes"] == 2700000 * 1024
    assert read("debian12")["memory"]["held_by_engines_bytes"] == 0


def test_the_owner_of_a_port_is_named_by_its_unit() -> None:
    ports = read("debian13")["ports"]
    assert [(p["address"], p["port"], p["unit"]) for p in ports] == [("0.0.0.0", 8443, "llm-proxy.service")]


def test_a_port_held_by_a_program_outside_any_service_is_named_by_its_process() -> None:
    ports = read("debian12", ports=(8443, 22))
    assert {(p["port"], p["unit"], p["process"]) for p in ports["ports"]} == {
        (8443, "", "python3"),
        (22, "ssh.service", "sshd"),
    }


def test_ports_nobody_asked_for_are_left_out() -> None:
    assert read("debian12", ports=(9999,))["ports"] == []


def test_what_the_host_holds_is_read_from_the_model_stores_record() -> None:
    held = read("debian13")["held"]
    assert held["models"] == {"smollm2": {"source": "file:/srv/models/smollm2", "revision": None}}
    assert held["engines"] == ["1.2.3-0123456789ab"]
    assert read("debian12")["held"] == {"models": {"smollm2": None}, "engines": []}


def test_time() -> None:
    assert read("debian13")["time"]["synchronised"] is False
    assert read("debian13")["time"]["daemon"] == "chronyd"
    assert read("debian12")["time"]["synchronised"] is None


@pytest.mark.parametrize(
    ("state", "status", "error", "expected"),
    [(0, 0x2001, 500, True), (5, 0x40, 16000000, False), (0, 0, 16000000, False), (5, 0x2041, 100, False)],
)
def test_clock_rule(state: int, status: int, error: int, expected: bool) -> None:
    assert _host_proc.clock_synchronised(state, status, error) is expected


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/llm-proxy.service\n", "llm-proxy.service"),
        (
            "12:pids:/x.service\n1:name=systemd:/a/payload/system.slice/system-vllm.slice/vllm@m-a.service\n",
            "vllm@m-a.service",
        ),
        ("0::/user.slice/user-0.slice/session-1.scope\n", ""),
        ("4:memory:/system.slice/cron.service\n", ""),
        ("", ""),
    ],
)
def test_unit_of_cgroup(text: str, unit: str) -> None:
    assert _host_proc.unit_of_cgroup(text) == unit


def test_addresses_of_both_families() -> None:
    head = "  sl  local_address rem_address   st tx rx tr tm retrnsmt uid timeout inode\n"
    line = "   0: %s 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1\n"
    found = _host_proc.parse_listeners(
        head + line % "0100007F:20FB" + line.replace("0A", "01") % "0100007F:0016",
        head + line % "00000000000000000000000001000000:01BB" + line % "0000000000000000FFFF00000100007F:0050",
    )
    assert [(f["address"], f["port"]) for f in found] == [("127.0.0.1", 8443), ("::1", 443), ("127.0.0.1", 80)]
    assert _host_proc.is_loopback("::1") and not _host_proc.is_loopback("0.0.0.0")


@pytest.mark.parametrize(
    ("identity", "version", "key"),
    [("rhel", "9.4", "redhat9"), ("ubuntu", "24.04", "ubuntu24"), ("debian", "13", "debian13"), ("", "", "")],
)
def test_platform_key_is_ansibles(identity: str, version: str, key: str) -> None:
    assert _host_proc.platform_key({"ID": identity, "VERSION_ID": version}) == key


# -- the read rate -----------------------------------------------------------------------------------------------------


def test_the_scratch_file_is_bounded_in_time_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    started = time.monotonic()
    result = _host_disk.measure_scratch(str(tmp_path))
    assert time.monotonic() - started < 3
    assert result["mib_per_second"] > 0
    assert _host_disk.LEAST_BYTES <= result["bytes"] <= _host_disk.LIMIT_BYTES
    assert list(tmp_path.iterdir()) == []


def test_the_scratch_file_is_gone_when_the_disk_fails(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: t.Any) -> int:
        raise OSError(28, "No space left on device")

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "pwritev", full)
    result = _host_disk.measure_scratch(str(tmp_path))
    assert result["mib_per_second"] is None
    assert "No space left" in result["reason"]
    assert list(tmp_path.iterdir()) == []
    assert set(os.listdir("/proc/self/fd")) == before


RATE: dict[str, t.Any] = {
    "device": "8:1",
    "filesystem": "ext4",
    "free_bytes": 10**12,
    "may_write": True,
    "remembered": None,
    "now": 1000.0,
    "maximum_age_seconds": 100,
}


def test_check_mode_writes_nothing_and_says_why_there_is_no_figure(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host_disk, "_scratch", lambda _directory: pytest.fail("a scratch file was made"))
    result = _host_disk.read_rate(str(tmp_path / "models"), **dict(RATE, may_write=False))
    assert result["mib_per_second"] is None
    assert "check mode" in result["reason"]


def test_a_model_that_is_there_is_read_rather_than_a_file_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host_disk, "_scratch", lambda _directory: pytest.fail("a scratch file was made"))
    (tmp_path / "weights").write_bytes(b"x" * _host_disk.LEAST_BYTES)
    result = _host_disk.read_rate(str(tmp_path), **RATE)
    assert result["mib_per_second"] > 0
    assert result["method"].startswith("existing file")


def test_memory_is_not_a_disk(tmp_path: pathlib.Path) -> None:
    assert _host_disk.read_rate(str(tmp_path), **dict(RATE, filesystem="tmpfs"))["mib_per_second"] is None


def test_a_full_disk_is_not_written_to(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_host_disk, "_scratch", lambda _directory: pytest.fail("a scratch file was made"))
    assert "free" in _host_disk.read_rate(str(tmp_path), **dict(RATE, free_bytes=1))["reason"]


@pytest.mark.parametrize(
    ("device", "measured_at", "kept"),
    [("8:1", 950, True), ("8:2", 950, False), ("8:1", 899, False), ("8:1", 1001, False)],
)
def test_a_remembered_rate_counts_for_its_device_and_its_time(device: str, measured_at: int, kept: bool) -> None:
    remembered = {"device": device, "measured_at": measured_at, "mib_per_second": 7.0}
    result = _host_disk.recall(remembered, "8:1", 1000.0, 100)
    assert (result is not None) is kept
    if result is not None:
        assert result["age_seconds"] == 50


def test_this_machine_can_be_read() -> None:
    record = _host_read.read_host(
        _host_read.LocalHost(), model_root="/var/lib/x/models", engine_root="/opt/x", models=["m"], ports=[1]
    )
    assert record["memory"]["total_bytes"] > 0
    assert record["cpu"]["threads"] > 0
    assert record["disks"]["models"]["free_bytes"] > 0
    assert json.loads(json.dumps(record)) == record


def test_the_nearest_directory_that_is_there(tmp_path: pathlib.Path) -> None:
    assert _host_disk.nearest_existing(str(tmp_path / "a/b/c")) == str(tmp_path)
    assert _host_disk.nearest_existing("/no-such/place") == "/"


def test_only_a_large_enough_file_is_measured_by(tmp_path: pathlib.Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 10)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/large").write_bytes(b"x" * 30)
    (tmp_path / "larger").symlink_to("deep/large")
    (tmp_path / "broken").symlink_to("nowhere")
    assert _host_disk.largest_file(str(tmp_path), 20) == str(tmp_path / "deep/large")
    assert _host_disk.largest_file(str(tmp_path), 31) is None


def test_a_filesystem_without_direct_reads_is_read_past_the_cache(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without_direct(path: t.Any, flags: int, *more: t.Any, **named: t.Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", without_direct)
    result = _host_disk.measure_scratch(str(tmp_path))
    assert (result["method"], result["mib_per_second"] > 0) == ("scratch file, posix_fadvise", True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "weights").write_bytes(b"x" * _host_disk.LEAST_BYTES)
    assert _host_disk.measure_existing(str(tmp_path / "weights"))["method"] == "existing file, posix_fadvise"


def test_a_disk_that_fails_while_it_is_read_has_no_rate(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: t.Any) -> int:
        raise OSError(5, "Input/output error")

    (tmp_path / "weights").write_bytes(b"x" * _host_disk.LEAST_BYTES)
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "preadv", broken)
    result = _host_disk.read_rate(str(tmp_path), **RATE)
    assert (result["mib_per_second"], result["method"]) == (None, "none")
    assert "can't be read past the page cache: [Errno 5] Input/output error" in result["reason"]
    monkeypatch.setattr(os, "preadv", lambda *_args: 0)
    assert _host_disk.measure_existing(str(tmp_path / "weights"))["reason"] == "nothing could be read"
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_file_that_may_not_be_read_has_no_rate(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_bytes(b"x" * _host_disk.LEAST_BYTES)

    def refused(path: str) -> t.Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_host_disk, "_open_uncached", refused)
    assert "weights can't be opened: Permission denied" in _host_disk.read_rate(str(tmp_path), **RATE)["reason"]


def test_a_directory_in_which_nothing_can_be_made_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _host_disk.measure_scratch("/proc/no-such-directory")
    assert result["reason"] == "no file can be made in /proc/no-such-directory: No such file or directory"


def test_a_disk_too_slow_to_write_the_least_is_given_up(tmp_path: pathlib.Path) -> None:
    ticks = iter(range(1000))
    result = _host_disk.measure_scratch(str(tmp_path), clock=lambda: float(next(ticks)), read_seconds=10.0)
    assert result["bytes"] == _host_disk.CHUNK_BYTES


def test_a_disk_without_a_model_is_measured_by_a_scratch_file(tmp_path: pathlib.Path) -> None:
    result = _host_disk.read_rate(str(tmp_path / "absent/models"), **RATE)
    assert (result["device"], result["measured_at"], result["age_seconds"]) == ("8:1", 1000, 0)
    assert result["method"].startswith("scratch file")
    again = _host_disk.read_rate(str(tmp_path), **dict(RATE, remembered=result, now=1050.0))
    assert (again["mib_per_second"], again["age_seconds"]) == (result["mib_per_second"], 50)


class Clock:
    """A C library whose adjtimex answers as told."""

    def __init__(self, answer: int) -> None:
        self.answer = answer

    def adjtimex(self, _buffer: t.Any) -> int:
        return self.answer


def test_a_clock_that_may_not_be_asked_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_host_read.ctypes, "CDLL", lambda *_args, **_more: Clock(-1))
    assert _host_read.read_clock() is None
    monkeypatch.setattr(_host_read.ctypes, "CDLL", lambda *_args, **_more: Clock(5))
    assert _host_read.read_clock() == (5, 0, 0)
    monkeypatch.setattr(_host_read.ctypes, "CDLL", lambda *_args, **_more: object())
    assert _host_read.read_clock() is None
    monkeypatch.setattr(_host_read.struct, "calcsize", lambda _format: 4)
    assert _host_read.read_clock() is None


def test_a_c_library_that_is_not_glibc_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    assert _host_read.LocalHost().machine()["glibc"] == ""
    assert _host_read.LocalHost().link("/proc/self/no-such-link") == ""


class Proc:
    """A host that is files and links alone."""

    def __init__(self, files: dict[str, str], links: dict[str, str] | None = None) -> None:
        self.files, self.links = files, links or {}

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def names(self, path: str) -> list[str]:
        below = [p[len(path) + 1 :].split("/")[0] for p in [*self.files, *self.links] if p.startswith(path + "/")]
        return sorted(set(below))

    def link(self, path: str) -> str:
        return self.links.get(path, "")


def test_a_process_that_ends_while_it_is_read_is_left_out() -> None:
    files = {"/proc/7/comm": "gone\n", "/proc/8/comm": "sshd\n", "/proc/8/cgroup": "0::/system.slice/ssh.service\n"}
    assert _host_read.read_processes(Proc(dict(files, **{"/proc/self": ""}))) == [
        {"pid": 8, "unit": "ssh.service", "name": "sshd"}
    ]


def test_two_processes_that_share_a_listener_are_one_owner_and_the_search_ends() -> None:
    host = Proc({}, {"/proc/5/fd/3": "socket:[77]", "/proc/6/fd/3": "socket:[77]", "/proc/6/fd/1": "/dev/null"})
    processes = [{"pid": 6, "unit": "a.service", "name": "a"}, {"pid": 5, "unit": "a.service", "name": "a"}]
    listeners = [{"address": "::1", "port": 1, "inode": 77}, {"address": "::1", "port": 2, "inode": 78}]
    named = _host_read.name_owners(host, listeners, processes)
    assert [(one["pid"], one["unit"]) for one in named] == [(5, "a.service"), (0, "")]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"/run/host/container-manager": "systemd-nspawn\n"}, "systemd-nspawn"),
        ({"/proc/1/environ": "PATH=/bin\0container=lxc\0"}, "lxc"),
        ({"/proc/1/environ": "PATH=/bin\0"}, ""),
    ],
)
def test_the_kind_of_container(files: dict[str, str], kind: str) -> None:
    assert _host_read.read_container(Proc(files)) == kind


@pytest.mark.parametrize("record", ["{half", "[1]"])
def test_a_model_record_that_is_damaged_is_none(record: str) -> None:
    host = Proc({"/m/current/%s" % _host_read.MODEL_RECORD: record})
    assert _host_read.read_model_record(host, "/m/current") is None
