# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the planner refuses, in the words in which it does."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_model as modelling
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_view as viewing
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import READ
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError

GIB = 1 << 30
SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
GPU = {"total_bytes": 24 * GIB, "count": 8, "name": "L4", "compute_capability": "8.9"}


def made(gpu: t.Mapping[str, t.Any] = GPU, mode: str = "pin", **want: t.Any) -> dict[str, t.Any]:
    return planning.plan(SMALL, gpu, {"version": READ[-1]}, want, mode=mode)


@pytest.mark.parametrize(
    ("want", "said"),
    [
        (
            {"tensor_parallel_size": 8},
            "tensor_parallel_size 8 does not divide the 12 attention heads: Total number of attention heads (12) "
            "must be divisible by tensor parallel size (8).",
        ),
        ({"tensor_parallel_size": 3}, "tensor_parallel_size 3 does not divide the padded vocabulary of 32000 rows"),
        ({"tensor_parallel_size": 6}, "tensor_parallel_size 6 and 4 key/value heads don't divide each other"),
        ({"pipeline_parallel_size": 5}, "pipeline_parallel_size 5 is more than the model's 4 layers"),
        (
            {"tensor_parallel_size": 4, "data_parallel_size": 4},
            "tensor_parallel_size 4 x pipeline_parallel_size 1 x data_parallel_size 4 needs 16 GPUs, there are 8",
        ),
        ({"max_model_len": 8192}, "max_model_len 8192 exceeds the model's max_position_embeddings 4096"),
    ],
)
def test_what_does_not_go_together_is_said(want: dict[str, t.Any], said: str) -> None:
    plan = made(**want)
    assert not plan["fits"]
    assert said in plan["errors"]


@pytest.mark.parametrize(
    ("processes", "said"), [(["python3 (4242)"], "the GPU is used by python3 (4242)"), ([], "another process uses")]
)
def test_memory_that_others_hold_is_said_with_their_names(processes: list[str], said: str) -> None:
    plan = made(dict(GPU, free_bytes=10 * GIB, processes=processes))
    assert plan["errors"][0].startswith(
        "Free memory on device (10.00 GiB of 24.00 GiB) on startup is less than desired"
    )
    assert said in plan["errors"][0]


def test_more_users_than_blocks_are_refused_and_those_that_fit_counted() -> None:
    plan = made(max_model_len=4096, concurrent_users=10000, max_num_seqs=64)
    (refusal,) = [text for text in plan["errors"] if text.startswith("10000 concurrent requests of 4096 tokens need ")]
    assert refusal.endswith("%d fit at once" % (plan["kv"]["num_blocks"] // (4096 // 16)))
    assert "max_num_seqs 64 is less than the 10000 users." in plan["warnings"]


def test_a_cache_given_by_hand_that_holds_no_request_is_refused() -> None:
    plan = made(max_model_len=4096, kv_cache_memory_bytes=1 << 20)
    assert "To serve at least one request with the model's max seq len (4096)" in plan["errors"][0]
    assert made(kv_cache_memory_bytes=1)["errors"][0].startswith("No available memory for the cache blocks")


def test_warm_up_outside_of_the_budget_needs_room() -> None:
    plan = made(mode="estimate", gpu_memory_utilization=1.0)
    assert any("CUDA out of memory in warm-up" in text for text in plan["errors"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": "guess"}, "mode is 'guess', expected pin or estimate"),
        ({"gpu": {"total_bytes": "much"}}, "total_bytes"),
        ({"no_such_flag": 1}, "no_such_flag"),
    ],
)
def test_a_question_that_makes_no_sense_has_no_answer(arguments: dict[str, t.Any], said: str) -> None:
    plan = made(**arguments)
    assert (plan["fits"], plan["confidence"]) == (False, "unsupported")
    assert said in plan["errors"][0]


def test_arguments_say_what_differs_from_the_engines_own() -> None:
    arguments = made(kv_cache_dtype="fp8", enforce_eager=True, pipeline_parallel_size=2)["vllm_args"]
    assert (arguments["kv-cache-dtype"], arguments["enforce-eager"]) == ("fp8", True)
    assert arguments["pipeline-parallel-size"] == 2


def test_what_a_person_reads() -> None:
    good, bad = made(max_model_len=4096), made(max_model_len=8192)
    unknown = planning.plan({}, GPU, {"version": READ[-1]})
    lines = viewing.table([("a", good), ("b", bad), ("c", dict(unknown, gpu={}))])
    assert [line.split()[0] for line in lines[:4]] == ["host", "a", "b", "c"]
    assert "b: refused: max_model_len 8192 exceeds the model's max_position_embeddings 4096" in lines
    parts = viewing.parts(good)
    assert parts[0].split() == ["total", "24.00", "GiB"]
    assert viewing.parts(unknown) == unknown["errors"]


def test_a_directory_that_is_no_model_is_said(tmp_path: t.Any) -> None:
    with pytest.raises(ModelError) as caught:
        modelling.read(str(tmp_path))
    plan = modelling.unreadable(str(tmp_path), caught.value, "pin", {"version": READ[-1]})
    assert plan["errors"][0].startswith("%s can't be read: " % tmp_path)
    assert plan["suggestions"] == []
    (tmp_path / "config.json").write_text("{}")
    assert modelling.read(str(tmp_path)).warnings == ["There are no safetensors files in %s." % tmp_path]
