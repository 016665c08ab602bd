# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""From a model's layers and the wanted flags to what each rank allocates for each layer."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_config import Layer, Model, Unsupported
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_layout import Request, Spec, cdiv
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import (
    DTYPE_BYTES,
    KV_BYTES,
    MLA_PACKED,
    Rule,
    version_tuple,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_want import Want


class Laid(t.NamedTuple):
    """What the allocator gets."""

    specs: t.Tuple[Spec, ...]
    owners: t.Tuple[int, ...]  # for each spec, its decoder layer
    block_size: int  # tokens, of the attention layers
    request: Request
    kv_dtype: str
    notes: t.Tuple[str, ...]
    exact: bool  # False: something of it isn't determined by what was given


def model_bytes(model: Model, want: Want) -> int:
    """Return the bytes of one element of the model's own type."""
    name = model.dtype if want.dtype == "auto" else want.dtype
    if name not in DTYPE_BYTES:
        raise Unsupported("dtype %s is not known to the planner" % name)
    return DTYPE_BYTES[name]


def _quantisation_kv(model: Model, rules: Rule) -> t.Optional[str]:
    """Return the cache's type that the checkpoint's quantisation asks for, as a release takes it; None: none.

    Source: ``vllm/utils/torch_utils.py``, ``get_kv_cache_quant_algo_string``, for ModelOpt's checkpoints;
    ``vllm/model_executor/layers/attention/attention.py`` for those of compressed-tensors, whose scheme has 8 bits.
    """
    quant: t.Dict[str, t.Any] = model.config.get("quantization_config") or model.text.get("quantization_config") or {}
    if not rules["checkpoint_kv"] or not isinstance(quant, dict):
        return None
    method = str(quant.get("quant_method", "")).lower()
    if method.replace("_", "-") == "compressed-tensors":
        return "fp8" if quant.get("kv_cache_scheme") else None
    if not method.startswith("modelopt"):
        return None
    nested = quant.get("quantization")
    inner: t.Dict[str, t.Any] = nested if isinstance(nested, dict) else quant
    scheme = inner.get("kv_cache_scheme") or quant.get("kv_cache_scheme")
    scheme = scheme or inner.get("kv_cache_quant_algo") or quant.get("kv_cache_quant_algo")
    if isinstance(scheme, dict):
        floats = scheme.get("type") == "float"
        if floats and scheme.get("num_bits") == 8 and scheme.get("dynamic") is False:
            return "fp8"
        scheme = "nvfp4" if floats and scheme.get("num_bits") == 4 else None
    if isinstance(scheme, str) and scheme.lower() == "nvfp4" and rules["nvfp4_kv"]:
        return "nvfp4"
    return "fp8" if isinstance(scheme, str) and scheme.lower() == "fp8" else None


def kv_dtype_of(model: Model, want: Want, rules: Rule) -> t.Tuple[str, int]:
    """Return the name of the cache's type and the bytes of an element.

    Raises:
        Unsupported: a type with a layout that isn't known.
    """
    name = want.kv_cache_dtype
    if name == "auto":
        name = _quantisation_kv(model, rules) or "auto"
    if name == "auto":
        return "auto", model_bytes(model, want)
    if model.family["layout"] == "mla_sparse" and name.startswith("fp8"):
        name = "fp8_ds_mla"  # what the sparse kernels of Hopper take in place of plain 8 bits
    if name in MLA_PACKED and model.mla:
        return name, 1
    if name not in KV_BYTES:
        raise Unsupported("kv_cache_dtype %s is not known to the planner" % name)
    return name, KV_BYTES[name]


def state_bytes(layer: Layer, tensor_parallel: int, speculative: int, conv_bytes: int, ssm_dtype: str) -> int:
    """Return the bytes of one recurrent state on one rank.

    Source: ``vllm/model_executor/layers/mamba/mamba_utils.py``, ``MambaStateShapeCalculator``.

    Raises:
        Unsupported: the state can't be cut into that many ranks.
    """
    form = dict(layer.state)["form"]
    state: t.Dict[str, int] = {name: value for name, value in layer.state if isinstance(value, int)}

    def part(total: int, what: str) -> int:
        if total % tensor_parallel:
            raise Unsupported(
                "tensor_parallel_size %d does not divide the recurrent layers' %s (%d)" % (tensor_parallel, what, total)
            )
        return total // tensor_parallel

    chosen = ssm_dtype if ssm_dtype != "auto" else dict(layer.state).get("ssm_dtype", "auto")
    ssm = conv_bytes if chosen == "auto" else DTYPE_BYTES[chosen]
    if form == "gdn":
        conv = part(2 * state["k_dim"] * state["k_heads"] + state["v_dim"] * state["v_heads"], "convolution")
        inner = part(state["v_heads"], "heads") * state["v_dim"] * state["k_dim"]
        return conv * (state["kernel"] - 1 + speculative) * conv_bytes + inner * ssm
    if form == "kda":
        conv = part(3 * state["heads"] * state["head_dim"], "convolution")
        inner = part(state["heads"], "heads") * state["head_dim"] ** 2
        ssm = DTYPE_BYTES["float32"] if chosen == "auto" else ssm
        return conv * (state["kernel"] - 1 + speculative) * conv_bytes + inner * ssm
    if form == "mamba2":
        groups = state["n_groups"]
        if groups % tensor_parallel:
            groups += tensor_parallel - groups
        conv = part(state["intermediate"] + 2 * groups * state["state_size"], "convolution")
        inner = part(state["heads"], "heads") * state["head_dim"] * state["state_size"]
        return conv * (state["kernel"] - 1 + speculative) * conv_bytes + inner * ssm
    if form == "mamba1":
        inner = part(state["intermediate"], "channels")
        return inner * (state["kernel"] - 1) * conv_bytes + inner * state["state_size"] * ssm
    if form == "conv":
        return part(state["dim"], "channels") * (state["kernel"] - 1) * conv_bytes
    raise Unsupported("recurrent state %s is not known to the planner" % form)


def rank_heads(heads: int, tensor_parallel: int) -> int:
    """Return the heads with keys and values on one rank: each rank has one at least, copies where there are too few."""
    return max(1, heads // tensor_parallel)


def token_bytes(layer: Layer, tensor_parallel: int, kv_name: str, kv_bytes: int) -> int:
    """Return the bytes that one token takes in one layer on one rank."""
    if layer.token_bytes:
        return layer.token_bytes
    if layer.kind == "mla":
        return MLA_PACKED.get(kv_name, layer.head_k * kv_bytes)
    return rank_heads(layer.kv_heads, tensor_parallel) * (layer.head_k + layer.head_v) * kv_bytes


def _mamba_mode(model: Model, want: Want, rules: Rule) -> t.Tuple[str, t.List[str]]:
    """Return how recurrent states are kept, and what there is to say about it."""
    if want.mamba_cache_mode:
        return want.mamba_cache_mode, []
    caching = want.enable_prefix_caching
    if caching is None:
        caching = rules["hybrid_prefix_caching"] and not model.family["layout"].startswith("mamba1")
        if model.family["layout"] in ("mamba1", "mamba2"):
            caching = False
    if not caching:
        return "none", []
    forms = {dict(layer.state)["form"] for caches in model.layers for layer in caches if layer.kind == "mamba"}
    if rules["mamba_all"] and forms & {"mamba1", "mamba2", "conv"}:
        return "align", ["This release may keep a state for each block of these recurrent layers; counted as aligned."]
    return "align", []


def _aligned_block(model: Model, want: Want, rules: Rule, state: int, block: int, kv: t.Tuple[str, int]) -> int:
    """Return the block of the attention layers, in tokens, whose page is no smaller than the recurrent state.

    Source: ``vllm/platforms/interface.py``, ``_align_hybrid_block_size``; before 0.20
    ``vllm/model_executor/models/config.py``.
    """
    if model.mla:
        one = next(
            token_bytes(layer, want.tensor_parallel_size, *kv)
            for caches in model.layers
            for layer in caches
            if layer.kind == "mla"
        )
        alignment = max(block, int(rules["mla_alignment"]))
    else:
        one = rank_heads(model.kv_heads, want.tensor_parallel_size) * 2 * model.head_dim * kv[1]
        alignment = max(block, 16)
    return max(block, alignment * cdiv(state, alignment * one))


def lay_out(model: Model, want: Want, rules: Rule, inflight_tokens: int) -> Laid:
    """Return each layer's cache on one tensor-parallel rank, for all pipeline stages.

    Args:
        model: the model's record.
        want: the wanted flags, with what the engine fills in already there.
        rules: those of the engine's version.
        inflight_tokens: tokens that are scheduled and not settled yet.

    Raises:
        Unsupported: something that isn't known, or can't be cut into that many ranks.
    """
    tp = want.tensor_parallel_size
    kv = kv_dtype_of(model, want, rules)
    notes = list(model.notes)
    exact = not notes
    block = want.block_size or (128 if want.accelerator == "cpu" else 16)
    if model.family["layout"] == "mla_sparse" and not want.block_size:
        block = 64
    if model.mla and want.accelerator == "cpu" and not want.cpu_amx:
        block = 16  # the only one that the kernel for CPUs without tiles takes
        if want.cpu_amx is None:
            notes.append("Whether the CPU multiplies tiles (AMX) isn't known; without, blocks have 16 tokens.")
            exact = False
    recurrent = [layer for caches in model.layers for layer in caches if layer.kind == "mamba"]
    attention = [layer for caches in model.layers for layer in caches if layer.kind != "mamba"]
    mode, said = _mamba_mode(model, want, rules) if recurrent else ("none", [])
    notes.extend(said)
    exact = exact and not said
    speculative = want.speculative_tokens
    state, checkpoints = 0, 0
    if (
        recurrent
        and want.accelerator == "cpu"
        and want.mamba_ssm_cache_dtype == "auto"
        and model_bytes(model, want) == 2
    ):
        notes.append("Some CPUs keep recurrent states in 32 bits; --mamba-ssm-cache-dtype says which.")
        exact = False
    if recurrent:
        state = state_bytes(recurrent[0], tp, speculative, model_bytes(model, want), want.mamba_ssm_cache_dtype)
        checkpoints = int(dict(recurrent[0].state)["form"] in rules["mamba_checkpoints"])
        if attention:
            block = _aligned_block(model, want, rules, state, block, kv)
    page = block * _first_token_bytes(model, tp, kv) if attention else state
    more = 0
    if "window_plus" in model.family and version_tuple(rules["version"]) >= version_tuple(
        model.family["window_plus"][1]
    ):
        more = int(model.family["window_plus"][0])
    specs: t.List[Spec] = []
    owners: t.List[int] = []
    for owner, caches in enumerate(model.layers):
        for layer in caches:
            if layer.kind == "mamba":
                size = block if mode != "none" else max(want.max_model_len, block)
                spec = Spec("mamba", size, max(state, page), padded=page > state, checkpoint_blocks=checkpoints)
            else:
                one = token_bytes(layer, tp, *kv)
                heads = rank_heads(layer.kv_heads, tp)
                spec = Spec(
                    layer.kind,
                    block,
                    block * one,
                    layer.window + (more if layer.window else 0),
                    (heads, layer.head_k, layer.head_v, kv[1]),
                )
            specs.append(spec)
            owners.append(owner)
    encoder = want.encoder_tokens
    if encoder is None:
        encoder = int(model.text.get("max_source_positions") or 0)
    request = Request(inflight_tokens, mode, speculative, encoder)
    return Laid(tuple(specs), tuple(owners), block, request, kv[0], tuple(notes), exact)


def _first_token_bytes(model: Model, tensor_parallel: int, kv: t.Tuple[str, int]) -> int:
    """Return the bytes of a token by the model's own number and size of heads, as the alignment of blocks takes it."""
    if model.mla:
        return next(
            token_bytes(layer, tensor_parallel, *kv)
            for caches in model.layers
            for layer in caches
            if layer.kind == "mla"
        )
    return rank_heads(model.kv_heads, tensor_parallel) * 2 * model.head_dim * kv[1]
