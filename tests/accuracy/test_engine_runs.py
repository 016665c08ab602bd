# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM itself, started on this CPU with random weights, prints the tokens and the concurrency that were planned."""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing as t
from pathlib import Path

import oracle
import pytest
import tiny_configs
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning

VERSION = "0.32.0"
SIZE = re.compile(r"CPU KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
LENGTH = 2048
SECONDS = 300

MODELS: t.Dict[str, t.Tuple[str, str, t.Dict[str, t.Any]]] = {
    "a Llama": ("LlamaForCausalLM", "llama", {}),
    "a Gemma 3": (
        "Gemma3ForCausalLM",
        "gemma3_text",
        {"sliding_window": 512, "tie_word_embeddings": True, "num_hidden_layers": 14},
    ),
    "latent attention": (
        "DeepseekV2ForCausalLM",
        "deepseek_v2",
        dict(tiny_configs.LATENT, topk_method="greedy", scoring_func="softmax"),
    ),
}

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_engine_prints_what_was_planned(name: str, tmp_path: Path) -> None:
    """The one number that an engine says about its cache is the planner's."""
    config = tiny_configs.config_of(*MODELS[name])
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        python = oracle.interpreter(VERSION)
    except oracle.NoEngine as exc:
        pytest.skip(str(exc))
    amx = " amx_tile " in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    done = subprocess.run(
        [str(python), str(oracle.HERE / "engine_child.py"), str(tmp_path), str(LENGTH)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/root"),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    printed = SIZE.search(done.stdout + done.stderr)
    assert printed, (done.stdout + done.stderr)[-2000:]
    want = {
        "accelerator": "cpu",
        "dtype": "float32",
        "max_model_len": LENGTH,
        "kv_cache_memory_bytes": 1 << 30,
        "cpu_amx": amx,
    }
    plan = planning.plan(config, {"total_bytes": 16 << 30}, {"version": VERSION}, want, weights_bytes=0)
    assert plan["confidence"] == "exact", plan["errors"] + plan["warnings"]
    assert int(printed.group(1).replace(",", "")) == plan["kv"]["tokens_reported"]
    assert int(printed.group(2).replace(",", "")) == LENGTH
    assert float(printed.group(3)) == plan["kv"]["max_concurrency"]
