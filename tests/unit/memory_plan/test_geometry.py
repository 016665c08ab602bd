# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the weights of a model take by its config.json alone, against the parameters that its makers publish."""

from __future__ import annotations

import math
import re
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_config as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_geometry as geometry
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_peaks as peaking
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_rules as ruling
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_specs as speccing
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_want as wanting
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_weights as weighing

LLAMA: dict[str, t.Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
MIXTRAL = dict(
    LLAMA,
    architectures=["MixtralForCausalLM"],
    model_type="mixtral",
    vocab_size=32000,
    num_local_experts=8,
    num_experts_per_tok=2,
)
DEEPSEEK: dict[str, t.Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}
QWEN_NEXT: dict[str, t.Any] = {
    "architectures": ["Qwen3NextForCausalLM"],
    "model_type": "qwen3_next",
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "full_attention_interval": 4,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "vocab_size": 151936,
    "max_position_embeddings": 262144,
    "torch_dtype": "bfloat16",
}
RULES = ruling.rules_for(ruling.READ[-1])


def total(config: t.Mapping[str, t.Any], **want: t.Any) -> int:
    wish = wanting.want_of(want)
    return sum(int(one["nbytes"]) for one in geometry.text_tensors(reading.read_model(config), wish))


# The counts are those of the models' own cards.
@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (LLAMA, 8.03e9),
        (MIXTRAL, 46.7e9),
        (DEEPSEEK, 671e9),
        (QWEN_NEXT, 79.7e9),
    ],
)
def test_parameters_are_those_of_the_models_card(config: dict[str, t.Any], parameters: float) -> None:
    assert total(config) / 2 == pytest.approx(parameters, rel=0.01)


def linear_bytes_of_llama(each: float) -> float:
    """Bytes of the matrices of linear layers, computed by hand: 218,103,808 parameters a layer."""
    hidden, inner, keys = 4096, 14336, 8 * 128
    return 32 * each * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner)


@pytest.mark.parametrize(
    ("quantization_config", "each"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 0.5 + 2 / 128 + 0.5 / 128),
        ({"quant_method": "gptq_marlin", "bits": 8, "group_size": 0}, 1.0),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1 + 4 / 128**2),
        ({"quant_method": "fp8"}, 1.0),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 1.0),
        ({"quant_method": "modelopt_fp4", "quant_algo": "NVFP4"}, 0.5 + 1 / 16),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 4, "group_size": 32}}},
            },
            0.5 + 2 / 32,
        ),
    ],
)
def test_quantised_matrices_take_their_bits_and_their_scales(
    quantization_config: dict[str, t.Any], each: float
) -> None:
    plain = total(LLAMA) - linear_bytes_of_llama(2.0)
    quantised = total(dict(LLAMA, quantization_config=quantization_config))
    assert quantised - plain == pytest.approx(linear_bytes_of_llama(each), abs=300)


def test_quantised_at_load_takes_a_byte() -> None:
    assert total(LLAMA, quantization="fp8") == pytest.approx(
        total(LLAMA) - linear_bytes_of_llama(2.0) + linear_bytes_of_llama(1.0)
    )


@pytest.mark.parametrize(
    ("quantization_config", "want", "said"),
    [
        ({"quant_method": "bitsandbytes"}, {}, "quantization method bitsandbytes: the checkpoint's headers are needed"),
        ({}, {}, "quantization method (none)"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8"}, {}, "quantization method modelopt"),
        ({"quant_method": "compressed-tensors"}, {}, "quantization_config has no config_groups"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {}}}, {}, "a group without weights"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}},
            },
            {},
            "groups of several sizes need the checkpoint's headers",
        ),
        (None, {"quantization": "awq"}, "quantization awq without a quantization_config"),
    ],
)
def test_a_quantisation_that_only_the_headers_tell_is_refused(
    quantization_config: dict[str, t.Any] | None, want: dict[str, t.Any], said: str
) -> None:
    config = LLAMA if quantization_config is None else dict(LLAMA, quantization_config=quantization_config)
    if quantization_config == {}:
        config = dict(LLAMA, quantization_config={"bits": 4})
    with pytest.raises(reading.Unsupported, match=re.escape(said)):
        total(config, **want)


def test_experts_in_mxfp4_are_packed_and_padded() -> None:
    config = dict(MIXTRAL, quantization_config={"quant_method": "mxfp4"})
    model, want = reading.read_model(config), wanting.want_of({})
    experts = 32 * 8 * 3 * 4096 * 14336
    assert total(MIXTRAL) - total(config) == pytest.approx(experts * (2 - 0.53125))
    held = weighing.weights(model, geometry.text_tensors(model, want), want, RULES, "here")
    assert any(note.startswith("Experts in MXFP4 are padded") for note in held.notes)
    assert peaking.is_mxfp4(model)


def test_layers_without_experts_are_dense() -> None:
    names = {one["name"] for one in geometry.text_tensors(reading.read_model(DEEPSEEK), wanting.want_of({}))}
    assert "model.layers.2.mlp.up_proj.weight" in names
    assert "model.layers.2.mlp.gate.weight" not in names
    assert "model.layers.3.mlp.experts.gate_up_proj" in names
    only = dict(QWEN_NEXT, mlp_only_layers=[0], decoder_sparse_step=2)
    names = {one["name"] for one in geometry.text_tensors(reading.read_model(only), wanting.want_of({}))}
    dense = [index for index in range(48) if "model.layers.%d.mlp.up_proj.weight" % index in names]
    assert dense == list(range(0, 48, 2))


def test_biases_of_attention_are_counted() -> None:
    assert total(dict(LLAMA, attention_bias=True)) - total(LLAMA) == 32 * 2 * (4096 + 2 * 1024)


def test_an_encoder_needs_the_headers_unless_it_is_left_out() -> None:
    config = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "text_config": dict(LLAMA, model_type="qwen2")}
    model = reading.read_model(config)
    with pytest.raises(reading.Unsupported, match="has an encoder: the checkpoint's headers are needed"):
        geometry.tensors_of(model, wanting.want_of({}))
    assert geometry.tensors_of(model, wanting.want_of({"language_model_only": True}))


# -- config.json -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": "4096"}, "config.json: hidden_size is '4096', expected a positive integer"),
        ({"hidden_size": True}, "config.json: hidden_size is True, expected a positive integer"),
        ({"vocab_size": None}, "config.json doesn't say vocab_size"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM', expected a list of names"),
        ({"architectures": None}, "architecture (none) is not known to the planner"),
        (
            {"architectures": ["LlavaForConditionalGeneration"], "text_config": {"model_type": "nobody"}},
            "holds a text model of type nobody, which is not known",
        ),
    ],
)
def test_a_config_that_is_wrong_is_refused(changes: dict[str, t.Any], said: str) -> None:
    with pytest.raises(reading.Unsupported, match=re.escape(said)):
        reading.read_model(dict(LLAMA, **changes))


def test_a_config_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(reading.Unsupported, match=r"config.json holds list, expected a mapping"):
        reading.read_model(t.cast("t.Any", []))
    with pytest.raises(reading.Unsupported, match=r"first_k_dense_replace is -1, expected an integer"):
        reading.optional({"first_k_dense_replace": -1}, "first_k_dense_replace")


def test_heads_of_old_falcons() -> None:
    assert reading.kv_heads_of({"model_type": "falcon", "multi_query": True}, 71) == 1
    assert reading.kv_heads_of({"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 8}, 128) == 8
    assert reading.kv_heads_of({"model_type": "gpt2"}, 12) == 12


@pytest.mark.parametrize(
    ("rope", "model_type", "longest"),
    [
        ({"type": "linear", "factor": 4.0}, "llama", 32768),
        ({"rope_type": "dynamic", "factor": 2}, "llama", 16384),
        ({"rope_type": "yarn", "factor": 4.0}, "llama", 8192),
        ({"rope_type": "linear", "factor": 8.0}, "gemma3_text", 8192),
        (None, "llama", 8192),
    ],
)
def test_positions_are_stretched_by_plain_factors_only(
    rope: dict[str, t.Any] | None, model_type: str, longest: int
) -> None:
    text = {"max_position_embeddings": 8192, "model_type": model_type, "rope_scaling": rope}
    assert reading.longest_of(text) == longest
    assert reading.longest_of({"max_position_embeddings": True}) is None


def test_the_type_of_the_weights() -> None:
    assert reading.dtype_of({"dtype": "torch.float16"}, {}) == "float16"
    assert reading.dtype_of({"torch_dtype": "float32"}, {}) == "bfloat16"
    assert reading.dtype_of({}, {"dtype": 5}) == "bfloat16"


# -- weights -----------------------------------------------------------------------------------------------------------


def held(tensors: list[dict[str, t.Any]], config: dict[str, t.Any] = LLAMA, **want: t.Any) -> weighing.Weights:
    return weighing.weights(reading.read_model(config), tensors, wanting.want_of(want), RULES, "here")


def tensor(name: str, *shape: int, dtype: str = "BF16") -> dict[str, t.Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape), "nbytes": 2 * math.prod(shape)}


def added(*tensors: dict[str, t.Any], config: dict[str, t.Any] = LLAMA, **want: t.Any) -> tuple[float, ...]:
    """What tensors add on each stage to a model of one norm."""
    norm = tensor("model.norm.weight", 1)
    without = held([norm], config, **want).per_stage
    return tuple(a - b for a, b in zip(held([norm, *tensors], config, **want).per_stage, without))


def test_what_is_cut_copied_and_left_out_of_two_ranks() -> None:
    matrix = 4096 * 4096 * 2
    layer = "model.layers.0."
    assert added(tensor(layer + "self_attn.q_proj.weight", 4096, 4096), tensor_parallel_size=2) == (matrix / 2,)
    assert added(tensor(layer + "input_layernorm.weight", 4096), tensor_parallel_size=2) == (8192,)
    assert added(tensor(layer + "self_attn.k_proj.weight", 1024, 4096), tensor_parallel_size=16) == (
        1024 * 4096 * 2 / 8,
    )
    assert added(tensor(layer + "self_attn.qkv_proj.weight", 6144, 4096), tensor_parallel_size=2) == (6144 * 4096,)
    assert added(tensor("vision_tower.x.weight", 100, 100), tensor_parallel_size=2) == (20000,)
    assert added(tensor("vision_tower.x.weight", 100, 100), language_model_only=True) == (0,)
    assert added(tensor("model.rotary_emb.inv_freq", 64)) == (0,)
    assert added(tensor("model.embed_tokens.weight", 100, 4096), tensor_parallel_size=2) == (128 * 4096,)


def test_experts_are_cut_or_dealt_out() -> None:
    experts = tensor("model.layers.0.block_sparse_moe.experts.0.w1.weight", 14336, 4096)
    whole = 14336 * 4096 * 2
    assert added(experts, config=MIXTRAL, tensor_parallel_size=2, data_parallel_size=2) == (whole / 4,)
    assert added(experts, config=MIXTRAL, tensor_parallel_size=3, enable_expert_parallel=True) == (whole * 3 / 8,)


def test_each_stage_of_a_pipeline_has_its_own() -> None:
    assert added(tensor("model.layers.31.mlp.up_proj.weight", 10, 10), pipeline_parallel_size=2) == (0, 200)
    assert added(tensor("lm_head.weight", 64, 10), pipeline_parallel_size=2) == (0, 1280)
    assert added(tensor("model.embed_tokens.weight", 64, 10), pipeline_parallel_size=2) == (1280, 0)
    tied = dict(LLAMA, tie_word_embeddings=True)
    # Tied, the last stage has a copy of its own, and the output matrix of the file isn't loaded.
    both = (tensor("model.embed_tokens.weight", 64, 10), tensor("lm_head.weight", 64, 10))
    assert added(*both, config=tied, pipeline_parallel_size=2) == (1280, 1280)


def test_draft_layers_are_not_loaded_unless_they_draft() -> None:
    draft = tensor("model.layers.32.mlp.up_proj.weight", 1 << 15, 1 << 14)
    found = held([tensor("model.norm.weight", 1), draft])
    assert found.notes == ("1.00 GiB of draft layers are in the checkpoint and aren't loaded.",)
    assert added(draft) == (0,)
    with pytest.raises(reading.Unsupported, match="no tensors: the weights can't be counted"):
        held([tensor("model.rotary_emb.inv_freq", 64)])


def test_scales_stay_as_they_are_in_the_file_and_floats_get_the_models_width() -> None:
    assert weighing.held_bytes({"name": "a.weight", "dtype": "F32", "shape": [10], "nbytes": 40}, 2) == 20
    assert weighing.held_bytes({"name": "a.weight_scale", "dtype": "F32", "shape": [10], "nbytes": 40}, 2) == 40
    assert weighing.held_bytes({"name": "a.weight", "dtype": "F8_E4M3", "shape": [10], "nbytes": 10}, 2) == 10


def test_tables_that_are_in_no_file() -> None:
    assert weighing.rope_bytes(reading.read_model(LLAMA), 2) == 8192 * 128 * 2
    assert weighing.rope_bytes(reading.read_model(DEEPSEEK), 2) == 163840 * 64 * 2
    half = reading.read_model(dict(LLAMA, partial_rotary_factor=0.5))
    assert weighing.rope_bytes(half, 2) == 8192 * 64 * 2
    assert weighing.rope_bytes(half._replace(max_position=None), 2) == 0
    # One layer's copies of kv_b_proj: heads * (nope + value) * rank.
    assert weighing.absorbed_bytes(reading.read_model(DEEPSEEK), 8, 2) == 128 / 8 * 256 * 512 * 2
    assert weighing.mxfp4_factor(reading.read_model(LLAMA)._replace(text={}), RULES, 1) == 1.0


# -- what else is needed -----------------------------------------------------------------------------------------------


def seen(config: dict[str, t.Any] = LLAMA, calibration: t.Any = None, **want: t.Any) -> peaking.Peaks:
    wish = wanting.want_of(dict({"max_num_seqs": 256, "max_num_batched_tokens": 8192}, **want))
    gpu = wanting.gpu_of({"total_bytes": 80 << 30, "count": 8, "name": "H100"})
    return peaking.peaks(reading.read_model(config), wish, gpu, RULES, calibration)


def test_the_last_stage_samples_and_the_others_pass_on() -> None:
    first, last = seen(pipeline_parallel_size=2).activation
    forward = 2 * 8192 * (3 * 14336 + 4 * 4096)
    assert first == forward + 6 * 8192 * 4096
    assert last == max(forward, int(RULES["sampler_k"] * 256 * 128256 + 2 * 8192 * 4096 + 0.05 * (1 << 30)))


def test_adapters_have_buffers() -> None:
    widths = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 2 * (4096 + 14336) + (14336 + 4096)
    without = seen().activation[0]
    assert seen(max_loras=2, max_lora_rank=8).activation[0] - without == 2 * 8 * widths * 32 * 2


def test_eager_engines_have_no_graphs_and_cpus_have_none_of_it() -> None:
    assert (seen(enforce_eager=True).graphs_estimate, seen().graphs_estimate > 0) == (0, True)
    cpu = seen(accelerator="cpu")
    assert (cpu.non_torch, cpu.graphs_actual, cpu.outside) == (0, 0, 0)


def test_what_a_start_measured_counts_and_nonsense_does_not() -> None:
    found = seen(calibration={"activation_bytes": 7, "non_torch_bytes": -1, "graphs_bytes": True})
    assert (found.activation, found.calibrated) == ((7,), ("activation",))
    assert found.sources["activation"] == "start-up log"
    assert found.sources["non_torch"] == "table of start-up logs"


def test_the_width_of_the_feed_forward_is_found_by_any_name_or_assumed() -> None:
    model = reading.read_model(LLAMA)
    assert peaking._inner(model._replace(text={"n_inner": 7})) == 7
    assert peaking._inner(model._replace(text={"n_inner": True})) == 4 * 4096


def test_margins_follow_what_is_not_known() -> None:
    model, want = reading.read_model(LLAMA), wanting.want_of({"tensor_parallel_size": 2, "enforce_eager": True})
    gib = 1 << 30

    def margin(name: str, calibrated: tuple[str, ...] = (), rules: t.Any = RULES) -> float:
        gpu = wanting.gpu_of({"total_bytes": 80 * gib, "count": 2, "name": name})
        return peaking.margin_bytes(model, want, gpu, rules, calibrated) / gib

    assert margin("H100") == 0.25
    assert margin("nobody's GPU") == 1.25
    assert margin("nobody's GPU", ("non_torch",)) == 0.25
    assert margin("H100", ("activation", "non_torch", "cuda_graphs")) == pytest.approx(0.10)
    assert margin("H100", rules=dict(RULES, known=False)) == 1.25


# -- the cache's type and recurrent states -----------------------------------------------------------------------------


def test_a_cache_of_an_unknown_type_is_refused() -> None:
    model = reading.read_model(LLAMA)
    with pytest.raises(reading.Unsupported, match="kv_cache_dtype int3 is not known"):
        speccing.kv_dtype_of(model, wanting.want_of({"kv_cache_dtype": "int3"}), RULES)


def test_a_recurrent_state_is_cut_evenly_or_refused() -> None:
    recurrent = next(one[0] for one in reading.read_model(QWEN_NEXT).layers if one[0].kind == "mamba")
    # (kernel - 1) * (2 * keys + values) * 2 bytes, and heads * head * head states of 2 bytes.
    whole = 3 * (2 * 2048 + 4096) * 2 + 32 * 128 * 128 * 2
    assert speccing.state_bytes(recurrent, 1, 0, 2, "auto") == whole
    assert speccing.state_bytes(recurrent, 4, 0, 2, "auto") == whole // 4
    assert speccing.state_bytes(recurrent, 1, 0, 2, "float32") == whole + 32 * 128 * 128 * 2
    with pytest.raises(reading.Unsupported, match="tensor_parallel_size 3 does not divide the recurrent layers'"):
        speccing.state_bytes(recurrent, 3, 0, 2, "auto")
    strange = recurrent._replace(state=(("form", "rings"),))
    with pytest.raises(reading.Unsupported, match="recurrent state rings is not known"):
        speccing.state_bytes(strange, 1, 0, 2, "auto")
