# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What should be served, from the flags and the blocks of a start."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _context_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import READ

GIB = 1 << 30
#: SmolLM2-135M's own sizes; the lab's engine printed 182 blocks of 128 tokens for 1 GiB in 32 bits.
SMALL: t.Dict[str, t.Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
}
FLAGS = {"dtype": "float32", "max_model_len": 2048, "enforce_eager": True, "uds": "/run/x", "api_key": "***"}


def found_of(
    concurrency: int, measured: t.Dict[str, t.Any], kv_bytes: t.Optional[int] = GIB, **flags: t.Any
) -> t.Dict[str, t.Any]:
    want = planning.want_of(dict(FLAGS, **flags), concurrency, "cpu")
    gpu = planning.gpu_of([], 24 * GIB)
    engine = {"version": READ[-1]}
    return planning.contexts(
        lambda wanted: _memory_plan.plan(SMALL, gpu, engine, wanted, mode="pin"), want, measured, kv_bytes
    )


def test_flags_that_do_not_change_memory_are_left_out() -> None:
    assert planning.want_of(FLAGS, 3, "cpu") == {
        "dtype": "float32",
        "max_model_len": 2048,
        "enforce_eager": True,
        "concurrent_users": 3,
        "accelerator": "cpu",
    }


@pytest.mark.parametrize(
    ("concurrency", "tokens"),
    # One of the 182 blocks is never given to a request: 181 are shared.
    [(1, 2048), (4, 2048), (12, 1920), (13, 1664), (16, 1408), (181, 128), (182, 0)],
)
def test_the_blocks_are_shared_but_for_the_one_that_is_held_back(concurrency: int, tokens: int) -> None:
    found = found_of(concurrency, {"num_blocks": 182})
    assert planning.tokens_of(found["planned"]) == tokens
    assert planning.tokens_of(found["engine"]) == tokens


def test_what_was_printed_is_compared_with_the_plan() -> None:
    found = found_of(4, {"num_blocks": 182})
    same = planning.decide("smollm2-a", found, {"kv_tokens": 23296})
    assert [one["ok"] for one in same] == [True] and same[0]["expected"] == "23296 tokens"
    other = planning.decide("smollm2-a", found, {"kv_tokens": 20000})
    assert [(one["ok"], one["severity"]) for one in other] == [(False, "warning")]


def test_the_engine_may_have_fewer_blocks_than_planned() -> None:
    found = found_of(2, {"num_blocks": 16}, max_model_len=1024)
    assert planning.tokens_of(found["planned"]) == 1024
    assert planning.tokens_of(found["engine"]) == 896


def test_a_number_of_blocks_that_was_given_counts_for_both() -> None:
    found = found_of(2, {"num_blocks": 16}, max_model_len=1024, num_gpu_blocks_override=16)
    assert planning.tokens_of(found["planned"]) == planning.tokens_of(found["engine"]) == 896


def test_a_model_that_cannot_be_planned_leaves_the_measurement_alone() -> None:
    unknown = _memory_plan.plan({"architectures": ["NobodyForCausalLM"]}, {"total_bytes": GIB}, {"version": READ[-1]})
    found = {"planned": unknown, "engine": None}
    assert planning.tokens_of(unknown) is None
    said = planning.decide("x-a", found, {"kv_tokens": 5})
    assert [(one["ok"], one["severity"]) for one in said] == [(False, "warning")]
    assert "NobodyForCausalLM" in said[0]["found"]


def test_gpus_are_those_of_gpu_info_with_the_total_that_the_engine_prints() -> None:
    gpus = [{"name": "NVIDIA L4", "memory_mib": {"total": 23034}, "compute_capability": "8.9"}] * 2
    assert planning.gpu_of(gpus, None) == {
        "name": "NVIDIA L4",
        "total_bytes": 23034 << 20,
        "count": 2,
        "compute_capability": "8.9",
    }
    assert planning.gpu_of(gpus, 7)["total_bytes"] == 7
