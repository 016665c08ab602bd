# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What NVIDIA's facts (``releases/facts.yml``) say about versions that meet: pure, and no version in the code.

Every function takes ``facts``, the content of that file. What it doesn't know comes back as None or ``unknown``.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._host_proc import parse_version as numbers

Facts = t.Mapping[str, t.Any]

FULL, MINOR, TOO_OLD, UNKNOWN = "full", "minor", "too_old", "unknown"
COMPATIBLE, NOT_NEEDED = "compatible", "not_needed"

_ARCH = re.compile(r"^(?P<kind>sm|compute)_(?P<major>\d+)(?P<minor>\d)(?P<suffix>[af]?)$")

# CUDA's own texts for its errors (cudaGetErrorString), and torch's for those it words itself; facts.yml knows the rest
# by the number. The text is all there is where torch raises a plain RuntimeError.
ERROR_TEXTS = (
    ("driver on your system is too old", 35),
    ("driver version is insufficient", 35),
    ("cudaErrorInsufficientDriver", 35),
    ("No CUDA GPUs are available", 100),
    ("no CUDA-capable device is detected", 100),
    ("no kernel image is available", 209),
    ("cudaErrorNoKernelImageForDevice", 209),
    ("compiled with an unsupported toolchain", 222),
    ("cudaErrorUnsupportedPtxVersion", 222),
    ("system not yet initialized", 802),
    ("cudaErrorSystemNotReady", 802),
    ("unsupported display driver / cuda driver combination", 803),
    ("cudaErrorSystemDriverMismatch", 803),
    ("forward compatibility was attempted on non supported HW", 804),
    ("cudaErrorCompatNotSupportedOnDevice", 804),
)


def upstream(version: t.Optional[str]) -> str:
    """Return a package's version without epoch and revision: ``3:570.10.02-1.el9`` is ``570.10.02``."""
    return (version or "").split(":", 1)[-1].split("-", 1)[0]


def branch_of(driver: str) -> str:
    """Return a driver's branch: ``570.10.02`` is of branch ``570``."""
    return driver.split(".", maxsplit=1)[0]


def at_least(version: str, floor: str) -> bool:
    """Tell whether a version is a floor or newer; a version given shorter than the floor counts as its newest."""
    found, wanted = numbers(version), numbers(floor)
    return found >= wanted[: len(found)]


def cuda_of_number(number: t.Optional[int]) -> t.Optional[str]:
    """Return the CUDA version that the driver API tells as major * 1000 + minor * 10: 13000 is ``13.0``."""
    return "%d.%d" % (number // 1000, number % 1000 // 10) if number else None


def cudnn_of_number(number: t.Optional[int]) -> t.Optional[str]:
    """Return the cuDNN version that cudnnGetVersion tells: 92000 is ``9.20.0``, before version 9 8902 is ``8.9.2``."""
    if not number:
        return None
    major = 10000 if number >= 90000 else 1000
    return "%d.%d.%d" % (number // major, number % major // 100, number % 100)


def gpu_fact(facts: Facts, device_id: t.Optional[str]) -> t.Mapping[str, t.Any]:
    """Return what is known of a GPU by its PCI device id, an empty mapping where nothing is."""
    known: t.Mapping[str, t.Any] = facts.get("gpus", {}).get((device_id or "").lower()) or {}
    return known


def architecture_of(
    facts: Facts, compute_capability: t.Optional[str]
) -> t.Tuple[t.Optional[str], t.Mapping[str, t.Any]]:
    """Return name and facts of the architecture with a compute capability, None and an empty mapping without one."""
    for name, known in facts.get("architectures", {}).items():
        if compute_capability in known["compute_capabilities"]:
            return name, known
    return None, {}


def runs_cuda(facts: Facts, driver: str, cuda: str, api: t.Optional[str] = None) -> t.Tuple[str, t.Optional[str]]:
    """Return how a driver runs programs of a CUDA version, and the driver it takes at the least.

    Args:
        facts: NVIDIA's facts.
        driver: version of the kernel module.
        cuda: CUDA version of the program's runtime.
        api: CUDA version that the driver library itself tells, where it is known.

    Returns:
        ``full``: everything works, PTX too. ``minor``: by minor version compatibility, which runs machine code, but the
        driver can't compile this CUDA's PTX. ``too_old``. ``unknown``: the facts don't know this CUDA.
    """
    row = facts.get("cuda", {}).get(cuda) or {}
    major = facts.get("minor_version_compatibility", {}).get(cuda.split(".", maxsplit=1)[0]) or {}
    floor = row.get("mvc_floor") or major.get("minimum_driver")
    if floor is None:
        return UNKNOWN, None
    if not at_least(driver, floor):
        return TOO_OLD, floor
    complete = row.get("toolkit_driver")
    if (complete and at_least(driver, complete)) or (api and numbers(api) >= numbers(cuda)):
        return FULL, floor
    return MINOR, floor


def code_for(arch_list: t.Sequence[str], compute_capability: str) -> t.Dict[str, t.List[str]]:
    """Return which of torch's builds a GPU can run: ``{sass: [...], ptx: [...]}``.

    Machine code (``sm_XY``) runs on the same major with the same or a higher minor; with the suffix ``a`` on exactly
    that one. PTX (``compute_XY``) can be compiled for anything as new or newer; with the suffix ``a`` for exactly that
    one, with ``f`` for its major. NVIDIA, CUDA C++ programming guide, "compute capabilities".
    """
    major, minor = numbers(compute_capability)[:2]
    found: t.Dict[str, t.List[str]] = {"sass": [], "ptx": []}
    for name in arch_list:
        match = _ARCH.match(name)
        if not match:
            continue
        built = (int(match.group("major")), int(match.group("minor")))
        suffix = match.group("suffix")
        same_major = built[0] == major and built[1] <= minor
        if suffix == "a":
            fits = built == (major, minor)
        elif match.group("kind") == "sm" or suffix == "f":
            fits = same_major
        else:
            fits = built <= (major, minor)
        if fits:
            found["sass" if match.group("kind") == "sm" else "ptx"].append(name)
    return found


def compat_status(facts: Facts, cuda: t.Optional[str], driver: str) -> str:
    """Return what NVIDIA's matrix says of a forward compatibility package on a driver: compatible, not_needed,
    unsupported, unknown."""
    row = facts.get("forward_compatibility", {}).get("matrix", {}).get(cuda or "") or {}
    return str(row.get(branch_of(driver)) or UNKNOWN)


def cudnn_floor(
    facts: Facts, version: str, cuda_major: str, architectures: t.Collection[str]
) -> t.Tuple[t.Optional[str], t.Optional[str]]:
    """Return the driver that a cuDNN takes, and the version whose row of the matrix says so; None where none does.

    The newest row at or below the version that knows a driver for this CUDA counts; a row may ask for more on an
    architecture that it names.
    """
    rows = [row for row in facts.get("cudnn", {}) if numbers(row) <= numbers(version)[:3]]
    for row in sorted(rows, key=numbers, reverse=True):
        known = facts["cudnn"][row]
        floor = known.get(cuda_major)
        if floor:
            more = [known[name] for name in architectures if known.get(name)]
            return max([floor, *more], key=numbers), row
    return None, None


def code_of_text(text: str) -> t.Optional[int]:
    """Return the number of the CUDA error that a message tells in words, None when it's none of those we know."""
    for fragment, code in ERROR_TEXTS:
        if fragment in text:
            return code
    return None


def error_fact(facts: Facts, code: t.Optional[int]) -> t.Mapping[str, t.Any]:
    """Return ``{name, link, meaning}`` of a CUDA error, an empty mapping where it isn't one of the known."""
    known: t.Mapping[str, t.Any] = facts.get("cuda_errors", {}).get(str(code)) or {}
    return known
