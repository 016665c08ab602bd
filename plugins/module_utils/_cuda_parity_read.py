# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Read every link of the chain from kernel module to torch into one record. Reading only: `_cuda_parity` decides."""

from __future__ import annotations

import os
import re
import sys
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_child as child
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_read as driver_state
from ansible_collections.gpufleet.llm.plugins.module_utils import _host_state
from ansible_collections.gpufleet.llm.plugins.module_utils._host_read import Host, LocalHost

Record = t.Dict[str, t.Any]
GpuReader = t.Callable[[], Record]

# NVSwitches are bridges on the PCI bus; from the fourth generation on they may be hidden behind another device.
NVSWITCH_CLASS = "0x0680"
CDI_DIRECTORIES = ("/etc/cdi", "/run/cdi")
LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1")
FABRIC_MANAGER = "/usr/bin/nv-fabricmanager"
FABRIC_UNIT = "nvidia-fabricmanager.service"
SMALLEST_LIBRARY_VERSION = 2
# The probe's factors are below 13 and 11: with so many of them every sum stays exact in float32.
LARGEST_MATRIX = 4096
# Distributions whose versions are told beside the engine's own; cu12 and cu13 stand for CUDA's major.
DISTRIBUTIONS = (
    "torch",
    "triton",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "nvidia-cuda-runtime",
    "nvidia-cuda-runtime-cu12",
)

_LDCONFIG = re.compile(r"^\s+(?P<name>\S+) \((?P<kind>[^)]*)\) => (?P<path>\S+)$")
_CDI_LIBRARY = re.compile(r"lib(?:cuda|nvidia-ml)\.so\.(\d{3}\.\d{2,3}(?:\.\d{2})?)")
_TOOLKIT = re.compile(r"^cuda-(\d+\.\d+)$")


class ParityHost(Host, t.Protocol):
    """A Host that resolves paths and runs a child that may hang."""

    def real(self, path: str) -> str:
        """Return a path with every link in it resolved."""

    def child(self, argv: t.Sequence[str], environment: t.Mapping[str, str], timeout_seconds: float) -> child.Ended:
        """Run a program that may hang or die, in an environment of its own; see `_cuda_parity_child.run`."""


class LocalParityHost(LocalHost):
    """This very host."""

    def real(self, path: str) -> str:
        return os.path.realpath(path)

    def child(self, argv: t.Sequence[str], environment: t.Mapping[str, str], timeout_seconds: float) -> child.Ended:
        return child.run(argv, environment, timeout_seconds)


def library_version(path: str, soname: str) -> t.Optional[str]:
    """Return the version in a library's file name: ``libcuda.so.1`` at ``…/libcuda.so.570.10.02``; None without one."""
    stem = soname.split(".so", maxsplit=1)[0] + ".so."
    name = os.path.basename(path)
    version = name[len(stem) :] if name.startswith(stem) else ""
    return version if len(version.split(".")) >= SMALLEST_LIBRARY_VERSION else None


def parse_ldconfig(text: str) -> t.List[t.Tuple[str, str]]:
    """Return ``(soname, path)`` of every 64-bit library in ``ldconfig -p``, in the order of the search."""
    found = []
    for line in text.splitlines():
        match = _LDCONFIG.match(line)
        if match and re.search(r"x86-64|AArch64", match.group("kind")):
            found.append((match.group("name"), match.group("path")))
    return found


def is_compat(path: str) -> bool:
    """Tell whether a library is one of NVIDIA's forward compatibility packages, which all live in ``compat``."""
    return os.path.basename(os.path.dirname(path)) == "compat"


# -- the host's side ---------------------------------------------------------------------------------------------------


def read_switches(host: ParityHost) -> t.List[str]:
    """Return the PCI addresses of the NVSwitches that can be seen."""
    base = driver_state.PCI_DEVICES
    return [
        address
        for address in host.names(base)
        if (host.read("%s/%s/vendor" % (base, address)) or "").strip() == driver_state.NVIDIA_VENDOR
        and (host.read("%s/%s/class" % (base, address)) or "").startswith(NVSWITCH_CLASS)
    ]


def read_owner(host: ParityHost, path: str) -> t.Optional[Record]:
    """Return the package that owns a file, ``{name, version}``; None where no package does."""
    places = [path, path[len("/usr") :]] if path.startswith("/usr/lib") else [path]
    for place in places:
        status, out, _err = host.run(["dpkg", "-S", place])
        if status == 127:
            break
        if status == 0:
            # Diversions are told in lines of their own, "diversion by …"; the owner's comes last.
            name = out.strip().splitlines()[-1].split(": ")[0].split(",")[0]
            status, out, _err = host.run(["dpkg-query", "-W", "-f", "${Version}", name])
            return {"name": name.split(":")[0], "version": out.strip() or None}
    status, out, _err = host.run(["rpm", "-qf", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\n", path])
    fields = (out.strip().splitlines() or [""])[0].split("\t")
    return {"name": fields[0], "version": fields[1]} if status == 0 and len(fields) == 2 else None


def read_libraries(host: ParityHost, libraries: t.Sequence[t.Tuple[str, str]]) -> Record:
    """Return ``{path, version, package}`` of each of the driver's own libraries, None where it isn't installed.

    Forward compatibility libraries are passed over; `read_compat` tells of them.
    """
    found: Record = {}
    for soname in LIBRARIES:
        found[soname] = None
        for name, path in libraries:
            real = host.real(path)
            if name == soname and not is_compat(real):
                found[soname] = {
                    "path": real,
                    "version": library_version(real, soname),
                    "package": read_owner(host, real),
                }
                break
    return found


def read_compat(host: ParityHost, libraries: t.Sequence[t.Tuple[str, str]]) -> t.List[Record]:
    """Return the forward compatibility libraries on disk: ``{path, version, cuda, default}``.

    ``default`` tells whether the dynamic linker takes it without being told, for ldconfig knows it.
    """
    known = {host.real(path) for name, path in libraries if name == LIBRARIES[0]}
    first = [host.real(path) for name, path in libraries if name == LIBRARIES[0]][:1]
    found = {}
    for name in host.names("/usr/local"):
        for file in host.names("/usr/local/%s/compat" % name) if name.startswith("cuda") else []:
            real = host.real("/usr/local/%s/compat/%s" % (name, file))
            version = library_version(real, LIBRARIES[0])
            if version:
                toolkit = _TOOLKIT.match(real.split("/")[-3])
                cuda = toolkit.group(1) if toolkit else None
                found[real] = {"path": real, "version": version, "cuda": cuda, "default": [real] == first}
    for real in sorted(known - set(found)):
        if is_compat(real):
            found[real] = {
                "path": real, "version": library_version(real, LIBRARIES[0]), "cuda": None, "default": [real] == first,
            }  # fmt: skip
    return [found[real] for real in sorted(found)]


def read_toolkits(host: ParityHost) -> Record:
    """Return ``{installed: [{path, version}], default}`` of the CUDA toolkits below /usr/local, those with nvcc."""
    installed = []
    for name in host.names("/usr/local"):
        match = _TOOLKIT.match(name)
        path = "/usr/local/" + name
        if not match or "nvcc" not in host.names(path + "/bin"):
            continue
        told = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([^"]+)"', host.read(path + "/version.json") or "")
        installed.append({"path": path, "version": told.group(1) if told else match.group(1)})
    default = host.real("/usr/local/cuda") if "cuda" in host.names("/usr/local") else None
    return {"installed": installed, "default": default}


def read_host_cudnn(host: ParityHost, libraries: t.Sequence[t.Tuple[str, str]]) -> t.List[Record]:
    """Return ``{path, version}`` of the host's own cuDNN libraries."""
    found = []
    for name, path in libraries:
        if re.match(r"^libcudnn\.so\.\d+$", name):
            real = host.real(path)
            found.append({"path": real, "version": library_version(real, name)})
    return found


def read_fabric_manager(host: ParityHost) -> Record:
    """Return ``{package, unit}``: who owns the fabric manager, and the state of its unit; null where there is none."""
    package = read_owner(host, FABRIC_MANAGER) if "nv-fabricmanager" in host.names("/usr/bin") else None
    try:
        unit = _host_state.read_units(host, [FABRIC_UNIT])[FABRIC_UNIT]
    except _host_state.HostStateError:
        return {"package": package, "unit": None}
    keys = ("load_state", "active_state", "unit_file_state")
    return {"package": package, "unit": {key: unit[key] for key in keys}}


def read_cdi(host: ParityHost) -> t.List[Record]:
    """Return the CDI specifications of NVIDIA's GPUs, ``{path, versions}``: the driver versions that they mention."""
    found = []
    for directory in CDI_DIRECTORIES:
        for name in host.names(directory):
            text = host.read("%s/%s" % (directory, name)) if name.endswith((".yaml", ".json")) else None
            if text and "nvidia.com/gpu" in text:
                versions = sorted(set(_CDI_LIBRARY.findall(text)))
                found.append({"path": "%s/%s" % (directory, name), "versions": versions})
    return found


# -- the children ------------------------------------------------------------------------------------------------------


def read_driver_api(host: ParityHost, timeout_seconds: float) -> Record:
    """Return what the CUDA driver library says of itself on the host; see `_cuda_parity_script.read_driver`."""
    config = {"library": LIBRARIES[0]}
    told = child.ask(host.child, [sys.executable, "-I", "-B"], config, child.environment({}), timeout_seconds)
    driver = (told["result"] or {}).get("driver") or {}
    return {
        "library": driver.get("library"),
        "version": driver.get("version"),
        "init_code": driver.get("init_code"),
        "devices": driver.get("devices"),
        "error": driver.get("error") or told["error"],
        "state": told["state"],
    }


def choose_gpus(gpu: Record, minimum_free_mib: int) -> t.Tuple[t.List[str], t.List[Record]]:
    """Return ``(uuids, skipped)``: the GPUs that may be made to compute, and ``{index, reason}`` of the others."""
    uuids, skipped = [], []
    for one in gpu.get("gpus") or []:
        free = (one.get("memory_mib") or {}).get("free")
        reason = ""
        if not one.get("uuid") or one.get("error"):
            reason = "NVML couldn't read it: %s" % (one.get("error") or "it told no UUID")
        elif (one.get("mig") or {}).get("current"):
            reason = "MIG is on: an instance's free memory isn't the GPU's"
        elif free is None:
            reason = "its free memory isn't known"
        elif free < minimum_free_mib:
            reason = "%d MiB are free, and %d MiB are wanted so that nothing is taken from who uses it" % (
                free, minimum_free_mib,
            )  # fmt: skip
        if reason:
            skipped.append({"index": one.get("index"), "reason": reason})
        else:
            uuids.append(one["uuid"])
    return uuids, skipped


def read_engine(host: ParityHost, gpu: Record, options: t.Mapping[str, t.Any]) -> t.Optional[Record]:
    """Return what the engine's own interpreter says, None where there is no engine.

    Args:
        host: how to look at it.
        gpu: what `_gpu_info` read; it decides which GPUs may be made to compute.
        options: ``{interpreter, package, environment, compute, memory_free_mib_min, matrix_size, timeout_seconds}``.

    Returns:
        What `_cuda_parity_script.probe` returns, and ``state`` (done, timeout, killed, failed), ``error``, ``stage``,
        ``skipped`` (GPUs that weren't made to compute, with the reason), ``library_path``, ``took_ms``.
    """
    interpreter = options["interpreter"]
    if os.path.basename(interpreter) not in host.names(os.path.dirname(interpreter)):
        return None
    uuids, skipped = choose_gpus(gpu, options["memory_free_mib_min"]) if options["compute"] else ([], [])
    environment = child.environment(options["environment"])
    if uuids:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(uuids)
    config = {
        "library": LIBRARIES[0],
        "torch": True,
        "compute": bool(uuids),
        "size": options["matrix_size"],
        "distributions": sorted({options["package"], *DISTRIBUTIONS}),
    }
    told = child.ask(host.child, [interpreter, "-I", "-B"], config, environment, options["timeout_seconds"])
    record: Record = {
        "python": None,
        "distributions": {},
        "driver": None,
        "torch": None,
        "torch_error": None,
        "compute": None,
    }
    record.update(told["result"] or {})
    record.update({key: told[key] for key in ("state", "error", "stage", "took_ms")})
    record["interpreter"] = interpreter
    record["library_path"] = environment.get("LD_LIBRARY_PATH", "")
    record["skipped"] = skipped
    return record


def read_chain(host: ParityHost, read_gpu: GpuReader, options: t.Mapping[str, t.Any]) -> Record:
    """Read the whole chain, once.

    Args:
        host: how to look at it.
        read_gpu: returns what `_gpu_info.read_gpu_info` does.
        options: those of `read_engine`, and ``{driver_timeout_seconds}``; ``interpreter`` may be empty: no engine.
    """
    kernels = driver_state.read_kernels(host)
    _status, out, _err = host.run(["/sbin/ldconfig", "-p"])
    libraries = parse_ldconfig(out)
    gpu = read_gpu()
    return {
        "kernel": kernels,
        "pci": {"gpus": driver_state.read_gpus(host), "switches": read_switches(host)},
        "module": driver_state.read_module(host, kernels),
        "libraries": read_libraries(host, libraries),
        "packages": driver_state.read_packages(host),
        "driver_api": read_driver_api(host, options["driver_timeout_seconds"]),
        "gpu": gpu,
        "compat": read_compat(host, libraries),
        "toolkits": read_toolkits(host),
        "cudnn": read_host_cudnn(host, libraries),
        "fabric_manager": read_fabric_manager(host),
        "cdi": read_cdi(host),
        "glibc": host.machine()["glibc"],
        "architecture": host.machine()["architecture"],
        "engine": read_engine(host, gpu, options) if options["interpreter"] else None,
    }
