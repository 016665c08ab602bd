# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What context a running instance should serve at a concurrency: by its memory plan, and by the blocks it printed."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_want as wanting
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding

Record = t.Dict[str, t.Any]
Plan = t.Callable[[Record], Record]


def want_of(arguments: t.Mapping[str, t.Any], concurrency: int, accelerator: str) -> Record:
    """Return the planner's flags from those an engine was started with, as its log has them.

    Flags that don't change memory aren't among them; nor are values that the planner has no use for.
    """
    want: Record = {"concurrent_users": concurrency, "accelerator": accelerator}
    for name in wanting.Want._fields:
        value = arguments.get(name)
        if value is not None and name not in want and isinstance(value, (bool, int, float, str)):
            want[name] = value
    return want


def gpu_of(gpus: t.Sequence[t.Mapping[str, t.Any]], total_bytes: t.Optional[int]) -> Record:
    """Return the planner's GPUs from RV(gpu_info.gpus), or a host's memory where it has none.

    Args:
        gpus: each with ``name``, ``memory_mib`` (``total``) and ``compute_capability``.
        total_bytes: of one GPU as the engine printed it, which is exact; None: it didn't.
    """
    if not gpus:
        return {"name": "cpu", "total_bytes": total_bytes or 1}
    first = gpus[0]
    mib = (first.get("memory_mib") or {}).get("total") or 0
    return {
        "name": str(first.get("name") or ""),
        "total_bytes": total_bytes or int(mib * (1 << 20)),
        "count": len(gpus),
        "compute_capability": str(first.get("compute_capability") or ""),
    }


def contexts(plan: Plan, want: Record, measured: t.Mapping[str, t.Any], kv_bytes: t.Optional[int]) -> Record:
    """Return ``{planned, engine}``, each a plan's record or None.

    Args:
        plan: makes a plan from wanted flags.
        want: the flags.
        measured: what the start said (:mod:`_startup_info`).
        kv_bytes: size of the cache where it's set outside of the flags, as on a CPU.
    """
    flags = dict(want)
    if kv_bytes and not flags.get("kv_cache_memory_bytes") and not flags.get("num_gpu_blocks_override"):
        flags["kv_cache_memory_bytes"] = kv_bytes
    found: Record = {"planned": plan(flags), "engine": None}
    blocks = measured.get("num_blocks")
    if isinstance(blocks, int) and blocks > 0:
        found["engine"] = plan(dict(flags, num_gpu_blocks_override=blocks))
    return found


def tokens_of(record: t.Optional[t.Mapping[str, t.Any]]) -> t.Optional[int]:
    """Return the tokens of each request that a plan has room for at its concurrency; None: it doesn't say."""
    if not record or record["confidence"] == "unsupported":
        return None
    kv, longest = record["kv"], record["vllm_args"]["max-model-len"]
    value = kv.get("context_for_users", kv["max_sustainable_context"])
    return min(int(value), int(longest))


def decide(instance: str, found: Record, measured: t.Mapping[str, t.Any]) -> t.List[Finding]:
    """Return whether the plan and what the engine printed are the same."""
    planned, printed = found["planned"], measured.get("kv_tokens")
    if tokens_of(planned) is None:
        return [
            finding(
                "plan.%s.kv_tokens" % instance,
                False,
                severity="warning",
                expected="a memory plan",
                found="; ".join(planned["errors"]),
                detail="The context is measured, and compared with what the engine printed only.",
                remedy="None is needed to serve.",
            )
        ]
    if printed is None:
        return []
    low, high = planned["kv"]["interval"]
    return [
        finding(
            "plan.%s.kv_tokens" % instance,
            low <= printed <= high,
            severity="warning",
            expected="%d tokens" % planned["kv"]["tokens_reported"] if low == high else "%d..%d tokens" % (low, high),
            found=printed,
            detail="Planned with the flags of the start, by %s." % planned["sources"].get("kv", "the planner"),
            remedy="Report the plan: vLLM's own arithmetic differs from it.",
        )
    ]
