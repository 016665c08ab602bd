# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as ansible runs them, the stub library found by the loader's path; and what they document."""

from __future__ import annotations

import os
import time

import pytest
import yaml
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_info_record, _gpu_state
from ansible_collections.gpufleet.llm.plugins.modules import gpu_info, gpu_state
from nvml import build, payload


@pytest.fixture
def host(tmp_path):
    """Run a module on a host with a scenario's library; return its result and the seconds that it took."""

    def run(scenario, module, **arguments):
        build.install(tmp_path, scenario)
        program = payload.write(tmp_path / "payload.py", module, **arguments)
        began = time.monotonic()
        result = payload.run(program, {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})
        return result, time.monotonic() - began

    return run


def test_eight_gpus_by_a_library_that_the_loader_finds(host):
    result, _seconds = host("h100x8", "gpu_info")
    assert result["driver"]["state"] == "ok"
    assert [gpu["pci_device_id"] for gpu in result["gpus"]] == ["2330"] * 8
    assert result["changed"] is False
    assert "warnings" not in result


def test_a_call_that_never_answers_does_not_hang_the_play(host):
    result, seconds = host("hung", "gpu_info", timeout_seconds=1)
    assert seconds < 20
    assert result["driver"]["state"] == "no_answer"
    assert result["driver"]["message"] == "no answer in 1 s while GPU 1 was read"
    assert "kernel log" in result["driver"]["remedy"]
    assert [gpu["state"] for gpu in result["gpus"]] == ["ok", "no_answer", "no_answer"]
    assert result["gpus"][0]["memory_mib"]["total"] == 81559
    assert result["gpus"][2]["error"].startswith("not read: ")
    assert len(result["warnings"]) == 1


def test_a_library_that_crashes(host):
    result, _seconds = host("library_crashes", "gpu_state")
    assert result["failed"]
    assert [f["found"] for f in result["findings"] if not f["ok"]] == ["unknown_error"]
    assert "GPU 1: the reading process ended by signal SIGABRT" in result["msg"]


def test_no_library(host):
    result, _seconds = host("no_library", "gpu_info", library_path="/nowhere")
    assert result["driver"]["state"] == "library_not_found"
    assert result["driver"]["source"] == "none"
    assert result["gpus"] == []
    assert "warnings" not in result  # a host that is still to get its driver


def test_refusals_come_in_one_message(host):
    result, _seconds = host("row_remap_failure", "gpu_state", expect={"count": 4, "ecc": "enabled"})
    assert result["failed"]
    assert result["msg"].startswith("The GPUs refused, 5 reasons, nothing was changed:\n1. gpu.recovery_action: ")
    assert "no spare rows left" in result["msg"]
    assert len(result["info"]["gpus"]) == 4


def test_findings_without_failing_and_warnings(host):
    result, _seconds = host("throttling", "gpu_state", fail=False, expect={"pcie_width_full": True})
    assert "failed" not in result
    assert [f["check"] for f in result["findings"] if not f["ok"]] == [
        "gpu.pcie_width", "gpu.temperature_celsius", "gpu.slowdown", "gpu.slowdown",
    ]  # fmt: skip
    assert len(result["warnings"]) == 2


def test_a_record_can_be_judged_again(host):
    result, _seconds = host("no_library", "gpu_state", info={"driver": {"state": "ok"}})
    assert result["failed"]
    assert "isn't what gpu_info returns" in result["msg"]


def test_the_suboptions_are_documented_as_they_are():
    documented = yaml.safe_load(gpu_state.DOCUMENTATION)["options"]["expect"]["suboptions"]
    actual = gpu_state.expectations()
    assert set(documented) == set(actual)
    for name, option in actual.items():
        for key in ("type", "elements", "choices", "default"):
            assert documented[name].get(key) == option.get(key), name


def test_health_is_what_is_documented_with_a_default():
    documented = yaml.safe_load(gpu_state.DOCUMENTATION)["options"]["expect"]["suboptions"]
    assert {name for name, option in documented.items() if option.get("default") is True} == set(_gpu_state.HEALTH)


def test_every_key_of_a_gpu_is_documented():
    documented = yaml.safe_load(gpu_info.RETURN)["gpus"]["contains"]
    assert set(documented) == set(_gpu_info_record.EMPTY)
    for key, value in _gpu_info_record.EMPTY.items():
        for part in value if isinstance(value, dict) else ():
            text = " ".join(documented[key]["description"])
            text = text if isinstance(documented[key]["description"], list) else documented[key]["description"]
            assert part in text.replace("State", "state") or part in (
                "links",
                "active",
                "version",
                "generation",
                "width",
            )


def test_a_build_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"nvml\.h"):
        build.build(tmp_path, include=str(tmp_path))
