# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found about the GPUs of each scenario, and the rules one by one."""

from __future__ import annotations

import re

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_state
from nvml import build

HOST = None
# Scenario: the checks that fail, the GPU they fail on, what was found.
FOUND = {
    "busy": [
        ("gpu.persistence", 0, "off"),
        ("gpu.memory_free_mib", 0, 9313),
        ("gpu.memory_free_mib", 1, 50993),
        ("gpu.processes", 0, "/opt/gpufleet/engines/vllm/current/bin/python (pid 4242, not of this host, 71680 MiB)"),
        (
            "gpu.processes",
            1,
            "python3 (pid 4243, not of this host, 30000 MiB); a process (pid 4244, not of this host)",
        ),
    ],
    "ecc_pending": [("gpu.pending_modes", 1, "ECC off after the next reset")],
    "fabric_not_ready": [
        ("gpu.fabric", 0, "in_progress"),
        ("gpu.fabric", 1, "completed, Unknown Error, unhealthy"),
    ],
    "gpu_lost": [("gpu.answers", 2, "gpu_lost"), ("gpu.answers", 5, "gpu_lost"), ("gpu.count", HOST, 6)],
    "h100x8": [],
    "mig_on": [("gpu.mig", 0, "enabled"), ("gpu.pending_modes", 1, "MIG on after the next reset")],
    "mixed": [
        ("gpu.name", 2, "Tesla T4"),
        ("gpu.name", 3, "NVIDIA GeForce RTX 4090"),
        ("gpu.ecc", 3, "not supported"),
        ("gpu.memory_free_mib", 2, 14920),
        ("gpu.memory_free_mib", 3, 24079),
    ],
    "no_driver": [("gpu.driver", HOST, "driver_not_loaded")],
    "no_gpus": [("gpu.count", HOST, 0)],
    "no_permission": [("gpu.driver", HOST, "no_permission")],
    "old_driver": [
        ("gpu.driver_version", HOST, "470.256.02"),
        ("gpu.processes", 0, "a process (pid 4242, not of this host, 512 MiB)"),
        ("gpu.processes", 1, "a process (pid 4242, not of this host, 512 MiB)"),
    ],
    "reset_required": [("gpu.answers", 0, "reset_required"), ("gpu.count", HOST, 1)],
    "row_remap_failure": [
        ("gpu.recovery_action", 1, "gpu_reset"),
        ("gpu.recovery_action", 2, "gpu_reset"),
        ("gpu.remapped_rows", 1, "a remapping failed"),
        ("gpu.remapped_rows", 2, "a remapping waits for a reset"),
        ("gpu.retired_pages", 3, "pages wait to be retired"),
    ],
    "rtx4090": [],
    "some_not_permitted": [("gpu.answers", 0, "no_permission"), ("gpu.count", HOST, 1)],
    "throttling": [
        ("gpu.pcie_width", 3, "x8 of x16"),
        ("gpu.temperature_celsius", 0, 90),
        ("gpu.slowdown", 0, "hw_slowdown, sw_thermal_slowdown, hw_thermal_slowdown"),
        ("gpu.slowdown", 1, "hw_slowdown, hw_power_brake_slowdown"),
    ],
    "version_mismatch": [("gpu.driver", HOST, "version_mismatch")],
}
# These need a library that takes its process with it, that never answers, that isn't there: see test_modules.py.
BY_PROCESS = {"hung", "library_crashes", "no_library"}


def summary(findings):
    """Return check, GPU and what was found of the findings that didn't hold."""
    rows = []
    for finding in findings:
        if not finding["ok"]:
            gpu = re.match(r"GPU (\d+)", finding["detail"])
            rows.append((finding["check"], int(gpu.group(1)) if gpu else HOST, finding["found"]))
            assert finding["remedy"]
    return rows


def test_no_scenario_is_forgotten():
    assert sorted(FOUND) == sorted(set(build.names()) - BY_PROCESS)


@pytest.mark.parametrize("name", sorted(FOUND))
def test_each_scenario(stub, name):
    findings = _gpu_state.decide(stub.read(name), build.load(name)["expect"])
    assert summary(findings) == FOUND[name]


def decide(stub, expect, files=None, **gpu):
    """Return the failing findings about one H100 with these differences."""
    record = stub.read({"gpus": [{"profile": "h100", **gpu}]}, files)
    return [finding for finding in _gpu_state.decide(record, expect) if not finding["ok"]]


def test_a_check_that_all_pass_is_one_finding(stub):
    findings = _gpu_state.decide(stub.read("h100x8"), {"persistence": True})
    persistence = [finding for finding in findings if finding["check"] == "gpu.persistence"]
    assert [(f["ok"], f["detail"]) for f in persistence] == [(True, "So it is on all 8 GPUs that answer.")]


def test_health_is_looked_at_unless_it_is_said_not_to(stub):
    gpu = {"remapped_rows": {"pending": 1}, "ecc": {"pending": 0}, "fields": {"230": 2}, "fabric": {"state": 1}}
    assert [f["check"] for f in decide(stub, {}, **gpu)] == [
        "gpu.recovery_action", "gpu.remapped_rows", "gpu.pending_modes", "gpu.fabric",
    ]  # fmt: skip
    assert decide(stub, dict.fromkeys(_gpu_state.HEALTH, False), **gpu) == []


def test_no_gpus_at_all_is_never_fine(stub):
    found = summary(_gpu_state.decide(stub.read("no_gpus"), {}))
    assert found == [("gpu.count", HOST, 0)]


@pytest.mark.parametrize(
    ("ecc", "expected", "found"),
    [
        ({"current": 1, "pending": 1}, "disabled", "enabled"),
        ({"current": 0, "pending": 0}, "enabled", "disabled"),
        (None, "enabled", "not supported"),
        (None, "disabled", None),
    ],
)
def test_ecc(stub, ecc, expected, found):
    failing = decide(stub, {"ecc": expected}, ecc=ecc)
    assert [f["found"] for f in failing] == ([found] if found else [])
    if found == "disabled":
        assert "--ecc-config=1" in failing[0]["remedy"]


@pytest.mark.parametrize(
    ("mig", "expected", "found"),
    [
        ({"current": 1, "pending": 1}, "disabled", "enabled"),
        ({}, "enabled", "disabled"),
        (None, "enabled", "not supported"),
        (None, "disabled", None),
    ],
)
def test_mig(stub, mig, expected, found):
    assert [f["found"] for f in decide(stub, {"mig": expected}, mig=mig)] == ([found] if found else [])


@pytest.mark.parametrize(
    ("action", "remedy"),
    [
        (1, "--gpu-reset -i 0"),
        (2, "reboot"),
        (3, "engines"),
        (4, "Drain the host, then 'nvidia-smi --gpu-reset"),
        (5, "nvidia-imex"),
        (6, "reboot"),
        (7, "reboot"),
        (99, "reboot"),
    ],
)
def test_each_recovery_action_has_its_remedy(stub, action, remedy):
    (finding,) = decide(stub, {}, fields={"230": action})
    assert remedy in finding["remedy"]


@pytest.mark.parametrize(
    ("fabric", "fine"),
    [
        (None, True),
        ({"state": 0}, True),
        ({"state": 1}, False),
        ({"state": 3}, True),
        ({"state": 3, "status": 15}, False),
        ({"state": 3, "health_summary": 0}, True),
        ({"state": 3, "health_summary": 3}, False),
    ],
)
def test_fabric(stub, fabric, fine):
    failing = decide(stub, {}, fabric=fabric)
    assert [f["check"] for f in failing] == ([] if fine else ["gpu.fabric"])
    assert fine or "802" in failing[0]["remedy"]


@pytest.mark.parametrize(
    ("temperature", "expect", "failing"),
    [
        ({"gpu": 84, "margin": 3}, {"temperature_celsius_max": 85}, []),
        ({"gpu": 85, "margin": 3}, {"temperature_celsius_max": 85}, ["error"]),
        ({"gpu": 84, "margin": 0}, {}, ["error"]),
        ({"gpu": 90, "margin": None, "thresholds": {"1": 90}}, {}, ["error"]),
        ({"gpu": 89, "margin": None, "thresholds": {"1": 90}}, {}, []),
        ({"gpu": 89, "margin": None}, {}, []),
        ({"gpu": 99, "margin": -2}, {"temperature_below_slowdown": False}, []),
        ({"gpu": None, "margin": None}, {"temperature_celsius_max": 85}, ["warning"]),
        ({"gpu": None, "margin": None}, {}, []),
    ],
)
def test_temperature(stub, temperature, expect, failing):
    found = decide(stub, {"no_slowdown": False, **expect}, temperature=temperature)
    assert [f["severity"] for f in found] == failing


def test_the_generation_of_the_link_is_not_judged(stub):
    assert decide(stub, {"pcie_width_full": True}, pcie={"generation": 1}) == []


@pytest.mark.parametrize("link", [{"width": None}, {"width_max": None}])
def test_a_width_that_is_not_told_is_a_warning(stub, link):
    assert [f["severity"] for f in decide(stub, {"pcie_width_full": True}, pcie=link)] == ["warning"]


@pytest.mark.parametrize(
    ("persistence", "expected", "found", "severity"),
    [(0, True, "off", "error"), (1, False, "on", "error"), (None, True, None, "warning")],
)
def test_persistence(stub, persistence, expected, found, severity):
    (finding,) = decide(stub, {"persistence": expected}, persistence=persistence)
    assert (finding["found"], finding["severity"]) == (found, severity)


@pytest.mark.parametrize(
    ("gpu", "found"),
    [
        ({"nvlink": {"states": "1011"}, "fields": {"91": 4}}, ["inactive: 1"]),
        ({"nvlink": {"states": "0000"}, "fields": {"91": 4}, "mig": {"current": 1, "pending": 1}}, []),
        ({"nvlink": None}, []),
    ],
)
def test_nvlink(stub, gpu, found):
    assert [f["found"] for f in decide(stub, {"nvlink_active": True}, **gpu)] == found


OURS = {
    "/proc/41/status": "Uid:\t0\t0\t0\t0\n",
    "/proc/41/cgroup": "0::/system.slice/system-vllm.slice/vllm@smollm2-a.service\n",
}
PROCESS = {"processes": [{"pid": 41, "memory_mib": 9}]}


@pytest.mark.parametrize(
    ("allowed", "fine"),
    [
        ({}, False),
        ({"allowed_units": ["vllm@*.service"]}, True),
        ({"allowed_units": ["vllm@other-*.service"]}, False),
        ({"allowed_users": ["root"]}, True),
        ({"allowed_users": ["nobody"], "allowed_units": []}, False),
        ({"allowed_pids": [41]}, True),
    ],
)
def test_foreign_processes(stub, allowed, fine):
    failing = decide(stub, {"no_foreign_processes": True, **allowed}, OURS, **PROCESS)
    assert [f["found"] for f in failing] == (
        [] if fine else ["a process (pid 41, vllm@smollm2-a.service of root, 9 MiB)"]
    )


def test_a_process_that_nobody_can_see_is_not_allowed_by_a_pattern_for_all(stub):
    """Its unit isn't known: no pattern says that it is meant, but the one that means everything."""
    assert decide(stub, {"no_foreign_processes": True, "allowed_units": ["?*"]}, **PROCESS)


def test_processes_that_are_not_told_are_a_warning(stub):
    assert [f["severity"] for f in decide(stub, {"no_foreign_processes": True}, processes=None)] == ["warning"]


def test_too_little_memory_names_who_holds_it(stub):
    memory = {"free": 10, "used": 81000}
    (finding,) = decide(stub, {"memory_free_mib_min": 70000}, OURS, memory_mib=memory, **PROCESS)
    assert "vllm@smollm2-a.service" in finding["remedy"]
    (finding,) = decide(stub, {"memory_free_mib_min": 70000}, memory_mib=memory)
    assert "outlived" in finding["remedy"]
    (finding,) = decide(stub, {"memory_free_mib_min": 70000}, memory_mib=None)
    assert (finding["found"], finding["severity"]) == (None, "error")


def test_the_driver_is_compared_exactly(stub):
    assert decide(stub, {"driver_version": "580.105.08"}) == []
    assert [f["found"] for f in decide(stub, {"driver_version": "580.105"})] == ["580.105.08"]


def test_a_gpu_of_an_unknown_model_is_named_so(stub):
    (finding,) = decide(stub, {"names": ["NVIDIA H100 80GB HBM3"]}, name=None)
    assert finding["found"] is None
    assert "of an unknown model" in finding["detail"]
