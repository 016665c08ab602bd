# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Which layouts of layers the planner knows, by class of architecture. Data; there are no models in it.

An architecture that isn't here is not planned. The lists were compared with the registry of the engine that the release
pins and with the layers that its classes really make, but for those that a CPU can't make (``NOT_MADE`` in
``tests/accuracy``, which does it again).
"""

from __future__ import annotations

import typing as t

Family = t.Dict[str, t.Any]

# layout: the function of _memory_plan_layers that makes the layers.
# window: layer_types: each layer as config.json's layer_types says, all alike without it.
#   uniform: sliding only where all layers are.
#   alternate: layers 0, 2, 4, ... slide.
#   <number>: as layer_types; without it every number-th layer is full and the others slide.
# window_plus: tokens that the class adds to the window of config.json, and the release since when.
# mlp: gated (three matrices) or plain (two). bias: whether q, k and v have one when config.json doesn't say.
# tie: whether the embedding is the output matrix too when config.json doesn't say.
_ATTENTION: Family = {"layout": "attention", "window": "uniform", "mlp": "gated", "bias": False, "tie": False}


def _family(**changes: t.Any) -> Family:
    return dict(_ATTENTION, **changes)


_GROUPS: t.Tuple[t.Tuple[Family, str], ...] = (
    (
        _family(window="layer_types"),
        "LlamaForCausalLM LLaMAForCausalLM MistralForCausalLM Ministral3ForCausalLM InternLM3ForCausalLM "
        "IQuestCoderForCausalLM TeleChat3ForCausalLM GraniteForCausalLM GraniteMoeForCausalLM "
        "GraniteMoeSharedForCausalLM OlmoForCausalLM Olmo2ForCausalLM ArceeForCausalLM GlmForCausalLM "
        "SmolLM3ForCausalLM SeedOssForCausalLM HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM AfmoeForCausalLM",
    ),
    (_family(window="layer_types", mlp="plain"), "ApertusForCausalLM Starcoder2ForCausalLM GPTNeoXForCausalLM"),
    (_family(window="layer_types", mlp="plain", bias=True), "PhiForCausalLM"),
    (
        _family(),
        "Qwen3ForCausalLM Qwen3MoeForCausalLM MixtralForCausalLM InternLM2ForCausalLM Phi3ForCausalLM "
        "PhiMoEForCausalLM StableLmForCausalLM OlmoeForCausalLM Glm4ForCausalLM Glm4MoeForCausalLM "
        "Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM ExaoneForCausalLM MiniMaxM2ForCausalLM MiMoForCausalLM "
        "SolarForCausalLM OrionForCausalLM MiniCPMForCausalLM BailingMoeForCausalLM BailingMoeV2ForCausalLM",
    ),
    (_family(bias=True), "Qwen2ForCausalLM Qwen2MoeForCausalLM"),
    (_family(tie=True), "GemmaForCausalLM CohereForCausalLM"),
    (_family(mlp="plain"), "NemotronForCausalLM FalconForCausalLM"),
    (_family(mlp="plain", bias=True, tie=True), "GPT2LMHeadModel OPTForCausalLM BloomForCausalLM"),
    (_family(window="alternate_types", tie=True, norms=4), "Gemma2ForCausalLM"),
    (_family(window=6, tie=True, norms=4), "Gemma3ForCausalLM"),
    (_family(window=4, tie=True, window_plus=(1, "0.29.0")), "Cohere2ForCausalLM"),
    (_family(window=4), "Exaone4ForCausalLM Olmo3ForCausalLM"),
    (_family(window="alternate", bias=True), "GptOssForCausalLM"),
    (_family(layout="llama4"), "Llama4ForCausalLM"),
    (_family(layout="gemma4", tie=True, norms=4), "Gemma4ForCausalLM"),
    (_family(layout="gemma3n", tie=True, norms=4, weights="headers"), "Gemma3nForCausalLM"),
    (_family(layout="mla"), "DeepseekV2ForCausalLM DeepseekV3ForCausalLM Glm4MoeLiteForCausalLM"),
    (_family(layout="mla_sparse"), "DeepseekV32ForCausalLM GlmMoeDsaForCausalLM"),
    (_family(layout="gdn"), "Qwen3NextForCausalLM Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM"),
    (_family(layout="kda"), "KimiLinearForCausalLM"),
    (_family(layout="nemotron_h", weights="headers"), "NemotronHForCausalLM"),
    (_family(layout="mamba_types", weights="headers"), "GraniteMoeHybridForCausalLM"),
    (_family(layout="falcon_h1", weights="headers"), "FalconH1ForCausalLM"),
    (_family(layout="jamba", weights="headers"), "JambaForCausalLM"),
    (_family(layout="mamba1", weights="headers"), "MambaForCausalLM FalconMambaForCausalLM"),
    (_family(layout="mamba2", weights="headers"), "Mamba2ForCausalLM"),
    (_family(layout="conv", weights="headers"), "Lfm2ForCausalLM Lfm2MoeForCausalLM"),
    (_family(layout="whisper", mlp="plain", tie=True, weights="headers"), "WhisperForConditionalGeneration"),
)

ARCHITECTURES: t.Dict[str, Family] = {
    name: dict(family, architecture=name) for family, names in _GROUPS for name in names.split()
}

#: Architectures with an encoder for images or sound around a text model: where its configuration is. An empty list:
#: beside the encoder's. The text model's family is found by its own model_type.
ENCODERS: t.Dict[str, t.Tuple[str, ...]] = {
    "LlavaForConditionalGeneration": ("text_config",),
    "LlavaNextForConditionalGeneration": ("text_config",),
    "LlavaOnevisionForConditionalGeneration": ("text_config",),
    "Mistral3ForConditionalGeneration": ("text_config",),
    "PixtralForConditionalGeneration": ("text_config",),
    "PaliGemmaForConditionalGeneration": ("text_config",),
    "Idefics3ForConditionalGeneration": ("text_config",),
    "SmolVLMForConditionalGeneration": ("text_config",),
    "Gemma3ForConditionalGeneration": ("text_config",),
    "Gemma3nForConditionalGeneration": ("text_config",),
    "Gemma4ForConditionalGeneration": ("text_config",),
    "Llama4ForConditionalGeneration": ("text_config",),
    "KimiVLForConditionalGeneration": ("text_config",),
    "InternVLChatModel": ("llm_config", "text_config"),
    "InternVLForConditionalGeneration": ("text_config",),
    "Qwen2VLForConditionalGeneration": ("text_config",),
    "Qwen2_5_VLForConditionalGeneration": ("text_config",),
    "Qwen2AudioForConditionalGeneration": ("text_config",),
    "Qwen3VLForConditionalGeneration": ("text_config",),
    "Qwen3VLMoeForConditionalGeneration": ("text_config",),
    "Qwen3_5ForConditionalGeneration": ("text_config",),
    "Qwen3_5MoeForConditionalGeneration": ("text_config",),
    "UltravoxModel": ("text_config",),
    "VoxtralForConditionalGeneration": ("text_config",),
}

#: The model_type of a text model inside another: the architecture whose layers it has.
MODEL_TYPES: t.Dict[str, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_vl": "Qwen2ForCausalLM",
    "qwen2_vl_text": "Qwen2ForCausalLM",
    "qwen2_5_vl": "Qwen2ForCausalLM",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_vl_text": "Qwen3ForCausalLM",
    "qwen3_vl_moe_text": "Qwen3MoeForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma3n_text": "Gemma3nForCausalLM",
    "gemma4_text": "Gemma4ForCausalLM",
    "llama4_text": "Llama4ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "granite": "GraniteForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}

#: Families whose cache is the compressed vector only when the engine knows the model_type as such.
MLA_MODEL_TYPES = (
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "kimi_k2",
    "kimi_linear",
)

#: What the configuration classes of transformers fill in where published files leave something out.
DEFAULTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "sliding_window": 4096,
    },
    "mixtral": {"num_key_value_heads": 8},
    "qwen2": {"vocab_size": 151936},
    "qwen3": {"head_dim": 128, "vocab_size": 151936},
    "gemma": {"head_dim": 256, "vocab_size": 256000},
    "gemma2": {"head_dim": 256, "vocab_size": 256000, "sliding_window": 4096},
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "sliding_window": 4096,
        "max_position_embeddings": 131072,
    },
    "llama4_text": {"head_dim": 128, "attention_chunk_size": 8192},
    "gpt_oss": {"sliding_window": 128},
    "cohere2": {"sliding_window": 4096},
    "qwen3_5_text": {"head_dim": 256, "full_attention_interval": 4},
    "qwen3_5_moe_text": {"head_dim": 256, "full_attention_interval": 4},
    "qwen3_next": {"head_dim": 256, "full_attention_interval": 4},
}
