# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The caches of each decoder layer, by the layouts that ``_memory_plan_families`` names."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_families as families
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_config import (
    Config,
    Layer,
    Unsupported,
    optional,
    whole,
)

Layers = t.Tuple[t.Tuple[Layer, ...], ...]
Made = t.Tuple[Layers, t.List[str]]

#: The names of transformers' layer_types: what the layer keeps.
LAYER_TYPES = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "attention": "full",
    "mamba": "mamba",
    "conv": "conv",
}


class Sizes(t.NamedTuple):
    """What the attention layers of a model have in common."""

    heads: int
    kv_heads: int
    head_dim: int


def _state(kind: str, **values: t.Any) -> Layer:
    return Layer("mamba", state=tuple(sorted(dict(values, form=kind).items())))


def layer_types(text: Config, known: t.Container[str]) -> t.Optional[t.List[str]]:
    """Return ``layer_types``, one for each layer, or None when config.json has none.

    Raises:
        Unsupported: a type that this layout doesn't have, or not one for each layer.
    """
    names = text.get("layer_types")
    if names is None:
        names = text.get("layers_block_type")
    if names is None:
        return None
    count = whole(text, "num_hidden_layers", "n_layer")
    if not isinstance(names, list) or len(names) < count:
        raise Unsupported("config.json: layer_types has %s entries for %d layers" % (len(names or []), count))
    kinds = []
    for name in names[:count]:
        kind = LAYER_TYPES.get(str(name))
        if kind is None or kind not in known:
            raise Unsupported("layer type %s is not known to the planner" % name)
        kinds.append(kind)
    return kinds


def window_of(text: Config) -> int:
    """Return the sliding window in tokens; 0: there is none, or it is switched off."""
    if text.get("use_sliding_window") is False:
        return 0
    window = text.get("sliding_window")
    if window is None:
        return 0
    if isinstance(window, list):
        raise Unsupported("config.json: a list as sliding_window is not known to the planner")
    return optional(text, "sliding_window")


def _kinds(family: families.Family, text: Config, window: int) -> t.List[str]:
    """Return for each attention layer whether it is full or sliding."""
    count = whole(text, "num_hidden_layers", "n_layer")
    rule = family["window"]
    if not window:
        layer_types(text, ("full", "sliding"))
        return ["full"] * count
    if rule == "alternate":
        return ["full" if index % 2 else "sliding" for index in range(count)]
    kinds = layer_types(text, ("full", "sliding"))
    if kinds is None:
        if text.get("use_sliding_window") and text.get("max_window_layers") is not None:
            first = optional(text, "max_window_layers")
            kinds = ["sliding" if index >= first else "full" for index in range(count)]
        elif rule == "alternate_types":
            kinds = ["full" if index % 2 else "sliding" for index in range(count)]
        elif isinstance(rule, int):
            every = optional(text, "sliding_window_pattern", rule) or rule
            kinds = ["sliding" if (index + 1) % every else "full" for index in range(count)]
        else:
            kinds = ["sliding"] * count
    if rule == "uniform" and "full" in kinds:
        return ["full"] * count
    return kinds


def _attention(family: families.Family, text: Config, sizes: Sizes) -> Made:
    window = window_of(text)
    kinds = _kinds(family, text, window)
    return (
        tuple(
            (Layer(kind, sizes.kv_heads, sizes.head_dim, sizes.head_dim, window if kind == "sliding" else 0),)
            for kind in kinds
        ),
        [],
    )


def _llama4(family: families.Family, text: Config, sizes: Sizes) -> Made:
    count = whole(text, "num_hidden_layers")
    chunk = optional(text, "attention_chunk_size")
    no_rope = text.get("no_rope_layers")
    if not no_rope:
        every = optional(text, "no_rope_layer_interval", 4) or 4
        no_rope = [int((index + 1) % every != 0) for index in range(count)]
    if not isinstance(no_rope, list) or len(no_rope) < count:
        raise Unsupported("config.json: no_rope_layers has to name each of %d layers" % count)
    layers = []
    for index in range(count):
        local = bool(chunk) and no_rope[index] != 0
        kind = "chunked" if local else "full"
        layers.append((Layer(kind, sizes.kv_heads, sizes.head_dim, sizes.head_dim, chunk if local else 0),))
    return tuple(layers), []


def _shared(text: Config, count: int) -> int:
    """Return the first layer that uses another's keys and values."""
    return count - optional(text, "num_kv_shared_layers")


def _gemma4(family: families.Family, text: Config, sizes: Sizes) -> Made:
    kinds = layer_types(text, ("full", "sliding"))
    if kinds is None:
        raise Unsupported("config.json doesn't say layer_types")
    window = window_of(text)
    wide = optional(text, "global_head_dim") or sizes.head_dim
    wide_heads = optional(text, "num_global_key_value_heads") or sizes.kv_heads
    if not text.get("attention_k_eq_v"):
        wide_heads = sizes.kv_heads
    first = _shared(text, len(kinds))
    layers: t.List[t.Tuple[Layer, ...]] = []
    for index, kind in enumerate(kinds):
        if index >= first:
            layers.append(())
        elif kind == "sliding":
            layers.append((Layer(kind, sizes.kv_heads, sizes.head_dim, sizes.head_dim, window),))
        else:
            layers.append((Layer(kind, wide_heads, wide, wide),))
    return tuple(layers), []


def _gemma3n(family: families.Family, text: Config, sizes: Sizes) -> Made:
    kinds = layer_types(text, ("full", "sliding"))
    if kinds is None:
        count = whole(text, "num_hidden_layers")
        kinds = ["full" if (index + 1) % 5 == 0 else "sliding" for index in range(count)]
    window = window_of(text)
    first = _shared(text, len(kinds))
    return (
        tuple(
            (Layer(kind, sizes.kv_heads, sizes.head_dim, sizes.head_dim, window if kind == "sliding" else 0),)
            if index < first
            else ()
            for index, kind in enumerate(kinds)
        ),
        [],
    )


def _latent(text: Config) -> Layer:
    return Layer("mla", 1, whole(text, "kv_lora_rank") + whole(text, "qk_rope_head_dim"), 0)


def _mla(family: families.Family, text: Config, sizes: Sizes) -> Made:
    count = whole(text, "num_hidden_layers")
    if text.get("kv_lora_rank") is None:
        raise Unsupported("config.json doesn't say kv_lora_rank, which architecture %s needs" % family["architecture"])
    if str(text.get("model_type")) not in families.MLA_MODEL_TYPES:
        raise Unsupported(
            "model_type %s has a compressed cache only for some engines, which is not known to the planner"
            % text.get("model_type")
        )
    return tuple((_latent(text),) for _layer in range(count)), []


def _mla_sparse(family: families.Family, text: Config, sizes: Sizes) -> Made:
    layers, _unused = _mla(family, text, sizes)
    index = whole(text, "index_head_dim")
    # The indexer keeps one byte for each element of its key and a scale of four for each 128.
    indexer = Layer("mla", 1, index, 0, token_bytes=index + index // 128 * 4)
    note = "The indexer's cache is counted; how the sparse kernels align blocks is not known to the planner."
    return tuple(caches + (indexer,) for caches in layers), [note]


def _gdn(family: families.Family, text: Config, sizes: Sizes) -> Made:
    kinds = layer_types(text, ("full", "linear"))
    if kinds is None:
        every = whole(text, "full_attention_interval")
        count = whole(text, "num_hidden_layers")
        kinds = ["linear" if (index + 1) % every else "full" for index in range(count)]
    linear = _state(
        "gdn",
        k_heads=whole(text, "linear_num_key_heads"),
        v_heads=whole(text, "linear_num_value_heads"),
        k_dim=whole(text, "linear_key_head_dim"),
        v_dim=whole(text, "linear_value_head_dim"),
        kernel=whole(text, "linear_conv_kernel_dim"),
        ssm_dtype=str(text.get("mamba_ssm_dtype") or "auto"),
    )
    full = Layer("full", sizes.kv_heads, sizes.head_dim, sizes.head_dim)
    return tuple((full,) if kind == "full" else (linear,) for kind in kinds), []


def _kda(family: families.Family, text: Config, sizes: Sizes) -> Made:
    count = whole(text, "num_hidden_layers")
    linear = text.get("linear_attn_config")
    if not isinstance(linear, dict) or not isinstance(linear.get("full_attn_layers"), list):
        raise Unsupported("config.json doesn't say linear_attn_config with full_attn_layers")
    state = _state(
        "kda",
        heads=whole(linear, "num_heads"),
        head_dim=whole(linear, "head_dim"),
        kernel=optional(linear, "short_conv_kernel_size", 4),
    )
    full = {int(number) for number in linear["full_attn_layers"]}  # counted from 1
    return tuple((_latent(text),) if index + 1 in full else (state,) for index in range(count)), []


def _mamba2_state(text: Config, **names: str) -> Layer:
    heads = whole(text, names["heads"])
    head_dim = whole(text, names["head_dim"])
    inner = names.get("intermediate")
    size = whole(text, inner) if inner and text.get(inner) else heads * head_dim
    return _state(
        "mamba2",
        intermediate=size,
        heads=heads,
        head_dim=head_dim,
        n_groups=whole(text, names["groups"]),
        state_size=whole(text, names["state"]),
        kernel=whole(text, names["kernel"]),
        ssm_dtype=str(text.get("mamba_ssm_cache_dtype") or names.get("ssm_dtype", "auto")),
    )


def _nemotron_h(family: families.Family, text: Config, sizes: Sizes) -> Made:
    pattern = text.get("hybrid_override_pattern")
    if not isinstance(pattern, str):
        raise Unsupported("config.json doesn't say hybrid_override_pattern")
    state = _mamba2_state(
        text,
        heads="mamba_num_heads",
        head_dim="mamba_head_dim",
        groups="n_groups",
        state="ssm_state_size",
        kernel="conv_kernel",
        ssm_dtype="float32",
    )
    full = Layer("full", sizes.kv_heads, sizes.head_dim, sizes.head_dim)
    made: t.Dict[str, t.Tuple[Layer, ...]] = {"M": (state,), "*": (full,), "-": (), "E": ()}
    unknown = sorted(set(pattern) - set(made))
    if unknown:
        raise Unsupported("layer type %s of hybrid_override_pattern is not known to the planner" % "".join(unknown))
    return tuple(made[letter] for letter in pattern), []


def _mamba_types(family: families.Family, text: Config, sizes: Sizes) -> Made:
    kinds = layer_types(text, ("full", "mamba"))
    if kinds is None:
        raise Unsupported("config.json doesn't say layer_types")
    full = Layer("full", sizes.kv_heads, sizes.head_dim, sizes.head_dim)
    if "mamba" not in kinds:
        return tuple((full,) for _kind in kinds), []
    state = _mamba2_state(
        text,
        heads="mamba_n_heads",
        head_dim="mamba_d_head",
        groups="mamba_n_groups",
        state="mamba_d_state",
        kernel="mamba_d_conv",
    )
    return tuple((full,) if kind == "full" else (state,) for kind in kinds), []


def _falcon_h1(family: families.Family, text: Config, sizes: Sizes) -> Made:
    count = whole(text, "num_hidden_layers")
    state = _mamba2_state(
        text,
        intermediate="mamba_d_ssm",
        heads="mamba_n_heads",
        head_dim="mamba_d_head",
        groups="mamba_n_groups",
        state="mamba_d_state",
        kernel="mamba_d_conv",
    )
    full = Layer("full", sizes.kv_heads, sizes.head_dim, sizes.head_dim)
    return tuple((full, state) for _layer in range(count)), []


def _mamba1_state(text: Config, intermediate: int, state: str, kernel: str) -> Layer:
    return _state("mamba1", intermediate=intermediate, state_size=whole(text, state), kernel=whole(text, kernel))


def _jamba(family: families.Family, text: Config, sizes: Sizes) -> Made:
    count = whole(text, "num_hidden_layers")
    period = optional(text, "attn_layer_period", 8)
    offset = optional(text, "attn_layer_offset", 4)
    state = _mamba1_state(
        text, whole(text, "mamba_expand") * whole(text, "hidden_size"), "mamba_d_state", "mamba_d_conv"
    )
    full = Layer("full", sizes.kv_heads, sizes.head_dim, sizes.head_dim)
    return tuple((full,) if index % period == offset else (state,) for index in range(count)), []


def _mamba1(family: families.Family, text: Config, sizes: Sizes) -> Made:
    count = whole(text, "num_hidden_layers", "n_layer")
    state = _mamba1_state(text, whole(text, "intermediate_size"), "state_size", "conv_kernel")
    return tuple((state,) for _layer in range(count)), []


def _mamba2(family: families.Family, text: Config, sizes: Sizes) -> Made:
    count = whole(text, "num_hidden_layers", "n_layer")
    state = _mamba2_state(
        text, heads="num_heads", head_dim="head_dim", groups="n_groups", state="state_size", kernel="conv_kernel"
    )
    return tuple((state,) for _layer in range(count)), []


def _conv(family: families.Family, text: Config, sizes: Sizes) -> Made:
    kinds = layer_types(text, ("full", "conv"))
    if kinds is None:
        raise Unsupported("config.json doesn't say layer_types")
    dim = optional(text, "conv_dim") or whole(text, "hidden_size")
    state = _state("conv", dim=dim, kernel=whole(text, "conv_L_cache"))
    full = Layer("full", sizes.kv_heads, sizes.head_dim, sizes.head_dim)
    return tuple((full,) if kind == "full" else (state,) for kind in kinds), []


def _whisper(family: families.Family, text: Config, sizes: Sizes) -> Made:
    count = whole(text, "decoder_layers")
    own = Layer("full", sizes.heads, sizes.head_dim, sizes.head_dim)
    cross = Layer("cross", sizes.heads, sizes.head_dim, sizes.head_dim)
    return tuple((own, cross) for _layer in range(count)), []


LAYOUTS: t.Dict[str, t.Callable[[families.Family, Config, Sizes], Made]] = {
    "attention": _attention,
    "llama4": _llama4,
    "gemma4": _gemma4,
    "gemma3n": _gemma3n,
    "mla": _mla,
    "mla_sparse": _mla_sparse,
    "gdn": _gdn,
    "kda": _kda,
    "nemotron_h": _nemotron_h,
    "mamba_types": _mamba_types,
    "falcon_h1": _falcon_h1,
    "jamba": _jamba,
    "mamba1": _mamba1,
    "mamba2": _mamba2,
    "conv": _conv,
    "whisper": _whisper,
}


def make(family: families.Family, text: Config, heads: int, kv_heads: int, head_dim: int) -> Made:
    """Return the caches of each decoder layer, and what there is to say about them.

    Raises:
        Unsupported: a kind of layer that isn't known, or a number that is missing.
    """
    return LAYOUTS[family["layout"]](family, text, Sizes(heads, kv_heads, head_dim))
