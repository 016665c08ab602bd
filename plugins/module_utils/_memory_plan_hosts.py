# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Several instances on one host: whether they start one after the other, and serve beside each other."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_errors import gib

Record = t.Dict[str, t.Any]

PARTS = ("weights", "activation", "non_torch", "cuda_graphs", "kv")


def held_bytes(plan: t.Mapping[str, t.Any]) -> int:
    """Return what an instance keeps of each of its GPUs once it serves."""
    return int(sum(plan["per_gpu"][part] for part in PARTS))


def place(instances: t.Sequence[t.Mapping[str, t.Any]], gpus: t.Sequence[t.Mapping[str, t.Any]]) -> Record:
    """Return the ledger of a host's GPUs, and every reason why the instances can't share them.

    Each engine wants its whole budget to be free when it starts, and needs some memory outside of it while it warms
    up; what the ones before it hold is gone by then.

    Args:
        instances: in the order of their start, each ``{name, gpus, plan}``; ``gpus`` are indices into ``gpus``.
        gpus: each ``{total_bytes, free_bytes}``; without ``free_bytes`` all of it is free.

    Returns:
        ``{fits, errors, gpus: [{index, total, free, held: [{instance, bytes}], left}]}``.
    """
    ledger: t.List[Record] = []
    for index, gpu in enumerate(gpus):
        free = gpu.get("free_bytes")
        free = int(gpu["total_bytes"] if free is None else free)
        ledger.append({"index": index, "total": int(gpu["total_bytes"]), "free": free, "held": [], "left": free})
    errors: t.List[str] = []
    for instance in instances:
        name, plan = str(instance["name"]), instance["plan"]
        if plan["confidence"] == "unsupported":
            errors.append("%s: %s" % (name, "; ".join(plan["errors"])))
            continue
        places = list(instance.get("gpus") or [])
        unknown = [place for place in places if not isinstance(place, int) or not 0 <= place < len(ledger)]
        if unknown or len(set(places)) != len(places) or len(places) != plan["gpu"]["count"]:
            errors.append(
                "%s: placed on GPUs %s, expected %d different ones of 0..%d"
                % (name, places, plan["gpu"]["count"], len(ledger) - 1)
            )
            continue
        errors.extend(_put(name, plan, [ledger[place] for place in places]))
    return {"fits": not errors, "errors": errors, "gpus": ledger}


def _put(name: str, plan: t.Mapping[str, t.Any], places: t.Sequence[Record]) -> t.List[str]:
    """Enter one instance into the ledger of its GPUs; return why it can't be there."""
    errors = []
    per_gpu, held = plan["per_gpu"], held_bytes(plan)
    for gpu in places:
        others = ", ".join("%s %s" % (one["instance"], gib(one["bytes"])) for one in gpu["held"]) or "nothing yet"
        if per_gpu["budget"] > gpu["left"]:
            errors.append(
                "%s: its budget of %s on GPU %d is more than the %s that are left there (held: %s). Free memory on "
                "device on startup is less than desired GPU memory utilization: set gpu-memory-utilization to %.2f or "
                "less" % (name, gib(per_gpu["budget"]), gpu["index"], gib(gpu["left"]), others, _share(gpu))
            )
        gpu["held"].append({"instance": name, "bytes": held})
        gpu["left"] -= held
        # The peak of the profile run is free again while the engine warms up.
        room = gpu["left"] + per_gpu["activation"]
        if room < per_gpu["outside_budget"]:
            errors.append(
                "%s: outside its budget %s are needed on GPU %d while it starts, %s are left there (held before: %s)"
                % (name, gib(per_gpu["outside_budget"]), gpu["index"], gib(room), others)
            )
    return errors


def _share(gpu: t.Mapping[str, t.Any]) -> float:
    return max(0, int(100 * gpu["left"] / gpu["total"])) / 100
