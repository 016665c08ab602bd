# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What the rules of cuda_parity look at: the record, the release and the options, and what follows from them."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_facts as known
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding

Record = t.Mapping[str, t.Any]

PREFIX = "parity."

# The links in the order of the chain, each with what a person does when it breaks. %(…)s comes from `View.words`.
LINKS: t.Dict[str, str] = {
    "gpu": (
        "Look at the kernel log (dmesg) for NVRM and Xid lines; reset the GPU or reboot, and seat or replace a GPU "
        "that stays away. A host that has none is no host for gpufleet_accelerator: cuda."
    ),
    "driver": (
        "Install and load the driver with the role nvidia_driver (release: %(release_driver)s), and reboot when it "
        "says that it owes a reboot."
    ),
    "package_library": (
        "Install the driver's packages again with the role nvidia_driver; remove a driver that came from a .run file "
        "by nvidia-uninstall first."
    ),
    "driver_library": (
        "The driver's libraries and the kernel module in memory are of different versions: drain the engines and "
        "reboot, or stop every process that uses a GPU, unload the nvidia modules and load them again. Hold the "
        "packages (role nvidia_driver), so that nothing replaces them under a running engine."
    ),
    "module_disk": (
        "Build or install the kernel module of the installed driver for the running kernel (dkms autoinstall -k "
        "%(running_kernel)s, with its headers), then load it: drain the engines and reboot."
    ),
    "module_next_boot": (
        "Before a reboot: install the headers of kernel %(next_kernel)s, build the module (dkms autoinstall -k "
        "%(next_kernel)s) and look at it with modinfo -k %(next_kernel)s nvidia; or boot the kernel that has one, and "
        "hold the kernel packages with the driver."
    ),
    "module_gpu": (
        "Install the other kernel module flavour (nvidia_driver_flavour), or the driver branch that has support for "
        "this GPU."
    ),
    "driver_release": (
        "Run the role nvidia_driver: it installs %(release_driver)s, pins and holds it, and says whether a reboot is "
        "owed. Or choose the release whose driver this is."
    ),
    "driver_cuda": (
        "Install a driver of the release (%(release_driver)s, role nvidia_driver), or an engine built for an older "
        "CUDA."
    ),
    "forward_compatibility": (
        "Take the compat directory out of LD_LIBRARY_PATH and of ld.so.conf.d, and remove the packages cuda-compat-*; "
        "upgrade the driver instead. Forward compatibility works on data center GPUs only, and only on the branches "
        "that NVIDIA lists."
    ),
    "cuda_toolkit": "Run the role cuda_toolkit: it installs CUDA %(release_toolkit)s and points /usr/local/cuda at it.",
    "cudnn_host": "Run the role cuda_toolkit, which installs the release's cuDNN; or upgrade the driver.",
    "fabric_manager": (
        "Install the fabric manager of exactly the driver's version (%(driver)s, role nvidia_driver), then enable and "
        "start %(fabric_unit)s; its journal says what it waits for."
    ),
    "fabric": (
        "Wait for the fabric manager (journalctl -u %(fabric_unit)s); when the state doesn't become completed, "
        "compare its version with the driver's and look at the NVLinks (nvidia-smi nvlink -s), then reboot."
    ),
    "container_toolkit": (
        "Run the role nvidia_container_toolkit: it installs the four packages at %(release_ctk)s and holds them."
    ),
    "cdi": (
        "Write the specification again (nvidia-ctk cdi generate, or systemctl start nvidia-cdi-refresh.service); the "
        "role nvidia_container_toolkit does it after each change of the driver."
    ),
    "engine": "Deploy the engine again with its role; what its interpreter said is above.",
    "engine_release": "Deploy the release's engine with its role, or choose the release that pins this one.",
    "torch_release": "Build the engine from the release's lock file; a torch from elsewhere has another CUDA.",
    "glibc": "Use a platform whose C library is new enough, or the release whose wheels run on this one.",
    "torch_driver": (
        "Install a driver of the release (%(release_driver)s, role nvidia_driver), or choose the release whose torch "
        "is built for a CUDA that this driver runs."
    ),
    "cudnn_engine": (
        "Install a driver of the release (%(release_driver)s), and let the engine find no cuDNN but that of its own "
        "wheels: nothing of it in LD_LIBRARY_PATH."
    ),
    "compute_capability": (
        "Choose a release whose torch is built for this GPU; the wheel on this host holds no code for it, and no "
        "driver changes that."
    ),
    "ptx": (
        "Install a driver that knows the CUDA of the PTX (%(release_driver)s or newer), or choose a release whose "
        "torch has machine code for this GPU."
    ),
    "engine_compute_capability": (
        "Use GPUs of compute capability %(engine_capability)s or higher, or a release whose engine runs on this one."
    ),
    "compute": (
        "Look at the kernel log for Xid lines and at the GPU's ECC counters (module gpu_state); a GPU that computes "
        "wrongly is drained and replaced."
    ),
}


class Gpu(t.NamedTuple):
    """One GPU as the rules see it.

    Attributes:
        number: its index by NVML, None where only PCI shows it.
        name: for people.
        device_id: PCI device id, four lower-case hex digits.
        compute_capability: by NVML, else by the facts; None where neither knows.
        architecture: its name in the facts.
        fact: what the facts say of the device id.
        fabric: NVML's ``{state, status}``; empty where there is none.
    """

    number: t.Optional[int]
    name: str
    device_id: t.Optional[str]
    compute_capability: t.Optional[str]
    architecture: t.Optional[str]
    fact: t.Mapping[str, t.Any]
    fabric: t.Mapping[str, t.Any]

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name if self.number is None else "GPU %d (%s)" % (self.number, self.name)


class View:
    """A record beside the release it is held against.

    Args:
        record: what `_cuda_parity_read.read_chain` returns.
        release: a release with ``facts`` in it.
        options: ``{engine, accelerator, expect_gpus, cuda_toolkit_wanted, cudnn_wanted, container_toolkit_wanted}``.
    """

    def __init__(self, record: Record, release: Record, options: Record) -> None:
        self.record = record
        self.release = release
        self.options = options
        self.facts: t.Mapping[str, t.Any] = release.get("facts") or {}
        self.build: t.Mapping[str, t.Any] = release["engines"][options["engine"]][options["accelerator"]]
        self.nvml: t.Mapping[str, t.Any] = record["gpu"].get("driver") or {}
        #: What the engine's interpreter said; empty where there is no engine.
        self.engine: Record = record["engine"] or {}
        self.torch: t.Mapping[str, t.Any] = self.engine.get("torch") or {}
        #: Version of the driver that runs: of the module in memory, else what NVML says.
        self.driver: t.Optional[str] = record["module"]["version"] or self.nvml.get("version")
        self.api = known.cuda_of_number(record["driver_api"]["version"]) or self.nvml.get("cuda_version_plain")
        self.gpus = [self._gpu(one) for one in record["gpu"].get("gpus") or []] or [
            self._pci_gpu(one) for one in record["pci"]["gpus"]
        ]
        pinned = release.get("driver") or {}
        self.words = {
            "release_driver": pinned.get("version") or "branch %s" % pinned.get("branch"),
            "release_toolkit": (release.get("cuda_toolkit") or {}).get("version") or release["cuda"]["version"],
            "release_ctk": (release.get("container_toolkit") or {}).get("version"),
            "fabric_unit": pinned.get("fabric_manager_unit") or "nvidia-fabricmanager.service",
            "engine_capability": self.build.get("minimum_compute_capability"),
            "running_kernel": record["kernel"]["running"],
            "next_kernel": record["kernel"]["next_boot"],
            "driver": self.driver or "unknown",
        }

    def _gpu(self, one: Record) -> Gpu:
        fact = known.gpu_fact(self.facts, one.get("pci_device_id"))
        capability = one.get("compute_capability") or fact.get("compute_capability")
        name = one.get("name") or fact.get("name") or "of unknown name"
        architecture, _facts = known.architecture_of(self.facts, capability)
        fabric = one.get("fabric") or {}
        return Gpu(one.get("index"), name, one.get("pci_device_id"), capability, architecture, fact, fabric)

    def _pci_gpu(self, one: Record) -> Gpu:
        fact = known.gpu_fact(self.facts, one["pci_device_id"])
        name = "%s at %s" % (fact.get("name") or "PCI device %s" % one["pci_device_id"], one["pci_address"])
        capability = fact.get("compute_capability")
        architecture, _facts = known.architecture_of(self.facts, capability)
        return Gpu(None, name, one["pci_device_id"], capability, architecture, fact, {})

    @property
    def library(self) -> t.Optional[str]:
        """Version of the driver's libraries on disk; libcuda's counts, else libnvidia-ml's."""
        for one in self.record["libraries"].values():
            if one and one["version"]:
                return str(one["version"])
        return None

    @property
    def engine_library(self) -> t.Optional[str]:
        """Path of the libcuda that the engine's process loads."""
        return (self.engine.get("driver") or {}).get("library")

    @property
    def compat_loaded(self) -> t.Optional[Record]:
        """The forward compatibility library that the engine, or without one the host, loads; None where it's none."""
        loaded = self.engine_library or self.record["driver_api"]["library"]
        for one in self.record["compat"]:
            if one["path"] == loaded:
                return t.cast(Record, one)
        return None

    def remedy(self, link: str) -> str:
        """Return what a person does when a link breaks."""
        return LINKS[link] % self.words

    def say(
        self, link: str, ok: bool, *, expected: t.Any, found: t.Any, detail: str = "", severity: str = "error"
    ) -> Finding:
        """Return a finding of a link with its remedy."""
        remedy = "" if ok else self.remedy(link)
        return finding(
            PREFIX + link, ok, expected=expected, found=found, detail=detail, remedy=remedy, severity=severity
        )

    def undecided(self, link: str, *, expected: t.Any, why: str) -> Finding:
        """Return the finding of a link that couldn't be looked at: a warning."""
        return self.say(link, False, expected=expected, found="unknown", detail=why, severity="warning")
