# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The memory plan: what fits on which GPUs, at which context, for how many requests at once. Pure; it reads nothing.

:func:`plan` takes a model's own ``config.json`` (and the tensors of its headers where they are at hand), the GPUs, the
engine's version and the wanted flags. It never guesses: what it doesn't know is ``unsupported``, with the reason.
"""

from __future__ import annotations

import math
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_config as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_errors as errors
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_geometry as geometry
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_layout as layout
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_peaks as peaking
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_rules as ruling
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_specs as speccing
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_want as wanting
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_weights as weighing

Record = t.Dict[str, t.Any]

PARTS = ("weights", "activation", "non_torch", "cuda_graphs", "kv", "margin", "headroom")


def _empty(mode: str, engine: t.Mapping[str, t.Any]) -> Record:
    return {
        "fits": False,
        "confidence": "unsupported",
        "mode": mode,
        "engine": {"name": str(engine.get("name", "vllm")), "version": str(engine.get("version", ""))},
        "model": {},
        "gpu": {},
        "errors": [],
        "warnings": [],
        "per_gpu": {},
        "kv": {},
        "vllm_args": {},
        "sources": {},
    }


def _unsupported(record: Record, why: str) -> Record:
    record["confidence"] = "unsupported"
    record["errors"] = [errors.unknown(why)]
    return record


class Laid(t.NamedTuple):
    """All that follows from the model and the flags alone."""

    model: reading.Model
    want: wanting.Want
    rules: ruling.Rule
    laid: speccing.Laid
    groups: t.List[layout.Group]
    stage_layers: t.Tuple[t.FrozenSet[int], ...]  # for each pipeline stage, its specs
    stage_block_bytes: t.Tuple[int, ...]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block on the rank whose blocks are largest."""
        return max(self.stage_block_bytes)


def laid_out(model: reading.Model, want: wanting.Want, gpu: wanting.Gpu, rules: ruling.Rule) -> Laid:
    """Return groups and blocks of a model under the wanted flags.

    Raises:
        reading.Unsupported, layout.LayoutError, wanting.WantError: there is no such layout.
    """
    want = wanting.filled(want, gpu, rules, model.default_length or model.max_position)
    found = speccing.lay_out(model, want, rules, wanting.inflight_tokens(want, rules))
    off = want.disable_hybrid_kv_cache_manager
    if not off and not rules["chunked_groups"] and any(spec.kind == "chunked" for spec in found.specs):
        off = True
    packed = bool(want.kv_cache_layout) and str(want.kv_cache_layout).upper().startswith("B")
    if packed and len({spec.page_bytes for spec in found.specs}) > 1:
        raise reading.Unsupported("layers with pages of several sizes in layout %s" % want.kv_cache_layout)
    groups = layout.make_groups(found.specs, rules, off)
    parts = layout.stages(len(model.layers), want.pipeline_parallel_size)
    members = tuple(frozenset(index for index, owner in enumerate(found.owners) if owner in part) for part in parts)
    sizes = tuple(layout.bytes_per_block(groups, layers) for layers in members)
    return Laid(model, want, rules, found, groups, members, sizes)


def _attention_bytes(laid: Laid) -> int:
    """Return the bytes that one token of a full layer's cache takes on the rank that has most, windows not counted."""
    most = 0
    for layers in laid.stage_layers:
        total = 0
        for index in layers:
            spec = laid.laid.specs[index]
            if spec.kind not in ("mamba", "cross"):
                total += spec.page_bytes // spec.block_size
        most = max(most, total)
    return most


def _per_stage(laid: Laid, budget: int, held: weighing.Weights, seen: peaking.Peaks, graphs: int) -> t.List[int]:
    """Return what each pipeline stage has left for its cache."""
    return [
        budget - int(weights) - activation - seen.non_torch - graphs
        for weights, activation in zip(held.per_stage, seen.activation)
    ]


def _blocks(laid: Laid, available: t.Sequence[int]) -> int:
    """Return the blocks that every stage has room for."""
    counts = [max(0, memory) // size for memory, size in zip(available, laid.stage_block_bytes) if size]
    return min(counts) if counts else 0


def kv_record(laid: Laid, blocks: int, low: int, high: int, limit: int) -> Record:
    """Return the part of the plan about the cache.

    Args:
        laid: the layout.
        blocks: of the pool.
        low: blocks if the estimates were too low, high: if they were too high.
        limit: tokens of the longest request that the model itself takes.
    """
    want, rules, request = laid.want, laid.rules, laid.laid.request
    length = want.max_model_len

    def tokens(count: int) -> int:
        return layout.capacity(laid.groups, count, length, request, rules).tokens

    one = layout.capacity(laid.groups, blocks, length, request, rules)
    usable = layout.request_blocks(blocks, rules) * laid.block_bytes
    longest = layout.largest_length(laid.groups, usable, limit, request, rules)
    record: Record = {
        "bytes_per_token": _attention_bytes(laid),
        "bytes_per_block": laid.block_bytes,
        "block_size": laid.laid.block_size,
        "groups": [
            {"kind": group.specs[0].kind, "layers": len(group.layers), "block_size": group.block_size}
            for group in laid.groups
        ],
        "padding_layers": layout.padding_layers(laid.groups),
        "num_blocks": blocks,
        "blocks_per_request": one.blocks_per_request,
        "tokens_reported": one.tokens,
        "max_concurrency": round(one.max_concurrency, 2),
        "max_sustainable_context": longest,
        "interval": [tokens(low), tokens(high)],
        "dtype": laid.laid.kv_dtype,
    }
    users = want.concurrent_users
    if users:
        share = layout.request_blocks(blocks, rules) // users * laid.block_bytes
        record["context_for_users"] = layout.largest_length(laid.groups, share, limit, request, rules)
    return record


def plan(
    config: t.Mapping[str, t.Any],
    gpu: t.Mapping[str, t.Any],
    engine: t.Mapping[str, t.Any],
    want: t.Optional[t.Mapping[str, t.Any]] = None,
    *,
    tensors: t.Optional[t.Sequence[weighing.Tensor]] = None,
    mode: str = "pin",
    calibration: t.Optional[peaking.Calibration] = None,
    weights_bytes: t.Optional[int] = None,
) -> Record:
    """Return the plan of one instance.

    Args:
        config: the model's ``config.json``.
        gpu: ``total_bytes`` and ``count`` of like GPUs, ``free_bytes`` of the one that has least, ``name``,
            ``compute_capability``, ``processes``. For a CPU: the memory of the host.
        engine: ``version``, as ``0.11.2``; ``generation`` (``V0`` or ``V1``) where a release had both.
        want: flags by vLLM's names; see :class:`_memory_plan_want.Want`.
        tensors: the checkpoint's, from its headers, each ``{name, dtype, shape, nbytes}``. None: they are derived
            from ``config.json``, which is good to 1 % and not possible for every model.
        mode: ``pin``, where the cache's size is given to the engine and nothing is left to its profiler;
            ``estimate``, which says what the engine will find by itself.
        calibration: bytes of an earlier start of the same model, GPU, engine and flags, as ``vllm_startup_info``
            keeps them: ``weights_bytes``, ``activation_bytes``, ``non_torch_bytes``, ``graphs_estimate_bytes``,
            ``graphs_bytes``; None where the start didn't say.
        weights_bytes: of one rank, where they are known otherwise.

    Returns:
        The record that the module ``memory_plan`` documents. What can't be planned has ``confidence: unsupported``
        and says why in ``errors``.
    """
    record = _empty(mode, engine)
    try:
        if mode not in wanting.MODES:
            raise wanting.WantError("mode is %r, expected %s" % (mode, " or ".join(wanting.MODES)))
        rules = ruling.rules_for(str(engine.get("version", "")), engine.get("generation"))
        wish, gpus = wanting.want_of(want or {}), wanting.gpu_of(gpu)
        model = reading.with_limits(reading.read_model(config), rules)
        laid = laid_out(model, wish, gpus, rules)
        if weights_bytes is None and calibration and isinstance(calibration.get(peaking.WEIGHTS_TERM), int):
            weights_bytes = calibration[peaking.WEIGHTS_TERM]
        try:
            held = _weights(laid, tensors, weights_bytes)
        except reading.Unsupported as exc:
            return _refused_by_less(record, laid, gpus, calibration) or _unsupported(record, str(exc))
        return _planned(record, laid, gpus, held, calibration)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as exc:
        # Every file of someone else's is wrong in its own way: what isn't understood is refused, never half planned.
        why = str(exc) if isinstance(exc, ValueError) else "config.json: %r" % exc
        return _unsupported(_empty(mode, engine), why)


def _weights(laid: Laid, tensors: t.Optional[t.Sequence[weighing.Tensor]], known: t.Optional[int]) -> weighing.Weights:
    count = laid.want.pipeline_parallel_size
    if known is not None:
        return weighing.Weights((float(known),) * count, "start-up log", ())
    if tensors is not None:
        return weighing.weights(laid.model, tensors, laid.want, laid.rules, "safetensors headers")
    derived = geometry.tensors_of(laid.model, laid.want)
    return weighing.weights(laid.model, derived, laid.want, laid.rules, "config.json")


def _refused_by_less(
    record: Record, laid: Laid, gpu: wanting.Gpu, calibration: t.Optional[peaking.Calibration]
) -> t.Optional[Record]:
    """Return the refusal of a model whose text part alone doesn't fit, whatever its encoder weighs; None: it might."""
    if not laid.model.encoder or laid.model.family.get("weights") == "headers":
        return None
    try:
        derived = geometry.text_tensors(laid.model, laid.want)
        held = weighing.weights(laid.model, derived, laid.want, laid.rules, "config.json, without the encoder")
    except reading.Unsupported:
        return None
    plan_of_less = _planned(dict(record), laid, gpu, held, calibration)
    # What is needed outside the budget is an estimate with its own head-room; it refuses nothing for sure.
    plan_of_less["errors"] = [line for line in plan_of_less["errors"] if not line.startswith("outside the budget")]
    if not plan_of_less["errors"]:
        return None
    plan_of_less["warnings"].append("The text model alone doesn't fit; what its encoder needs comes on top.")
    return plan_of_less


def _planned(
    record: Record,
    laid: Laid,
    gpu: wanting.Gpu,
    held: weighing.Weights,
    calibration: t.Optional[peaking.Calibration],
) -> Record:
    want, rules, model, mode = laid.want, laid.rules, laid.model, record["mode"]
    seen = peaking.peaks(model, want, gpu, rules, calibration)
    cpu = want.accelerator == "cpu"
    budget = math.ceil(gpu.total_bytes * float(want.gpu_memory_utilization or 0))
    counted = peaking.in_budget(want, rules) or mode == "pin"
    graphs = max(seen.graphs_estimate, seen.graphs_actual) if mode == "pin" else seen.graphs_estimate
    graphs = graphs if counted else 0
    margin = peaking.margin_bytes(model, want, gpu, rules, seen.calibrated)
    available = _per_stage(laid, budget, held, seen, graphs)
    given = want.kv_cache_memory_bytes
    pinned = given is not None
    if given is not None:
        blocks = low = high = given // laid.block_bytes
    elif mode == "pin" and not cpu:
        blocks = low = high = _blocks(laid, [memory - margin for memory in available])
    else:
        blocks = _blocks(laid, available)
        low = _blocks(laid, [memory - margin for memory in available])
        high = _blocks(laid, [memory + margin for memory in available])
    if want.num_gpu_blocks_override:
        blocks = low = high = want.num_gpu_blocks_override
    limit = max(want.max_model_len, model.max_position or 0)
    kv_bytes = given if given is not None else blocks * laid.block_bytes
    if mode == "estimate" and not pinned:
        kv_bytes = max(0, min(available))
    most = max(range(len(available)), key=lambda stage: held.per_stage[stage] + seen.activation[stage])
    inside = int(held.per_stage[most]) + seen.activation[most] + seen.non_torch
    free = gpu.free_bytes if gpu.free_bytes is not None else gpu.total_bytes
    used = inside + kv_bytes + (graphs if counted else seen.graphs_actual)
    record["per_gpu"] = {
        "total": gpu.total_bytes,
        "free": gpu.free_bytes,
        "budget": budget,
        "weights": int(held.per_stage[most]),
        "activation": seen.activation[most],
        "non_torch": seen.non_torch,
        "cuda_graphs": graphs if counted else seen.graphs_actual,
        "kv": kv_bytes,
        "margin": margin if mode == "pin" and not pinned else 0,
        "headroom": free - used,
        "outside_budget": seen.outside + (0 if counted else seen.graphs_actual),
    }
    record["kv"] = kv_record(laid, blocks, low, high, limit)
    record["kv"]["available"] = kv_bytes
    record["model"] = {
        "architecture": model.architecture,
        "layers": len(model.layers),
        "max_position_embeddings": model.max_position,
        "encoder": model.encoder,
    }
    record["gpu"] = {"name": gpu.name, "count": gpu.number}
    record["sources"] = dict(seen.sources, weights=held.source, kv="vLLM %s's own rules" % rules["version"])
    record["warnings"] = _warnings(laid, held, gpu)
    record["errors"] = errors.refusals(laid, gpu, record, available, pinned)
    record["fits"] = not record["errors"]
    exact = laid.laid.exact and rules["known"] and (pinned or mode == "pin" or bool(want.num_gpu_blocks_override))
    record["confidence"] = "exact" if exact else "estimated"
    record["vllm_args"] = _arguments(laid, record, mode, pinned)
    return record


def _warnings(laid: Laid, held: weighing.Weights, gpu: wanting.Gpu) -> t.List[str]:
    said = list(laid.laid.notes) + list(held.notes)
    if held.source == "config.json":
        said.append("The weights are derived from config.json; the headers of the checkpoint are exact.")
    if not laid.rules["known"]:
        said.append("vLLM %s is newer than what the planner knows; 1 GiB more is kept free." % laid.rules["version"])
    padding = layout.padding_layers(laid.groups)
    if padding:
        said.append("Groups of layers are filled up with %d layers that hold nothing." % padding)
    if gpu.free_bytes is None and laid.want.accelerator != "cpu":
        said.append("Nobody looked at the memory that is free; the plan assumes that nothing else uses the GPU.")
    users = laid.want.concurrent_users
    if users and laid.want.max_num_seqs and users > laid.want.max_num_seqs:
        said.append("max_num_seqs %d is less than the %d users." % (laid.want.max_num_seqs, users))
    return said


def _arguments(laid: Laid, record: Record, mode: str, pinned: bool) -> Record:
    """Return the engine's arguments, by their names on the command line."""
    want = laid.want
    arguments: Record = {
        "max-model-len": want.max_model_len,
        "max-num-seqs": want.max_num_seqs,
        "max-num-batched-tokens": want.max_num_batched_tokens,
    }
    if want.accelerator != "cpu":
        arguments["gpu-memory-utilization"] = want.gpu_memory_utilization
        arguments["tensor-parallel-size"] = want.tensor_parallel_size
        if want.pipeline_parallel_size > 1:
            arguments["pipeline-parallel-size"] = want.pipeline_parallel_size
    if (mode == "pin" or pinned) and record["kv"]["num_blocks"] > 0:
        arguments["kv-cache-memory-bytes"] = record["kv"]["num_blocks"] * laid.block_bytes
    if want.kv_cache_dtype != "auto":
        arguments["kv-cache-dtype"] = want.kv_cache_dtype
    if want.enforce_eager:
        arguments["enforce-eager"] = True
    return arguments
