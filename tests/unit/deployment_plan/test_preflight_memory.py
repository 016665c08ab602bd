# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of host_preflight: what a host was read to be, and what it refuses before anything is sent."""

from __future__ import annotations

import plan_models as make
import pytest
from ansible_collections.gpufleet.llm.plugins.action import host_preflight
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import finding

RELEASE = {"id": "r", "engines": {"vllm": {name: {"version": make.VERSION} for name in ("cpu", "cuda")}}}
OK = {"state": "ok", "message": ""}
NO_DRIVER = {"driver": {"state": "driver_not_loaded", "message": "no module"}, "gpus": []}


class Task:
    """As much of a task as an action looks at."""

    async_val = 0
    check_mode = False
    diff = False

    def __init__(self, args):
        self.args = args


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the action for a host that the module has read so; return its result and what was sent to the host."""
    source = "file:%s" % make.write_model(tmp_path / "eight")

    def runs(*models, record=None, answer=None, **args):
        models = [make.entry(**dict({"source": source}, **model)) for model in models or ({},)]
        args = dict({"release": RELEASE, "accelerator": "cuda", "models": models}, **args)
        action = host_preflight.ActionModule(Task(args), None, None, None, None, None)
        sent = {}

        def execute(module_name, module_args, task_vars):
            sent.update(module_args)
            read = {"gpu": record if record is not None else {"driver": OK, "gpus": [make.H100]}}
            kept = {"placed": {}, "calibrations": []}
            return answer or {"changed": False, "findings": [finding("a", True, expected=1, found=1)], "record": read,
                              "kept": kept}  # fmt: skip

        monkeypatch.setattr(action, "_execute_module", execute)
        monkeypatch.setattr(host_preflight.ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
        said = []
        monkeypatch.setattr(host_preflight.display, "warning", said.append)
        result = action.run(task_vars={})
        result["said"] = said
        return result, sent

    return runs


def test_what_fits_is_planned_and_handed_on(run):
    result, sent = run(hf_token="hf_secret", cache_dir="/x", memory_plan="pin")
    assert not result.get("failed") and "kept" not in result
    (one,) = result["memory"]["instances"]
    assert one["state"] == "planned" and one["arguments"]["kv-cache-memory-bytes"] > 0
    assert [check["check"] for check in result["findings"]] == ["a", "memory.plan.eight-a"]
    assert not set(sent) & set(host_preflight.CONTROL_ONLY)  # the token stays here


def test_what_doesn_t_fit_is_refused_with_the_smallest_change(run):
    result, _sent = run({"context_length": 131072, "concurrent_users": 16})
    assert result["failed"] and result["memory"]["instances"]
    assert result["msg"].startswith("This deployment is refused")
    assert "16 concurrent requests of 131072 tokens need" in result["msg"]
    assert "Remedy: " in result["msg"] and "lower max-model-len to" in result["msg"]


def test_memory_and_the_rest_are_one_message(run):
    answer = {
        "failed": True,
        "msg": "one",
        "findings": [finding("host.disk", False, expected="1 GiB", found="0", remedy="Free some.")],
        "record": {"gpu": {"driver": OK, "gpus": [make.H100]}},
        "kept": {"placed": {}, "calibrations": []},
    }
    result, _sent = run({"context_length": 10**6}, answer=answer)
    assert "host.disk" in result["msg"] and "max_model_len 1000000 exceeds" in result["msg"]
    answer["findings"][0]["check"] = "inventory.models"
    result, _sent = run({"context_length": 10**6}, answer=answer)
    assert result["msg"] == "one" and "memory" not in result


def test_a_driver_that_isn_t_there_yet(run):
    result, _sent = run(record=NO_DRIVER)
    assert not result.get("failed")
    (said,) = result["said"]
    assert "the driver says driver_not_loaded (no module)" in said and "gpufleet_gpus" in said
    declared = [{"name": "RTX 4090", "memory_gib": 23.57, "compute_capability": "8.9"}]
    result, _sent = run({"context_length": 131072}, record=NO_DRIVER, gpus=declared)
    assert result["failed"] and "largest that fits is" in result["msg"]
    result, _sent = run(record=NO_DRIVER, gpus=[{"name": "x"}])
    assert "Correct gpufleet_gpus" in result["msg"]


def test_a_module_that_failed_otherwise_is_left_alone(run):
    result, _sent = run(answer={"failed": True, "msg": "no python"})
    assert result["msg"] == "no python" and "memory" not in result


def test_off_reads_nothing(run):
    result, _sent = run({"source": "file:/nowhere"}, memory_plan="off")
    assert not result.get("failed") and result["memory"]["instances"][0]["state"] == "off"
