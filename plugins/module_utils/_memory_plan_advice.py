# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The reverse question: the smallest change that makes it fit, each with the bytes that it frees on a GPU.

The order is from what costs a user least to what costs most: no images, fewer sequences at once, a cache of 8 bits, a
shorter context, more GPUs, a smaller checkpoint.
"""

from __future__ import annotations

import json
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_errors import gib

Record = t.Dict[str, t.Any]
Change = t.Tuple[str, Record]

SEQUENCES = (512, 256, 128, 64, 32, 16, 8)
PARTS = ("weights", "activation", "non_torch", "cuda_graphs")
#: Compute capability from which a cache of 8 bits has kernels.
FP8_CAPABILITY = (8, 9)


def demand_bytes(plan: t.Mapping[str, t.Any], users: int) -> int:
    """Return what one GPU has to hold: all parts, and the blocks of the requests that are wanted at once."""
    blocks = plan["kv"]["blocks_per_request"] * max(users, 1)
    return int(sum(plan["per_gpu"][part] for part in PARTS) + blocks * plan["kv"]["bytes_per_block"])


def _capability(text: str) -> t.Tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def _changes(plan: Record, want: t.Mapping[str, t.Any], gpu: t.Mapping[str, t.Any]) -> t.Iterator[Change]:
    """Yield what could be changed, in order; more than one of a kind, from the smallest on."""
    arguments = plan["vllm_args"]
    if plan["model"]["encoder"] and not want.get("language_model_only") and want.get("mm_items") != 0:
        yield "serve text only (limit-mm-per-prompt 0)", {"mm_items": 0}
    users = int(want.get("concurrent_users") or 1)
    for size in SEQUENCES:
        if users <= size < arguments["max-num-seqs"]:
            yield "lower max-num-seqs to %d" % size, {"max_num_seqs": size}
    eight = _capability(str(gpu.get("compute_capability") or "")) >= FP8_CAPABILITY
    if eight and plan["kv"]["dtype"] == "auto" and want.get("accelerator", "cuda") == "cuda":
        yield "keep the KV cache in 8 bits (kv-cache-dtype fp8)", {"kv_cache_dtype": "fp8"}
    length = plan["kv"].get("context_for_users", plan["kv"]["max_sustainable_context"])
    length = min(length, plan["model"]["max_position_embeddings"] or length)
    if 0 < length < arguments["max-model-len"]:
        yield "lower max-model-len to %d" % length, {"max_model_len": length}
    now = int(want.get("tensor_parallel_size") or 1)
    for size in (2, 4, 8, 16):
        if now < size <= int(gpu.get("count", 1)):
            yield "spread over %d GPUs (tensor-parallel-size %d)" % (size, size), {"tensor_parallel_size": size}


def suggestions(
    plan: Record,
    config: t.Mapping[str, t.Any],
    gpu: t.Mapping[str, t.Any],
    engine: t.Mapping[str, t.Any],
    want: t.Mapping[str, t.Any],
    **options: t.Any,
) -> t.List[Record]:
    """Return changes for a plan that doesn't fit, in order, each ``{change, flags, frees_bytes, fits}``.

    What fits by itself comes marked so; where nothing does, the changes are added up until they do.

    Args:
        plan: the plan that doesn't fit.
        config, gpu, engine, want: what it was made from.
        options: the other arguments of :func:`_memory_plan.plan`.
    """
    if plan["fits"] or plan["confidence"] == "unsupported":
        return []
    users = int(want.get("concurrent_users") or 1)
    before = demand_bytes(plan, users)
    # A calibration holds for its own flags only.
    free = {key: value for key, value in options.items() if key not in ("calibration", "weights_bytes")}
    found: t.List[Record] = []
    sum_of: Record = {}
    steps: t.List[str] = []
    together: t.Optional[Record] = None
    kinds: t.Set[str] = set()
    for text, flags in _changes(plan, want, gpu):
        kind = next(iter(flags))
        if kind in kinds and any(one["fits"] and kind in one["flags"] for one in found):
            continue
        alone = planning.plan(config, gpu, engine, dict(want, **flags), **free)
        if alone["confidence"] == "unsupported":
            continue
        one = {
            "change": text,
            "flags": flags,
            "frees_bytes": before - demand_bytes(alone, users),
            "fits": alone["fits"],
        }
        if kind in kinds:
            found = [other for other in found if kind not in other["flags"]] if kind == "max_num_seqs" else found
        kinds.add(kind)
        if one["frees_bytes"] > 0 or one["fits"]:
            found.append(one)
        if together is None and kind != "max_model_len" and one["frees_bytes"] > 0:
            sum_of.update(flags)
            steps = [step for step in steps if step.split(" to ")[0] != text.split(" to ")[0]] + [text]
            both = planning.plan(config, gpu, engine, dict(want, **sum_of), **free)
            if both["fits"] and len(steps) > 1:
                together = {
                    "change": " and ".join(steps),
                    "flags": dict(sum_of),
                    "frees_bytes": before - demand_bytes(both, users),
                    "fits": True,
                }
    if together is not None and not any(one["fits"] for one in found):
        found.append(_pruned(together, plan, config, gpu, engine, want, before, **free))
    if not any(one["fits"] for one in found):
        room = plan["per_gpu"]["budget"] - (before - plan["per_gpu"]["weights"])
        text = "take a checkpoint with %s of weights on a GPU at most, such as one in 4 bits" % gib(room)
        if room <= 0:
            text = "take a GPU with more memory: all but the weights needs %s" % gib(
                before - plan["per_gpu"]["weights"]
            )
        found.append(
            {
                "change": text,
                "flags": {},
                "frees_bytes": max(0, plan["per_gpu"]["weights"] - max(room, 0)),
                "fits": False,
            }
        )
    return found


def _pruned(
    together: Record,
    plan: Record,
    config: t.Mapping[str, t.Any],
    gpu: t.Mapping[str, t.Any],
    engine: t.Mapping[str, t.Any],
    want: t.Mapping[str, t.Any],
    before: int,
    **options: t.Any,
) -> Record:
    """Return changes that fit together without those of them that they don't need."""
    flags = dict(together["flags"])

    def tried(some: Record) -> Record:
        return planning.plan(config, gpu, engine, dict(want, **some), **options)

    for name in list(flags):
        fewer = {key: value for key, value in flags.items() if key != name}
        if len(fewer) > 1 and tried(fewer)["fits"]:
            flags = fewer
    if "max_num_seqs" in flags:
        sizes = [size for size in SEQUENCES if flags["max_num_seqs"] <= size < plan["vllm_args"]["max-num-seqs"]]
        flags["max_num_seqs"] = next(size for size in sizes if tried(dict(flags, max_num_seqs=size))["fits"])
    texts = {json.dumps(one): text for text, one in _changes(plan, want, gpu)}
    both = tried(flags)
    return {
        "change": " and ".join(texts[json.dumps({key: value})] for key, value in flags.items()),
        "flags": flags,
        "frees_bytes": before - demand_bytes(both, int(want.get("concurrent_users") or 1)),
        "fits": True,
    }


def smallest(found: t.Sequence[Record]) -> t.Optional[Record]:
    """Return the first change that makes it fit, None: there is none."""
    return next((one for one in found if one["fits"]), None)
