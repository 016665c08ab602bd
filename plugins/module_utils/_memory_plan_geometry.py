# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The tensors that a checkpoint has by its ``config.json`` alone, for where its headers aren't at hand.

Good to 1 % of a text model; the headers are exact. Architectures whose matrices aren't known here are refused.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_config import (
    Model,
    Unsupported,
    optional,
    whole,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_specs import model_bytes
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_want import Want

Tensors = t.List[t.Dict[str, t.Any]]


class Quant(t.NamedTuple):
    """How the matrices of linear layers are stored."""

    linear: float  # bytes of a parameter in attention and dense layers
    experts: float
    packed: bool = False  # experts in MXFP4


def _compressed(config: t.Mapping[str, t.Any]) -> float:
    """Return the bytes of a parameter in a compressed-tensors checkpoint.

    Floats of 4 bits (NVFP4, MXFP4) have scales of one byte; integers have scales of two, and packed zeros besides where
    they aren't symmetric. Group 0: a scale for a whole channel, which doesn't count.
    """
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise Unsupported("quantization_config has no config_groups")
    sizes = set()
    for group in groups.values():
        described = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(described, dict):
            raise Unsupported("quantization_config: a group without weights")
        bits, size = whole(described, "num_bits"), optional(described, "group_size")
        if bits == 4 and described.get("type") == "float" and size:
            sizes.add(0.5 + 1.0 / size)
        else:
            sizes.add(_grouped(bits, size, zeros=described.get("symmetric") is False))
    if len(sizes) != 1:
        raise Unsupported("quantization_config: groups of several sizes need the checkpoint's headers")
    return sizes.pop()


def _grouped(bits: int, group: int, zeros: bool) -> float:
    scale = 2.0 / group if group > 0 else 0.0
    return bits / 8 + scale + (bits / 8 / group if zeros and group > 0 else 0.0)


def quant_of(model: Model, want: Want) -> Quant:
    """Return how the linear layers are stored.

    Raises:
        Unsupported: a method whose sizes only the headers tell.
    """
    width = float(model_bytes(model, want))
    config = model.config.get("quantization_config") or model.text.get("quantization_config")
    if not isinstance(config, dict):
        if want.quantization is None:
            return Quant(width, width)
        if want.quantization == "fp8":
            return Quant(1.0, 1.0)
        raise Unsupported("quantization %s without a quantization_config: the headers are needed" % want.quantization)
    method = str(config.get("quant_method", "")).lower().replace("_", "-")
    if method in ("awq", "gptq", "awq-marlin", "gptq-marlin"):
        size = _grouped(optional(config, "bits", 4) or 4, optional(config, "group_size", 128), zeros=True)
        return Quant(size, size)
    if method == "compressed-tensors":
        size = _compressed(config)
        return Quant(size, size)
    if method == "fp8":
        block = config.get("weight_block_size")
        size = 1.0 + (4.0 / (block[0] * block[1]) if isinstance(block, list) and len(block) == 2 else 0.0)
        return Quant(size, size)
    if method == "mxfp4":
        return Quant(width, 0.5 + 1 / 32, packed=True)
    if method.startswith("modelopt") and str(config.get("quant_algo", "")).upper() in ("FP8", "NVFP4"):
        size = 1.0 if str(config["quant_algo"]).upper() == "FP8" else 0.5 + 1 / 16
        return Quant(size, size)
    raise Unsupported("quantization method %s: the checkpoint's headers are needed" % (method or "(none)"))


class _Maker:
    """Collects tensors under the names that checkpoints have."""

    def __init__(self, width: int, quant: Quant) -> None:
        self.width = width
        self.quant = quant
        self.tensors: Tensors = []

    def plain(self, name: str, *shape: int) -> None:
        count = 1
        for size in shape:
            count *= size
        self.tensors.append({"name": name, "dtype": "BF16", "shape": list(shape), "nbytes": count * self.width})

    def linear(self, name: str, rows: int, columns: int, experts: int = 0) -> None:
        each = self.quant.experts if experts else self.quant.linear
        count = rows * columns * max(experts, 1)
        if each == self.width:
            self.plain(name, *((experts, rows, columns) if experts else (rows, columns)))
            return
        dtype = "MXFP4" if experts and self.quant.packed else "Q"
        self.tensors.append({"name": name, "dtype": dtype, "shape": [count], "nbytes": int(count * each)})


def _attention(make: _Maker, model: Model, prefix: str, kv_heads: int, head: int, shared: bool, bias: bool) -> None:
    hidden, heads = model.hidden, model.heads
    gate = 2 if model.text.get("attn_output_gate", model.family["layout"] == "gdn") else 1
    make.linear(prefix + "q_proj.weight", heads * head * gate, hidden)
    if not shared:
        make.linear(prefix + "k_proj.weight", kv_heads * head, hidden)
        # Gemma 4 keeps keys as values; the engine still loads both.
        make.linear(prefix + "v_proj.weight", kv_heads * head, hidden)
    make.linear(prefix + "o_proj.weight", hidden, heads * head)
    if bias:
        make.plain(prefix + "q_proj.bias", heads * head)
        if not shared:
            make.plain(prefix + "k_proj.bias", kv_heads * head)
            make.plain(prefix + "v_proj.bias", kv_heads * head)


def _latent(make: _Maker, model: Model, prefix: str) -> None:
    text, hidden, heads = model.text, model.hidden, model.heads
    nope, rope, value = whole(text, "qk_nope_head_dim"), whole(text, "qk_rope_head_dim"), whole(text, "v_head_dim")
    rank, query = whole(text, "kv_lora_rank"), optional(text, "q_lora_rank")
    if query:
        make.linear(prefix + "q_a_proj.weight", query, hidden)
        make.linear(prefix + "q_b_proj.weight", heads * (nope + rope), query)
    else:
        make.linear(prefix + "q_proj.weight", heads * (nope + rope), hidden)
    make.linear(prefix + "kv_a_proj_with_mqa.weight", rank + rope, hidden)
    make.linear(prefix + "kv_b_proj.weight", heads * (nope + value), rank)
    make.linear(prefix + "o_proj.weight", hidden, heads * value)


def _delta(make: _Maker, model: Model, prefix: str) -> None:
    text, hidden = model.text, model.hidden
    keys = whole(text, "linear_num_key_heads") * whole(text, "linear_key_head_dim")
    values = whole(text, "linear_num_value_heads") * whole(text, "linear_value_head_dim")
    make.linear(prefix + "in_proj_qkvz.weight", 2 * keys + 2 * values, hidden)
    make.plain(prefix + "in_proj_ba.weight", 2 * whole(text, "linear_num_value_heads"), hidden)
    make.plain(prefix + "conv1d.weight", 2 * keys + values, whole(text, "linear_conv_kernel_dim"))
    make.linear(prefix + "out_proj.weight", hidden, values)


def _kimi_delta(make: _Maker, model: Model, prefix: str) -> None:
    linear, hidden = model.text["linear_attn_config"], model.hidden
    size, head = whole(linear, "num_heads") * whole(linear, "head_dim"), whole(linear, "head_dim")
    for name in ("q_proj", "k_proj", "v_proj"):
        make.linear(prefix + name + ".weight", size, hidden)
    for name in ("f", "g"):
        make.plain(prefix + name + "_a_proj.weight", head, hidden)
        make.plain(prefix + name + "_b_proj.weight", size, head)
    make.linear(prefix + "o_proj.weight", hidden, size)


def _dense(make: _Maker, model: Model, prefix: str, inner: int) -> None:
    if model.family["mlp"] == "gated":
        make.linear(prefix + "gate_proj.weight", inner, model.hidden)
    make.linear(prefix + "up_proj.weight", inner, model.hidden)
    make.linear(prefix + "down_proj.weight", model.hidden, inner)


class Experts(t.NamedTuple):
    """The mixture of experts of a model; number 0: it has none."""

    number: int
    chosen: int
    inner: int  # of one routed expert
    shared_inner: int  # of the experts that every token passes


def moe_of(model: Model) -> Experts:
    """Return the sizes of the routed and shared experts."""
    from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_weights import experts_of

    text, count = model.text, experts_of(model)
    if not count:
        return Experts(0, 0, 0, 0)
    inner = optional(text, "moe_intermediate_size") or optional(text, "intermediate_size")
    shared = optional(text, "shared_expert_intermediate_size") or optional(text, "n_shared_experts") * inner
    if model.family["layout"] == "llama4":
        inner = shared = whole(text, "intermediate_size")
    chosen = 1
    for name in ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k"):
        if optional(text, name):
            chosen = optional(text, name)
            break
    return Experts(count, chosen, inner, shared)


def _is_dense(model: Model, index: int) -> bool:
    """Whether a layer of a model with experts has none."""
    text = model.text
    if index < optional(text, "first_k_dense_replace"):
        return True
    if index in (text.get("mlp_only_layers") or ()):
        return True
    step = optional(text, "interleave_moe_layer_step") if model.family["layout"] == "llama4" else 0
    step = step or optional(text, "decoder_sparse_step", 1) or 1
    return (index + 1) % step != 0


def _feed_forward(make: _Maker, model: Model, prefix: str, index: int, moe: Experts) -> None:
    text, hidden = model.text, model.hidden
    dense = optional(text, "intermediate_size") or optional(text, "n_inner") or 4 * hidden
    if model.family["layout"] == "gemma4":
        wide = bool(text.get("use_double_wide_mlp")) and not model.layers[index]
        _dense(make, model, prefix + "mlp.", dense * (2 if wide else 1))
        if not moe.number:
            return
    elif not moe.number or _is_dense(model, index):
        if model.family["layout"] == "llama4" and moe.number:
            dense = optional(text, "intermediate_size_mlp") or dense
        _dense(make, model, prefix + "mlp.", dense)
        return
    make.plain(prefix + "mlp.gate.weight", moe.number, hidden)
    make.linear(prefix + "mlp.experts.gate_up_proj", 2 * moe.inner, hidden, experts=moe.number)
    make.linear(prefix + "mlp.experts.down_proj", hidden, moe.inner, experts=moe.number)
    if moe.shared_inner:
        _dense(make, model, prefix + "mlp.shared_expert.", moe.shared_inner)


def tensors_of(model: Model, want: Want) -> Tensors:
    """Return the tensors of the text model, by ``config.json`` alone.

    Raises:
        Unsupported: an architecture, an encoder or a quantisation whose sizes only the headers tell.
    """
    if model.family.get("weights") == "headers":
        raise Unsupported("architecture %s: the checkpoint's headers are needed for its weights" % model.architecture)
    if model.encoder and not want.language_model_only:
        raise Unsupported("architecture %s has an encoder: the checkpoint's headers are needed" % model.architecture)
    return text_tensors(model, want)


def text_tensors(model: Model, want: Want) -> Tensors:
    """Return the tensors of the text model, whatever else is in the checkpoint."""
    width = model_bytes(model, want)
    make = _Maker(width, quant_of(model, want))
    text, hidden = model.text, model.hidden
    moe = moe_of(model)
    bias = bool(text.get("attention_bias", text.get("qkv_bias", model.family["bias"])))
    make.plain("model.embed_tokens.weight", model.vocab, hidden)
    make.plain("lm_head.weight", model.vocab, hidden)
    if model.family["layout"] == "gemma4" and optional(text, "hidden_size_per_layer_input"):
        each = optional(text, "hidden_size_per_layer_input")
        make.plain(
            "model.embed_tokens_per_layer.weight",
            optional(text, "vocab_size_per_layer_input") or model.vocab,
            len(model.layers) * each,
        )
        for index in range(len(model.layers)):
            make.plain("model.layers.%d.per_layer_input_gate.weight" % index, each, hidden)
            make.plain("model.layers.%d.per_layer_projection.weight" % index, hidden, each)
        make.plain("model.per_layer_model_projection.weight", len(model.layers) * each, hidden)
    for index, caches in enumerate(model.layers):
        prefix = "model.layers.%d." % index
        form = dict(caches[0].state).get("form") if caches and caches[0].kind == "mamba" else None
        if form == "gdn":
            _delta(make, model, prefix + "linear_attn.")
        elif form == "kda":
            _kimi_delta(make, model, prefix + "self_attn.")
        elif caches and caches[0].kind == "mla":
            _latent(make, model, prefix + "self_attn.")
        else:
            heads = caches[0].kv_heads if caches else model.kv_heads
            head = caches[0].head_k if caches else model.head_dim
            _attention(make, model, prefix + "self_attn.", heads, head, not caches, bias)
        _feed_forward(make, model, prefix, index, moe)
        for number in range(int(model.family.get("norms", 2))):
            make.plain("%snorm_%d.norm.weight" % (prefix, number), hidden)
    make.plain("model.norm.weight", hidden)
    return make.tensors
