# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GGUF files whose weights are a hole, made with the gguf library's writer: a header that llama-server takes for whole.

``write(path, name)`` makes one of :data:`MODELS`. Geometries are small, with the traits of the architecture they stand
for: grouped heads, windows, latent attention, experts, recurrent state, a shared or an own output.
"""

from __future__ import annotations

import math

import gguf
import numpy

QUANTS = gguf.GGML_QUANT_SIZES
KINDS = gguf.GGMLQuantizationType


def bytes_of(kind, shape):
    """Return the bytes of a tensor of a type's name and a shape."""
    block, size = QUANTS[KINDS[kind]]
    return math.prod(shape) // block * size


def write_gguf(path, arch, settings, tensors, alignment=32):
    """Write the header of ``{name: (type, shape)}`` and a hole as long as the weights."""
    writer = gguf.GGUFWriter(str(path), arch)
    for key, value in settings.items():
        name = key if "." in key and key.split(".")[0] in ("tokenizer", "general", "split") else "%s.%s" % (arch, key)
        add = {bool: writer.add_bool, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
        add.get(type(value), writer.add_uint32)(name, value)
    total = 0
    for name, (kind, shape) in tensors.items():
        quant = KINDS[kind]
        plain = {"F32": numpy.float32, "F16": numpy.float16}.get(kind)
        stored = shape if plain else gguf.quant_shape_to_byte_shape(shape, quant)
        size = bytes_of(kind, shape)
        writer.add_tensor_info(name, stored, numpy.dtype(plain or numpy.uint8), size, raw_dtype=quant)
        total += -(-size // alignment) * alignment
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    handle = writer.fout[0]
    handle.flush()
    begin = -(-handle.tell() // alignment) * alignment
    handle.truncate(begin + total)
    writer.close()
    return sum(bytes_of(kind, shape) for kind, shape in tensors.values())


def settings_of(layers, hidden, inner, heads, kv_heads, vocabulary, context, **more):
    """Return the settings that every decoder has."""
    made = {
        "block_count": layers,
        "context_length": context,
        "embedding_length": hidden,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": vocabulary,
        "tokenizer.ggml.model": "none",
    }
    made.update({key.replace("__", "."): value for key, value in more.items()})
    return made


def dense(s, kind="Q4_0", output=True, extra=(), bias=False):
    """Return a dense decoder's tensors; ``extra`` names norms of the hidden or head size for each layer."""
    hidden, inner, vocabulary = s["embedding_length"], s["feed_forward_length"], s["vocab_size"]
    heads, kv = s["attention.head_count"], s["attention.head_count_kv"]
    key = s.get("attention.key_length", hidden // heads)
    value = s.get("attention.value_length", hidden // heads)
    made = {"token_embd.weight": ("Q8_0", (vocabulary, hidden)), "output_norm.weight": ("F32", (hidden,))}
    if output:
        made["output.weight"] = ("Q6_K", (vocabulary, hidden))
    for layer in range(s["block_count"]):
        p = "blk.%d." % layer
        made[p + "attn_norm.weight"] = ("F32", (hidden,))
        made[p + "attn_q.weight"] = (kind, (heads * key, hidden))
        made[p + "attn_k.weight"] = (kind, (kv * key, hidden))
        made[p + "attn_v.weight"] = (kind, (kv * value, hidden))
        made[p + "attn_output.weight"] = (kind, (hidden, heads * value))
        if bias:
            for letter, rows in (("q", heads * key), ("k", kv * key), ("v", kv * value)):
                made[p + "attn_%s.bias" % letter] = ("F32", (rows,))
        made[p + "ffn_norm.weight"] = ("F32", (hidden,))
        made[p + "ffn_gate.weight"] = (kind, (inner, hidden))
        made[p + "ffn_up.weight"] = (kind, (inner, hidden))
        made[p + "ffn_down.weight"] = (kind, (hidden, inner))
        for name, size in extra:
            made[p + name] = ("F32", (size,))
    return made


def _llama():
    s = settings_of(4, 512, 1024, 8, 2, 32000, 8192)
    return "llama", s, dense(s)


def _llama_tied():
    s = settings_of(6, 576, 1536, 9, 3, 32000, 8192)
    return "llama", s, dense(s, output=False)


def _qwen2():
    s = settings_of(4, 896, 2432, 14, 2, 151936, 32768)
    return "qwen2", s, dense(s, output=False, bias=True)


def _qwen3():
    s = settings_of(4, 1024, 3072, 16, 8, 151936, 40960, attention__key_length=128, attention__value_length=128)
    return "qwen3", s, dense(s, output=False, extra=(("attn_q_norm.weight", 128), ("attn_k_norm.weight", 128)))


def _gemma2():
    s = settings_of(6, 512, 2048, 4, 2, 32000, 8192, attention__key_length=256, attention__value_length=256)
    s["attention.sliding_window"] = 4096
    return (
        "gemma2",
        s,
        dense(s, output=False, extra=(("post_attention_norm.weight", 512), ("post_ffw_norm.weight", 512))),
    )


def _gemma3():
    s = settings_of(12, 640, 2048, 4, 1, 32000, 32768, attention__key_length=256, attention__value_length=256)
    s["attention.sliding_window"] = 512
    names = ("post_attention_norm.weight", "post_ffw_norm.weight")
    extra = [(name, 640) for name in names] + [("attn_q_norm.weight", 256), ("attn_k_norm.weight", 256)]
    return "gemma3", s, dense(s, output=False, extra=extra)


MODELS = {
    "llama": _llama,
    "llama-tied": _llama_tied,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
}


def _deepseek2():
    s = settings_of(3, 512, 1024, 4, 1, 32000, 16384, attention__key_length=576, attention__value_length=512)
    s.update({"attention.key_length_mla": 192, "attention.value_length_mla": 128, "attention.kv_lora_rank": 512})
    s.update({"rope.dimension_count": 64, "attention.q_lora_rank": 256, "leading_dense_block_count": 3})
    s.update({"expert_feed_forward_length": 256, "expert_count": 4, "expert_used_count": 2, "expert_shared_count": 1})
    s["expert_weights_scale"] = 1.0
    hidden, heads, inner, vocabulary = 512, 4, 1024, 32000
    made = {
        "token_embd.weight": ("Q8_0", (vocabulary, hidden)),
        "output_norm.weight": ("F32", (hidden,)),
        "output.weight": ("Q6_K", (vocabulary, hidden)),
    }
    for layer in range(3):
        p = "blk.%d." % layer
        made.update(
            {
                p + "attn_norm.weight": ("F32", (hidden,)),
                p + "attn_q_a.weight": ("Q4_0", (256, hidden)),
                p + "attn_q_a_norm.weight": ("F32", (256,)),
                p + "attn_q_b.weight": ("Q4_0", (heads * 192, 256)),
                p + "attn_kv_a_mqa.weight": ("Q4_0", (576, hidden)),
                p + "attn_kv_a_norm.weight": ("F32", (512,)),
                p + "attn_k_b.weight": ("Q4_0", (heads, 512, 128)),
                p + "attn_v_b.weight": ("Q4_0", (heads, 128, 512)),
                p + "attn_output.weight": ("Q4_0", (hidden, heads * 128)),
                p + "ffn_norm.weight": ("F32", (hidden,)),
                p + "ffn_gate.weight": ("Q4_0", (inner, hidden)),
                p + "ffn_up.weight": ("Q4_0", (inner, hidden)),
                p + "ffn_down.weight": ("Q4_0", (hidden, inner)),
            }
        )
    return "deepseek2", s, made


def _mamba():
    s = settings_of(4, 512, 0, 0, 0, 32000, 8192)
    s.update({"ssm.conv_kernel": 4, "ssm.inner_size": 1024, "ssm.state_size": 16, "ssm.time_step_rank": 32})
    made = {
        "token_embd.weight": ("Q8_0", (32000, 512)),
        "output_norm.weight": ("F32", (512,)),
        "output.weight": ("Q6_K", (32000, 512)),
    }
    for layer in range(4):
        p = "blk.%d." % layer
        made.update(
            {
                p + "attn_norm.weight": ("F32", (512,)),
                p + "ssm_in.weight": ("Q4_0", (2048, 512)),
                p + "ssm_conv1d.weight": ("F32", (1024, 4)),
                p + "ssm_conv1d.bias": ("F32", (1024,)),
                p + "ssm_x.weight": ("Q4_0", (64, 1024)),
                p + "ssm_dt.weight": ("F32", (1024, 32)),
                p + "ssm_dt.bias": ("F32", (1024,)),
                p + "ssm_a": ("F32", (1024, 16)),
                p + "ssm_d": ("F32", (1024,)),
                p + "ssm_out.weight": ("Q4_0", (512, 1024)),
            }
        )
    return "mamba", s, made


MODELS.update({"deepseek2": _deepseek2, "mamba": _mamba})


def write(path, name):
    """Write one of the models; return the bytes of its weights."""
    return write_gguf(path, *MODELS[name]())
