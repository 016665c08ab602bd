# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints without weights: config.json, and safetensors files of a header and nothing else, as sparse files.

Names and shapes of the tensors are those that published checkpoints of these architectures have, derived from the
geometry alone. Every tool that reads headers reads these as it would the real ones.
"""

from __future__ import annotations

import json
import struct
import typing as t
from pathlib import Path

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "U8": 1}
Tensors = t.Dict[str, t.Tuple[str, t.List[int]]]


def _linear(made: Tensors, name: str, rows: int, columns: int, awq: bool) -> None:
    """Add a matrix of ``rows`` outputs; AWQ packs eight of them in an integer, with scale and zero for each 128."""
    if not awq:
        made[name + ".weight"] = ("BF16", [rows, columns])
        return
    made[name + ".qweight"] = ("I32", [columns, rows // 8])
    made[name + ".qzeros"] = ("I32", [columns // 128, rows // 8])
    made[name + ".scales"] = ("F16", [columns // 128, rows])


def _attention(made: Tensors, config: t.Mapping[str, t.Any], prefix: str, awq: bool) -> None:
    hidden, head = config["hidden_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    for name, rows, columns in (
        ("q_proj", heads * head, hidden),
        ("k_proj", kv_heads * head, hidden),
        ("v_proj", kv_heads * head, hidden),
        ("o_proj", hidden, heads * head),
    ):
        _linear(made, prefix + "self_attn." + name, rows, columns, awq)
        if config.get("attention_bias"):
            made[prefix + "self_attn.%s.bias" % name] = ("BF16", [rows])


def llama(config: t.Mapping[str, t.Any], awq: bool = False) -> Tensors:
    """Return the tensors of a Llama."""
    made: Tensors = {"model.embed_tokens.weight": ("BF16", [config["vocab_size"], config["hidden_size"]])}
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    for index in range(config["num_hidden_layers"]):
        prefix = "model.layers.%d." % index
        _attention(made, config, prefix, awq)
        _linear(made, prefix + "mlp.gate_proj", inner, hidden, awq)
        _linear(made, prefix + "mlp.up_proj", inner, hidden, awq)
        _linear(made, prefix + "mlp.down_proj", hidden, inner, awq)
        made[prefix + "input_layernorm.weight"] = ("BF16", [hidden])
        made[prefix + "post_attention_layernorm.weight"] = ("BF16", [hidden])
    made["model.norm.weight"] = ("BF16", [hidden])
    made["lm_head.weight"] = ("BF16", [config["vocab_size"], hidden])
    return made


def gpt_oss(config: t.Mapping[str, t.Any]) -> Tensors:
    """Return the tensors of gpt-oss: experts in MXFP4, 32 values of 4 bits to a block with a scale of 8."""
    hidden, inner, experts = config["hidden_size"], config["intermediate_size"], config["num_experts"]
    made: Tensors = {"model.embed_tokens.weight": ("BF16", [config["vocab_size"], hidden])}
    for index in range(config["num_hidden_layers"]):
        prefix = "model.layers.%d." % index
        _attention(made, dict(config, attention_bias=True), prefix, awq=False)
        made[prefix + "self_attn.sinks"] = ("BF16", [config["num_attention_heads"]])
        made[prefix + "mlp.router.weight"] = ("BF16", [experts, hidden])
        made[prefix + "mlp.router.bias"] = ("BF16", [experts])
        for name, rows, columns in (("gate_up_proj", 2 * inner, hidden), ("down_proj", hidden, inner)):
            made[prefix + "mlp.experts.%s_blocks" % name] = ("U8", [experts, rows, columns // 32, 16])
            made[prefix + "mlp.experts.%s_scales" % name] = ("U8", [experts, rows, columns // 32])
            made[prefix + "mlp.experts.%s_bias" % name] = ("BF16", [experts, rows])
        made[prefix + "input_layernorm.weight"] = ("BF16", [hidden])
        made[prefix + "post_attention_layernorm.weight"] = ("BF16", [hidden])
    made["model.norm.weight"] = ("BF16", [hidden])
    made["lm_head.weight"] = ("BF16", [config["vocab_size"], hidden])
    return made


def write(directory: Path, config: t.Mapping[str, t.Any], tensors: Tensors) -> int:
    """Write a checkpoint as one sparse file; return the bytes of its tensors."""
    header: t.Dict[str, t.Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    return offset
