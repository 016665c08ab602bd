# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The flags that someone wants of the engine, and the GPUs it gets, checked and with the engine's own defaults."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import Rule, batch_defaults

MODES = ("pin", "estimate")


class WantError(ValueError):
    """A wish that makes no sense, whatever the model."""


class Gpu(t.NamedTuple):
    """The GPUs of one instance; they are alike."""

    total_bytes: int  # of one, as the driver says it; not what is printed on the box
    number: int = 1
    free_bytes: t.Optional[int] = None  # of the one that has least; None: nobody looked
    name: str = ""
    compute_capability: str = ""
    processes: t.Tuple[str, ...] = ()  # what else uses them, as a person would name it


class Want(t.NamedTuple):
    """The wanted flags, by vLLM's names. None: what the engine takes by itself."""

    max_model_len: int = 0  # 0: what the model's own configuration says
    max_num_seqs: t.Optional[int] = None
    max_num_batched_tokens: t.Optional[int] = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    enable_expert_parallel: bool = False
    data_parallel_size: int = 1
    dtype: str = "auto"
    quantization: t.Optional[str] = None
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: t.Optional[float] = None
    kv_cache_memory_bytes: t.Optional[int] = None
    num_gpu_blocks_override: t.Optional[int] = None
    block_size: t.Optional[int] = None
    enforce_eager: bool = False
    enable_prefix_caching: t.Optional[bool] = None
    async_scheduling: t.Optional[bool] = None
    disable_hybrid_kv_cache_manager: bool = False
    kv_cache_layout: t.Optional[str] = None
    mamba_cache_mode: t.Optional[str] = None
    mamba_ssm_cache_dtype: str = "auto"
    language_model_only: bool = False
    mm_items: t.Optional[int] = None  # items of one request, all modalities; 0: text only
    max_loras: int = 0
    max_lora_rank: int = 16
    speculative_tokens: int = 0
    encoder_tokens: t.Optional[int] = None
    estimate_cudagraphs: t.Optional[bool] = None  # VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS
    accelerator: str = "cuda"  # cuda, rocm or cpu
    cpu_amx: t.Optional[bool] = None  # whether the CPU multiplies tiles; None: nobody looked
    concurrent_users: t.Optional[int] = None
    expected_tokens: t.Optional[int] = None  # of a request and its answer, where it isn't max_model_len


_KINDS: t.Dict[str, t.Tuple[t.Type[t.Any], ...]] = {
    "gpu_memory_utilization": (float, int),
    "enable_expert_parallel": (bool,),
    "enforce_eager": (bool,),
    "enable_prefix_caching": (bool,),
    "async_scheduling": (bool,),
    "disable_hybrid_kv_cache_manager": (bool,),
    "language_model_only": (bool,),
    "estimate_cudagraphs": (bool,),
    "cpu_amx": (bool,),
    "dtype": (str,),
    "quantization": (str,),
    "kv_cache_dtype": (str,),
    "kv_cache_layout": (str,),
    "mamba_cache_mode": (str,),
    "mamba_ssm_cache_dtype": (str,),
    "accelerator": (str,),
}
_POSITIVE = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "kv_cache_memory_bytes",
    "block_size",
    "concurrent_users",
    "expected_tokens",
)


def want_of(values: t.Mapping[str, t.Any]) -> Want:
    """Return the wish, checked.

    Args:
        values: flags by vLLM's names, with dashes or underscores. None is the same as leaving one out.

    Raises:
        WantError: a name that the planner doesn't know, or a value that can't be.
    """
    checked: t.Dict[str, t.Any] = {}
    for key, value in values.items():
        name = str(key).lstrip("-").replace("-", "_")
        if name not in Want._fields:
            raise WantError("%s is no flag of the planner; it knows %s" % (name, ", ".join(Want._fields)))
        if value is None:
            continue
        kinds = _KINDS.get(name, (int,))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise WantError("%s is %r, expected %s" % (name, value, " or ".join(kind.__name__ for kind in kinds)))
        if (name in _POSITIVE and value < 1) or (
            int in kinds and float not in kinds and value < (-1 if name == "max_model_len" else 0)
        ):
            raise WantError("%s is %r, expected a positive number" % (name, value))
        if name.endswith("_parallel_size") and value > 4096:
            raise WantError("%s is %r, expected 4096 at most" % (name, value))
        checked[name] = value
    want = Want(**checked)
    if want.gpu_memory_utilization is not None and not 0 < want.gpu_memory_utilization <= 1:
        raise WantError(
            "gpu_memory_utilization is %r, expected more than 0 and at most 1" % want.gpu_memory_utilization
        )
    return want


def gpu_of(values: t.Mapping[str, t.Any]) -> Gpu:
    """Return the GPUs, checked.

    Args:
        values: ``total_bytes`` and what else :class:`Gpu` has.

    Raises:
        WantError: no total, or values that can't be.
    """
    total, count = values.get("total_bytes"), values.get("count", 1)
    if not isinstance(total, int) or isinstance(total, bool) or total < 1:
        raise WantError("gpu.total_bytes is %r, expected the bytes of one GPU" % (total,))
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise WantError("gpu.count is %r, expected a positive number" % (count,))
    free = values.get("free_bytes")
    if free is not None and (not isinstance(free, int) or isinstance(free, bool) or free < 0):
        raise WantError("gpu.free_bytes is %r, expected bytes" % (free,))
    return Gpu(
        total_bytes=total,
        number=count,
        free_bytes=free,
        name=str(values.get("name") or ""),
        compute_capability=str(values.get("compute_capability") or ""),
        processes=tuple(str(process) for process in values.get("processes") or ()),
    )


def filled(want: Want, gpu: Gpu, rules: Rule, model_limit: t.Optional[int]) -> Want:
    """Return the wish with what the engine takes where nobody said anything.

    Args:
        want: the wish.
        gpu: its GPUs.
        rules: those of the engine's version.
        model_limit: the longest request by the model's own configuration, in tokens; None: it doesn't say.

    Raises:
        WantError: neither the wish nor the model says how long a request may be.
    """
    length = want.max_model_len
    if length in (0, -1):
        if not model_limit:
            raise WantError("max_model_len is not given, and config.json has no max_position_embeddings")
        length = model_limit
    world = want.tensor_parallel_size * want.pipeline_parallel_size
    tokens, seqs = batch_defaults(rules, gpu.total_bytes, gpu.name, want.accelerator, world)
    wanted_seqs = want.max_num_seqs or seqs
    if want.max_num_batched_tokens:
        tokens = want.max_num_batched_tokens
    elif rules["engine"] == "V0":
        # A prompt isn't cut there, unless it may be longer than this.
        tokens = max(tokens, length) if length <= 32768 else tokens
    else:
        tokens = min(tokens, wanted_seqs * length)
    if not want.max_num_seqs:
        wanted_seqs = min(wanted_seqs, tokens)
    asynchronous = want.async_scheduling
    if asynchronous is None:
        asynchronous = want.accelerator != "cpu"
    return want._replace(
        max_model_len=length,
        max_num_batched_tokens=tokens,
        max_num_seqs=wanted_seqs,
        gpu_memory_utilization=want.gpu_memory_utilization or rules["utilisation"],
        async_scheduling=asynchronous,
    )


def inflight_tokens(want: Want, rules: Rule) -> int:
    """Return the tokens that a window holds on to besides its own: one batch, or all that run at once.

    Source: ``vllm/config/vllm.py``, ``max_in_flight_tokens``.
    """
    batches = 1
    if rules["inflight_batches"]:
        batches = want.pipeline_parallel_size + (1 if want.async_scheduling else 0)
    return batches * int(want.max_num_batched_tokens or 0)
