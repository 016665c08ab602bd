# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What cuda_parity runs in a child process: in Ansible's interpreter for the driver, in the engine's for torch.

The text of this file is given to ``python -c``, so it may import nothing of the collection and nothing that isn't in
the standard library, but torch, where it is looked for. The module itself imports it for nothing but its text.
Every line of its output that counts starts with `MARK` and is JSON: the stage that begins (so that a child that had to
be killed has said where it hung), and at the end the result.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import re
import sys
import typing as t

MARK = "gpufleet-cuda-parity "
TEXT_LIMIT = 800
Record = t.Dict[str, t.Any]


def say(**record: t.Any) -> None:
    """Print one line that counts."""
    sys.stdout.write(MARK + json.dumps(record) + "\n")
    sys.stdout.flush()


def error_of(exc: BaseException, where: str) -> Record:
    """Return an exception as ``{where, type, code, text}``; code is the CUDA error's number, null without one."""
    text = " ".join(str(exc).split())[:TEXT_LIMIT]
    code = getattr(exc, "error_code", None)
    if not isinstance(code, int):
        told = re.search(r"\b[Ee]rror (\d{1,3}):", text)
        code = int(told.group(1)) if told else None
    return {"where": where, "type": type(exc).__name__, "code": code, "text": text}


def mapped(pattern: str, maps: str = "/proc/self/maps") -> t.Optional[str]:
    """Return the path of the library that this process has mapped, by a pattern of its name; None when it hasn't."""
    try:
        with open(maps, encoding="utf-8", errors="replace") as handle:
            lines = handle.readlines()
    except OSError:
        return None
    for line in lines:
        path = line.rstrip("\n").split(None, 5)[-1]
        if path.startswith("/") and re.search(pattern, os.path.basename(path)):
            return path
    return None


def read_driver(name: str) -> Record:
    """Ask the CUDA driver library: which file answers, its version, what cuInit says. No context is made."""
    record: Record = {"library": None, "version": None, "init_code": None, "devices": None, "error": None}
    try:
        library = ctypes.CDLL(name)
    except OSError as exc:
        record["error"] = str(exc)
        return record
    record["library"] = mapped(r"^%s" % re.escape(os.path.basename(name).split(".so")[0] + ".so"))
    number = ctypes.c_int(0)
    code = library.cuDriverGetVersion(ctypes.byref(number))
    if code == 0:
        record["version"] = number.value
    else:
        record["error"] = "cuDriverGetVersion answered %d" % code
    say(stage="cuInit")
    record["init_code"] = library.cuInit(0)
    if record["init_code"] == 0 and library.cuDeviceGetCount(ctypes.byref(number)) == 0:
        record["devices"] = number.value
    return record


def read_distributions(names: t.Sequence[str]) -> t.Dict[str, t.Optional[str]]:
    """Return the versions of Python distributions, null for those that aren't there; nothing is imported."""
    found: t.Dict[str, t.Optional[str]] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def read_arch_list(torch: t.Any) -> t.List[str]:
    """Return what torch's own kernels were built for.

    ``torch.cuda.get_arch_list()`` gives an empty list wherever no GPU can be used, so the build is asked directly.
    """
    ask = getattr(torch._C, "_cuda_getArchFlags", None)
    flags = ask() if ask is not None else None
    return str(flags).split() if flags else []


def read_torch(torch: t.Any) -> Record:
    """Return what torch was built with."""
    record: Record = {
        "version": str(torch.__version__),
        "file": getattr(torch, "__file__", None),
        "cuda": torch.version.cuda,
        "hip": getattr(torch.version, "hip", None),
        "arch_list": read_arch_list(torch),
        "cudnn": None,
        "error": None,
    }
    try:
        record["cudnn"] = torch.backends.cudnn.version()
    except Exception as exc:  # noqa: BLE001 - whatever a library that doesn't fit raises is the finding
        record["error"] = error_of(exc, "torch.backends.cudnn.version")
    return record


def multiply(torch: t.Any, device: str, size: int) -> Record:
    """Multiply two matrices of small whole numbers on a device and compare every element with the same sum on the CPU.

    Whole numbers below 2**24 are exact in float32 (in TF32 too, for the factors are below 2**10), so any difference is
    a fault. The product comes from cuBLAS, the addition from torch's own kernels: both have to have code for the GPU.
    """
    count = size * size
    left = (torch.arange(count, dtype=torch.int64) * 7 % 13).reshape(size, size)
    right = (torch.arange(count, dtype=torch.int64) * 5 % 11).reshape(size, size)
    wanted = left @ right + 1
    there = (left.to(torch.float32).to(device) @ right.to(torch.float32).to(device)) + 1
    found = there.to("cpu").to(torch.int64)
    wrong = int((found != wanted).sum())
    return {"device": device, "elements": count, "wrong": wrong, "sum": int(found.sum())}


def compute_on(torch: t.Any, index: int, size: int) -> Record:
    """Return what one GPU computed.

    Returns:
        ``{index, name, uuid, compute_capability, result, memory_free_mib, memory_tensors_mib, error}``; result is what
        `multiply` returns.
    """
    device: Record = {"index": index, "name": None, "uuid": None, "compute_capability": None}
    device.update(result=None, memory_free_mib=None, memory_tensors_mib=None, error=None)
    say(stage="matmul on GPU %d" % index)
    try:
        properties = torch.cuda.get_device_properties(index)
        device["name"] = properties.name
        device["uuid"] = str(getattr(properties, "uuid", "")) or None
        device["compute_capability"] = "%d.%d" % (properties.major, properties.minor)
        device["result"] = multiply(torch, "cuda:%d" % index, size)
        torch.cuda.synchronize(index)
        free, _total = torch.cuda.mem_get_info(index)
        device["memory_free_mib"] = free // 1048576
        device["memory_tensors_mib"] = -(-torch.cuda.max_memory_reserved(index) // 1048576)
    except Exception as exc:  # noqa: BLE001 - the error is what is looked for
        device["error"] = error_of(exc, "matmul on GPU %d" % index)
    return device


def compute(torch: t.Any, size: int) -> Record:
    """Return ``{devices, error}``: what every GPU that this process may use computed."""
    say(stage="torch.cuda.init")
    try:
        torch.cuda.init()
        count = torch.cuda.device_count()
    except Exception as exc:  # noqa: BLE001 - the error is what is looked for
        return {"devices": [], "error": error_of(exc, "torch.cuda.init")}
    return {"devices": [compute_on(torch, index, size) for index in range(count)], "error": None}


def import_torch() -> t.Any:
    """Import torch; a function, so that tests can stand in for it."""
    import torch  # type: ignore[import-not-found, unused-ignore]  # it is the engine's, not the collection's

    return torch


def probe(config: t.Mapping[str, t.Any], torch_of: t.Callable[[], t.Any]) -> Record:
    """Do what the configuration asks for.

    Args:
        config: ``{library, torch, compute, size, distributions}``: name of the driver library, whether torch is read,
            whether GPUs compute, the matrices' size, names of distributions.
        torch_of: imports torch.

    Returns:
        ``{python, executable, driver, distributions, torch, compute}``; torch and compute are null where not asked for.
    """
    result: Record = {
        "python": "%d.%d.%d" % sys.version_info[:3],
        "executable": sys.executable,
        "distributions": read_distributions(config.get("distributions", [])),
        "torch": None,
        "torch_error": None,
        "compute": None,
    }
    say(stage="driver library")
    result["driver"] = read_driver(config["library"])
    if config.get("torch"):
        say(stage="import torch")
        try:
            torch = torch_of()
            result["torch"] = read_torch(torch)
        except Exception as exc:  # noqa: BLE001 - whatever a broken torch raises is the finding
            result["torch_error"] = error_of(exc, "import torch")
            return result
        if config.get("compute") and result["torch"]["cuda"]:
            result["compute"] = compute(torch, config["size"])
    return result


if __name__ == "__main__":
    say(result=probe(json.loads(sys.argv[1]), import_torch))
