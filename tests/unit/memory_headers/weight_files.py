# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of weights whose weights are a hole: as large as a real model, no larger on the disk than their headers."""

from __future__ import annotations

import json
import math
import struct

BITS = {"F4": 4, "U8": 8, "F8_E4M3": 8, "F16": 16, "BF16": 16, "F32": 32, "I32": 32, "I64": 64}


def entries(tensors):
    """Return a header's entries for ``{name: (dtype, shape)}``, one after the other, and their bytes."""
    at, made = 0, {}
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * BITS[dtype] // 8
        made[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return made, at


def framed(header, data_bytes):
    """Return a file's first bytes and its whole size for a header, given as an object or as bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + data_bytes


def write_sparse(path, tensors):
    """Write a safetensors file of ``{name: (dtype, shape)}`` with a hole for its weights; return the weights' bytes."""
    made, data_bytes = entries(tensors)
    head, size = framed(dict(made, __metadata__={"format": "pt"}), data_bytes)
    with open(path, "wb") as handle:
        handle.write(head)
        handle.truncate(size)
    return data_bytes


def llama(layers, hidden, intermediate, heads, kv_heads, vocabulary, dtype="BF16"):
    """Return the tensors of a Llama as ``{name: (dtype, shape)}``."""
    head = hidden // heads
    made = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        p = "model.layers.%d." % layer
        made.update(
            {
                p + "self_attn.q_proj.weight": (hidden, hidden),
                p + "self_attn.k_proj.weight": (kv_heads * head, hidden),
                p + "self_attn.v_proj.weight": (kv_heads * head, hidden),
                p + "self_attn.o_proj.weight": (hidden, hidden),
                p + "mlp.gate_proj.weight": (intermediate, hidden),
                p + "mlp.up_proj.weight": (intermediate, hidden),
                p + "mlp.down_proj.weight": (hidden, intermediate),
                p + "input_layernorm.weight": (hidden,),
                p + "post_attention_layernorm.weight": (hidden,),
            }
        )
    made.update({"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)})
    return {name: (dtype, shape) for name, shape in made.items()}


def write_shards(directory, tensors, shards):
    """Write a model in several files with its index; return the weights' bytes."""
    names = list(tensors)
    weight_map, total = {}, 0
    for number in range(shards):
        file = "model-%05d-of-%05d.safetensors" % (number + 1, shards)
        mine = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        total += write_sparse(directory / file, {name: tensors[name] for name in mine})
        weight_map.update(dict.fromkeys(mine, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return total
