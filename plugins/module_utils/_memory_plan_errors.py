# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Why a plan doesn't fit, in the words that vLLM itself uses for it, so that a search finds both."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_layout as layout
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import GIB
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_want import Gpu

if t.TYPE_CHECKING:
    from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan import Laid, Record


def gib(size: float) -> str:
    """Return bytes as vLLM's log has them."""
    return "%.2f GiB" % (size / GIB)


def unknown(why: str) -> str:
    """Return the refusal to plan what isn't known."""
    return "%s: no estimate made; a first start of the engine measures it" % why


def _parallel(laid: Laid, gpu: Gpu) -> t.List[str]:
    want, model = laid.want, laid.model
    tp, said = want.tensor_parallel_size, []
    if model.heads and model.heads % tp:
        said.append(
            "tensor_parallel_size %d does not divide the %d attention heads: Total number of attention heads (%d) "
            "must be divisible by tensor parallel size (%d)." % (tp, model.heads, model.heads, tp)
        )
    padded = -(-model.vocab // 64) * 64
    if padded % tp:
        said.append("tensor_parallel_size %d does not divide the padded vocabulary of %d rows" % (tp, padded))
    heads = model.kv_heads
    if heads and not model.mla and (heads % tp if heads >= tp else tp % heads):
        said.append("tensor_parallel_size %d and %d key/value heads don't divide each other" % (tp, heads))
    if want.pipeline_parallel_size > len(model.layers):
        said.append(
            "pipeline_parallel_size %d is more than the model's %d layers"
            % (want.pipeline_parallel_size, len(model.layers))
        )
    needed = tp * want.pipeline_parallel_size * want.data_parallel_size
    if want.accelerator != "cpu" and needed > gpu.number:
        said.append(
            "tensor_parallel_size %d x pipeline_parallel_size %d x data_parallel_size %d needs %d GPUs, there are %d"
            % (tp, want.pipeline_parallel_size, want.data_parallel_size, needed, gpu.number)
        )
    return said


def _free(laid: Laid, gpu: Gpu, record: Record) -> t.List[str]:
    budget = record["per_gpu"]["budget"]
    if gpu.free_bytes is None or gpu.free_bytes >= budget or laid.want.accelerator == "cpu":
        return []
    others = "another process uses the GPU"
    if gpu.processes:
        others = "the GPU is used by %s" % ", ".join(gpu.processes)
    return [
        "Free memory on device (%s of %s) on startup is less than desired GPU memory utilization (%s, %s): %s"
        % (gib(gpu.free_bytes), gib(gpu.total_bytes), laid.want.gpu_memory_utilization, gib(budget), others)
    ]


def _cache(laid: Laid, gpu: Gpu, record: Record, available: t.Sequence[int], pinned: bool) -> t.List[str]:
    """Return whether the weights, and then one request of max_model_len, have room."""
    want, rules, per_gpu = laid.want, laid.rules, record["per_gpu"]
    if not pinned and per_gpu["weights"] >= per_gpu["budget"]:
        return [
            "model needs %s of weights on each of %d GPUs, budget is %s (total %s x utilisation %s)"
            % (
                gib(per_gpu["weights"]),
                want.tensor_parallel_size * want.pipeline_parallel_size,
                gib(per_gpu["budget"]),
                gib(per_gpu["total"]),
                want.gpu_memory_utilization,
            )
        ]
    block = laid.block_bytes
    memory = record["kv"]["num_blocks"] * block if record["mode"] == "pin" or pinned else min(available)
    if memory <= 0 or (block and memory < block):
        return [
            "No available memory for the cache blocks: %s of %s are left. Try increasing gpu_memory_utilization."
            % (gib(min(available) - per_gpu["margin"]), gib(per_gpu["budget"]))
        ]
    said = []
    request = laid.laid.request
    for layers, size in zip(laid.stage_layers, laid.stage_block_bytes):
        has = layout.usable_bytes(memory, size, rules)
        needs = layout.needed_bytes(laid.groups, want.max_model_len, request, rules, layers)
        if needs > has:
            longest = layout.largest_length(laid.groups, has, want.max_model_len, request, rules, layers)
            said.append(
                "To serve at least one request with the model's max seq len (%d), %s KV cache is needed, which is "
                "larger than the available KV cache memory (%s): max_model_len %d needs %s of KV cache, %s available; "
                "largest that fits is %d"
                % (want.max_model_len, gib(needs), gib(has), want.max_model_len, gib(needs), gib(has), longest)
            )
    return said[:1]


def _outside(laid: Laid, gpu: Gpu, record: Record) -> t.List[str]:
    """Return whether what the engine needs outside its budget at start-up has room."""
    per_gpu = record["per_gpu"]
    if laid.want.accelerator == "cpu":
        return []
    free = gpu.free_bytes if gpu.free_bytes is not None else gpu.total_bytes
    left = free - max(per_gpu["budget"], 0)
    if record["mode"] == "pin":
        left = free - sum(per_gpu[part] for part in ("weights", "activation", "non_torch", "cuda_graphs", "kv"))
        left += per_gpu["activation"]  # the peak of the profile run is over when the engine warms up
    if left >= per_gpu["outside_budget"]:
        return []
    return [
        "outside the budget %s are needed at start-up (graphs and the sampler's warm-up), %s are left of %s free: "
        "CUDA out of memory in warm-up. Try decreasing gpu_memory_utilization or max_num_seqs"
        % (gib(per_gpu["outside_budget"]), gib(left), gib(free))
    ]


def _users(laid: Laid, record: Record) -> t.List[str]:
    users = laid.want.concurrent_users
    if not users or laid.rules["tokens"] == "blocks":
        return []
    length = laid.want.expected_tokens or laid.want.max_model_len
    needed = layout.blocks_per_request(laid.groups, length, laid.laid.request)
    blocks = layout.request_blocks(record["kv"]["num_blocks"], laid.rules)
    have = blocks // needed if needed else 0
    if have >= users:
        return []
    return [
        "%d concurrent requests of %d tokens need %d blocks of KV cache (%s), %d available; %d fit at once"
        % (
            users,
            length,
            users * needed,
            gib(users * needed * laid.block_bytes),
            blocks,
            have,
        )
    ]


def refusals(laid: Laid, gpu: Gpu, record: Record, available: t.Sequence[int], pinned: bool) -> t.List[str]:
    """Return every reason why this can't be served, in the order in which an engine would meet them.

    Args:
        laid: the layout.
        gpu: the GPUs.
        record: the plan so far.
        available: bytes that each pipeline stage has for its cache.
        pinned: whether the size of the cache was given.
    """
    want, limit = laid.want, laid.model.max_position
    said = _parallel(laid, gpu)
    if limit and want.max_model_len > limit:
        said.append("max_model_len %d exceeds the model's max_position_embeddings %d" % (want.max_model_len, limit))
    taken = _free(laid, gpu, record)
    said += taken
    short = _cache(laid, gpu, record, available, pinned)
    said += short
    if not short:
        said += ([] if taken else _outside(laid, gpu, record)) + _users(laid, record)
    return said
