# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""From an inventory's ``engine_config``, which may hold any flag of the engine, to the wish that the planner takes."""

from __future__ import annotations

import json
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_want import Want, WantError

#: Flags that the planner has by another name, or whose value it has to read.
READ = ("limit_mm_per_prompt", "enable_lora", "max_loras", "max_lora_rank")
#: Flags that change what is held in a way that the planner doesn't know; each with the value that changes nothing.
UNPLANNED: t.Dict[str, t.Any] = {
    "additional_config": {},
    "cpu_offload_gb": 0,
    "decode_context_parallel_size": 1,
    "prefill_context_parallel_size": 1,
    "enable_eplb": False,
    "hf_overrides": {},
    "kv_offloading_size": None,
    "kv_transfer_config": None,
    "speculative_config": None,
    "kv_sharing_fast_prefill": False,
}
COUNTED = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_cache_memory_bytes",
    "num_gpu_blocks_override",
    "block_size",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
)
HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)(?:i?[bB])?")
#: As the engine reads them: small letters are decimal, large ones binary.
FACTORS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "T": 1 << 40,
}


def underscored(key: t.Any) -> str:
    """Return a flag's name as the planner spells it."""
    return str(key).lstrip("-").replace("-", "_")


def whole_number(name: str, value: t.Any) -> t.Any:
    """Return a number that may be written as the engine's command line takes it, as ``4G`` or ``8k``.

    Raises:
        WantError: it isn't one.
    """
    if isinstance(value, str):
        match = HUMAN.fullmatch(value.strip())
        if value.strip() == "auto" and name == "max_model_len":
            return 0
        if match is None:
            raise WantError("%s is %r, expected a number, with k, K, m, M, g or G behind it at most" % (name, value))
        return int(float(match.group(1)) * FACTORS[match.group(2)])
    return value


def items_of(value: t.Any) -> t.Optional[int]:
    """Return how many items a request may carry by ``limit_mm_per_prompt``; None: it doesn't say."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    counts = list(value.values()) if isinstance(value, dict) else []
    if not counts or not all(isinstance(count, int) and not isinstance(count, bool) for count in counts):
        return None
    return int(sum(counts))


def want_of_config(config: t.Mapping[str, t.Any]) -> t.Tuple[t.Dict[str, t.Any], t.List[str]]:
    """Return the planner's wish, and why the flags can't be planned (empty: they can).

    Args:
        config: the engine's flags by vLLM's names, with dashes or underscores; what doesn't change memory is left out.

    Raises:
        WantError: a value that can't be.
    """
    want: t.Dict[str, t.Any] = {}
    unplanned: t.List[str] = []
    flags = {underscored(key): value for key, value in config.items() if value is not None}
    for name, value in flags.items():
        if name in UNPLANNED and value not in (UNPLANNED[name], None, "", {}, "{}"):
            unplanned.append("%s %s changes what is held in memory in a way that isn't known" % (name, value))
        elif name.startswith("no_") and name[3:] in Want._fields and value is True:
            want[name[3:]] = False
        elif name in Want._fields and name not in READ:
            want[name] = whole_number(name, value) if name in COUNTED else value
    if "limit_mm_per_prompt" in flags:
        want["mm_items"] = items_of(flags["limit_mm_per_prompt"])
    if flags.get("enable_lora"):
        want["max_loras"] = int(flags.get("max_loras") or 1)
        want["max_lora_rank"] = int(flags.get("max_lora_rank") or Want().max_lora_rank)
    return {name: value for name, value in want.items() if value is not None}, unplanned
