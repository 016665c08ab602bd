# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""A model's own ``config.json`` as the planner reads it: its layers and what their sizes follow from."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_families as families

Config = t.Mapping[str, t.Any]


class Unsupported(ValueError):
    """The planner doesn't know this, and makes no estimate."""


class Layer(t.NamedTuple):
    """One cache that a decoder layer keeps. Sizes are the whole model's, before it is cut into ranks."""

    kind: str  # full, sliding, chunked, mla, mamba, cross
    kv_heads: int = 0
    head_k: int = 0
    head_v: int = 0
    window: int = 0  # tokens
    state: t.Tuple[t.Tuple[str, t.Any], ...] = ()  # of a recurrent layer: what its shape follows from
    token_bytes: int = 0  # of a cache that has its own layout and isn't cut into ranks


class Model(t.NamedTuple):
    """What the planner knows of a model."""

    architecture: str
    family: families.Family
    model_type: str
    layers: t.Tuple[t.Tuple[Layer, ...], ...]  # for each decoder layer, its caches; empty: it has none of its own
    text: t.Dict[str, t.Any]  # the text model's configuration
    config: t.Dict[str, t.Any]  # all of it
    hidden: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    max_position: t.Optional[int]
    dtype: str
    encoder: bool  # whether it reads images or sound too
    mla: bool
    notes: t.Tuple[str, ...] = ()


def whole(config: Config, *names: str) -> int:
    """Return the first of ``names`` that is there, as a positive integer.

    Raises:
        Unsupported: none of them is there, or it is no positive integer.
    """
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise Unsupported("config.json: %s is %r, expected a positive integer" % (name, value))
        return value
    raise Unsupported("config.json doesn't say %s" % " or ".join(names))


def optional(config: Config, name: str, default: int = 0) -> int:
    """Return an integer that may be left out."""
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Unsupported("config.json: %s is %r, expected an integer" % (name, value))
    return value


def kv_heads_of(text: Config, heads: int) -> int:
    """Return the number of heads that have keys and values, over all ranks."""
    falcon = text.get("model_type") in ("falcon", "RefinedWeb", "RefinedWebModel")
    if falcon and not text.get("new_decoder_architecture") and text.get("multi_query", False):
        return 1
    for name in ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups"):
        if text.get(name) is not None:
            return whole(text, name)
    return heads


def head_dim_of(text: Config, hidden: int, heads: int) -> int:
    """Return the size of a head: what config.json says, else the hidden size over the heads."""
    for name in ("head_dim", "hidden_size_per_head"):
        if text.get(name):
            return whole(text, name)
    return hidden // heads


def text_config(config: Config) -> t.Tuple[str, families.Family, t.Dict[str, t.Any], bool]:
    """Return the architecture, its family, the text model's configuration, and whether there is an encoder.

    Raises:
        Unsupported: an architecture that isn't in the lists.
    """
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unsupported("config.json: architectures is %r, expected a list of names" % (names,))
    for name in names:
        if name in families.ENCODERS:
            text: t.Dict[str, t.Any] = dict(config)
            for key in families.ENCODERS[name]:
                if isinstance(config.get(key), dict):
                    text = dict(config[key])
                    break
            if "quantization_config" not in text and "quantization_config" in config:
                text["quantization_config"] = config["quantization_config"]
            inner = str(text.get("model_type") or "")
            own = families.MODEL_TYPES.get(inner)
            if own is None:
                own = next((a for a in text.get("architectures") or [] if a in families.ARCHITECTURES), None)
            if own is None:
                raise Unsupported(
                    "architecture %s holds a text model of type %s, which is not known to the planner"
                    % (name, inner or "(none)")
                )
            return name, families.ARCHITECTURES[own], text, True
        if name in families.ARCHITECTURES:
            return name, families.ARCHITECTURES[name], dict(config), False
    raise Unsupported("architecture %s is not known to the planner" % (", ".join(names) or "(none)"))


def dtype_of(config: Config, text: Config) -> str:
    """Return the type of the weights as config.json has it; what is in 32 bits is loaded in 16, as vLLM does."""
    for source in (text, config):
        for name in ("dtype", "torch_dtype"):
            value = source.get(name)
            if isinstance(value, str):
                value = value.replace("torch.", "")
                return "bfloat16" if value == "float32" else value
    return "bfloat16"


def longest_of(text: Config) -> t.Optional[int]:
    """Return the longest request that the model itself takes, in tokens; None: it doesn't say.

    Source: ``vllm/config/model.py``, ``_get_and_verify_max_len``. What stretches positions by a plain factor counts.
    """
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions")
    sizes = [text[name] for name in names if isinstance(text.get(name), int) and not isinstance(text[name], bool)]
    if not sizes:
        return None
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    factor = 1.0
    if isinstance(rope, dict) and str(rope.get("rope_type", rope.get("type"))) in ("linear", "dynamic"):
        factor = float(rope.get("factor") or 1.0)
        if "gemma3" in str(text.get("model_type")):
            factor = 1.0
    return int(min(sizes) * factor)


def read_model(config: Config) -> Model:
    """Return the record of a model.

    Args:
        config: the model's ``config.json``.

    Raises:
        Unsupported: its architecture or a kind of layer isn't known, or a number is missing.
    """
    from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_layers as making

    if not isinstance(config, dict):
        raise Unsupported("config.json holds %s, expected a mapping" % type(config).__name__)
    name, family, text, encoder = text_config(config)
    model_type = str(text.get("model_type") or "")
    for key, value in families.DEFAULTS.get(model_type, {}).items():
        text.setdefault(key, value)
    hidden = whole(text, "hidden_size", "n_embd", "d_model")
    vocab = whole(text, "vocab_size")
    attention_free = family["layout"] in ("mamba1", "mamba2")
    heads = 0 if attention_free else whole(text, "num_attention_heads", "n_head", "decoder_attention_heads")
    kv_heads = 0 if attention_free else kv_heads_of(text, heads)
    head_dim = 0 if attention_free else head_dim_of(text, hidden, heads)
    layers, notes = making.make(family, text, heads, kv_heads, head_dim)
    return Model(
        architecture=name,
        family=family,
        model_type=model_type,
        layers=layers,
        text=text,
        config=dict(config),
        hidden=hidden,
        vocab=vocab,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        max_position=longest_of(text),
        dtype=dtype_of(config, text),
        encoder=encoder,
        mla=any(layer.kind == "mla" for caches in layers for layer in caches),
        notes=tuple(notes),
    )
