# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in memory: files, links, commands. Only what a test names exists."""

from __future__ import annotations

import typing as t

KERNEL = "6.1.0-50-amd64"
NEWER = "6.1.0-56-amd64"
WANTED = {"version": "100.20.30", "flavour": "open"}


class FakeHost:
    """A DriverHost over dictionaries; a directory is every prefix of a file or link."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {"/etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n'}
        self.links: dict[str, str] = {}
        self.times: dict[str, float] = {}
        self.answers: dict[str, tuple[int, str, str]] = {}
        self.ran: list[str] = []
        self.kernel = KERNEL

    def run(self, argv: t.Sequence[str]) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.ran.append(line)
        for known, answer in self.answers.items():
            if line == known or (known.endswith("*") and line.startswith(known[:-1])):
                return answer
        return (127, "", "%s: not found" % argv[0])

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def bytes(self, path: str) -> bytes | None:
        text = self.files.get(path)
        return text.encode() if text is not None else None

    def modified(self, path: str) -> float | None:
        return self.times.get(path)

    def names(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        below = [name[len(prefix) :].split("/")[0] for name in {**self.files, **self.links} if name.startswith(prefix)]
        return sorted(set(below))

    def link(self, path: str) -> str:
        return self.links.get(path, "")

    def machine(self) -> dict[str, str]:
        return {"kernel": self.kernel, "architecture": "x86_64", "python": "3.11", "glibc": "2.36"}

    def add_pci(self, address: str, device: str, kind: str, vendor: str = "0x10de", driver: str = "") -> None:
        base = "/sys/bus/pci/devices/" + address
        self.files.update({base + "/vendor": vendor + "\n", base + "/device": device, base + "/class": kind + "\n"})
        self.files.update({base + "/subsystem_vendor": "0x10DE\n", base + "/subsystem_device": "0x1626\n"})
        if driver:
            self.links[base + "/driver"] = "../../../bus/pci/drivers/" + driver

    def add_module(
        self, kernel: str, version: str, licence: str = "Dual MIT/GPL", signer: str = "", name: str = "nvidia"
    ) -> None:
        self.files["/lib/modules/%s/modules.dep" % kernel] = ""
        text = "filename:       /lib/modules/%s/updates/dkms/%s.ko\nversion:        %s\nlicense:        %s\n" % (
            kernel,
            name,
            version,
            licence,
        )
        if signer:
            text += "sig_id:         PKCS#7\nsigner:         %s\nsig_key:        5A:E8:01\n" % signer
        self.answers["modinfo -k %s %s" % (kernel, name)] = (0, text, "")

    def load(self, version: str, flavour: str = "open") -> None:
        kind = "Open Kernel Module" if flavour == "open" else "Kernel Module"
        self.files["/proc/driver/nvidia/version"] = (
            "NVRM version: NVIDIA UNIX %s for x86_64  %s  Release Build  (dvs-builder)\n" % (kind, version)
        )
        self.files["/sys/module/nvidia/version"] = version + "\n"
        self.files["/sys/module/nvidia/refcnt"] = "3\n"


def record(**changes: t.Any) -> dict[str, t.Any]:
    """A record of a host with one GPU, the wanted driver on disk for the running and the next kernel, none loaded."""
    module = {
        "name": "nvidia",
        "path": "/lib/modules/x/nvidia.ko",
        "version": WANTED["version"],
        "flavour": "open",
        "signer": "",
        "sig_key": "",
    }
    base: dict[str, t.Any] = {
        "platform": "debian12",
        "architecture": "x86_64",
        "kernel": {
            "running": KERNEL,
            "installed": [KERNEL],
            "next_boot": KERNEL,
            "next_boot_source": "grub",
            "has_modules": True,
        },
        "gpus": [{"pci_address": "0000:01:00.0", "pci_device_id": "2330", "pci_subsystem": "", "driver": ""}],
        "nvswitches": [],
        "module": {"loaded": False, "version": None, "flavour": None, "references": None, "on_disk": {KERNEL: module}},
        "dkms": {"installed": True, "modules": []},
        "nouveau": {"loaded": False, "forbidden": True, "initramfs": "", "in_initramfs": None},
        "secure_boot": {"state": "disabled", "enforced": False, "certificates": [], "signing_certificate": None},
        "clients": [],
        "cloud_init": "absent",
        "packages": {},
        "runfile": False,
        "sources": {},
        "runtimes": [],
        "cdi_specs": [],
        "files": {},
    }
    for path, value in changes.items():
        target = base
        *parents, last = path.split("__")
        for name in parents:
            target = target[name]
        target[last] = value
    return base
