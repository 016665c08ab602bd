# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Read a host into one record. Reading only: `_preflight` decides."""

from __future__ import annotations

import ctypes
import fnmatch
import json
import os
import platform
import struct
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _host_disk, _host_proc
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner, Runner

TIME_DAEMONS = ("chronyd", "ntpd", "ntpsec", "systemd-timesyn", "openntpd")

# What the model store writes beside a version's files.
MODEL_RECORD = ".gpufleet-manifest.json"

Record = t.Dict[str, t.Any]


class Host(Runner, t.Protocol):
    """A Runner that can also look at directories, links and filesystems."""

    def names(self, path: str) -> t.List[str]:
        """Return the names in a directory, an empty list when it can't be read."""

    def link(self, path: str) -> str:
        """Return a link's target, an empty string when there is none."""

    def usage(self, path: str) -> t.Dict[str, t.Any]:
        """Return path, device, free and total bytes and inodes of the nearest parent that exists."""

    def clock(self) -> t.Optional[t.Tuple[int, int, int]]:
        """Return adjtimex's state, status and maximum error in microseconds, None when the host forbids asking."""

    def machine(self) -> t.Dict[str, str]:
        """Return ``{kernel, architecture, python, glibc}``."""


class LocalHost(LocalRunner):
    """This very host."""

    def names(self, path: str) -> t.List[str]:
        try:
            return sorted(os.listdir(path))
        except OSError:
            return []

    def link(self, path: str) -> str:
        try:
            return os.readlink(path)
        except OSError:
            return ""

    def usage(self, path: str) -> t.Dict[str, t.Any]:
        here = _host_disk.nearest_existing(path)
        vfs = os.statvfs(here)
        device = os.stat(here).st_dev
        return {
            "path": here,
            "device": "%d:%d" % (os.major(device), os.minor(device)),
            "free_bytes": vfs.f_bavail * vfs.f_frsize,
            "total_bytes": vfs.f_blocks * vfs.f_frsize,
            "free_inodes": vfs.f_favail,
            "total_inodes": vfs.f_files,
        }

    def clock(self) -> t.Optional[t.Tuple[int, int, int]]:
        return read_clock()

    def machine(self) -> t.Dict[str, str]:
        try:
            glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").replace("glibc ", "")
        except (ValueError, OSError):
            glibc = ""
        return {
            "kernel": os.uname().release,
            "architecture": os.uname().machine,
            "python": platform.python_version(),
            "glibc": glibc,
        }


def read_clock() -> t.Optional[t.Tuple[int, int, int]]:
    """Ask adjtimex(2) without changing anything: ``(state, status, maximum error in microseconds)`` or None.

    struct timex on LP64 Linux: int modes, padding, long offset, freq, maxerror, esterror, int status, …; 208 bytes.
    """
    if struct.calcsize("l") != 8:
        return None
    buffer = ctypes.create_string_buffer(256)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    _modes, _offset, _freq, maximum_error, _estimated, status = struct.unpack_from("=ixxxxqqqqi", buffer.raw)
    return state, status, maximum_error


def read_processes(host: Host) -> t.List[t.Dict[str, t.Any]]:
    """Return ``{pid, unit, name}`` of every process that can be seen."""
    processes = []
    for pid in host.names("/proc"):
        if not pid.isdigit():
            continue
        cgroup = host.read("/proc/%s/cgroup" % pid)
        if cgroup is None:
            continue
        name = (host.read("/proc/%s/comm" % pid) or "").strip()
        processes.append({"pid": int(pid), "unit": _host_proc.unit_of_cgroup(cgroup), "name": name})
    return processes


def sockets_of(host: Host, pid: int) -> t.Set[int]:
    """Return the inodes of the sockets a process holds."""
    inodes = set()
    base = "/proc/%d/fd" % pid
    for fd in host.names(base):
        target = host.link("%s/%s" % (base, fd))
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return inodes


def name_owners(
    host: Host, listeners: t.Sequence[t.Dict[str, t.Any]], processes: t.Sequence[t.Dict[str, t.Any]]
) -> t.List[t.Dict[str, t.Any]]:
    """Return the listeners with ``unit``, ``process`` and ``pid`` of who holds them; empty where that can't be seen.

    Services are looked at before loose processes, and the search ends when every listener has its owner.
    """
    wanted = {listener["inode"] for listener in listeners}
    owners: t.Dict[int, t.Dict[str, t.Any]] = {}
    for process in sorted(processes, key=lambda p: (not p["unit"], p["pid"])):
        if wanted <= set(owners):
            break
        for inode in sockets_of(host, process["pid"]) & wanted:
            owners.setdefault(inode, process)
    named = []
    for listener in listeners:
        owner = owners.get(listener["inode"], {})
        named.append(
            {
                "address": listener["address"],
                "port": listener["port"],
                "unit": owner.get("unit", ""),
                "process": owner.get("name", ""),
                "pid": owner.get("pid", 0),
            }
        )
    return named


def read_listeners(host: Host) -> t.List[t.Dict[str, t.Any]]:
    """Return every listening TCP socket of the host's network namespace."""
    return _host_proc.parse_listeners(host.read("/proc/net/tcp"), host.read("/proc/net/tcp6"))


def read_container(host: Host) -> str:
    """Return what kind of container this is by systemd's own marker, or an empty string."""
    kind = host.read("/run/systemd/container") or host.read("/run/host/container-manager")
    if kind:
        return kind.strip()
    environment = host.read("/proc/1/environ") or ""
    for item in environment.split("\0"):
        if item.startswith("container="):
            return item[len("container=") :]
    return ""


def read_time(host: Host, processes: t.Sequence[t.Dict[str, t.Any]]) -> t.Dict[str, t.Any]:
    """Return ``{synchronised: true|false|null, daemon, detail}``; null where the host doesn't let us ask."""
    daemons = sorted({p["name"] for p in processes} & set(TIME_DAEMONS))
    clock = host.clock()
    if clock is None:
        return {
            "synchronised": None,
            "daemon": ", ".join(daemons),
            "detail": "adjtimex isn't allowed here, as in most containers: the clock is the outer host's",
        }
    state, status, error = clock
    return {
        "synchronised": _host_proc.clock_synchronised(state, status, error),
        "daemon": ", ".join(daemons),
        "detail": "adjtimex state %d, status 0x%04x, maximum error %d us" % (state, status, error),
    }


def read_disk(host: Host, path: str) -> t.Dict[str, t.Any]:
    """Return the filesystem a path is on (or will be on): usage, device, filesystem type."""
    usage = host.usage(path)
    mount = _host_proc.parse_mount_of(host.read("/proc/self/mountinfo") or "", usage["device"])
    usage["filesystem"] = mount["filesystem"]
    return usage


def read_model_record(host: Host, current: str) -> t.Optional[t.Dict[str, t.Any]]:
    """Return ``{source, revision}`` of the version a model's link names, None when there is none."""
    try:
        record = json.loads(host.read("%s/%s" % (current, MODEL_RECORD)) or "")
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    return {"source": record.get("source"), "revision": record.get("revision")}


def read_held(host: Host, model_root: str, engine_root: str, models: t.Sequence[str]) -> t.Dict[str, t.Any]:
    """Return what is on the host's disk already: where each model's current version came from, names of the engines.

    The model store leaves a record of that beside the model's files.
    """
    return {
        "models": {name: read_model_record(host, "%s/%s/current" % (model_root, name)) for name in models},
        "engines": [name for name in host.names(engine_root) if name not in ("current", "previous")],
    }


def read_host(
    host: Host,
    *,
    model_root: str,
    engine_root: str,
    models: t.Sequence[str],
    ports: t.Sequence[int],
    engine_units: str = "vllm@*.service",
) -> Record:
    """Read everything the decisions need, once.

    Args:
        host: how to look at it.
        model_root: where the models live or will live.
        engine_root: where the engines live or will live.
        models: names of the models asked for.
        ports: TCP ports asked for; owners are looked up for these only.
        engine_units: pattern of the units whose memory will be given back when they are replaced.

    Returns:
        The record; ``gpu`` is null until a reader of GPUs fills it. The read rate is the caller's to add at
        ``disks.models.read``.
    """
    os_release = _host_proc.parse_os_release(host.read("/etc/os-release") or "")
    memory = _host_proc.parse_meminfo(host.read("/proc/meminfo") or "")
    processes = read_processes(host)
    held_bytes = sum(
        _host_proc.parse_status_bytes(host.read("/proc/%d/status" % p["pid"]) or "", "RssAnon")
        for p in processes
        if fnmatch.fnmatch(p["unit"], engine_units)
    )
    busy = [listener for listener in read_listeners(host) if listener["port"] in set(ports)]
    status, out, _err = host.run(["systemctl", "--version"])
    machine = host.machine()
    return {
        "platform": {
            "key": _host_proc.platform_key(os_release),
            "name": os_release.get("PRETTY_NAME", ""),
            "kernel": machine["kernel"],
            "architecture": machine["architecture"],
            "container": read_container(host),
        },
        "python": machine["python"],
        "glibc": machine["glibc"],
        "systemd": {
            "version": _host_proc.parse_systemd_version(out) if status == 0 else None,
            "is_pid_1": (host.read("/proc/1/comm") or "").strip() == "systemd",
        },
        "cgroup_version": 2 if host.read("/sys/fs/cgroup/cgroup.controllers") is not None else 1,
        "cpu": _host_proc.parse_cpuinfo(host.read("/proc/cpuinfo") or ""),
        "memory": {
            "total_bytes": memory.get("MemTotal", 0),
            "available_bytes": memory.get("MemAvailable", 0),
            "swap_bytes": memory.get("SwapTotal", 0),
            "held_by_engines_bytes": held_bytes,
        },
        "disks": {"models": read_disk(host, model_root), "engines": read_disk(host, engine_root)},
        "held": read_held(host, model_root, engine_root, models),
        "ports": name_owners(host, busy, processes) if busy else [],
        "time": read_time(host, processes),
        "gpu": None,
    }
