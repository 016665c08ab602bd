# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Read all of a host that the NVIDIA driver depends on into one record. Reading only: ``_driver_state`` decides."""

from __future__ import annotations

import hashlib
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_boot as boot
from ansible_collections.gpufleet.llm.plugins.module_utils import _host_proc
from ansible_collections.gpufleet.llm.plugins.module_utils._host_read import Host
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner

Record = t.Dict[str, t.Any]

NVIDIA_VENDOR = "0x10de"
PCI_DEVICES = "/sys/bus/pci/devices"
MODULE_NAMES = ("nvidia", "nvidia-current", "nvidia-current-open")
# Names of packages that belong to the stack or hold it, as both package managers spell them.
PACKAGES = re.compile(
    r"nvidia|^cuda|^cudnn|^libcudnn|^libnv|^libcuda|^nvlsm|^xserver-xorg-video-nvidia"
    r"|^linux-(image|headers|kbuild|generic)|^kernel(-core|-devel)?$|^docker|^moby|^podman|^containerd|^dkms$"
)
# systemd-boot and RHEL write one file an entry; /boot is where both are seen.
LOADER_ENTRIES = "/boot/loader/entries"
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
DKMS_CERTIFICATES = ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der")
RUNTIMES = {"docker": "dockerd", "podman": "podman", "containerd": "containerd"}


class DriverHost(Host, t.Protocol):
    """A Host whose files can be told apart and dated."""

    def bytes(self, path: str) -> t.Optional[bytes]:
        """Return a file's content, None when it's absent."""

    def modified(self, path: str) -> t.Optional[float]:
        """Return when a file was last written, seconds since 1970, None when it's absent."""


def _line(runner: Runner, path: str) -> str:
    return (runner.read(path) or "").strip()


def read_gpus(host: Host) -> t.List[Record]:
    """Return the NVIDIA display and 3D controllers on the PCI bus, and what drives each."""
    gpus = []
    for address in host.names(PCI_DEVICES):
        base = "%s/%s" % (PCI_DEVICES, address)
        if _line(host, base + "/vendor") != NVIDIA_VENDOR:
            continue
        kind = _line(host, base + "/class")
        if kind[:6] not in ("0x0300", "0x0302"):
            continue
        subsystem = [_line(host, base + "/subsystem_" + part)[2:] for part in ("vendor", "device")]
        gpus.append(
            {
                "pci_address": address,
                "pci_device_id": _line(host, base + "/device")[2:].lower(),
                "pci_subsystem": ":".join(part.lower() for part in subsystem if part),
                "driver": host.link(base + "/driver").rsplit("/", 1)[-1],
            }
        )
    return gpus


def read_nvswitches(host: Host) -> t.List[Record]:
    """Return the NVSwitches on the PCI bus: NVIDIA's bridges of no other kind."""
    switches = []
    for address in host.names(PCI_DEVICES):
        base = "%s/%s" % (PCI_DEVICES, address)
        if _line(host, base + "/vendor") == NVIDIA_VENDOR and _line(host, base + "/class")[:6] == "0x0680":
            switches.append({"pci_address": address, "pci_device_id": _line(host, base + "/device")[2:].lower()})
    return switches


def read_kernels(host: Host) -> Record:
    """Return the running kernel, the installed ones, and the one that boots next with how that is known."""
    running = host.machine()["kernel"]
    installed = [boot.kernel_of_path(name) for name in host.names("/boot") if name.startswith(("vmlinuz-", "vmlinux-"))]
    grub = environment = None
    for place in ("/boot/grub", "/boot/grub2"):
        grub = grub or host.read(place + "/grub.cfg")
        environment = environment or host.read(place + "/grubenv")
    entries = {
        name[:-5]: host.read("%s/%s" % (LOADER_ENTRIES, name)) or ""
        for name in host.names(LOADER_ENTRIES)
        if name.endswith(".conf")
    }
    following = boot.next_boot(
        grub=grub, environment=environment or "", loader_entries=entries, installed=installed, running=running
    )
    return {
        "running": running,
        "installed": sorted((kernel for kernel in installed if kernel), key=boot.version_key),
        "next_boot": following["kernel"],
        "next_boot_source": following["source"],
        "has_modules": bool(host.names("/lib/modules/%s" % following["kernel"])),
    }


def read_module_on_disk(host: Host, kernel: str) -> t.Optional[Record]:
    """Return ``{name, path, version, flavour, signer, sig_key}`` of a kernel's NVIDIA module, None without one."""
    if not kernel or not host.names("/lib/modules/%s" % kernel):
        return None
    for name in MODULE_NAMES:
        status, out, _err = host.run(["modinfo", "-k", kernel, name])
        fields = boot.parse_modinfo(out) if status == 0 else {}
        if fields.get("version"):
            return {
                "name": name,
                "path": fields.get("filename", ""),
                "version": fields["version"],
                "flavour": boot.flavour_of_license(fields.get("license", "")),
                "signer": fields.get("signer", ""),
                "sig_key": fields.get("sig_key", ""),
            }
    return None


def read_module(host: Host, kernels: t.Mapping[str, t.Any]) -> Record:
    """Return the loaded module, and the one on disk for the running kernel and for the next boot."""
    banner = host.read("/proc/driver/nvidia/version") or ""
    version = _line(host, "/sys/module/nvidia/version") or boot.version_of_banner(banner)
    users = _line(host, "/sys/module/nvidia/refcnt")
    wanted = sorted({kernels["running"], kernels["next_boot"]})
    return {
        "loaded": bool(version),
        "version": version or None,
        "flavour": boot.flavour_of_banner(banner),
        "references": int(users) if users.lstrip("-").isdigit() else None,
        "on_disk": {kernel: read_module_on_disk(host, kernel) for kernel in wanted},
    }


def read_dkms(host: Host) -> Record:
    """Return whether DKMS is there, and what it says of NVIDIA's modules."""
    status, out, _err = host.run(["dkms", "status"])
    return {"installed": status != 127, "modules": boot.parse_dkms(out) if status == 0 else []}


def read_nouveau(host: DriverHost, kernel: str, blacklist: str) -> Record:
    """Return whether nouveau is loaded or forbidden, and whether the next boot's initramfs still brings it.

    The initramfs is only opened when it's older than the file that forbids nouveau, for that takes about a second:
    a younger one was built under that file. ``in_initramfs`` is null where it wasn't opened or can't be.
    """
    forbidden = host.modified(blacklist)
    image, built = "", None
    for candidate in ("/boot/initrd.img-%s" % kernel, "/boot/initramfs-%s.img" % kernel):
        if built is None:
            image, built = candidate, host.modified(candidate)
    inside: t.Optional[bool] = None
    if built is not None and (forbidden is None or built < forbidden):
        for command in ("lsinitramfs", "lsinitrd"):
            status, out, _err = host.run([command, image])
            if status == 0:
                inside = bool(re.search(r"/nouveau\.ko", out))
                break
    return {
        "loaded": bool(host.names("/sys/module/nouveau")),
        "forbidden": forbidden is not None,
        "initramfs": image if built is not None else "",
        "in_initramfs": inside,
    }


def read_secure_boot(host: Host) -> Record:
    """Return whether the kernel insists on signed modules, and the certificates it takes.

    ``state`` is enabled, disabled, or unsupported (no UEFI); ``enforced`` is whether an unsigned module would be
    refused, which lockdown and ``module.sig_enforce`` bring about as well. Certificates are asked only then.
    """
    variable = host.read(SECURE_BOOT)
    state = "unsupported"
    if host.names("/sys/firmware/efi"):
        state = "enabled" if variable and variable.endswith("\x01") else "disabled"
    lockdown = re.search(r"\[(\w+)\]", host.read("/sys/kernel/security/lockdown") or "")
    enforced = (
        state == "enabled"
        or _line(host, "/sys/module/module/parameters/sig_enforce") == "Y"
        or (lockdown is not None and lockdown.group(1) != "none")
    )
    record: Record = {"state": state, "enforced": enforced, "certificates": [], "signing_certificate": None}
    if not enforced:
        return record
    status, out, _err = host.run(["mokutil", "--list-enrolled"])
    if status == 0:
        record["certificates"] = boot.parse_mokutil(out)
    record["certificates"] += boot.parse_proc_keys(host.read("/proc/keys") or "")
    for path in DKMS_CERTIFICATES:
        if host.read(path) is not None:
            _status, out, _err = host.run(["mokutil", "--test-key", path])
            enrolled = "is already enrolled" in out if "enrolled" in out else None
            record["signing_certificate"] = {"path": path, "enrolled": enrolled}
            break
    return record


def read_clients(host: Host) -> t.List[Record]:
    """Return the processes that have a device of the driver open: ``{pid, name, unit, devices}`` each."""
    clients = []
    for pid in host.names("/proc"):
        if not pid.isdigit():
            continue
        links = {host.link("/proc/%s/fd/%s" % (pid, fd)) for fd in host.names("/proc/%s/fd" % pid)}
        devices = sorted(link for link in links if link.startswith("/dev/nvidia"))
        if devices:
            unit = _host_proc.unit_of_cgroup(host.read("/proc/%s/cgroup" % pid) or "")
            name = _line(host, "/proc/%s/comm" % pid)
            clients.append({"pid": int(pid), "name": name, "unit": unit, "devices": devices})
    return clients


def read_cloud_init(host: Host) -> str:
    """Return absent, disabled, running, or done, by the files cloud-init leaves; asking it takes half a second."""
    if "cloud-init" not in host.names("/usr/bin"):
        return "absent"
    if "disabled" in host.names("/run/cloud-init") or "cloud-init.disabled" in host.names("/etc/cloud"):
        return "disabled"
    if "result.json" in host.names("/run/cloud-init"):
        return "done"
    return "running" if host.names("/run/cloud-init") else "disabled"


def read_packages(host: Host) -> t.Dict[str, str]:
    """Return the installed packages of the stack, of the kernel and of the container runtimes, with their versions."""
    status, out, _err = host.run(["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Status}\n"])
    if status == 127:
        _status, out, _err = host.run(["rpm", "-qa", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\tinstalled\n"])
    found = {}
    for line in out.splitlines():
        fields = line.split("\t")
        if len(fields) == 3 and fields[2] == "installed" and PACKAGES.search(fields[0]):
            found[fields[0]] = fields[1]
    return found


def read_sources(host: Host) -> t.Dict[str, t.List[str]]:
    """Return the repository URLs of each of apt's and dnf's source files."""
    places = ("/etc/apt/sources.list.d", "/etc/yum.repos.d")
    files = ["/etc/apt/sources.list"]
    for place in places:
        files += ["%s/%s" % (place, n) for n in host.names(place) if n.endswith((".list", ".sources", ".repo"))]
    sources = {}
    for path in files:
        urls = []
        for line in (host.read(path) or "").splitlines():
            if not line.lstrip().startswith("#"):
                urls += [url.rstrip("/") for url in re.findall(r"(?:https?|file|copy)://?[^\s\]]+", line)]
        if urls:
            sources[path] = urls
    return sources


def read_files(host: DriverHost, paths: t.Sequence[str]) -> t.Dict[str, t.Optional[str]]:
    """Return the SHA-256 of each file, None where it's absent: so that what is there needn't be sent again."""
    sums: t.Dict[str, t.Optional[str]] = {}
    for path in paths:
        data = host.bytes(path)
        sums[path] = hashlib.sha256(data).hexdigest() if data is not None else None
    return sums


def read_state(host: DriverHost, *, blacklist: str, files: t.Sequence[str] = ()) -> Record:
    """Read everything the driver depends on, once.

    Args:
        host: how to look at it.
        blacklist: path of the file that forbids nouveau.
        files: paths whose SHA-256 is wanted.
    """
    os_release = _host_proc.parse_os_release(host.read("/etc/os-release") or "")
    kernels = read_kernels(host)
    programs = {name for place in ("/usr/bin", "/usr/sbin", "/usr/local/bin") for name in host.names(place)}
    return {
        "platform": _host_proc.platform_key(os_release),
        "platform_name": os_release.get("PRETTY_NAME", ""),
        "architecture": host.machine()["architecture"],
        "kernel": kernels,
        "gpus": read_gpus(host),
        "nvswitches": read_nvswitches(host),
        "module": read_module(host, kernels),
        "dkms": read_dkms(host),
        "nouveau": read_nouveau(host, kernels["next_boot"], blacklist),
        "secure_boot": read_secure_boot(host),
        "reboot_pending": "reboot-required" in host.names("/run"),
        "clients": read_clients(host),
        "cloud_init": read_cloud_init(host),
        "packages": read_packages(host),
        "runfile": "nvidia-uninstall" in programs,
        "sources": read_sources(host),
        "runtimes": [name for name, program in sorted(RUNTIMES.items()) if program in programs],
        "cdi_specs": sorted(
            "%s/%s" % (place, name)
            for place in ("/etc/cdi", "/run/cdi")
            for name in host.names(place)
            if name.startswith("nvidia") and name.endswith((".yaml", ".json"))
        ),
        "files": read_files(host, files),
    }
