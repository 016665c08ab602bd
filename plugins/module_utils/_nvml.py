# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Ask NVML through nvidia-ml-py. Runs in a child process: any of these calls may hang."""

from __future__ import annotations

import importlib
import sys
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _nvml_gpu
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info_record import Record
from ansible_collections.gpufleet.llm.plugins.module_utils._nvml_ask import as_text

# nvmlReturn_t of nvml.h, as far as it decides about the whole host or a whole GPU.
STATE_OF_CODE = {
    4: "no_permission",
    9: "driver_not_loaded",
    12: "library_not_found",
    15: "gpu_lost",
    16: "reset_required",
    18: "version_mismatch",
}


def state_of(code: int) -> str:
    """Return the name of an NVML return code: one of driver.state's values."""
    return STATE_OF_CODE.get(code, "unknown_error")


def load(library_path: str) -> t.Any:
    """Import pynvml, that at library_path before an installed one.

    Raises:
        ImportError: there is none.
    """
    if library_path and library_path not in sys.path:
        sys.path.insert(0, library_path)
    return importlib.import_module("pynvml")


def produce(library_path: str, send: t.Callable[[Record], None]) -> None:
    """Send what NVML knows, part by part; see `parts`. A part ``{"binding": text}`` says that pynvml isn't there."""
    try:
        nvml = load(library_path)
    except ImportError as exc:
        send({"binding": str(exc)})
        return
    for part in parts(nvml):
        send(part)


def parts(nvml: t.Any) -> t.Iterator[Record]:
    """Yield ``{"driver": ..., "count": n}``, then for each GPU ``{"reading": index}`` and ``{"gpu": record}``."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as exc:
        driver = {"state": state_of(exc.value), "message": str(exc), "nvml_version": _text(nvml, "GetNVMLVersion")}
        yield {"driver": driver, "count": 0}
        return
    driver = {
        "state": "ok",
        "message": "",
        "version": _text(nvml, "GetDriverVersion"),
        "nvml_version": _text(nvml, "GetNVMLVersion"),
        "cuda_version": _cuda(nvml, "nvmlSystemGetCudaDriverVersion_v2"),
        "cuda_version_plain": _cuda(nvml, "nvmlSystemGetCudaDriverVersion"),
    }
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as exc:
        driver.update(state=state_of(exc.value), message="nvmlDeviceGetCount: %s" % exc)
        count = 0
    yield {"driver": driver, "count": count}
    for index in range(count):
        yield {"reading": index}
        yield {"gpu": _nvml_gpu.read_gpu(nvml, index, state_of)}
    try:
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        pass  # everything has been read, and the process ends


def _text(nvml: t.Any, what: str) -> t.Optional[str]:
    try:
        value = getattr(nvml, "nvmlSystem" + what)()
    except nvml.NVMLError:
        return None
    return as_text(value)


def _cuda(nvml: t.Any, function: str) -> t.Optional[str]:
    """Return ``13.0`` for 13000 (major * 1000 + minor * 10: nvml.h, NVML_CUDA_DRIVER_VERSION_MAJOR)."""
    try:
        number = getattr(nvml, function)()
    except (AttributeError, nvml.NVMLError):
        return None
    return "%d.%d" % (number // 1000, number % 1000 // 10)
