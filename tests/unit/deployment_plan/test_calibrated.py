# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one module measured is what the next plan uses: both modules run as on a host, on a kept log."""

from __future__ import annotations

import json
import os

import plan_models as make
import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _calibration as calibrating
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_peaks as peaking
from nvml import payload


@pytest.fixture
def host(tmp_path):
    """A host with a model in its store, whose modules are run on it."""
    model = make.write_model(tmp_path / "models" / "eight" / "versions" / "0f")
    os.symlink("versions/0f", model.parents[1] / "current")
    kept = tmp_path / "calibration"

    def start(**arguments):
        log = tmp_path / "start.log"
        log.write_text(make.start_of(model, **arguments), encoding="utf-8")
        program = payload.write(
            tmp_path / "p1.py",
            "vllm_startup_info",
            instance="eight-a",
            log=str(log),
            gpus=[make.H100],
            directory=str(kept),
        )
        return payload.run(program, dict(os.environ))

    def plan(models=None, gpus=None, **arguments):
        arguments = dict(
            {
                "models": models or [make.entry()],
                "model_root": str(tmp_path / "models"),
                "gpus": gpus or [make.H100],
                "engine_version": make.VERSION,
                "calibration_dir": str(kept),
            },
            **arguments,
        )
        return payload.run(payload.write(tmp_path / "p2.py", "memory_plan", **arguments), dict(os.environ))

    host = type("Host", (), {})()
    host.start, host.plan, host.kept, host.tmp_path = start, plan, kept, tmp_path
    return host


def test_a_start_is_what_the_next_plan_uses(host):
    before = host.plan()
    (one,) = before["instances"]
    assert one["state"] == "planned" and not one["calibrated"]
    assert one["plan"]["sources"]["activation"].startswith("formula")
    # The engine is started with what the plan gave it, and with flags that change no memory.
    told = {key.replace("-", "_"): value for key, value in one["arguments"].items()}
    started = host.start(max_model_len=8192, enable_auto_tool_choice=True, **told)
    assert started["changed"] and started["calibration"]["terms"]["weights_bytes"] == round(15.5 * make.GIB)
    (two,) = host.plan()["instances"]
    assert two["calibrated"]
    per_gpu, terms = two["plan"]["per_gpu"], started["calibration"]["terms"]
    assert per_gpu["weights"] == terms["weights_bytes"]
    assert per_gpu["activation"] == terms["activation_bytes"]
    assert per_gpu["non_torch"] == terms["non_torch_bytes"]
    assert {two["plan"]["sources"][name] for name in ("weights", "activation", "non_torch")} == {"start-up log"}
    assert two["plan"]["sources"]["cuda_graphs"] == "regression over start-up logs"  # the start didn't estimate any
    assert two["arguments"]["kv-cache-memory-bytes"] != one["arguments"]["kv-cache-memory-bytes"]


def test_names_are_one_set():
    assert set(peaking.TERMS) | {peaking.WEIGHTS_TERM} == set(calibrating.TERMS)


def test_another_model_gpu_engine_or_flag_is_another_start(host):
    host.start()
    assert host.plan()["instances"][0]["calibrated"]
    h200 = dict(make.H100, name="NVIDIA H200", memory_mib={"total": 143771, "free": 143000, "reserved": 600})
    assert not host.plan(gpus=[h200])["instances"][0]["calibrated"]
    assert not host.plan(engine_version="0.31.0")["instances"][0]["calibrated"]
    assert not host.plan([make.entry(engine_config={"max-num-seqs": 64})])["instances"][0]["calibrated"]
    assert not host.plan([make.entry(engine_config={"kv_cache_dtype": "fp8"})])["instances"][0]["calibrated"]
    # What equals the engine's default, or changes the cache alone, is the same start.
    same = make.entry(context_length=4096, engine_config={"enforce-eager": False, "tensor_parallel_size": 1})
    assert host.plan([same])["instances"][0]["calibrated"]
    config = host.tmp_path / "models/eight/current/config.json"
    config.write_text(json.dumps(dict(make.EIGHT, intermediate_size=14080)), encoding="utf-8")
    assert not host.plan()["instances"][0]["calibrated"]


def test_a_plan_that_is_placed_stays_whatever_is_measured(host):
    (one,) = host.plan()["instances"]
    placed = host.tmp_path / "etc" / "eight-a" / "plan.json"
    placed.parent.mkdir(parents=True)
    placed.write_text(json.dumps(one["document"]), encoding="utf-8")
    told = {key.replace("-", "_"): value for key, value in one["arguments"].items()}
    host.start(weights=15.2, **told)
    (two,) = host.plan(plan_dir=str(host.tmp_path / "etc"))["instances"]
    assert two["kept"] and two["calibrated"] and two["document"] == one["document"]
    assert two["plan"]["kv"]["num_blocks"] == one["plan"]["kv"]["num_blocks"]
    # Something else is asked for: planned anew, with what was measured.
    longer = [make.entry(context_length=16384)]
    (three,) = host.plan(longer, plan_dir=str(host.tmp_path / "etc"))["instances"]
    assert not three["kept"] and three["calibrated"]
    assert three["arguments"]["kv-cache-memory-bytes"] > one["arguments"]["kv-cache-memory-bytes"]


def test_files_that_are_no_calibration_are_passed_over(host):
    host.start()
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", '{"schema": 1, "terms": 3}'), ("d.txt", "x")):
        (host.kept / name).write_text(text, encoding="utf-8")
    (host.kept / "e.json").write_bytes(b"\xff\xfe")
    assert len(calibrating.read_all(str(host.kept))) == 1
    assert calibrating.read_all(str(host.kept / "none")) == []
    assert host.plan()["instances"][0]["calibrated"]
