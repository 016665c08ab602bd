# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nvidia-smi, where NVML can't be loaded: a script that answers in its forms, and refuses what it doesn't know."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _gpu_info,
    _gpu_info_record,
    _gpu_info_smi,
    _nvml_child,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner
from support import ROOT

H100 = {
    "index": "0",
    "uuid": "GPU-00000001-0000-4000-8000-000000000001",
    "name": "NVIDIA H100 80GB HBM3",
    "pci.bus_id": "00000000:1B:00.0",
    "pci.device_id": "0x233010DE",
    "pci.sub_device_id": "0x16C110DE",
    "compute_cap": "9.0",
    "memory.total": "81559",
    "memory.free": "80993",
    "memory.used": "4",
    "memory.reserved": "562",
    "ecc.mode.current": "Enabled",
    "ecc.mode.pending": "Disabled",
    "ecc.errors.uncorrected.volatile.total": "3",
    "remapped_rows.pending": "Yes",
    "remapped_rows.failure": "No",
    "gpu_recovery_action": "GPU Reset",
    "clocks_event_reasons.active": "0x0000000000000004",
    "temperature.gpu": "33",
    "temperature.gpu.tlimit": "54",
    "power.draw": "71.40",
    "enforced.power.limit": "700.00",
    "pcie.link.gen.gpucurrent": "5",
    "pcie.link.width.current": "16",
    "pcie.link.width.max": "16",
    "fabric.state": "Completed",
    "fabric.status": "Success",
    "mig.mode.current": "Disabled",
    "persistence_mode": "Enabled",
    "driver_version": "580.105.08",
    "serial": "[N/A]",
    "ecc.errors.corrected.volatile.total": "[Not Supported]",
    "power.max_limit": "a lot",
}
GEFORCE = {
    "index": "1",
    "uuid": "GPU-00000002-0000-4000-8000-000000000002",
    "name": "NVIDIA GeForce RTX 4090",
    "pci.bus_id": "00000000:2C:00.0",
    "ecc.mode.current": "[N/A]",
    "persistence_mode": "Disabled",
    "clocks_event_reasons.active": "[N/A]",
    "driver_version": "580.105.08",
}
FIELDS = sorted({name for _path, names, _reading in _gpu_info_smi.FIELDS for name in names})
HEADER = "| NVIDIA-SMI 580.105.08   Driver Version: 580.105.08   CUDA Version: 13.0     |\n"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n\n"
)


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Install the stand-in with its answers; return what is read through it."""

    def install(answers):
        program = tmp_path / "nvidia-smi"
        shutil.copy(ROOT / "tests/nvml/fake_smi.py", program)
        program.write_text("#!%s\n" % sys.executable + program.read_text().split("\n", 1)[1])
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (tmp_path / "nvidia-smi.json").write_text(json.dumps(answers))
        monkeypatch.setenv("PATH", "%s:%s" % (tmp_path, os.environ["PATH"]))
        return _gpu_info_smi.read(LocalRunner())

    return install


def test_two_gpus(smi):
    record = smi(
        {
            "fields": FIELDS,
            "gpus": [H100, GEFORCE],
            "header": HEADER,
            "processes": [
                "GPU-00000001-0000-4000-8000-000000000001, 4242, /usr/bin/python3, 512",
                "GPU-00000002-0000-4000-8000-000000000002, 4243, [Not Found], [N/A]",
                "GPU-of-a-mig-device, 4244, x, 1",
                "nonsense",
            ],
        }
    )
    assert record["driver"] == {
        "state": "ok",
        "message": "",
        "source": "nvidia-smi",
        "version": "580.105.08",
        "nvml_version": None,
        "cuda_version": "13.0",
        "cuda_version_plain": None,
    }
    first, second = record["gpus"]
    assert first["error"] is None
    assert (first["pci_address"], first["pci_device_id"], first["pci_subsystem_id"]) == (
        "0000:1b:00.0",
        "2330",
        "10de:16c1",
    )
    assert first["memory_mib"] == {"total": 81559, "free": 80993, "used": 4, "reserved": 562}
    assert (first["ecc"]["current"], first["ecc"]["pending"]) == (True, False)
    assert (first["ecc"]["uncorrected_volatile"], first["ecc"]["corrected_volatile"]) == (3, None)
    assert (first["remapped_rows"]["pending"], first["remapped_rows"]["failure"]) == (True, False)
    assert first["recovery_action"] == "gpu_reset"
    assert first["clocks_event_reasons"] == ["sw_power_cap"]
    assert first["temperature_celsius"]["margin"] == 54
    assert (first["power_watts"]["draw"], first["power_watts"]["limit_max"]) == (71.4, None)
    assert first["fabric"]["state"] == "completed"
    assert (first["mig"]["current"], first["persistence"], first["serial"]) == (False, True, None)
    assert first["architecture"] is None
    assert first["processes"] == [{"pid": 4242, "kind": "compute", "name": "/usr/bin/python3", "memory_mib": 512}]
    assert second["persistence"] is False
    assert second["ecc"]["current"] is None
    assert second["processes"] == [{"pid": 4243, "kind": "compute", "name": None, "memory_mib": None}]
    for gpu in record["gpus"]:
        assert set(gpu) == set(_gpu_info_record.EMPTY)


def test_fields_that_this_version_does_not_know_are_not_asked_for(smi):
    known = ["index", "uuid", "name", "memory.total", "clocks_throttle_reasons.active", "retired_pages.sbe"]
    gpu = {
        "index": "0", "uuid": "GPU-a", "name": "Tesla T4", "memory.total": "15360",
        "clocks_throttle_reasons.active": "0x0000000000000008", "retired_pages.sbe": "2",
    }  # fmt: skip
    found = smi({"fields": known, "gpus": [gpu]})["gpus"][0]
    assert found["clocks_event_reasons"] == ["hw_slowdown"]
    assert found["retired_pages"]["single_bit"] == 2
    assert found["ecc"]["current"] is None
    assert found["processes"] is None  # --query-compute-apps failed


@pytest.mark.parametrize(
    "answers", [{"help": False}, {"listed_only": ["gpu_recovery_action", "clocks_event_reasons.active"]}]
)
def test_fields_that_are_refused_all_the_same_are_left_out(smi, answers):
    """One listed by its help and yet refused, and a tool that has no such help."""
    fields = [*FIELDS] if "listed_only" in answers else ["index", "uuid", "clocks_throttle_reasons.active"]
    gpu = {"index": "0", "uuid": "GPU-a", "clocks_throttle_reasons.active": "0x0000000000000001"}
    found = smi({"fields": fields, "gpus": [gpu], "processes": [], **answers})["gpus"][0]
    assert found["uuid"] == "GPU-a"
    assert found["clocks_event_reasons"] == ["gpu_idle"]
    assert found["recovery_action"] is None
    assert found["processes"] == []


def test_a_lost_gpu_among_others(smi):
    lost = dict.fromkeys(FIELDS, "[GPU is lost]")
    gone = {**lost, "index": "1", "temperature.gpu": "[GPU requires reset]", "uuid": "GPU-b"}
    record = smi({"fields": FIELDS, "gpus": [lost, H100, gone], "header": ""})
    assert [gpu["state"] for gpu in record["gpus"]] == ["gpu_lost", "ok", "gpu_lost"]
    assert record["gpus"][0]["error"] == "GPU is lost"
    assert record["gpus"][0]["index"] == 0
    assert record["gpus"][1]["name"] == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("status", "text", "state"),
    [
        (9, NO_DRIVER, "driver_not_loaded"),
        (12, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.\n", "library_not_found"),
        (
            18,
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n",
            "version_mismatch",
        ),
        (4, "Failed to initialize NVML: Insufficient Permissions\n", "no_permission"),
        (
            15,
            "Unable to determine the device handle for GPU0: 0000:1B:00.0: GPU is lost.  Reboot the system\n",
            "gpu_lost",
        ),
        (255, "Failed to initialize NVML: Unknown Error\n", "unknown_error"),
        (255, "", "unknown_error"),
    ],
)
def test_each_failure_is_told_apart(smi, status, text, state):
    record = smi({"fields": FIELDS, "gpus": [], "fail": {"status": status, "text": text}})
    assert record["gpus"] == []
    assert record["driver"]["state"] == state
    assert record["driver"]["message"].startswith("nvidia-smi: ")
    assert len(record["driver"]["message"]) > len("nvidia-smi: ")
    assert record["driver"]["source"] == ("none" if state == "library_not_found" else "nvidia-smi")


def test_a_driver_without_gpus(smi):
    record = smi({"fields": FIELDS, "gpus": []})
    assert (record["driver"]["state"], record["gpus"]) == ("ok", [])


class Hanging:
    def run(self, argv):
        return (124, "", "nvidia-smi gave no answer in 1 s")

    def read(self, path):
        return None


def test_one_that_hangs():
    record = _gpu_info_smi.read(Hanging())
    assert record["driver"]["state"] == "no_answer"


def test_it_is_asked_where_nvidia_ml_py_is_missing(smi, monkeypatch):
    smi({"fields": FIELDS, "gpus": [H100], "header": HEADER, "processes": []})
    answer = _nvml_child.Answer([{"binding": "No module named 'pynvml'"}], "done", "")
    monkeypatch.setattr(_nvml_child, "run_in_child", lambda produce, timeout: answer)
    record = _gpu_info.read_gpu_info("/nowhere", LocalRunner())
    assert record["driver"]["source"] == "nvidia-smi"
    assert record["driver"]["state"] == "ok"
    assert record["gpus"][0]["pci_device_id"] == "2330"
    assert record["took_ms"] >= 0


def test_nothing_to_ask_at_all(monkeypatch):
    class Bare:
        def run(self, argv):
            return 127, "", "no such command"

        def read(self, path):
            return None

    answer = _nvml_child.Answer([{"binding": "No module named 'pynvml'"}], "done", "")
    monkeypatch.setattr(_nvml_child, "run_in_child", lambda produce, timeout: answer)
    driver = _gpu_info.read_gpu_info("/nowhere", Bare())["driver"]
    assert (driver["state"], driver["source"]) == ("library_not_found", "none")
    assert "nvidia-ml-py isn't there" in driver["message"]
    assert driver["remedy"]
