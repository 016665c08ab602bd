# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The machine's side of the lab: processes, mounts, locks, network. Everything here can be run again."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_plan
from ansible_collections.gpufleet.llm.plugins.module_utils._lab_plan import (
    REQUIREMENTS,
    AptEntry,
    HostNames,
    Network,
    firewall_text,
    parse_deb822_sources,
    parse_one_line_sources,
)

POLL_SECONDS = 0.05
# What the kernel, iproute2 and systemd-nspawn show of themselves.
NET_DIR = "/sys/class/net"
MOUNTS_FILE = "/proc/self/mountinfo"
NSPAWN_DIR = "/run/systemd/nspawn"


class LabError(Exception):
    """Something that stops the lab, said for a person: what was expected, what was found, the remedy."""


def run(
    argv: t.Sequence[str],
    *,
    stdin: t.Optional[str] = None,
    check: bool = True,
    timeout_seconds: float = 60.0,
) -> "subprocess.CompletedProcess[str]":
    """Run a command without a shell and return what it said; a failure is a LabError unless ``check`` is false."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin if stdin is not None else "",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            errors="replace",
            timeout=timeout_seconds,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as exc:
        raise LabError("the command %s isn't there: %s" % (argv[0], exc)) from exc
    except subprocess.TimeoutExpired as exc:
        raise LabError("%s gave no answer in %d s" % (" ".join(argv), timeout_seconds)) from exc
    if check and done.returncode:
        raise LabError("%s ended with %d: %s" % (" ".join(argv), done.returncode, done.stderr.strip()))
    return done


def write_file(path: str, text: str, mode: int = 0o644) -> bool:
    """Write a text file whole or not at all; return whether that changed it."""
    try:
        with open(path, encoding="utf-8") as handle:
            if handle.read() == text and os.stat(path).st_mode & 0o7777 == mode:
                return False
    except (OSError, ValueError):
        pass  # absent or not text: written below
    number = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(number, "w", encoding="utf-8") as handle:
        handle.write(text)
    os.chmod(path + ".new", mode)
    os.replace(path + ".new", path)
    return True


def read_json(path: str) -> t.Dict[str, t.Any]:
    """Return a JSON file's object; empty when it's absent or not one."""
    try:
        with open(path, encoding="utf-8") as handle:
            found = json.load(handle)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def locked(path: str, timeout_seconds: float) -> t.Iterator[int]:
    """Hold an exclusive lock on a file; another holder is waited for, at most so long. Yields the descriptor."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        number = take_lock(path)
        if number is not None:
            break
        if time.monotonic() > deadline:
            raise LabError(
                "the lock %s is still held after %d s by another run. "
                "Remedy: wait for that run, or end it." % (path, timeout_seconds)
            )
        time.sleep(0.2)
    try:
        yield number
    finally:
        os.close(number)


def take_lock(path: str) -> t.Optional[int]:
    """Try to lock a file; return its descriptor, or None while it's held or when its holder removed it."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None  # the directory went between the two
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(number), os.stat(path)):
            return number
    except (BlockingIOError, FileNotFoundError):
        pass  # held, or removed by the one who held it: the caller tries again
    os.close(number)
    return None


def remove_lock(path: str) -> None:
    """Remove a lock that's held, and its directory when that's empty."""
    with contextlib.suppress(OSError):
        os.unlink(path)
        os.rmdir(os.path.dirname(path))


def wait_for(condition: t.Callable[[], bool], timeout_seconds: float) -> bool:
    """Wait until a condition holds; return whether it came to hold in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


# -- what the control node has ---------------------------------------------------------------------


def missing_packages() -> t.List[str]:
    """Return the Debian packages the control node lacks for a lab."""
    missing = []
    for thing, package in REQUIREMENTS:
        there = os.path.exists(thing) if thing.startswith("/") else shutil.which(thing, path=tool_path()) is not None
        if not there and package not in missing:
            missing.append(package)
    return missing


def tool_path() -> str:
    """Return a search path that has the system tools, whatever the caller's says."""
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


def pid_one_is_systemd() -> bool:
    """Say whether this machine was booted by systemd, as sd_booted(3) does."""
    return os.path.isdir("/run/systemd/system")


def apt_entries() -> t.List[AptEntry]:
    """Return the control node's own apt entries, with a mirror list file resolved to its first mirror."""
    entries: t.List[AptEntry] = []
    for path in sorted(glob.glob("/etc/apt/sources.list.d/*.sources")):
        entries.extend(parse_deb822_sources(read_text(path)))
    for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*.list"))]:
        entries.extend(parse_one_line_sources(read_text(path)))
    for entry in entries:
        if entry["uri"].startswith("mirror+file:"):
            lines = read_text(entry["uri"][len("mirror+file:") :]).split()
            entry["uri"] = next((word for word in lines if word.startswith("http")), entry["uri"])
    return entries


def read_text(path: str) -> str:
    """Return a text file's content, empty when it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def apt_options() -> t.Dict[str, str]:
    """Return what the control node's apt says about dates and its own proxy, where it says so."""
    found: t.Dict[str, str] = {}
    if shutil.which("apt-config", path=tool_path()) is None:
        return found
    names = ("Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::http::Proxy")
    for line in run(["apt-config", "dump", *names]).stdout.splitlines():
        key, _space, value = line.partition(" ")
        value = value.strip().rstrip(";").strip('"')
        if key in names and value:
            found[key] = value
    return found


# -- processes -------------------------------------------------------------------------------------


def find_processes(program: str, argument: str) -> t.List[int]:
    """Return the processes that run ``program`` (the base name of one of the first two words) with this very argument.

    A host's directory is in the command lines of its supervisor and its nspawn and in nobody else's: so a process is
    known by what it is, never by a number that was written down and may belong to another by now.
    """
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and is_process(int(entry), program, argument):
            found.append(int(entry))
    return found


def is_process(pid: int, program: str, argument: str) -> bool:
    """Say whether a process runs this program with this argument and hasn't ended."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as handle:
            words = handle.read().decode("utf-8", "replace").split("\0")
    except OSError:
        return False
    return any(os.path.basename(word) == program for word in words[:2]) and argument in words


def send_signal(pid: int, number: int, program: str, argument: str) -> None:
    """Signal a process if, held by a descriptor, it still is the one that was meant."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if is_process(pid, program, argument):
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def stop_processes(program: str, argument: str, timeout_seconds: float) -> bool:
    """End the processes that run this, by SIGTERM and then by SIGKILL; return whether there were any."""
    pids = find_processes(program, argument)
    for pid in pids:
        send_signal(pid, signal.SIGTERM, program, argument)
    if not wait_for(lambda: not find_processes(program, argument), timeout_seconds):
        for pid in find_processes(program, argument):
            send_signal(pid, signal.SIGKILL, program, argument)
        if not wait_for(lambda: not find_processes(program, argument), 10.0):
            raise LabError("%s for %s can't be ended" % (program, argument))
    return bool(pids)


def start_detached(argv: t.Sequence[str], unit: str, log: str, env: t.Optional[t.Dict[str, str]] = None) -> None:
    """Start a process that outlives this one: a transient unit where PID 1 is systemd, else a session of its own."""
    environment = {"PATH": tool_path(), "LC_ALL": "C", **(env or {})}
    if pid_one_is_systemd():
        run(["systemctl", "reset-failed", unit], check=False)
        settings = [
            "Delegate=yes",
            "KillMode=mixed",
            "TimeoutStopSec=60",
            "StandardInput=null",
            "StandardOutput=append:%s" % log,
            "StandardError=append:%s" % log,
            *("Environment=%s=%s" % pair for pair in sorted(environment.items())),
        ]
        run(["systemd-run", "--quiet", "--collect", "--unit=%s" % unit, *("-p%s" % s for s in settings), "--", *argv])
        return
    with open(log, "ab") as handle:
        subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            cwd="/",
            env=environment,
            start_new_session=True,
            close_fds=True,
        )


def tail(path: str, lines: int = 15) -> str:
    """Return the last lines of a log, for an error."""
    return "\n".join(read_text(path).splitlines()[-lines:])


# -- mounts ----------------------------------------------------------------------------------------


def mounts_under(path: str) -> t.List[str]:
    """Return the mount points at and under a path, the deepest first."""
    found = []
    for line in read_text(MOUNTS_FILE).splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == path or point.startswith(path.rstrip("/") + "/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def unmount(path: str) -> bool:
    """Unmount everything at and under a path; return whether there was anything."""
    points = mounts_under(path)
    for point in points:
        for _attempt in range(20):
            if run(["umount", point], check=False).returncode == 0 or point not in mounts_under(point):
                break
            time.sleep(0.1)
        else:
            run(["umount", "--lazy", point])
    return bool(points)


def remove_tree(path: str) -> bool:
    """Remove a directory of ours with all in it, never across a mount; return whether it was there."""
    if not os.path.lexists(path):
        return False
    unmount(path)
    left = mounts_under(path)
    if left:
        raise LabError("%s isn't removed: %s is still mounted. Remedy: unmount it and run again." % (path, left[0]))
    shutil.rmtree(path)
    return True


def mount_overlay(lower: str, directory: str, root: str) -> bool:
    """Mount a host's root: the base below, the host's own files above; return whether it wasn't mounted."""
    if root in mounts_under(root):
        return False
    upper, work = os.path.join(directory, "upper"), os.path.join(directory, "work")
    for path in (upper, work, root):
        os.makedirs(path, mode=0o755, exist_ok=True)
        os.chmod(path, 0o755)
    options = "lowerdir=%s,upperdir=%s,workdir=%s" % (lower, upper, work)
    done = run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=False)
    if done.returncode:
        raise LabError(
            "an overlay can't be mounted on %s: %s. Remedy: put lab_host_state_dir on a file system that can carry an "
            "overlay's upper directory (ext4, xfs, btrfs; not an overlay), and load the kernel module overlay."
            % (root, done.stderr.strip())
        )
    return True


# -- network ---------------------------------------------------------------------------------------


def link_exists(name: str) -> bool:
    """Say whether an interface of the control node is there."""
    return os.path.exists(os.path.join(NET_DIR, name))


def foreign_interfaces(network: Network) -> t.List[str]:
    """Return the control node's interfaces that use the lab network and aren't the lab's."""
    found = []
    for link in json.loads(run(["ip", "-json", "-4", "address", "show"]).stdout or "[]"):
        for entry in link.get("addr_info", []):
            address = entry.get("local")
            if address and link["ifname"] != network.bridge and in_network(address, network):
                found.append("%s (%s)" % (link["ifname"], address))
    return found


def in_network(address: str, network: Network) -> bool:
    """Say whether an address belongs to the lab network."""
    return ipaddress.IPv4Address(address) in network.network


def ensure_network(network: Network) -> bool:
    """Make the bridge and the ruleset that keeps it in; return whether anything was missing. Call it locked."""
    changed = False
    os.makedirs(os.path.join(network.run_dir, "access"), exist_ok=True)
    if not link_exists(network.bridge):
        foreign = foreign_interfaces(network)
        if foreign:
            raise LabError(
                "lab_host_network: %s is in use on this machine by %s. Remedy: choose another network."
                % (network.cidr, ", ".join(foreign))
            )
        run(["ip", "link", "add", network.bridge, "type", "bridge", "forward_delay", "0"])
        changed = True
    if run(["nft", "list", "table", "inet", network.table], check=False).returncode:
        run(["nft", "-f", "-"], stdin=firewall_text(network))
        changed = True
    # Before the ruleset is there the bridge has no address and isn't up.
    state = run(["ip", "-4", "-oneline", "address", "show", "dev", network.bridge, "up"]).stdout
    if network.gateway + "/" not in state:
        run(["ip", "link", "set", network.bridge, "addrgenmode", "none"], check=False)
        run(["ip", "address", "replace", "%s/%d" % (network.gateway, network.prefix_length), "dev", network.bridge])
        run(["ip", "link", "set", network.bridge, "up"])
        changed = True
    return changed


def ensure_namespace(names: HostNames, network: Network, address: str) -> bool:
    """Make a host's network namespace, its cable and its address; return whether anything was missing."""
    namespace = names.namespace
    changed = False
    if (
        not os.path.exists(os.path.join(_lab_plan.NETNS_DIR, namespace))
        or run(["ip", "-n", namespace, "link", "show", "lo"], check=False).returncode
    ):
        run(["ip", "netns", "delete", namespace], check=False)
        run(["ip", "netns", "add", namespace])
        changed = True
    if run(["ip", "-n", namespace, "link", "show", "eth0"], check=False).returncode:
        run(["ip", "link", "delete", names.veth], check=False)
        run(["ip", "link", "add", names.veth, "type", "veth", "peer", "name", names.veth_inside])
        run(["ip", "link", "set", names.veth_inside, "netns", namespace])
        run(["ip", "-n", namespace, "link", "set", names.veth_inside, "name", "eth0"])
        changed = True
    if not os.path.exists(os.path.join(NET_DIR, names.veth, "master")):
        run(["ip", "link", "set", names.veth, "addrgenmode", "none"], check=False)
        run(["ip", "link", "set", names.veth, "master", network.bridge, "up"])
        changed = True
    state = run(["ip", "-n", namespace, "-4", "-oneline", "address", "show", "dev", "eth0", "up"]).stdout
    if " %s/%d " % (address, network.prefix_length) not in state:
        run(["ip", "-n", namespace, "link", "set", "lo", "up"])
        run(["ip", "-n", namespace, "link", "set", "eth0", "addrgenmode", "none"], check=False)
        run(["ip", "-n", namespace, "address", "replace", "%s/%d" % (address, network.prefix_length), "dev", "eth0"])
        run(["ip", "-n", namespace, "link", "set", "eth0", "up"])
        changed = True
    return changed


def remove_namespace(names: HostNames) -> bool:
    """Remove a host's namespace and cable; return whether either was there."""
    there = link_exists(names.veth) or os.path.exists(os.path.join(_lab_plan.NETNS_DIR, names.namespace))
    if link_exists(names.veth):
        run(["ip", "link", "delete", names.veth], check=False)
    if os.path.exists(os.path.join(_lab_plan.NETNS_DIR, names.namespace)):
        run(["ip", "netns", "delete", names.namespace])
    return there


def remove_network_if_unused(network: Network) -> bool:
    """Remove the bridge, its ruleset and its directory when no host is left on it. Call it locked."""
    hosts = os.path.join(network.run_dir, "hosts")
    if os.path.isdir(hosts) and os.listdir(hosts):
        return False
    ports = os.path.join(NET_DIR, network.bridge, "brif")
    if os.path.isdir(ports) and os.listdir(ports):
        return False
    changed = False
    if link_exists(network.bridge):
        run(["ip", "link", "delete", network.bridge])
        changed = True
    if run(["nft", "list", "table", "inet", network.table], check=False).returncode == 0:
        run(["nft", "delete", "table", "inet", network.table])
        changed = True
    if os.path.isdir(network.run_dir):
        shutil.rmtree(network.run_dir)
        changed = True
    remove_lock(network.run_dir + ".lock")
    return changed


def says_ssh(address: str) -> bool:
    """Say whether an ssh server greets at an address."""
    try:
        with socket.create_connection((address, 22), timeout=1.0) as connection:
            connection.settimeout(2.0)
            return connection.recv(4).startswith(b"SSH-")
    except OSError:
        return False
