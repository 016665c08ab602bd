# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What published config.json files say in several ways, or wrongly, and what the releases make of it."""

from __future__ import annotations

import copy
import random
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import READ

GIB = 1 << 30
H100 = {"total_bytes": int(79.19 * GIB), "name": "H100", "count": 8}
CARD = {"total_bytes": int(23.57 * GIB), "name": "RTX 4090"}
SMALL: t.Dict[str, t.Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
#: YaRN's factor is applied up to the first of these; the second takes max_position_embeddings as it is.
BEFORE, AFTER = [release for release in READ if release.split(".")[1] in ("29", "30")]


def made(
    config: t.Mapping[str, t.Any], version: str = READ[-1], gpu: t.Mapping[str, t.Any] = H100, **want: t.Any
) -> t.Dict[str, t.Any]:
    return planning.plan(config, gpu, {"version": version}, want, mode="estimate")


@pytest.mark.parametrize("rope", [YARN, dict(YARN, rope_type="yarn"), {"full_attention": dict(YARN)}])
def test_yarn_stretches_the_length_only_in_older_releases(rope: t.Dict[str, t.Any]) -> None:
    config = dict(SMALL, rope_scaling=rope)
    assert made(config, BEFORE, max_model_len=131072)["fits"]
    refused = made(config, AFTER, max_model_len=131072)
    assert "exceeds the model's max_position_embeddings 32768" in refused["errors"][0]


@pytest.mark.parametrize(("kind", "length"), [("linear", 65536), ("dynamic", 65536), ("llama3", 32768), ("su", 32768)])
def test_other_ways_of_stretching(kind: str, length: int) -> None:
    plan = made(dict(SMALL, rope_parameters={"rope_type": kind, "factor": 2.0}))
    assert plan["vllm_args"]["max-model-len"] == length


def test_longrope_starts_with_its_short_length_and_may_be_given_the_long_one() -> None:
    config = dict(SMALL, rope_scaling={"type": "longrope"}, original_max_position_embeddings=4096)
    assert made(config)["vllm_args"]["max-model-len"] == 4096
    assert made(config, READ[1])["vllm_args"]["max-model-len"] == 32768
    assert made(config, max_model_len=32768)["fits"]


EIGHT_BITS = {"num_bits": 8, "type": "float", "dynamic": False}


@pytest.mark.parametrize(
    ("stored", "dtypes"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": EIGHT_BITS}, ("auto", "fp8", "fp8")),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, ("auto", "fp8", "fp8")),
        (
            {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "NVFP4"},
            ("auto", "auto", "none"),
        ),
        ({"quant_method": "fp8", "kv_cache_scheme": EIGHT_BITS}, ("auto", "auto", "auto")),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8}}},
                "kv_cache_scheme": EIGHT_BITS,
            },
            ("auto", "fp8", "fp8"),
        ),
    ],
)
def test_the_checkpoints_own_type_of_cache_counts_since_a_release(
    stored: t.Dict[str, t.Any], dtypes: t.Tuple[str, ...]
) -> None:
    releases = [next(release for release in READ if release.split(".")[1] == minor) for minor in ("13", "15", "22")]
    found = []
    for version in releases:
        plan = made(dict(SMALL, quantization_config=stored), version)
        found.append(plan["kv"]["dtype"] if plan["confidence"] != "unsupported" else "none")
    assert tuple(found) == dtypes


def test_an_unknown_quantisation_is_not_taken_for_16_bits() -> None:
    plan = made(dict(SMALL, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}))
    assert plan["confidence"] == "unsupported"
    assert "bitsandbytes" in plan["errors"][0]


@pytest.mark.parametrize(
    ("weights", "size"),
    [
        ({"num_bits": 4, "group_size": 128, "type": "int", "symmetric": True}, 0.5 + 2 / 128),
        ({"num_bits": 4, "group_size": 128, "type": "int", "symmetric": False}, 0.5 + 2 / 128 + 0.5 / 128),
        ({"num_bits": 4, "group_size": 16, "type": "float"}, 0.5 + 1 / 16),
        ({"num_bits": 8, "type": "float"}, 1.0),
    ],
)
def test_compressed_tensors_by_their_bits_and_scales(weights: t.Dict[str, t.Any], size: float) -> None:
    stored = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    plain = made(dict(SMALL, tie_word_embeddings=True))["per_gpu"]["weights"]
    packed = made(dict(SMALL, tie_word_embeddings=True, quantization_config=stored))["per_gpu"]["weights"]
    linear = 28 * 3584 * (2 * 3584 + 2 * 512 + 3 * 18944)
    assert plain - packed == pytest.approx(linear * (2 - size), rel=1e-6)


def test_the_old_engine_had_one_pair_of_batch_sizes() -> None:
    arguments = planning.plan(
        SMALL, H100, {"version": READ[0], "generation": "V0"}, {"max_model_len": 4096}, mode="estimate"
    )["vllm_args"]
    assert (arguments["max-num-seqs"], arguments["max-num-batched-tokens"]) == (256, 4096)


PICTURES = {
    "architectures": ["LlavaForConditionalGeneration"],
    "text_config": dict(SMALL, architectures=None),
    "torch_dtype": "float16",
}


def test_what_the_text_model_alone_refuses_is_refused_without_the_encoders_headers() -> None:
    short = made(PICTURES, gpu={"total_bytes": 12 * GIB, "name": "RTX 3060"})
    assert not short["fits"] and short["confidence"] == "estimated"
    assert short["errors"][0].startswith("model needs 14.")
    assert "text model alone" in short["warnings"][-1]
    room = made(PICTURES, gpu=CARD)
    assert room["confidence"] == "unsupported" and not room["fits"]


ODD: t.List[t.Any] = [None, "x", "8", [], [1, 2], {}, {"a": 1}, 0, -1, 1, 1.5, True, False, 10**18, float("nan"), 1e400]
NAMES = sorted(SMALL) + [
    *("head_dim", "layer_types", "sliding_window", "use_sliding_window", "max_window_layers", "rope_scaling"),
    *("rope_parameters", "quantization_config", "text_config", "torch_dtype", "dtype", "tie_word_embeddings"),
    *("num_experts", "num_experts_per_tok", "moe_intermediate_size", "partial_rotary_factor", "model_max_length"),
]


@pytest.mark.parametrize("seed", range(4))
def test_a_spoilt_config_is_planned_or_refused_and_never_more(seed: int) -> None:
    chance = random.Random(seed)
    for _round in range(400):
        config = copy.deepcopy(chance.choice([SMALL, PICTURES, dict(SMALL, num_experts=8)]))
        for _spoilt in range(chance.choice([1, 1, 2, 3])):
            config[chance.choice(NAMES)] = copy.deepcopy(chance.choice(ODD))
        mode = chance.choice(["pin", "estimate"])
        want = {"max_model_len": chance.choice([0, 1, 8192]), "tensor_parallel_size": chance.choice([1, 4])}
        plan = planning.plan(config, H100, {"version": chance.choice(READ)}, want, mode=mode)
        assert plan["confidence"] in ("exact", "estimated", "unsupported")
        assert plan["errors"] or plan["fits"]
