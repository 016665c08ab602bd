# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modes, advice, placement and the command, on a model of 8 B parameters."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_advice as advising
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_cli as cli
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_hosts as placing
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import READ

GIB = 1 << 30
ENGINE = {"version": READ[-1]}
EIGHT = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
CARD = {"total_bytes": int(23.57 * GIB), "name": "RTX 4090", "compute_capability": "8.9"}


def made(gpu: t.Mapping[str, t.Any] = CARD, mode: str = "pin", **want: t.Any) -> t.Dict[str, t.Any]:
    return planning.plan(EIGHT, gpu, ENGINE, want, mode=mode)


def test_pin_is_a_multiple_of_a_block_and_exact() -> None:
    plan = made(max_model_len=8192)
    assert plan["fits"] and plan["confidence"] == "exact"
    size = plan["vllm_args"]["kv-cache-memory-bytes"]
    assert size % plan["kv"]["bytes_per_block"] == 0
    assert size // plan["kv"]["bytes_per_block"] == plan["kv"]["num_blocks"]
    assert plan["kv"]["interval"] == [plan["kv"]["tokens_reported"]] * 2


def test_estimate_has_an_interval() -> None:
    plan = made(mode="estimate", max_model_len=8192)
    low, high = plan["kv"]["interval"]
    assert plan["confidence"] == "estimated" and low < plan["kv"]["tokens_reported"] < high


def test_what_is_not_known_is_unsupported() -> None:
    plan = planning.plan(dict(EIGHT, architectures=["NobodyForCausalLM"]), CARD, ENGINE)
    assert plan["confidence"] == "unsupported" and not plan["fits"]
    assert "NobodyForCausalLM is not known to the planner" in plan["errors"][0]


def test_advice_fits_and_frees() -> None:
    want = {"max_model_len": 131072}
    plan = planning.plan(EIGHT, CARD, ENGINE, want)
    assert not plan["fits"] and "largest that fits is" in plan["errors"][0]
    best = advising.smallest(advising.suggestions(plan, EIGHT, CARD, ENGINE, want))
    assert best is not None and best["frees_bytes"] > 0
    assert planning.plan(EIGHT, CARD, ENGINE, dict(want, **best["flags"]))["fits"]


def test_two_instances_share_a_gpu_or_say_why_not() -> None:
    card = {"total_bytes": 80 * GIB, "name": "H100"}
    half = made(card, max_model_len=8192, gpu_memory_utilization=0.45)
    whole = made(card, max_model_len=8192)
    both = [{"name": name, "gpus": [0], "plan": half} for name in ("one-a", "two-a")]
    assert placing.place(both, [card])["fits"]
    crowded = placing.place([both[0], {"name": "two-a", "gpus": [0], "plan": whole}], [card])
    assert not crowded["fits"] and "set gpu-memory-utilization to" in crowded["errors"][0]
    assert "placed on GPUs [3]" in placing.place([dict(both[0], gpus=[3])], [card])["errors"][0]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(EIGHT), encoding="utf-8")
    assert cli.main([str(tmp_path), "--gpu", "RTX 4090=23.57@8.9", "--context", "8192", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["RTX 4090"]["fits"]
    assert cli.main([str(tmp_path), "--gpu", "small=8", "--context", "8192"]) == 3
    assert "model needs" in capsys.readouterr().out
