# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Parsers of what Linux says about itself in text: no I/O, no decisions."""

from __future__ import annotations

import ipaddress
import re
import struct
import typing as t

# os-release IDs whose name in Ansible's ``distribution`` fact (and so in a release's platforms) differs.
DISTRIBUTION_OF_ID = {"rhel": "redhat", "ol": "oraclelinux", "amzn": "amazon", "opensuse-leap": "opensuse leap"}

TCP_LISTEN = "0A"
STA_UNSYNC = 0x0040
TIME_ERROR = 5
# systemd's own rule (src/basic/time-util or timedate): a clock whose maximum error is 16 s or more isn't synchronised.
MAXIMUM_ERROR_MICROSECONDS = 16000000


def parse_os_release(text: str) -> t.Dict[str, str]:
    """Return os-release's assignments with the quotes removed."""
    values: t.Dict[str, str] = {}
    for line in text.splitlines():
        key, sep, value = line.strip().partition("=")
        if not sep or key.startswith("#"):
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        values[key] = value
    return values


def platform_key(os_release: t.Mapping[str, str]) -> str:
    """Return the key a release uses for this system: lower-case distribution and major version, as in ``debian12``."""
    identity = os_release.get("ID", "")
    major = os_release.get("VERSION_ID", "").split(".")[0]
    return "%s%s" % (DISTRIBUTION_OF_ID.get(identity, identity), major)


def parse_meminfo(text: str) -> t.Dict[str, int]:
    """Return /proc/meminfo in bytes, by the kernel's names."""
    values: t.Dict[str, int] = {}
    for line in text.splitlines():
        match = re.match(r"^(\S+):\s+(\d+)( kB)?$", line)
        if match:
            values[match.group(1)] = int(match.group(2)) * (1024 if match.group(3) else 1)
    return values


def parse_cpuinfo(text: str) -> t.Dict[str, t.Any]:
    """Return ``{model, threads, features}`` from /proc/cpuinfo (x86 names ``flags``, arm64 names ``Features``)."""
    model = ""
    threads = 0
    features: t.Set[str] = set()
    for line in text.splitlines():
        key, _sep, value = line.partition(":")
        key = key.strip()
        value = value.strip()
        if key == "processor":
            threads += 1
        elif key == "model name" and not model:
            model = value
        elif key in ("flags", "Features") and not features:
            features = set(value.split())
    return {"model": model, "threads": threads, "features": sorted(features)}


def _address(text: str) -> str:
    """Return an address of /proc/net/tcp{,6}: 32-bit words in the host's byte order, little-endian on what we run."""
    words = [text[i : i + 8] for i in range(0, len(text), 8)]
    packed = b"".join(struct.pack("<I", int(word, 16)) for word in words)
    address = ipaddress.ip_address(packed)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def parse_listeners(*texts: t.Optional[str]) -> t.List[t.Dict[str, t.Any]]:
    """Return the listening sockets of /proc/net/tcp and /proc/net/tcp6: ``{address, port, inode}`` each."""
    listeners: t.List[t.Dict[str, t.Any]] = []
    for text in texts:
        for line in (text or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != TCP_LISTEN:
                continue
            address, _sep, port = fields[1].partition(":")
            listeners.append({"address": _address(address), "port": int(port, 16), "inode": int(fields[9])})
    return listeners


def is_loopback(address: str) -> bool:
    """Tell whether an address reaches only the host itself."""
    return ipaddress.ip_address(address).is_loopback


def unit_of_cgroup(text: str) -> str:
    """Return the systemd service a process belongs to by its /proc/PID/cgroup, or an empty string.

    Works for cgroup v1 (the ``name=systemd`` line) and v2 (the ``0::`` line), and inside a container whose paths have
    a prefix: the last ``.service`` segment counts.
    """
    for line in text.splitlines():
        number, controllers, path = (line.split(":", 2) + ["", "", ""])[:3]
        if controllers == "name=systemd" or (number == "0" and controllers == ""):
            services = [segment for segment in path.split("/") if segment.endswith(".service")]
            if services:
                return services[-1]
    return ""


def parse_status_bytes(text: str, key: str) -> int:
    """Return one memory figure of /proc/PID/status in bytes, 0 when it isn't there."""
    match = re.search(r"^%s:\s+(\d+) kB$" % re.escape(key), text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def parse_systemd_version(text: str) -> t.Optional[int]:
    """Return the major version of ``systemctl --version``."""
    match = re.match(r"^systemd (\d+)", text)
    return int(match.group(1)) if match else None


def parse_version(text: str) -> t.Tuple[int, ...]:
    """Return the leading numbers of a dotted version, for comparison: ``2.36`` is ``(2, 36)``."""
    match = re.match(r"^\d+(\.\d+)*", text or "")
    return tuple(int(part) for part in match.group(0).split(".")) if match else ()


def parse_mount_of(mountinfo: str, device: str) -> t.Dict[str, str]:
    """Return ``{filesystem, source, mount_point}`` of a ``major:minor`` device by /proc/self/mountinfo."""
    for line in mountinfo.splitlines():
        before, sep, after = line.partition(" - ")
        fields = before.split()
        rest = after.split()
        if sep and len(fields) >= 5 and len(rest) >= 2 and fields[2] == device:
            return {"filesystem": rest[0], "source": rest[1], "mount_point": fields[4]}
    return {"filesystem": "", "source": "", "mount_point": ""}


def clock_synchronised(state: int, status: int, maximum_error_microseconds: int) -> bool:
    """Decide as systemd-timedated does from adjtimex(2)'s answer."""
    if state == TIME_ERROR and status & STA_UNSYNC:
        return False
    return maximum_error_microseconds < MAXIMUM_ERROR_MICROSECONDS
