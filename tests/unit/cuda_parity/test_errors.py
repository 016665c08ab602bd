# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The classic errors: each as CUDA or torch tells it, on a host whose versions look right and on one where they don't.

Whoever tells it, the finding of the right link is broken, names the error, and says what to do.
"""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity as parity
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_read as reading
from parity_chain import FLOOR, KERNEL, OPTIONS, PINNED, computed, good, gpu, put

OTHER = "570.10.02"
COMPAT = {
    "path": "/usr/local/cuda-13.0/compat/libcuda.so.%s" % FLOOR,
    "version": FLOOR,
    "cuda": "13.0",
    "default": False,
}
GEFORCE = {"pci_device_id": "2b85", "name": "NVIDIA GeForce RTX 5090", "compute_capability": "12.0", "fabric": {}}


def torch_error(text, code=None, kind="RuntimeError"):
    return {"where": "torch.cuda.init", "type": kind, "code": code, "text": text}


def in_torch(text, code=None):
    """Return the changes of a record in which torch couldn't start."""
    return {"engine/compute": {"devices": [], "error": torch_error(text, code)}}


def on_gpu(text, code=None):
    """Return the changes of a record in which a GPU couldn't compute."""
    return {"engine/compute/devices/0": computed(0, error=torch_error(text, code, "AcceleratorError"))}


UNEXPECTED = (
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that "
    "might have already set an error? Error %s"
)
TOO_OLD = "The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver"

# name, what is changed in the good record, every link that's broken, the one that the error names, words of what it
# found, words of its remedy.
CLASSIC = [
    (
        "802 by cuInit, fabric manager of another version",
        {
            "driver_api/init_code": 802,
            "fabric_manager/package": {"name": "nvidia-fabricmanager", "version": OTHER + "-1"},
            "engine/driver/init_code": 802,
            "gpu/gpus": [gpu(n, fabric={"state": "in_progress", "status": None}) for n in range(2)],
        },
        ["fabric_manager", "fabric"],
        "fabric_manager",
        "CUDA error 802 (CUDA_ERROR_SYSTEM_NOT_READY) at cuInit on the host",
        "fabric manager of exactly the driver's version (%s" % PINNED,
    ),
    (
        "802 by torch, nothing else to see",
        in_torch(UNEXPECTED % "802: system not yet initialized", 802),
        ["fabric_manager"],
        "fabric_manager",
        "CUDA error 802",
        "enable and start nvidia-fabricmanager.service",
    ),
    (
        "803 by cuInit, libraries replaced under the module",
        {"driver_api/init_code": 803, "module/version": OTHER, "gpu/driver/state": "version_mismatch"},
        None,
        "driver_library",
        "CUDA error 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH) at cuInit on the host",
        "drain the engines and reboot",
    ),
    (
        "803 by torch's text alone",
        in_torch("system has unsupported display driver / cuda driver combination"),
        ["driver_library"],
        "driver_library",
        "CUDA error 803",
        "unload the nvidia modules and load them again",
    ),
    (
        "803 in the engine alone, which loads a compat library",
        {
            "engine/driver/init_code": 803,
            "engine/driver/library": COMPAT["path"],
            "engine/compute": None,
            "compat": [COMPAT],
        },
        ["forward_compatibility"],
        "forward_compatibility",
        "CUDA error 803",
        "out of LD_LIBRARY_PATH",
    ),
    (
        "NVML 18, Driver/library version mismatch",
        {
            "gpu/driver": {
                "state": "version_mismatch",
                "message": "Driver/library version mismatch",
                "version": PINNED,
            },
            "gpu/gpus": [],
        },
        ["driver_library"],
        "driver_library",
        "Driver/library version mismatch",
        "of different versions",
    ),
    (
        "804 by cuInit, a compat library on GeForce",
        {
            "engine/driver/init_code": 804,
            "engine/driver/library": COMPAT["path"],
            "engine/compute": None,
            "compat": [COMPAT],
            "gpu/gpus": [gpu(n, **GEFORCE) for n in range(2)],
        },
        ["forward_compatibility"],
        "forward_compatibility",
        "CUDA error 804 (CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE) at cuInit in the engine's process",
        "works on data center GPUs only",
    ),
    (
        "804 by torch",
        in_torch(UNEXPECTED % "804: forward compatibility was attempted on non supported HW", 804),
        ["forward_compatibility"],
        "forward_compatibility",
        "CUDA error 804",
        "remove the packages cuda-compat-*",
    ),
    (
        "209, a wheel without the GPU's architecture",
        {
            **on_gpu("CUDA error: no kernel image is available for execution on the device"),
            "engine/torch/arch_list": ["sm_75", "sm_80", "sm_86"],
        },
        ["compute_capability"],
        "compute_capability",
        "CUDA error 209",
        "no driver changes that",
    ),
    (
        "209 with its number, though the list holds the GPU",
        on_gpu("CUDA error: no kernel image is available for execution on the device", 209),
        ["compute_capability"],
        "compute_capability",
        "CUDA error 209",
        "Choose a release whose torch is built for this GPU",
    ),
    (
        "35, the driver is too old for torch",
        {
            **in_torch(TOO_OLD),
            "module": {"loaded": True, "version": OTHER, "flavour": "open", "on_disk": {KERNEL: {"version": OTHER}}},
            "gpu/driver/version": OTHER,
            "driver_api/version": 12080,
        },
        None,
        "driver_cuda",
        "CUDA error 35 (cudaErrorInsufficientDriver)",
        "Install a driver of the release (%s" % PINNED,
    ),
    (
        "222, PTX of a newer CUDA",
        {
            **on_gpu("CUDA error: the provided PTX was compiled with an unsupported toolchain."),
            "engine/torch/arch_list": ["compute_80"],
            "engine/torch/cuda": "13.2",
        },
        ["driver_cuda", "torch_release", "ptx"],
        "driver_cuda",
        "CUDA error 222 (CUDA_ERROR_UNSUPPORTED_PTX_VERSION)",
        "an engine built for an older CUDA",
    ),
    (
        "100, the engine sees no GPU",
        in_torch("No CUDA GPUs are available"),
        ["gpu"],
        "gpu",
        "CUDA error 100 (CUDA_ERROR_NO_DEVICE)",
        "kernel log",
    ),
    (
        "an error that says nothing of the chain",
        on_gpu("CUDA error: uncorrectable ECC error encountered", 214),
        ["compute"],
        "compute",
        "CUDA error 214 at torch.cuda.init: CUDA error: uncorrectable ECC error encountered",
        "ECC counters",
    ),
    (
        "an error without a number",
        on_gpu("cuBLAS: the sky is falling"),
        ["compute"],
        "compute",
        "CUDA error at torch.cuda.init: cuBLAS: the sky is falling",
        "kernel log",
    ),
]


@pytest.mark.parametrize(
    ("changes", "links", "named", "found", "remedy"), [row[1:] for row in CLASSIC], ids=[row[0] for row in CLASSIC]
)
def test_an_error_is_laid_at_its_link(record, release, options, changes, links, named, found, remedy):
    for path, value in changes.items():
        put(record, path, value)
    findings = parity.decide(record, release, options)
    broken = parity.broken_links(findings)
    assert named in broken
    if links is not None:
        assert broken == links
    blamed = next(f for f in findings if f["check"] == "parity." + named and not f["ok"] and f["severity"] == "error")
    assert found in "%s %s" % (blamed["found"], blamed["detail"])
    assert remedy in blamed["remedy"]


def test_an_error_seen_in_two_places_is_told_once_for_each(record, release, options):
    record["driver_api"]["init_code"] = record["engine"]["driver"]["init_code"] = 803
    findings = parity.decide(record, release, options)
    (one,) = [f for f in findings if f["check"] == "parity.driver_library"]
    assert one["found"].count("CUDA error 803") == 2
    assert "The versions that were compared agree" in one["detail"]


def test_the_same_error_on_every_gpu_is_told_once(record, release, options):
    error = torch_error("CUDA error: no kernel image is available", 209)
    record["engine"]["compute"]["devices"] = [computed(0, error=error), computed(1, error=error)]
    findings = parity.decide(record, release, options)
    (one,) = [f for f in findings if f["check"] == "parity.compute_capability"]
    assert one["found"].count("209") == 1


def test_a_link_that_facts_name_and_nobody_knows_falls_to_compute(record, release, options):
    release["facts"]["cuda_errors"]["35"]["link"] = "nonsense"
    record["driver_api"]["init_code"] = 35
    assert parity.broken_links(parity.decide(record, release, options)) == ["compute"]


def test_every_link_of_the_facts_is_a_link(release):
    for code, fact in release["facts"]["cuda_errors"].items():
        assert fact["link"] in parity.LINKS, code


# The same, from a real child process: a libcuda that answers with the error, a torch that raises it, the record that is
# read of them, and the link that is named.
REAL = [
    ({"FAKE_CUDA_INIT": "802"}, {}, "fabric_manager"),
    ({"FAKE_CUDA_INIT": "803"}, {}, "forward_compatibility"),  # the library of the test lies in a compat directory
    ({"FAKE_CUDA_INIT": "804"}, {}, "forward_compatibility"),
    ({}, {"init": UNEXPECTED % "802: system not yet initialized"}, "fabric_manager"),
    ({}, {"init": TOO_OLD}, "driver_cuda"),
    ({}, {"matmul": "CUDA error: no kernel image is available for execution on the device"}, "compute_capability"),
    ({}, {"matmul": "CUDA error: something", "error_code": 209}, "compute_capability"),
    ({}, {"matmul": "CUDA error: the provided PTX was compiled with an unsupported toolchain."}, "driver_cuda"),
    ({}, {"wrong": True}, "compute"),
    ({}, {"import": "libcudart.so.13: cannot open shared object file"}, "engine"),
    ({}, {"cuda": None}, "torch_release"),
    ({}, {}, None),
]


@pytest.mark.parametrize(("driver", "torch", "named"), REAL)
def test_a_real_child_with_the_error_names_the_link(release, options, fake_engine, libcuda, driver, torch, named):
    record = good(release)
    for one in record["gpu"]["gpus"]:
        one["uuid"] = "GPU-%d" % one["index"]
    name = "nvidia-cudnn-cu13"
    chosen = dict(
        OPTIONS,
        interpreter=fake_engine,
        matrix_size=8,
        timeout_seconds=60,
        environment={"LD_LIBRARY_PATH": os.path.dirname(libcuda), "FAKE_TORCH": json.dumps(torch), **driver},
    )
    record["compat"] = [dict(COMPAT, path=libcuda)]
    record["engine"] = reading.read_engine(reading.LocalParityHost(), record["gpu"], chosen)
    record["engine"]["distributions"].update({"vllm": release["engines"]["vllm"]["cuda"]["version"], name: "9.17.0.1"})
    broken = parity.broken_links(parity.decide(record, release, options))
    assert broken == ([named] if named else [])
