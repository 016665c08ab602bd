# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The geometry files of the accuracy suite as the ``config.json`` that the planner reads."""

from __future__ import annotations

import re
import typing as t

Config = t.Dict[str, t.Any]

#: What a model without ``architectures`` in the geometry file is, by its name: architecture, model_type of the text.
NAMES: t.Tuple[t.Tuple[str, str, str], ...] = (
    (r"llama-4", "Llama4ForConditionalGeneration", "llama4_text"),
    (r"granite-vision", "LlavaNextForConditionalGeneration", "granite"),
    (r"llava.*mistral", "LlavaNextForConditionalGeneration", "mistral"),
    (r"mistral-small-3\.[12]", "Mistral3ForConditionalGeneration", "mistral"),
    (r"kimi-vl", "KimiVLForConditionalGeneration", "deepseek_v3"),
    (r"kimi-linear", "KimiLinearForCausalLM", "kimi_linear"),
    (r"gpt-oss", "GptOssForCausalLM", "gpt_oss"),
    (r"gemma-4", "Gemma4ForConditionalGeneration", "gemma4_text"),
    (r"gemma-3", "Gemma3ForConditionalGeneration", "gemma3_text"),
    (r"gemma-2", "Gemma2ForCausalLM", "gemma2"),
    (r"gemma", "GemmaForCausalLM", "gemma"),
    (r"granite", "GraniteForCausalLM", "granite"),
    (r"deepseek.*v2", "DeepseekV2ForCausalLM", "deepseek_v2"),
    (r"qwen3-vl", "Qwen3VLForConditionalGeneration", "qwen3_vl_text"),
    (r"qwen3.*-a\d", "Qwen3MoeForCausalLM", "qwen3_moe"),
    (r"qwen3", "Qwen3ForCausalLM", "qwen3"),
    (r"qwen1\.5-moe", "Qwen2MoeForCausalLM", "qwen2_moe"),
    (r"qwen", "Qwen2ForCausalLM", "qwen2"),
    (r"phi-2", "PhiForCausalLM", "phi"),
    (r"phi-[34]", "Phi3ForCausalLM", "phi3"),
    (r"mixtral", "MixtralForCausalLM", "mixtral"),
    (r"mistral", "MistralForCausalLM", "mistral"),
)

#: And otherwise, by what the file says of its layers.
KINDS: t.Tuple[t.Tuple[str, str, str], ...] = (
    ("all mla", "DeepseekV3ForCausalLM", "deepseek_v3"),
    ("every 6-th layer full", "Gemma3ForCausalLM", "gemma3_text"),
    ("even index sliding", "Gemma2ForCausalLM", "gemma2"),
    ("every 4-th layer full, others chunked", "Llama4ForConditionalGeneration", "llama4_text"),
    ("all full attention", "LlamaForCausalLM", "llama"),
)

NOT_CONFIG = ("source", "layer_kinds", "confirmed_by_layout_records", "bf16_weight_error_percent_vs_logs")


def spread(entry: t.Mapping[str, t.Any]) -> t.Optional[t.List[str]]:
    """Return layer_types from their counts and the first eight: the shortest pattern that gives both, or None."""
    first, counts = entry.get("layer_types_first8"), entry.get("layer_types_count")
    if not first or not counts:
        return None
    total = sum(counts.values())
    for period in range(1, len(first) + 1):
        kinds = [first[index % period] for index in range(total)]
        if kinds[: len(first)] == list(first)[:total] and all(kinds.count(kind) == n for kind, n in counts.items()):
            return kinds
    return None


def config_json(name: str, entry: t.Mapping[str, t.Any]) -> Config:
    """Return what this model's ``config.json`` says, as far as the geometry file has it."""
    config: Config = {
        key: value for key, value in entry.items() if key not in NOT_CONFIG and not key.startswith("layer_types_")
    }
    kinds = spread(entry)
    if kinds:
        config["layer_types"] = kinds
    # The geometry file writes full attention as no window; the class would fill in its own.
    config.setdefault("sliding_window", None)
    if not config.get("architectures"):
        lower, said = name.lower(), str(entry.get("layer_kinds", "")).lower()
        found = next((row for row in NAMES if re.search(row[0], lower)), None)
        found = found or next((row for row in KINDS if said.startswith(row[0])), None)
        if found is None:
            return config
        config["architectures"] = [found[1]]
        config.setdefault("model_type", found[2])
    return config


def tokens(name: str) -> str:
    """Return a model's name without its owner, its quantisation and its tuning, to compare names of one model."""
    base = name.rsplit("/", 1)[-1].lower()
    base = re.sub(r"\(.*?\)", "", base)
    words = re.split(r"[\s_-]+", base)
    drop = {"awq", "gptq", "fp8", "dynamic", "nvfp4", "w4a16", "w8a8", "int4", "int8", "bf16", "it", "instruct", "chat"}
    return "-".join(word for word in words if word and word not in drop)


def find(name: t.Optional[str], models: t.Mapping[str, t.Any]) -> t.Optional[str]:
    """Return the key of the model of that name: the same, or the only one that is left without tuning and bits."""
    if not name:
        return None
    if name in models:
        return name
    wanted = tokens(name)
    same = sorted(key for key in models if tokens(key) == wanted)
    return same[0] if same else None
