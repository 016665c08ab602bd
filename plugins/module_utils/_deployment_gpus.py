# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The GPUs of a host as the planner takes them: as they were read, or as an inventory declares them. Pure."""

from __future__ import annotations

import fnmatch
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import GIB, MIB

Record = t.Dict[str, t.Any]

#: Units whose memory counts as free: they are what is deployed here, and are replaced.
OUR_UNITS = ("vllm@*.service",)
DECLARED = ("name", "count", "memory_gib", "memory_bytes", "free_gib", "free_bytes", "compute_capability")


def _ours(process: t.Mapping[str, t.Any]) -> bool:
    return any(fnmatch.fnmatch(str(process.get("unit") or ""), pattern) for pattern in OUR_UNITS)


def _process(process: t.Mapping[str, t.Any]) -> str:
    """Return what else uses a GPU, as a person would name it."""
    name = str(process.get("name") or "process")
    held = process.get("memory_mib")
    return "%s (pid %s%s)" % (name, process.get("pid"), "" if held is None else ", %s MiB" % held)


def from_gpu_info(gpus: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Record]:
    """Return GPUs that were read by ``gpu_info``: what CUDA sees of them, and what is free but for our own engines.

    The driver keeps some of a GPU's memory for itself: NVML counts it, CUDA and so the engine do not.
    """
    made: t.List[Record] = []
    for gpu in gpus:
        memory = gpu.get("memory_mib") or {}
        total = memory.get("total")
        if total is None:
            continue
        processes = list(gpu.get("processes") or ())
        mine = sum(int(process.get("memory_mib") or 0) for process in processes if _ours(process))
        free = memory.get("free")
        usable = int(total) - int(memory.get("reserved") or 0)
        made.append(
            {
                "index": gpu.get("index", len(made)),
                "name": str(gpu.get("name") or ""),
                "compute_capability": str(gpu.get("compute_capability") or ""),
                "memory_mib": total,
                "total_bytes": usable * MIB,
                "free_bytes": None if free is None else min(usable, int(free) + mine) * MIB,
                "processes": [_process(process) for process in processes if not _ours(process)],
            }
        )
    return made


def from_declared(gpus: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Record]:
    """Return GPUs that an inventory declares (``gpufleet_gpus``), each as often as its ``count`` says.

    Raises:
        ValueError: an entry has no size, or keys that mean nothing here.
    """
    made: t.List[Record] = []
    for number, gpu in enumerate(gpus):
        where = "gpufleet_gpus[%d]" % number
        if not isinstance(gpu, t.Mapping) or set(gpu) - set(DECLARED):
            raise ValueError("%s: found %s, expected a mapping of %s" % (where, gpu, ", ".join(DECLARED)))
        total = gpu.get("memory_bytes")
        if total is None and gpu.get("memory_gib") is not None:
            total = float(gpu["memory_gib"]) * GIB
        if total is None or float(total) <= 0:
            raise ValueError(
                "%s: found no memory, expected memory_gib or memory_bytes of one GPU, as CUDA says it (an H100 of "
                "80 GB has 79.19 GiB)" % where
            )
        free = gpu.get("free_bytes")
        if free is None and gpu.get("free_gib") is not None:
            free = float(gpu["free_gib"]) * GIB
        for _one in range(int(gpu.get("count") or 1)):
            made.append(
                {
                    "index": len(made),
                    "name": str(gpu.get("name") or ""),
                    "compute_capability": str(gpu.get("compute_capability") or ""),
                    "memory_mib": None,
                    "total_bytes": int(float(total)),
                    "free_bytes": None if free is None else int(float(free)),
                    "processes": [],
                }
            )
    return made


def of_places(gpus: t.Sequence[t.Mapping[str, t.Any]], places: t.Sequence[int]) -> Record:
    """Return the GPUs of one instance as the planner takes them: the least of each, and how many.

    Raises:
        ValueError: a place that isn't there, or comes twice.
    """
    wrong = [place for place in places if not isinstance(place, int) or not 0 <= place < len(gpus)]
    if wrong or not places or len(set(places)) != len(places):
        raise ValueError("placed on GPUs %s, the host has %d (0 to %d)" % (list(places), len(gpus), len(gpus) - 1))
    mine = [gpus[place] for place in places]
    free = [gpu["free_bytes"] for gpu in mine if gpu.get("free_bytes") is not None]
    return {
        "name": mine[0].get("name", ""),
        "count": len(mine),
        "total_bytes": min(int(gpu["total_bytes"]) for gpu in mine),
        "free_bytes": min(free) if len(free) == len(mine) else None,
        "compute_capability": mine[0].get("compute_capability", ""),
        "processes": sorted({text for gpu in mine for text in gpu.get("processes") or ()}),
    }
