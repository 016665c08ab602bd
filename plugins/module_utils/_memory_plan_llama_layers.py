# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What llama.cpp holds for each layer of a GGUF model: weights and cache. Rules as of its build b10434."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._gguf_header import GgufModel

if t.TYPE_CHECKING:
    from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_llama import Want

#: Contexts and windows are rounded up to so many cells.
PAD_CELLS = 256
#: Elements of a block and bytes of it.
CACHE_TYPES: t.Mapping[str, t.Tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
QUANTISED = tuple(name for name, (elements, _size) in CACHE_TYPES.items() if elements > 1)

#: Architectures whose layers all see the whole context, whatever window their file names. Only those are here that
#: llama-server's own dry run was compared with (make accuracy-llama).
FULL = frozenset(("llama", "qwen2", "qwen3", "deepseek2"))
#: Sliding windows: one layer in so many sees the whole context, the last of each turn.
SLIDING = {"gemma2": 2, "gemma3": 6}
#: No attention at all.
RECURRENT = frozenset(("mamba",))


class Layer(t.NamedTuple):
    """A layer: ``full``, ``sliding``, ``recurrent`` or ``none``; elements of K and V of one token."""

    kind: str
    k_elements: int
    v_elements: int


class Weights(t.NamedTuple):
    """Bytes of weights: always on the host, of each layer, of the output; ``shared`` of them twice on a device."""

    host: int
    layers: t.List[int]
    output: int
    shared: int


def check(model: GgufModel) -> None:
    """Refuse what isn't known.

    Raises:
        ValueError: says what.
    """
    known = FULL | set(SLIDING) | RECURRENT
    if model.architecture not in known:
        raise ValueError("architecture %s is not known to the llama.cpp planner" % model.architecture)
    if model.architecture in SLIDING and not model.sliding_window:
        raise ValueError("architecture %s without attention.sliding_window" % model.architecture)
    if model.architecture not in RECURRENT and not all(model.heads):
        raise ValueError("attention.head_count is missing or 0")
    if model.architecture in RECURRENT and not model.ssm["inner_size"]:
        raise ValueError("ssm.inner_size is missing")
    if model.fields.get("%s.attention.kv_lora_rank" % model.architecture) and not model.key_length_mla:
        raise ValueError("latent attention without attention.key_length_mla: the file is of an old converter")


def layers_of(model: GgufModel) -> t.List[Layer]:
    """Return the layers. Those of multi-token prediction hold no cache."""
    found = []
    for layer in range(model.layers):
        heads = model.kv_heads[layer]
        if layer >= model.layers - model.nextn_layers:
            found.append(Layer("none", 0, 0))
        elif model.architecture in RECURRENT:
            found.append(Layer("recurrent", 0, 0))
        elif model.key_length_mla:
            # Latent attention keeps one compressed row for each token, and no V.
            found.append(Layer("full", heads * model.key_length, 0))
        else:
            kind = "sliding" if _slides(model, layer) else "full"
            found.append(Layer(kind, heads * model.key_length, heads * model.value_length))
    return found


def _slides(model: GgufModel, layer: int) -> bool:
    turn = SLIDING.get(model.architecture)
    if turn is None:
        return False
    if isinstance(model.sliding_pattern, list):
        return model.sliding_pattern[layer] if layer < len(model.sliding_pattern) else False
    turn = model.sliding_pattern or turn
    return layer % turn < turn - 1


def _pad(cells: int) -> int:
    return -(-cells // PAD_CELLS) * PAD_CELLS


def padded_context(want: Want) -> int:
    """Return the tokens of all slots together, as llama-server rounds them."""
    if want.kv_unified:
        return _pad(want.ctx_size)
    return _pad(_pad(want.ctx_size) // want.parallel) * want.parallel


def context_per_request(want: Want) -> int:
    """Return the tokens that one request may have."""
    return padded_context(want) if want.kv_unified else padded_context(want) // want.parallel


def cells_of(model: GgufModel, want: Want) -> t.Dict[str, int]:
    """Return the cells of a layer of each kind, of all slots together; of recurrent ones the states."""
    streams = 1 if want.kv_unified else want.parallel
    base = padded_context(want) // streams
    window = (model.sliding_window or 0) * (want.parallel if want.kv_unified else 1) + want.ubatch_size
    sliding = base if want.swa_full else min(_pad(base), _pad(window))
    return {"full": base * streams, "sliding": min(sliding, base) * streams, "recurrent": want.parallel, "none": 0}


def _row_bytes(elements: int, kind: str) -> int:
    block, size = CACHE_TYPES[kind]
    if elements % block:
        raise ValueError(
            "cache type %s needs rows of a multiple of %d elements, a row has %d" % (kind, block, elements)
        )
    return elements // block * size


def state_bytes(model: GgufModel) -> int:
    """Return one sequence's recurrent state of a layer, in bytes of f32: the convolution's and the scan's."""
    ssm = model.ssm
    convolution = max(0, ssm["conv_kernel"] - 1) * ssm["inner_size"]
    return 4 * (convolution + ssm["state_size"] * ssm["inner_size"])


def cache_by_layer(model: GgufModel, want: Want) -> t.List[int]:
    """Return the bytes of cache of each layer, of all slots together."""
    cells = cells_of(model, want)
    sizes = []
    for layer in layers_of(model):
        if layer.kind == "recurrent":
            sizes.append(state_bytes(model) * cells["recurrent"])
        else:
            row = _row_bytes(layer.k_elements, want.cache_type_k) + _row_bytes(layer.v_elements, want.cache_type_v)
            sizes.append(row * cells[layer.kind])
    return sizes


def bytes_per_token(model: GgufModel, want: Want) -> int:
    """Return what one more token of context takes: of the layers that see the whole of it."""
    return sum(
        _row_bytes(layer.k_elements, want.cache_type_k) + _row_bytes(layer.v_elements, want.cache_type_v)
        for layer in layers_of(model)
        if layer.kind == "full"
    )


def output_bytes(model: GgufModel, want: Want) -> int:
    """Return the host's buffer of logits: one row of f32 for each slot."""
    return 4 * (model.vocab_size or 0) * want.parallel


_BLOCK = re.compile(r"^blk\.(\d+)\.")


def weights_by_layer(model: GgufModel) -> Weights:
    """Return where the weights go. A model without ``output.weight`` computes its output with the token embedding."""
    layers = [0] * model.layers
    host = output = embedding = 0
    own_output = False
    for tensor in model.weights.tensors:
        match = _BLOCK.match(tensor.name)
        if match:
            number = int(match.group(1))
            if number >= model.layers:
                raise ValueError("tensor %s of a layer behind the last" % tensor.name[:80])
            layers[number] += tensor.nbytes
        elif tensor.name.startswith("output"):
            own_output = own_output or tensor.name == "output.weight"
            output += tensor.nbytes
        else:
            embedding += tensor.nbytes if tensor.name == "token_embd.weight" else 0
            host += tensor.nbytes
    shared = 0 if own_output else embedding
    return Weights(host, layers, output + shared, shared)
