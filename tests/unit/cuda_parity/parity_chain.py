# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release with its facts, and the record of a host on which every link holds: two H100 on NVSwitches."""

from __future__ import annotations

from pathlib import Path

import yaml
from support import ROOT

HERE = Path(__file__).resolve().parent
KERNEL = "6.1.0-50-amd64"


def load_shipped():
    """Return the main release as it's in the tree, with the facts; without its checks, which others test."""
    release = yaml.safe_load((ROOT / "releases/2026.11.0.yml").read_text(encoding="utf-8"))
    release["facts"] = yaml.safe_load((ROOT / "releases/facts.yml").read_text(encoding="utf-8"))
    return release


RELEASE = load_shipped()
#: The oldest driver that runs the release's CUDA. A version of the release isn't written anywhere but there.
FLOOR = RELEASE["cuda"]["minimum_driver"]
PINNED = RELEASE["driver"]["version"]
OPTIONS = {
    "engine": "vllm",
    "accelerator": "cuda",
    "interpreter": "/opt/gpufleet/engines/vllm/current/bin/python3",
    "engine_required": True,
    "environment": {},
    "expect_gpus": True,
    "compute": True,
    "memory_free_mib_min": 2048,
    "matrix_size": 256,
    "timeout_seconds": 180.0,
    "driver_timeout_seconds": 60.0,
    "cuda_toolkit_wanted": False,
    "cudnn_wanted": False,
    "container_toolkit_wanted": True,
    "package": "vllm",
}


def gpu(index, **changes):
    """Return what gpu_info tells of an idle H100 in an HGX board."""
    return {
        "index": index,
        "state": "ok",
        "error": None,
        "uuid": "GPU-0000000%d" % index,
        "name": "NVIDIA H100 80GB HBM3",
        "pci_address": "00000000:%02x:00.0" % (index + 16),
        "pci_device_id": "2330",
        "compute_capability": "9.0",
        "memory_mib": {"total": 81559, "free": 81000, "used": 559, "reserved": 500},
        "fabric": {"state": "completed", "status": "success"},
        "mig": {"current": False},
        **changes,
    }


def library(name, version):
    """Return one of the driver's libraries, from its Debian package."""
    package = {"name": name.split(".so")[0] + "1", "version": version + "-1"}
    return {"path": "/usr/lib/x86_64-linux-gnu/%s.%s" % (name[:-2], version), "version": version, "package": package}


def computed(index, wrong=0, error=None):
    """Return what one GPU computed."""
    result = None if error else {"device": "cuda:%d" % index, "elements": 65536, "wrong": wrong, "sum": 1}
    return {"index": index, "name": "NVIDIA H100 80GB HBM3", "result": result, "memory_tensors_mib": 22, "error": error}


def good(release):
    """Return the record of a host on which every link holds."""
    version = release["driver"]["version"]
    module = {"path": "/lib/modules/x/nvidia.ko", "version": version, "flavour": "open"}
    libraries = {name: library(name, version) for name in ("libcuda.so.1", "libnvidia-ml.so.1")}
    inside = {
        "library": libraries["libcuda.so.1"]["path"],
        "version": 13000,
        "init_code": 0,
        "devices": 2,
        "error": None,
    }
    engine = release["engines"]["vllm"]["cuda"]
    return {
        "kernel": {"running": KERNEL, "installed": [KERNEL], "next_boot": KERNEL, "next_boot_source": "grub"},
        "pci": {
            "gpus": [{"pci_address": "0000:%02x:00.0" % (16 + n), "pci_device_id": "2330"} for n in range(2)],
            "switches": ["0000:05:00.0"],
        },
        "module": {"loaded": True, "version": version, "flavour": "open", "on_disk": {KERNEL: module}},
        "libraries": libraries,
        "packages": dict.fromkeys(
            release["container_toolkit"]["packages"], release["container_toolkit"]["version"] + "-1"
        ),
        "driver_api": dict(inside, state="done"),
        "gpu": {
            "driver": {"state": "ok", "message": "", "version": version, "cuda_version_plain": "13.0"},
            "gpus": [gpu(0), gpu(1)],
        },
        "compat": [],
        "toolkits": {"installed": [], "default": None},
        "cudnn": [],
        "fabric_manager": {
            "package": {"name": "nvidia-fabricmanager", "version": version + "-1"},
            "unit": {"load_state": "loaded", "active_state": "active", "unit_file_state": "enabled"},
        },
        "cdi": [{"path": "/etc/cdi/nvidia.yaml", "versions": [version]}],
        "glibc": "2.36",
        "architecture": "x86_64",
        "engine": {
            "state": "done",
            "error": None,
            "stage": "matmul on GPU 1",
            "took_ms": 4000,
            "interpreter": OPTIONS["interpreter"],
            "library_path": "",
            "python": "3.12.1",
            "distributions": {"vllm": engine["version"], "nvidia-cudnn-cu13": "9.17.0.1"},
            "driver": inside,
            "torch": {
                "version": "2.0+cu130",
                "cuda": "13.0",
                "arch_list": ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"],
                "cudnn": 91700,
                "error": None,
            },
            "torch_error": None,
            "compute": {"devices": [computed(0), computed(1)], "error": None},
            "skipped": [],
        },
    }


def put(data, path, value):
    """Set a value deep in a record by its dotted path; numbers are places in lists."""
    steps = path.split("/")
    for step in steps[:-1]:
        data = data[int(step)] if isinstance(data, list) else data[step]
    data[int(steps[-1]) if isinstance(data, list) else steps[-1]] = value
