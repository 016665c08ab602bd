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
    max_position: t.Optional[int]  # tokens of the longest request that the model takes
    dtype: str
    encoder: bool  # whether it reads images or sound too
    mla: bool
    notes: t.Tuple[str, ...] = ()
    default_length: t.Optional[int] = None  # tokens of the longest request where nobody says; None: max_position


#: More than any model has: what is larger is a broken file, and would be counted out layer by layer.
MOST_LAYERS = 4096
MOST = 1 << 40


def _bounded(name: str, value: int) -> int:
    limit = MOST_LAYERS if name.endswith(("_layers", "n_layer")) else MOST
    if value > limit:
        raise Unsupported("config.json: %s is %d, expected %d at most" % (name, value, limit))
    return value


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
        return _bounded(name, value)
    raise Unsupported("config.json doesn't say %s" % " or ".join(names))


def optional(config: Config, name: str, default: int = 0) -> int:
    """Return an integer that may be left out."""
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Unsupported("config.json: %s is %r, expected an integer" % (name, value))
    return _bounded(name, value)


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


#: Where config.json says how long a request may be; the smallest counts.
LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions"),
    *("max_sequence_length", "max_seq_length", "seq_len"),
)
#: Ways of stretching positions after which max_position_embeddings is the stretched length already.
STRETCHED = ("default", "su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "mrope")


def _ropes(text: Config) -> t.List[t.Dict[str, t.Any]]:
    """Return what config.json says of stretched positions; newer files have it for each kind of layer."""
    found = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if not isinstance(found, dict):
        return []
    nested = [value for value in found.values() if isinstance(value, dict)]
    return nested if nested and "rope_type" not in found and "type" not in found else [found]


def longest_of(text: Config, yarn_from_original: bool = False) -> t.Optional[int]:
    """Return the longest request that the model itself takes, in tokens; None: it doesn't say.

    Args:
        text: the text model's configuration.
        yarn_from_original: whether YaRN's factor is applied to the length before it, as releases did that didn't yet
            take max_position_embeddings for the stretched length.

    Source: ``vllm/config/model.py``, ``_get_and_verify_max_len``.
    """
    sizes = [text[name] for name in LENGTHS if isinstance(text.get(name), int) and not isinstance(text[name], bool)]
    stated = text.get("model_max_length")
    if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0:
        sizes = [stated]
    if not sizes:
        return None
    longest, factor = float(min(sizes)), 1.0
    for rope in [] if "gemma3" in str(text.get("model_type")) else _ropes(text):
        kind = str(rope.get("rope_type", rope.get("type")))
        original = rope.get("original_max_position_embeddings")
        if kind == "yarn" and yarn_from_original and isinstance(original, int):
            longest, factor = float(original), float(rope.get("factor") or 1.0)
        elif kind not in STRETCHED:
            factor = float(rope.get("factor") or 1.0)
    return int(longest * factor)


def with_limits(model: Model, rules: t.Mapping[str, t.Any]) -> Model:
    """Return a model with the longest request, and the one that is taken when nobody says, as a release has them."""
    longest = longest_of(model.text, bool(rules["yarn_from_original"]))
    default = None
    kinds = {str(rope.get("rope_type", rope.get("type"))) for rope in _ropes(model.text)}
    if rules["longrope_default"] and "longrope" in kinds:
        default = optional(model.text, "original_max_position_embeddings") or None
    return model._replace(max_position=longest, default_length=default)


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
