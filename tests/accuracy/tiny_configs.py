# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small ``config.json`` for each architecture that the planner knows: what the engine makes of it is compared."""

from __future__ import annotations

import typing as t

Config = t.Dict[str, t.Any]

BASE: Config = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "layer_norm_eps": 1e-5,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "rope_theta": 10000.0,
    "pad_token_id": 0,
}
LATENT: Config = {
    "kv_lora_rank": 64,
    "q_lora_rank": None,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "num_key_value_heads": 8,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "moe_layer_freq": 1,
    "head_dim": None,
}
EXPERTS: Config = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "shared_expert_intermediate_size": 64,
}
DELTA: Config = {
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 3,
}
SLIDING = "sliding_attention"
FULL = "full_attention"


def _mix(every: int, count: int = 6) -> t.List[str]:
    return [FULL if (index + 1) % every == 0 else SLIDING for index in range(count)]


#: For each architecture: its model_type, and what differs from BASE. None leaves a key out.
TINY: t.Dict[str, t.List[t.Tuple[str, Config]]] = {
    "LlamaForCausalLM": [("llama", {}), ("llama", {"num_key_value_heads": 1, "head_dim": None})],
    "MistralForCausalLM": [
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 512}),
        ("mistral", {}),
    ],
    "InternLM3ForCausalLM": [("llama", {})],
    "GraniteForCausalLM": [("granite", {"head_dim": None})],
    "GraniteMoeForCausalLM": [("granitemoe", dict(EXPERTS, head_dim=None))],
    "ArceeForCausalLM": [("arcee", {})],
    "OlmoForCausalLM": [("olmo", {"head_dim": None})],
    "Olmo2ForCausalLM": [("olmo2", {"head_dim": None})],
    "Olmo3ForCausalLM": [("olmo3", {"sliding_window": 512, "head_dim": None})],
    "SmolLM3ForCausalLM": [("smollm3", {"head_dim": None})],
    "SeedOssForCausalLM": [("seed_oss", {})],
    "ApertusForCausalLM": [("apertus", {"hidden_act": "xielu"})],
    "Starcoder2ForCausalLM": [
        ("starcoder2", {"head_dim": None, "hidden_act": "gelu_pytorch_tanh", "sliding_window": 1024}),
        ("starcoder2", {"head_dim": None, "hidden_act": "gelu_pytorch_tanh"}),
    ],
    "PhiForCausalLM": [("phi", {"head_dim": None, "num_key_value_heads": 8, "hidden_act": "gelu_new"})],
    "Qwen2ForCausalLM": [
        ("qwen2", {"head_dim": None}),
        ("qwen2", {"head_dim": None, "use_sliding_window": False, "sliding_window": 512, "max_window_layers": 3}),
        ("qwen2", {"head_dim": None, "use_sliding_window": True, "sliding_window": 512, "max_window_layers": 0}),
    ],
    "Qwen2MoeForCausalLM": [("qwen2_moe", dict(EXPERTS, head_dim=None))],
    "Qwen3ForCausalLM": [("qwen3", {}), ("qwen3", {"head_dim": None})],
    "Qwen3MoeForCausalLM": [("qwen3_moe", dict(EXPERTS))],
    "MixtralForCausalLM": [("mixtral", dict(EXPERTS, head_dim=None, sliding_window=None))],
    "InternLM2ForCausalLM": [("internlm2", {"head_dim": None, "bias": False, "rope_scaling": None})],
    "Phi3ForCausalLM": [
        ("phi3", {"head_dim": None, "pad_token_id": 0}),
        ("phi3", {"head_dim": None, "sliding_window": 511, "pad_token_id": 0}),
    ],
    "StableLmForCausalLM": [("stablelm", {"head_dim": None, "use_qkv_bias": False})],
    "OlmoeForCausalLM": [("olmoe", dict(EXPERTS, head_dim=None))],
    "Glm4ForCausalLM": [("glm4", {"partial_rotary_factor": 0.5})],
    "GlmForCausalLM": [("glm", {"partial_rotary_factor": 0.5})],
    "Glm4MoeForCausalLM": [("glm4_moe", dict(LATENT, head_dim=32, num_key_value_heads=4, kv_lora_rank=None))],
    "Ernie4_5ForCausalLM": [("ernie4_5", {"use_bias": False})],
    "ExaoneForCausalLM": [
        ("exaone", {"head_dim": None, "layer_norm_epsilon": 1e-5, "activation_function": "silu", "num_layers": 6})
    ],
    "Exaone4ForCausalLM": [
        ("exaone4", {"sliding_window": 512, "head_dim": None}),
        (
            "exaone4",
            {"sliding_window": None, "sliding_window_pattern": None, "layer_types": [FULL] * 6, "head_dim": None},
        ),
    ],
    "MiniMaxM2ForCausalLM": [("minimax_m2", dict(EXPERTS, rotary_dim=16, use_qk_norm=True, scoring_func="sigmoid"))],
    "GemmaForCausalLM": [
        ("gemma", {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True})
    ],
    "Gemma2ForCausalLM": [
        ("gemma2", {"sliding_window": 512, "tie_word_embeddings": True, "hidden_activation": "gelu_pytorch_tanh"})
    ],
    "Gemma3ForCausalLM": [
        ("gemma3_text", {"sliding_window": 512, "tie_word_embeddings": True, "num_hidden_layers": 14}),
        ("gemma3_text", {"sliding_window": 512, "tie_word_embeddings": True, "layer_types": _mix(2)}),
    ],
    "CohereForCausalLM": [("cohere", {"head_dim": None, "tie_word_embeddings": True, "logit_scale": 1.0})],
    "Cohere2ForCausalLM": [
        ("cohere2", {"head_dim": 32, "tie_word_embeddings": True, "sliding_window": 512, "num_hidden_layers": 8})
    ],
    "NemotronForCausalLM": [("nemotron", {"hidden_act": "relu2", "norm_eps": 1e-5})],
    "GPT2LMHeadModel": [
        (
            "gpt2",
            {
                "n_embd": 256,
                "n_head": 8,
                "n_layer": 6,
                "n_positions": 4096,
                "head_dim": None,
                "num_key_value_heads": None,
                "hidden_size": None,
                "num_attention_heads": None,
                "num_hidden_layers": None,
                "max_position_embeddings": None,
                "tie_word_embeddings": True,
            },
        )
    ],
    "OPTForCausalLM": [
        (
            "opt",
            {
                "head_dim": None,
                "num_key_value_heads": None,
                "ffn_dim": 512,
                "word_embed_proj_dim": 256,
                "activation_function": "relu",
                "do_layer_norm_before": True,
                "tie_word_embeddings": True,
            },
        )
    ],
    "FalconForCausalLM": [
        (
            "falcon",
            {
                "head_dim": None,
                "num_key_value_heads": None,
                "multi_query": True,
                "new_decoder_architecture": False,
                "parallel_attn": True,
                "bias": False,
                "alibi": False,
            },
        ),
        (
            "falcon",
            {
                "head_dim": None,
                "num_key_value_heads": None,
                "num_kv_heads": 4,
                "new_decoder_architecture": True,
                "parallel_attn": True,
                "bias": False,
                "alibi": False,
            },
        ),
    ],
    "GptOssForCausalLM": [("gpt_oss", dict(EXPERTS, sliding_window=128, attention_bias=True, intermediate_size=256))],
    "Gemma4ForCausalLM": [
        (
            "gemma4_text",
            {
                "layer_types": _mix(3),
                "sliding_window": 512,
                "global_head_dim": 64,
                "tie_word_embeddings": True,
                "num_kv_shared_layers": 0,
                "attention_k_eq_v": False,
                "hidden_size_per_layer_input": 0,
                "enable_moe_block": False,
            },
        ),
        (
            "gemma4_text",
            {
                "layer_types": _mix(3),
                "sliding_window": 512,
                "global_head_dim": 64,
                "num_global_key_value_heads": 2,
                "tie_word_embeddings": True,
                "num_kv_shared_layers": 0,
                "attention_k_eq_v": True,
                "hidden_size_per_layer_input": 0,
                "enable_moe_block": False,
            },
        ),
        (
            "gemma4_text",
            {
                "layer_types": _mix(3, 12),
                "num_hidden_layers": 12,
                "sliding_window": 512,
                "global_head_dim": 64,
                "tie_word_embeddings": True,
                "num_kv_shared_layers": 6,
                "attention_k_eq_v": False,
                "hidden_size_per_layer_input": 0,
                "enable_moe_block": False,
            },
        ),
    ],
    "DeepseekV2ForCausalLM": [("deepseek_v2", dict(LATENT, topk_method="greedy", scoring_func="softmax"))],
    "DeepseekV3ForCausalLM": [("deepseek_v3", dict(LATENT, q_lora_rank=64))],
    "Qwen3NextForCausalLM": [("qwen3_next", dict(DELTA, **EXPERTS))],
    "Qwen3_5ForCausalLM": [("qwen3_5_text", dict(DELTA, mamba_ssm_dtype="float32"))],
    "NemotronHForCausalLM": [
        (
            "nemotron_h",
            {
                "hybrid_override_pattern": "M-M*M-",
                "mamba_num_heads": 16,
                "mamba_head_dim": 32,
                "ssm_state_size": 32,
                "n_groups": 2,
                "conv_kernel": 4,
                "chunk_size": 64,
                "mamba_hidden_act": "silu",
                "mlp_hidden_act": "relu2",
                "layer_norm_epsilon": 1e-5,
                "attention_bias": False,
                "mlp_bias": False,
                "use_bias": False,
                "use_conv_bias": True,
                "expand": 2,
            },
        )
    ],
    "GraniteMoeHybridForCausalLM": [
        (
            "granitemoehybrid",
            {
                "layer_types": ["mamba", "mamba", "attention", "mamba", "mamba", "attention"],
                "mamba_n_heads": 16,
                "mamba_d_head": 32,
                "mamba_n_groups": 1,
                "mamba_d_state": 32,
                "mamba_d_conv": 4,
                "mamba_expand": 2,
                "mamba_chunk_size": 64,
                "head_dim": None,
                "num_local_experts": 0,
                "num_experts_per_tok": 0,
                "shared_intermediate_size": 512,
                "position_embedding_type": "nope",
            },
        )
    ],
    "FalconH1ForCausalLM": [
        (
            "falcon_h1",
            {
                "mamba_d_ssm": 512,
                "mamba_n_heads": 16,
                "mamba_d_head": 32,
                "mamba_n_groups": 1,
                "mamba_d_state": 32,
                "mamba_d_conv": 4,
                "mamba_expand": 2,
                "mamba_chunk_size": 64,
                "mamba_rms_norm": False,
                "ssm_multipliers": [1.0, 1.0, 1.0, 1.0, 1.0],
                "mlp_multipliers": [1.0, 1.0],
            },
        )
    ],
    "JambaForCausalLM": [
        (
            "jamba",
            {
                "mamba_expand": 2,
                "mamba_d_state": 16,
                "mamba_d_conv": 4,
                "mamba_dt_rank": 16,
                "attn_layer_period": 3,
                "attn_layer_offset": 1,
                "num_experts": 1,
                "num_experts_per_tok": 1,
                "head_dim": None,
                "expert_layer_period": 2,
                "expert_layer_offset": 1,
            },
        )
    ],
    "MambaForCausalLM": [
        (
            "mamba",
            {
                "state_size": 16,
                "conv_kernel": 4,
                "expand": 2,
                "intermediate_size": 512,
                "time_step_rank": 16,
                "head_dim": None,
                "num_attention_heads": None,
                "num_key_value_heads": None,
                "tie_word_embeddings": True,
            },
        )
    ],
    "Mamba2ForCausalLM": [
        (
            "mamba2",
            {
                "state_size": 16,
                "conv_kernel": 4,
                "expand": 2,
                "num_heads": 16,
                "head_dim": 32,
                "n_groups": 1,
                "chunk_size": 64,
                "num_attention_heads": None,
                "num_key_value_heads": None,
                "tie_word_embeddings": True,
            },
        )
    ],
    "Lfm2ForCausalLM": [
        (
            "lfm2",
            {
                "layer_types": ["conv", "conv", FULL, "conv", "conv", FULL],
                "conv_L_cache": 3,
                "conv_dim": 256,
                "conv_bias": False,
                "block_dim": 256,
                "block_ff_dim": 512,
                "head_dim": None,
                "norm_eps": 1e-5,
            },
        )
    ],
    "Llama4ForCausalLM": [
        (
            "llama4_text",
            dict(
                EXPERTS,
                num_hidden_layers=8,
                attention_chunk_size=1024,
                interleave_moe_layer_step=1,
                intermediate_size_mlp=512,
                use_qk_norm=False,
            ),
        )
    ],
    "KimiLinearForCausalLM": [
        (
            "kimi_linear",
            dict(
                LATENT,
                num_experts=4,
                num_experts_per_token=2,
                num_shared_experts=1,
                moe_router_activation_func="sigmoid",
                moe_renormalize=True,
                num_expert_group=1,
                linear_attn_config={
                    "full_attn_layers": [3, 6],
                    "kda_layers": [1, 2, 4, 5],
                    "num_heads": 8,
                    "head_dim": 32,
                    "short_conv_kernel_size": 4,
                },
            ),
        )
    ],
    "Gemma3nForCausalLM": [
        (
            "gemma3n_text",
            {
                "layer_types": _mix(3),
                "sliding_window": 512,
                "num_kv_shared_layers": 2,
                "tie_word_embeddings": True,
                "hidden_size_per_layer_input": 32,
                "vocab_size_per_layer_input": 512,
                "altup_num_inputs": 2,
                "laurel_rank": 16,
                "intermediate_size": [512] * 6,
                "activation_sparsity_pattern": [0.0] * 6,
            },
        )
    ],
    "WhisperForConditionalGeneration": [
        (
            "whisper",
            {
                "d_model": 256,
                "decoder_layers": 3,
                "encoder_layers": 3,
                "decoder_attention_heads": 8,
                "encoder_attention_heads": 8,
                "decoder_ffn_dim": 512,
                "encoder_ffn_dim": 512,
                "max_source_positions": 1500,
                "max_target_positions": 448,
                "num_mel_bins": 80,
                "head_dim": None,
                "num_key_value_heads": None,
                "num_attention_heads": None,
                "hidden_size": None,
                "num_hidden_layers": None,
                "max_position_embeddings": None,
                "tie_word_embeddings": True,
                "activation_function": "gelu",
                "scale_embedding": False,
            },
        )
    ],
    "AfmoeForCausalLM": [
        (
            "afmoe",
            dict(
                EXPERTS,
                layer_types=_mix(3),
                sliding_window=512,
                num_dense_layers=1,
                num_shared_experts=1,
                n_group=1,
                topk_group=1,
                score_func="sigmoid",
                route_norm=True,
                route_scale=1.0,
                mup_enabled=False,
            ),
        )
    ],
    "PhiMoEForCausalLM": [("phimoe", dict(EXPERTS, head_dim=None, sliding_window=None, lm_head_bias=False))],
    "GraniteMoeSharedForCausalLM": [("granitemoeshared", dict(EXPERTS, head_dim=None, shared_intermediate_size=64))],
    "GPTNeoXForCausalLM": [
        (
            "gpt_neox",
            {
                "head_dim": None,
                "num_key_value_heads": None,
                "rotary_pct": 0.25,
                "use_parallel_residual": True,
                "hidden_act": "gelu",
            },
        )
    ],
    "BloomForCausalLM": [
        (
            "bloom",
            {"n_head": 8, "n_layer": 6, "head_dim": None, "num_key_value_heads": None, "tie_word_embeddings": True},
        )
    ],
    "HunYuanDenseV1ForCausalLM": [("hunyuan_v1_dense", {})],
    "Ministral3ForCausalLM": [
        (
            "ministral3",
            {
                "sliding_window": None,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "llama_4_scaling_beta": 0.1,
                    "original_max_position_embeddings": 4096,
                },
            },
        )
    ],
    "Ernie4_5_MoeForCausalLM": [
        (
            "ernie4_5_moe",
            dict(
                EXPERTS,
                head_dim=None,
                moe_num_experts=4,
                moe_k=2,
                moe_num_shared_experts=1,
                moe_layer_start_index=1,
                moe_layer_interval=1,
                use_bias=False,
            ),
        )
    ],
    "SolarForCausalLM": [("llama", {})],
    "OrionForCausalLM": [("llama", {"head_dim": None})],
    "MiMoForCausalLM": [("qwen2", {"head_dim": None, "num_nextn_predict_layers": 1})],
    "LLaMAForCausalLM": [("llama", {})],
    "FalconMambaForCausalLM": [
        (
            "falcon_mamba",
            {
                "state_size": 16,
                "conv_kernel": 4,
                "expand": 2,
                "intermediate_size": 512,
                "time_step_rank": 16,
                "head_dim": None,
                "num_attention_heads": None,
                "num_key_value_heads": None,
                "mixer_rms_eps": 1e-6,
            },
        )
    ],
    "Lfm2MoeForCausalLM": [
        (
            "lfm2_moe",
            dict(
                EXPERTS,
                layer_types=["conv", "conv", FULL, "conv", "conv", FULL],
                conv_L_cache=3,
                conv_bias=False,
                num_dense_layers=1,
                head_dim=None,
                norm_eps=1e-5,
                use_expert_bias=True,
            ),
        )
    ],
    "Glm4MoeLiteForCausalLM": [("glm4_moe_lite", dict(LATENT, q_lora_rank=64))],
    "DeepseekV32ForCausalLM": [
        ("deepseek_v32", dict(LATENT, q_lora_rank=64, index_topk=64, index_head_dim=128, index_n_heads=4))
    ],
}


def config_of(architecture: str, model_type: str, changes: t.Mapping[str, t.Any]) -> Config:
    """Return a whole ``config.json``."""
    config = dict(BASE, **changes)
    config = {
        key: value for key, value in config.items() if value is not None or key in ("sliding_window", "q_lora_rank")
    }
    return dict(config, architectures=[architecture], model_type=model_type)


def all_configs() -> t.Iterator[t.Tuple[str, Config]]:
    """Return every small configuration with a name."""
    for architecture, variants in TINY.items():
        for number, (model_type, changes) in enumerate(variants):
            yield "%s/%d" % (architecture, number), config_of(architecture, model_type, changes)
