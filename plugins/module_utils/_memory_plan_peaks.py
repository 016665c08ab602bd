# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What an engine needs besides weights and KV cache: the profile run's peak, other libraries' memory, CUDA graphs.

Formulas and constants are fitted to public start-up logs; ``tests/accuracy`` says how good they are.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_config import Model
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_geometry import moe_of
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import (
    CAPTURES,
    GIB,
    MIB,
    MXFP4_WARM_UP,
    NON_TORCH_MANY,
    Rule,
    capture_sizes,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_want import Gpu, Want

Calibration = t.Mapping[str, t.Any]

#: What a start measures, by the names of the module vllm_startup_info, and the part of the plan that each one is.
TERMS = {
    "activation_bytes": "activation",
    "non_torch_bytes": "non_torch",
    "graphs_estimate_bytes": "cuda_graphs",
    "graphs_bytes": "cuda_graphs_actual",
}
#: Besides them, the weights.
WEIGHTS_TERM = "weights_bytes"


class Peaks(t.NamedTuple):
    """Bytes on one GPU."""

    activation: t.Tuple[int, ...]  # for each pipeline stage
    non_torch: int
    graphs_estimate: int  # what the engine takes off its budget, where it does
    graphs_actual: int  # what the capture then takes
    outside: int  # what has to be left outside the budget, graphs not counted
    calibrated: t.Tuple[str, ...]  # which of them come from a start-up log
    sources: t.Dict[str, str]


def _inner(model: Model) -> int:
    for name in ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "decoder_ffn_dim"):
        value = model.text.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 4 * model.hidden


def is_mxfp4(model: Model) -> bool:
    """Whether the experts are stored in MXFP4."""
    quant = model.config.get("quantization_config") or {}
    return str(quant.get("quant_method", "")).lower() == "mxfp4"


def reads_items(model: Model, want: Want) -> bool:
    """Whether requests may carry images or sound, so that the encoder is profiled."""
    return model.encoder and not want.language_model_only and want.mm_items != 0


def activation_bytes(model: Model, want: Want, rules: Rule, last: bool) -> int:
    """Return the peak of the profile run above the weights, on one rank of a pipeline stage.

    The sampler's dummy run holds about ``sampler_k`` bytes for each sequence and word; it doesn't shrink with tensor
    parallelism, as logits are gathered. The forward pass holds the widest layer's activations of a full batch.

    Args:
        model: the model's record.
        want: flags with what the engine fills in already there.
        rules: those of the engine's version.
        last: whether the stage samples.
    """
    tokens, seqs = int(want.max_num_batched_tokens or 0), int(want.max_num_seqs or 0)
    hidden, tp = model.hidden, want.tensor_parallel_size
    forward = 2.0 * tokens * (3 * _inner(model) / tp + 4 * hidden)
    items = 2.0 * tokens * hidden if reads_items(model, want) else 0.0
    if not last:
        return int(forward + 6.0 * tokens * hidden + items)
    rows = seqs * (1 + want.speculative_tokens)
    sampler = rules["sampler_k"] * rows * model.vocab + 2.0 * tokens * hidden + 0.05 * GIB
    moe = moe_of(model)
    if moe.number and not is_mxfp4(model):
        inner = moe.inner / tp
        outputs = hidden if rules["moe_wide"] and inner < hidden else 0
        sampler += 2.0 * tokens * moe.chosen * (max(2 * inner, hidden) + inner + outputs)
    return int(max(sampler, forward) + items)


def non_torch_bytes(want: Want, gpu: Gpu, rules: Rule) -> int:
    """Return what CUDA's context and the libraries that GPUs talk through grow by."""
    if want.tensor_parallel_size == 1:
        return int(rules["non_torch_one"] * GIB)
    value = rules["non_torch_many"] + (rules["non_torch_four"] if want.tensor_parallel_size >= 4 else 0.0)
    for pattern, seen in NON_TORCH_MANY:
        if re.search(pattern, gpu.name.lower()):
            value = seen
    return int(value * GIB)


def graph_bytes(model: Model, want: Want, rules: Rule, kind: str) -> int:
    """Return the memory of the CUDA graphs, by the number of layers and of captured sizes.

    Args:
        kind: ``graphs``, the engine's estimate; ``actual``, what the capture takes.
    """
    if want.enforce_eager or want.accelerator == "cpu":
        return 0
    scale = capture_sizes(int(want.max_num_seqs or 256)) / CAPTURES
    layers = len(model.layers) / want.pipeline_parallel_size
    moe = rules[kind + "_moe"] if moe_of(model).number else 0.0
    return int((rules[kind + "_base"] + (rules[kind + "_layer"] * layers + moe) * scale) * GIB)


def lora_bytes(model: Model, want: Want) -> int:
    """Return the buffers for adapters: two thin matrices for each linear layer, for each adapter that may be loaded."""
    if not want.max_loras:
        return 0
    hidden, inner = model.hidden, _inner(model)
    heads = model.heads * model.head_dim
    keys = model.kv_heads * model.head_dim
    widths = (hidden + heads) + 2 * (hidden + keys) + (heads + hidden) + 2 * (hidden + inner) + (inner + hidden)
    return want.max_loras * want.max_lora_rank * widths * len(model.layers) * 2 // want.tensor_parallel_size


def in_budget(want: Want, rules: Rule) -> bool:
    """Whether the engine takes its estimate of the graphs off the budget."""
    return bool(rules["graphs_in_budget"] if want.estimate_cudagraphs is None else want.estimate_cudagraphs)


def peaks(model: Model, want: Want, gpu: Gpu, rules: Rule, calibration: t.Optional[Calibration] = None) -> Peaks:
    """Return the memory besides weights and cache.

    Args:
        model: the model's record.
        want: flags with what the engine fills in already there.
        gpu: the GPUs.
        rules: those of the engine's version.
        calibration: the terms of an earlier start of the same, by the names in :data:`TERMS`; what is left out, or
            None, is computed.
    """
    known = dict(calibration or {})
    count = want.pipeline_parallel_size
    activation = tuple(activation_bytes(model, want, rules, stage == count - 1) for stage in range(count))
    activation = tuple(size + lora_bytes(model, want) for size in activation)
    values = {
        "non_torch": non_torch_bytes(want, gpu, rules),
        "cuda_graphs": graph_bytes(model, want, rules, "graphs"),
        "cuda_graphs_actual": graph_bytes(model, want, rules, "actual"),
    }
    sources = {
        "activation": "formula for vLLM %s" % rules["version"],
        "non_torch": "table of start-up logs",
        "cuda_graphs": "regression over start-up logs",
        "cuda_graphs_actual": "regression over start-up logs",
    }
    used = []
    for term, name in TERMS.items():
        value = known.get(term)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            continue
        used.append(name)
        sources[name] = "start-up log"
        if name == "activation":
            activation = (value,) * count
        else:
            values[name] = value
    outside = int(want.max_num_seqs or 0) * model.vocab * 4 + 150 * MIB
    if is_mxfp4(model):
        outside += int(MXFP4_WARM_UP * GIB)
    if want.accelerator == "cpu":
        values = dict.fromkeys(values, 0)
        outside = 0
    return Peaks(
        activation,
        values["non_torch"],
        values["cuda_graphs"],
        values["cuda_graphs_actual"],
        outside,
        tuple(used),
        sources,
    )


def margin_bytes(model: Model, want: Want, gpu: Gpu, rules: Rule, calibrated: t.Container[str]) -> int:
    """Return what the measured spread of the estimates asks to be kept free, in bytes of one GPU."""
    if want.accelerator == "cpu":
        return 0
    if all(name in calibrated for name in ("activation", "non_torch", "cuda_graphs")):
        return int(0.10 * GIB)
    total = 0.25
    if moe_of(model).number or reads_items(model, want):
        total += 0.25
    if want.tensor_parallel_size > 1 and "non_torch" not in calibrated and not _measured(gpu):
        total += 1.0
    if not want.enforce_eager and in_budget(want, rules) and "cuda_graphs" not in calibrated:
        total += 0.35
    if not rules["known"]:
        total += 1.0
    return int(total * GIB)


def _measured(gpu: Gpu) -> bool:
    """Whether logs of several GPUs of that kind were seen."""
    name = gpu.name.lower()
    return "h100" in name or any(re.search(pattern, name) for pattern, _value in NON_TORCH_MANY)
