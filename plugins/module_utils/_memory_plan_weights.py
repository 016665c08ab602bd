# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""How many bytes of a checkpoint's tensors each GPU holds once the engine has loaded them.

Input is a list of tensors, each ``{name, dtype, shape, nbytes}``: those of the safetensors headers, or those that
``_memory_plan_geometry`` derives from ``config.json``. What is cut, copied or left out is decided by a tensor's name.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_config import Model, Unsupported
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_layout import stages
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import Rule
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_specs import model_bytes, rank_heads
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_want import Want

Tensor = t.Mapping[str, t.Any]


class Weights(t.NamedTuple):
    """What one GPU holds."""

    per_stage: t.Tuple[float, ...]  # bytes of one rank of each pipeline stage
    source: str
    notes: t.Tuple[str, ...]

    @property
    def most(self) -> int:
        """Bytes of the rank that holds most."""
        return int(max(self.per_stage))


LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|decoder_layers)\.(\d+)\.")
SKIPPED = re.compile(r"(?:inv_freq|masked_bias|\.g_idx)$|(?:^|\.)attn\.bias$")
DRAFT = re.compile(r"(?:^|\.)mtp\.")
ENCODER = re.compile(
    r"(?:^|\.)(?:vision_tower|vision_model|visual|vision_encoder|audio_tower|embed_vision|embed_audio|mlp1|vit|"
    r"image_newline|multi_modal_projector|mm_projector|connector|encoder)\b"
)
VOCABULARY = re.compile(
    r"(?:^|\.)(?:embed_tokens|lm_head|wte|word_embeddings|tok_embeddings|embed_in|embed_out|output)\."
)
OUTPUT = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output)\.")
COPIED = re.compile(
    r"(?:norm|layernorm|ln_[12f]|ln_1|ln_2)\d*\.|norm\.|_norm\.|(?:^|\.)(?:router|shared_expert_gate)\.|"
    r"(?:mlp|block_sparse_moe|feed_forward|moe)\.gate\.|kv_a_proj|q_a_proj|e_score_correction|sinks$|"
    r"(?:o_proj|down_proj|dense|fc2|w2)\.bias$|wpe\.|indexer\."
)
EXPERTS = re.compile(r"(?:^|\.)experts\.")
KEY_VALUE = re.compile(r"(?:^|\.)(?:k_proj|v_proj|key|value|wk|wv)\.")
FUSED = re.compile(r"(?:^|\.)(?:qkv_proj|query_key_value|Wqkv|wqkv|c_attn|qkv)\.")
FLOATS = ("F64", "F32", "F16", "BF16")


def held_bytes(tensor: Tensor, width: int) -> float:
    """Return a tensor's bytes in memory: plain floats get the model's own width, the rest stays as it is."""
    name, dtype = str(tensor["name"]), str(tensor["dtype"])
    if dtype in FLOATS and not re.search(r"scale|A_log|dt_bias|e_score_correction|zero", name):
        count = 1
        for size in tensor["shape"]:
            count *= int(size)
        return float(count * width)
    return float(tensor["nbytes"])


def _vocabulary(tensor: Tensor, size: float, tensor_parallel: int) -> float:
    """Return one rank's part of a matrix with a row for each word: rows are padded to a multiple of 64 first."""
    rows = int(tensor["shape"][0]) if tensor["shape"] else 1
    padded = -(-rows // 64) * 64
    return size * padded / max(rows, 1) / tensor_parallel


def _experts(model: Model, size: float, want: Want) -> float:
    ranks = want.tensor_parallel_size * want.data_parallel_size
    if not want.enable_expert_parallel:
        return size / ranks
    count = experts_of(model)
    return size * (-(-count // ranks)) / max(count, 1)


def experts_of(model: Model) -> int:
    """Return the number of routed experts; 0: there are none."""
    for name in ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts"):
        value = model.text.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            return value
    return 0


def share(model: Model, tensor: Tensor, want: Want, width: int) -> float:
    """Return the bytes of one tensor on one rank of its pipeline stage."""
    name = str(tensor["name"])
    size = held_bytes(tensor, width)
    tp = want.tensor_parallel_size
    if VOCABULARY.search(name) and not LAYER.search(name):
        return _vocabulary(tensor, size, tp)
    if tp == 1 and want.data_parallel_size == 1:
        return size
    if ENCODER.search(name) and not name.startswith("language_model"):
        return size
    if EXPERTS.search(name) and "shared" not in name:
        return _experts(model, size, want)
    if COPIED.search(name):
        return size
    mine = rank_heads(model.kv_heads, tp) if model.kv_heads else 0
    if KEY_VALUE.search(name) and model.kv_heads:
        return size * mine / model.kv_heads
    if FUSED.search(name) and model.kv_heads and "in_proj" not in name:
        total = model.heads + 2 * model.kv_heads
        return size * (model.heads / tp + 2 * mine) / total
    return size / tp


def _stage_of(name: str, parts: t.Sequence[range], layers: int) -> t.Tuple[int, ...]:
    """Return the pipeline stages that hold a tensor."""
    found = LAYER.search(name)
    if found and not ENCODER.search(name.split("layers.", maxsplit=1)[0]):
        number = int(found.group(1))
        return tuple(index for index, part in enumerate(parts) if number in part)
    if OUTPUT.search(name) or re.search(r"(?:^|\.)(?:norm|ln_f|final_layer_norm|final_layernorm)\.", name):
        return (len(parts) - 1,)
    return (0,)


def rope_bytes(model: Model, width: int) -> int:
    """Return the bytes of the table of rotations, which is in no file: positions * rotated part of a head."""
    if not model.max_position or model.family["layout"] in ("whisper", "mamba1", "mamba2"):
        return 0
    rotary = int(model.text.get("qk_rope_head_dim") or 0)
    if not rotary:
        factor = model.text.get("partial_rotary_factor", 1.0)
        rotary = int(model.head_dim * factor) if isinstance(factor, (int, float)) else model.head_dim
    return int(model.max_position) * rotary * width


def absorbed_bytes(model: Model, tensor_parallel: int, width: int) -> float:
    """Return the bytes, for one layer, of the copies of kv_b_proj that latent attention multiplies by."""
    if not model.mla:
        return 0.0
    nope, value = int(model.text.get("qk_nope_head_dim") or 0), int(model.text.get("v_head_dim") or 0)
    return model.heads / tensor_parallel * (nope + value) * int(model.text.get("kv_lora_rank") or 0) * width


def mxfp4_factor(model: Model, rules: Rule, tensor_parallel: int) -> float:
    """Return by how much the kernels' padding makes experts in MXFP4 larger than in the file.

    Source: ``vllm/model_executor/layers/fused_moe/oracle/mxfp4.py``; the sizes are confirmed by start-up logs.
    """
    hidden = int(model.text.get("hidden_size") or 0)
    inner = int(model.text.get("intermediate_size") or 0) // tensor_parallel
    if not hidden or not inner:
        return 1.0
    one, two = rules["mxfp4_padding"]
    padded = -(-inner // one) * one * -(-hidden // two) * two
    return float(padded) / (inner * hidden)


def weights(model: Model, tensors: t.Iterable[Tensor], want: Want, rules: Rule, source: str) -> Weights:
    """Return what each rank holds.

    Args:
        model: the model's record.
        tensors: of the checkpoint, each ``{name, dtype, shape, nbytes}``.
        want: the wanted flags.
        rules: those of the engine's version.
        source: where the tensors come from, for the reader.

    Raises:
        Unsupported: nothing is there.
    """
    width = model_bytes(model, want)
    layers = len(model.layers)
    parts = stages(layers, want.pipeline_parallel_size)
    per_stage = [0.0] * len(parts)
    tied = bool(model.text.get("tie_word_embeddings", model.config.get("tie_word_embeddings", model.family["tie"])))
    notes: t.List[str] = []
    seen, drafts = 0, 0.0
    packed = 0.0
    for tensor in tensors:
        name = str(tensor["name"])
        if SKIPPED.search(name):
            continue
        seen += 1
        number = LAYER.search(name)
        draft = DRAFT.search(name) or (number and int(number.group(1)) >= layers and not ENCODER.search(name))
        if draft and not want.speculative_tokens:
            drafts += float(tensor["nbytes"])
            continue
        if OUTPUT.search(name) and tied:
            continue
        if want.language_model_only and ENCODER.search(name) and not name.startswith("language_model"):
            continue
        size = share(model, tensor, want, width)
        if str(tensor["dtype"]) in ("U8", "MXFP4") and EXPERTS.search(name):
            packed += size
        for stage in _stage_of(name, parts, layers):
            per_stage[stage] += size
        if tied and VOCABULARY.search(name) and len(parts) > 1:
            per_stage[-1] += size
    if not seen:
        raise Unsupported("no tensors: the weights can't be counted")
    if packed:
        extra = packed * (mxfp4_factor(model, rules, want.tensor_parallel_size) - 1.0)
        per_stage = [size + extra / len(parts) for size in per_stage]
        notes.append("Experts in MXFP4 are padded for their kernels: %.2f GiB on each GPU." % (extra / (1 << 30)))
    if drafts:
        notes.append("%.2f GiB of draft layers are in the checkpoint and aren't loaded." % (drafts / (1 << 30)))
    rope, copies = rope_bytes(model, width), absorbed_bytes(model, want.tensor_parallel_size, width)
    per_stage = [size + rope + copies * len(part) for size, part in zip(per_stage, parts)]
    return Weights(tuple(per_stage), source, tuple(notes))
