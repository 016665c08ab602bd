# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on a host whose GPUs a stand-in for NVML answers for: it reads them itself, and what others hold."""

from __future__ import annotations

import os

import plan_models as make
import pytest
from nvml import build, payload


@pytest.fixture
def planned(tmp_path):
    """Run the module on a host with a scenario's GPUs."""
    model = make.write_model(tmp_path / "models" / "eight" / "versions" / "0f")
    os.symlink("versions/0f", model.parents[1] / "current")

    def run(scenario, *models, **arguments):
        build.install(tmp_path, scenario)
        program = payload.write(
            tmp_path / "payload.py",
            "memory_plan",
            models=list(models) or [make.entry()],
            model_root=str(tmp_path / "models"),
            engine_version=make.VERSION,
            **arguments,
        )
        return payload.run(program, {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})

    return run


def test_what_the_driver_keeps_isn_t_planned_with(planned):
    wide = {"engine_config": {"tensor-parallel-size": 4}}
    result = planned("h100x8", make.entry(), make.entry(name="eight", slot="b", gpus=[4, 5, 6, 7], **wide))
    one, four = result["instances"]
    total = one["plan"]["per_gpu"]["total"]
    assert 79 * make.GIB < total < 79.6 * make.GIB  # CUDA's total of this GPU is 79.19 to 79.25 GiB, NVML's 79.65
    assert (one["gpus"], four["gpus"]) == ([0], [4, 5, 6, 7])
    assert four["plan"]["gpu"]["count"] == 4 and four["plan"]["fits"]
    ledger = {gpu["index"]: len(gpu["held"]) for gpu in result["placement"]["gpus"]}
    assert ledger == {0: 1, 1: 0, 2: 0, 3: 0, 4: 1, 5: 1, 6: 1, 7: 1}
    assert result["refusal"] == "" and any("eight-a  1 x" in line for line in result["table"])


def test_a_gpu_that_somebody_else_uses_is_refused_with_the_name(planned):
    result = planned("busy", make.entry(gpus=[1]), must_fit=True)
    assert result["failed"]
    assert "Free memory on device (49.80 GiB of 79." in result["msg"]
    assert "the GPU is used by " in result["msg"] and "python3 (pid 4243, 30000 MiB)" in result["msg"], result["msg"]
    assert "Remedy: Stop what else uses the GPU, or set gpu-memory-utilization to 0.62" in result["msg"], result["msg"]


@pytest.mark.parametrize("scenario", ["no_driver", "no_gpus", "no_library"])
def test_a_host_without_gpus_says_so(planned, scenario):
    result = planned(scenario)
    (one,) = result["instances"]
    assert one["state"] == "unread" and not result.get("failed")
    assert len(result["warnings"]) == 1
