# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every scenario of the stub library, read by the real nvidia-ml-py."""

from __future__ import annotations

import sys
import types

import pynvml
import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _gpu_info,
    _gpu_info_record,
    _nvml,
    _nvml_ask,
    _nvml_gpu,
)

STATES = {
    "busy": "ok",
    "ecc_pending": "ok",
    "fabric_not_ready": "ok",
    "gpu_lost": "gpu_lost",
    "h100x8": "ok",
    "mig_on": "ok",
    "mixed": "ok",
    "no_driver": "driver_not_loaded",
    "no_gpus": "ok",
    "no_permission": "no_permission",
    "old_driver": "ok",
    "reset_required": "reset_required",
    "row_remap_failure": "ok",
    "rtx4090": "ok",
    "some_not_permitted": "no_permission",
    "throttling": "ok",
    "version_mismatch": "version_mismatch",
}


def shape(value):
    """Return a record's keys, at every depth; what is in lists isn't looked at."""
    return {key: shape(item) for key, item in value.items()} if isinstance(value, dict) else None


@pytest.mark.parametrize("name", sorted(STATES))
def test_each_scenario_is_told_apart(stub, name):
    record = stub.read(name)
    driver = record["driver"]
    assert driver["state"] == STATES[name]
    assert bool(driver["remedy"]) is bool(driver["message"]) is (driver["state"] != "ok")
    assert driver["source"] == "nvml"
    # Whatever a GPU lacks or suffers from, its record has every key.
    for gpu in record["gpus"]:
        assert set(gpu) == set(_gpu_info_record.EMPTY)
        for key, value in _gpu_info_record.EMPTY.items():
            assert not isinstance(value, dict) or set(gpu[key]) == set(value), key


def test_a_healthy_board_is_read_in_full(stub):
    record = stub.read("h100x8")
    assert record["driver"] == {
        "state": "ok",
        "message": "",
        "remedy": "",
        "version": "580.105.08",
        "nvml_version": "13.580.105.08",
        "cuda_version": "13.0",
        "cuda_version_plain": "13.0",
        "source": "nvml",
    }
    assert [gpu["index"] for gpu in record["gpus"]] == list(range(8))
    assert record["gpus"][7] == {
        "index": 7,
        "state": "ok",
        "error": None,
        "uuid": "GPU-00000008-0000-4000-8000-000000000008",
        "name": "NVIDIA H100 80GB HBM3",
        "serial": None,
        "pci_address": "0000:92:00.0",
        "pci_device_id": "2330",
        "pci_subsystem_id": "10de:16c1",
        "architecture": "hopper",
        "compute_capability": "9.0",
        "memory_mib": {"total": 81559, "free": 80993, "used": 4, "reserved": 562},
        "ecc": {
            "current": True,
            "pending": True,
            "corrected_volatile": 0,
            "uncorrected_volatile": 0,
            "corrected_aggregate": 0,
            "uncorrected_aggregate": 0,
        },
        "remapped_rows": {
            "correctable": 0,
            "uncorrectable": 0,
            "pending": False,
            "failure": False,
            "histogram": {"max": 2560, "high": 0, "partial": 0, "low": 0, "none": 0},
        },
        "retired_pages": {"single_bit": None, "double_bit": None, "pending": None},
        "recovery_action": "none",
        "clocks_event_reasons": ["gpu_idle"],
        "temperature_celsius": {
            "gpu": 33,
            "memory": 42,
            "margin": 54,
            "shutdown": None,
            "slowdown": None,
            "memory_max": None,
            "gpu_max": None,
            "shutdown_margin": -8,
            "slowdown_margin": -2,
            "memory_max_margin": 0,
            "gpu_max_margin": 0,
        },
        "power_watts": {"draw": 71.4, "limit": 700.0, "limit_default": 700.0, "limit_min": 200.0, "limit_max": 700.0},
        "pcie": {"generation": 5, "generation_max": 5, "generation_gpu_max": 5, "width": 16, "width_max": 16},
        "nvlink": {"links": 18, "active": 18, "inactive_links": [], "version": "4.0"},
        "fabric": {
            "state": "completed",
            "status": "success",
            "health": "healthy",
            "clique_id": 0,
            "cluster_uuid": "00000000-0000-0000-0000-000000000000",
        },
        "mig": {"current": False, "pending": False, "devices_max": 7, "devices": []},
        "persistence": True,
        "processes": [],
    }


def test_a_geforce_has_nulls_where_it_has_nothing(stub):
    gpu = stub.read("rtx4090")["gpus"][0]
    assert gpu["error"] is None
    assert gpu["architecture"] == "ada"
    assert gpu["pci_device_id"] == "2684"
    assert set(gpu["ecc"].values()) == {None}
    assert set(gpu["remapped_rows"].values()) == {None}
    assert set(gpu["retired_pages"].values()) == {None}
    assert set(gpu["nvlink"].values()) == {None}
    assert set(gpu["fabric"].values()) == {None}
    assert set(gpu["mig"].values()) == {None}
    assert gpu["temperature_celsius"]["slowdown"] == 97
    assert gpu["memory_mib"]["free"] == 24079


def test_pages_of_before_row_remapping(stub):
    assert stub.read("row_remap_failure")["gpus"][3]["retired_pages"] == {
        "single_bit": 0,
        "double_bit": 1,
        "pending": True,
    }


def test_a_lost_gpu_does_not_hide_the_others(stub):
    record = stub.read("gpu_lost")
    assert [gpu["state"] for gpu in record["gpus"]] == ["ok", "ok", "gpu_lost", "ok", "ok", "gpu_lost", "ok", "ok"]
    assert record["gpus"][2]["uuid"] is None
    assert record["gpus"][5]["pci_address"] == "0000:70:00.0"  # it had said so before it went
    assert record["gpus"][5]["memory_mib"]["total"] is None
    assert record["gpus"][7]["memory_mib"]["total"] == 81559
    assert record["driver"]["message"] == "GPU 2: GPU is lost; GPU 5 (0000:70:00.0): GPU is lost"


def test_nothing_more_is_asked_of_a_lost_gpu(stub):
    lost = {"profile": "h100", "errors": {"nvmlDeviceGetMemoryInfo_v2": 15}}
    record = stub.read({"gpus": [lost]})
    assert record["gpus"][0]["state"] == "gpu_lost"
    assert record["gpus"][0]["name"] == "NVIDIA H100 80GB HBM3"
    assert stub.calls()[-2:] == ["nvmlDeviceGetMemoryInfo_v2", "nvmlShutdown"]


def test_a_gpu_that_is_lost_by_one_field(stub, monkeypatch):
    """Some drivers say it in the field's own return code only."""
    stub.load("h100x8")
    pynvml.nvmlInit()
    values = pynvml.nvmlDeviceGetFieldValues(pynvml.nvmlDeviceGetHandleByIndex(0), [230])
    pynvml.nvmlShutdown()
    values[0].nvmlReturn = 16
    monkeypatch.setattr(pynvml, "nvmlDeviceGetFieldValues", lambda _handle, _fields: values)
    gpu = stub.read("h100x8")["gpus"][0]
    assert gpu["state"] == "reset_required"
    assert gpu["power_watts"]["draw"] is None


def test_an_unknown_error_of_one_function_is_said_and_the_rest_is_read(stub):
    record = stub.read(
        {"gpus": [{"profile": "h100", "errors": {"nvmlDeviceGetEccMode": 999, "nvmlDeviceGetMigMode": 17}}]}
    )
    gpu = record["gpus"][0]
    assert (gpu["state"], gpu["error"]) == ("unknown_error", "Unknown Error")
    assert gpu["ecc"]["current"] is None
    assert gpu["persistence"] is True
    assert record["driver"]["state"] == "unknown_error"


@pytest.mark.parametrize("code", [2, 3, 4, 6, 13, 21, 25, 26])
def test_a_field_that_is_not_supported_is_null_and_no_error(stub, code):
    failing = ("nvmlDeviceGetEccMode", "nvmlDeviceGetPersistenceMode", "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3")
    gpu = stub.read({"gpus": [{"profile": "h100", "errors": dict.fromkeys(failing, code)}]})["gpus"][0]
    assert gpu["error"] is None
    assert (gpu["ecc"]["current"], gpu["persistence"], gpu["uuid"], gpu["pci_address"]) == (None, None, None, None)
    assert gpu["name"] == "NVIDIA H100 80GB HBM3"


def test_an_old_driver_is_asked_by_its_older_functions(stub):
    record = stub.read("old_driver")
    gpu = record["gpus"][0]
    assert record["driver"]["cuda_version"] == "11.4"
    assert gpu["memory_mib"] == {"total": 81920, "free": 81336, "used": 5, "reserved": None}
    assert gpu["clocks_event_reasons"] == ["gpu_idle"]
    assert gpu["temperature_celsius"]["gpu"] == 31
    assert gpu["recovery_action"] is None
    assert gpu["processes"] == [
        {"pid": 4242, "kind": "compute", "name": None, "memory_mib": 512, "user": None, "unit": None}
    ]
    assert "nvmlDeviceGetCurrentClocksThrottleReasons" in stub.calls()
    assert "nvmlDeviceGetTemperature" in stub.calls()


def test_nothing_deprecated_is_asked_of_a_driver_that_has_better(stub):
    stub.read("h100x8")
    asked = set(stub.calls())
    assert "nvmlDeviceGetCurrentClocksEventReasons" in asked
    assert asked.isdisjoint(
        {
            "nvmlDeviceGetCurrentClocksThrottleReasons",
            "nvmlDeviceGetTemperature",
            "nvmlDeviceGetGpuFabricInfo",
            "nvmlDeviceGetGpuFabricInfoV",
            "nvmlDeviceGetMemoryInfo",
        }
    )


@pytest.mark.parametrize(
    ("missing", "known", "health"),
    [
        ([], 3, "healthy"),
        (["nvmlDeviceGetGpuFabricInfo_v4"], 3, "healthy"),
        (["nvmlDeviceGetGpuFabricInfo_v4"], 2, None),
        (["nvmlDeviceGetGpuFabricInfo_v4", "nvmlDeviceGetGpuFabricInfoV"], 3, None),
    ],
)
def test_the_fabric_in_each_form_that_a_driver_may_have(stub, missing, known, health):
    scenario = {
        "driver": {"fabric_version": known},
        "errors": dict.fromkeys(missing, 13),
        "gpus": [
            {"profile": "h100", "fabric": {"clique": 5, "cluster_uuid": "01234567-89ab-cdef-0123-456789abcdef"}},
        ],
    }
    assert stub.read(scenario)["gpus"][0]["fabric"] == {
        "state": "completed",
        "status": "success",
        "health": health,
        "clique_id": 5,
        "cluster_uuid": "01234567-89ab-cdef-0123-456789abcdef",
    }


def test_a_fabric_that_is_not_ready(stub):
    waiting, failed, fine = (gpu["fabric"] for gpu in stub.read("fabric_not_ready")["gpus"])
    assert waiting == {
        "state": "in_progress", "status": None, "health": None, "clique_id": None, "cluster_uuid": None,
    }  # fmt: skip
    assert (failed["state"], failed["status"], failed["health"]) == ("completed", "Unknown Error", "unhealthy")
    assert fine["status"] == "success"


def test_mig_devices(stub):
    on, later = (gpu["mig"] for gpu in stub.read("mig_on")["gpus"])
    assert (on["current"], on["pending"], on["devices_max"]) == (True, True, 7)
    assert [device["gpu_instance_id"] for device in on["devices"]] == [1, 2]
    assert on["devices"][0] == {
        "uuid": "MIG-11111111-0000-4000-8000-000000000001",
        "gpu_instance_id": 1,
        "compute_instance_id": 0,
        "memory_mib": {"total": 40448, "free": 40405, "used": 43, "reserved": 0},
    }
    assert (later["current"], later["pending"], later["devices"]) == (False, True, [])


def test_links_without_a_count_of_them(stub):
    gpu = {"profile": "a100", "nvlink": {"states": "110"}, "fields": {"91": None}}
    record = stub.read({"gpus": [gpu]})
    assert record["gpus"][0]["nvlink"] == {"links": 3, "active": 2, "inactive_links": [2], "version": "3.0"}


def test_a_driver_that_refuses_all_fields_at_once_is_asked_for_each(stub, monkeypatch):
    whole = pynvml.nvmlDeviceGetFieldValues

    def one_only(handle, fields):
        if len(fields) > 1 or fields == [82]:
            raise pynvml.NVMLError(2)
        return whole(handle, fields)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetFieldValues", one_only)
    gpu = stub.read("h100x8")["gpus"][0]
    assert gpu["recovery_action"] == "none"
    assert gpu["temperature_celsius"]["memory"] is None


def test_values_that_have_no_name_yet(stub):
    assert _nvml_ask.name_of(pynvml, "NVML_DEVICE_ARCH_", None) is None
    gpu = {
        "profile": "h100", "architecture": 77, "clocks_event_reasons": 0x1004, "fields": {"230": 9, "82": 41.5},
        "fabric": {"state": 9}, "nvlink": {"version": 99},
    }  # fmt: skip
    found = stub.read({"gpus": [gpu]})["gpus"][0]
    assert found["architecture"] == "unknown (77)"
    assert found["clocks_event_reasons"] == ["sw_power_cap", "bit_12"]
    assert found["recovery_action"] == "unknown (9)"
    assert found["fabric"]["state"] == "unknown (9)"
    assert found["nvlink"]["version"] == "unknown (99)"
    assert found["temperature_celsius"]["memory"] == 41.5


def test_processes_with_their_owners(stub):
    files = {
        "/proc/4242/status": "Name:\tpython\nUid:\t0\t0\t0\t0\n",
        "/proc/4242/cgroup": "0::/system.slice/system-vllm.slice/vllm@smollm2-a.service\n",
        "/proc/4243/status": "Name:\tpython3\nUid:\t4242424\t1\t1\t1\n",
        "/proc/4243/cgroup": "0::/user.slice/user-1000.slice/session-3.scope\n",
        "/proc/4244/comm": "Xorg\n",
    }
    first, second = (gpu["processes"] for gpu in stub.read("busy", files)["gpus"])
    assert first == [
        {
            "pid": 4242, "kind": "compute", "name": "/opt/gpufleet/engines/vllm/current/bin/python",
            "memory_mib": 71680, "user": "root", "unit": "vllm@smollm2-a.service",
        }
    ]  # fmt: skip
    assert [(p["kind"], p["user"], p["unit"], p["memory_mib"]) for p in second] == [
        ("compute", "4242424", "session-3.scope", 30000),
        ("graphics", None, None, None),
    ]
    assert second[1]["name"] == "Xorg"


def test_a_driver_that_lists_no_processes(stub):
    assert stub.read({"gpus": [{"profile": "h100", "processes": None}]})["gpus"][0]["processes"] is None


@pytest.mark.parametrize(("code", "state"), [(15, "gpu_lost"), (999, "unknown_error")])
def test_a_count_that_fails(stub, code, state):
    record = stub.read({"errors": {"nvmlDeviceGetCount_v2": code, "nvmlShutdown": 999}, "gpus": [{"profile": "h100"}]})
    assert record["gpus"] == []
    assert record["driver"]["state"] == state
    assert record["driver"]["message"].startswith("nvmlDeviceGetCount: ")


def test_cuda_versions_that_are_not_told(stub):
    driver = stub.read({"driver": {"cuda_version": None, "nvml_version": None}, "gpus": []})["driver"]
    assert (driver["cuda_version"], driver["cuda_version_plain"], driver["nvml_version"]) == (None, "13.0", None)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Thu Jul 31 2025\nGCC version: 12\n",
            "535.261.03",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n", "580.95.05"),
        ("", None),
    ],
)
def test_the_loaded_module_by_its_own_file(text, version):
    assert _gpu_info.loaded_version(text) == version


def test_a_mismatch_names_both_versions(stub):
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Release Build\n"
    driver = stub.read("version_mismatch", {_gpu_info.KERNEL_MODULE: text})["driver"]
    assert driver["version"] == "580.95.05"
    assert driver["message"].endswith("the loaded kernel module is 580.95.05, the library 13.580.105.08")


def test_a_reset_names_the_gpu(stub):
    assert "--gpu-reset -i 0'" in stub.read("reset_required")["driver"]["remedy"]


def test_the_directory_given_comes_before_what_is_installed(tmp_path, monkeypatch):
    (tmp_path / "pynvml.py").write_text("HERE = True\n")
    monkeypatch.delitem(sys.modules, "pynvml")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert _nvml.load(str(tmp_path)).HERE
    assert _nvml.load(str(tmp_path)).HERE
    monkeypatch.delitem(sys.modules, "pynvml")


def test_no_nvidia_ml_py_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sent = []
    _nvml.produce("", sent.append)
    assert list(sent[0]) == ["binding"]


def test_text_in_bytes_and_functions_that_an_older_nvidia_ml_py_lacks():
    class Error(Exception):
        value = 3

    def version():
        raise Error

    nvml = types.SimpleNamespace(NVMLError=Error, nvmlSystemGetDriverVersion=version)
    assert _nvml_ask.as_text(b"580\xff") == "580\ufffd"
    asker = _nvml_ask.Asker(nvml, _gpu_info_record.empty(0), _nvml.state_of)
    assert asker.get(("nvmlDeviceGetNothing", "nvmlDeviceGetOther"), 0) is None
    assert asker.get("nvmlSystemGetDriverVersion") is None
    assert asker.record["error"] is None


def test_every_bit_of_the_clocks_event_reasons_is_nvmls_own():
    """The names are those of nvidia-ml-py, in another spelling."""
    for place, name in enumerate(_nvml_gpu.CLOCKS_EVENT_REASONS[:9]):
        constant = "nvmlClocksEventReason" + "".join(word.capitalize() for word in name.split("_"))
        assert getattr(pynvml, constant) == 1 << place
    for place in (9, 10):
        constant = "nvmlClocksThrottleReason" + _nvml_gpu.CLOCKS_EVENT_REASONS[place].title().replace("_", "")
        assert getattr(pynvml, constant) == 1 << place


def test_the_numbers_are_nvmls_own():
    for name, field in {
        "memory": "NVML_FI_DEV_MEMORY_TEMP",
        "nvlink_links": "NVML_FI_DEV_NVLINK_LINK_COUNT",
        "shutdown_margin": "NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT",
        "slowdown_margin": "NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT",
        "memory_max_margin": "NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT",
        "gpu_max_margin": "NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT",
        "recovery_action": "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    }.items():
        assert _nvml_gpu.FIELDS[name] == getattr(pynvml, field)
    for value, name in _nvml_gpu.RECOVERY_ACTIONS.items():
        assert getattr(pynvml, "NVML_GPU_RECOVERY_ACTION_" + name.upper()) == value
    for value, name in _nvml_gpu.FABRIC_STATES.items():
        assert getattr(pynvml, "NVML_GPU_FABRIC_STATE_" + name.upper()) == value
    for code, name in {
        4: "NO_PERMISSION", 9: "DRIVER_NOT_LOADED", 12: "LIBRARY_NOT_FOUND", 13: "FUNCTION_NOT_FOUND",
        15: "GPU_IS_LOST", 16: "RESET_REQUIRED", 18: "LIB_RM_VERSION_MISMATCH", 25: "ARGUMENT_VERSION_MISMATCH",
        26: "DEPRECATED",
    }.items():  # fmt: skip
        assert getattr(pynvml, "NVML_ERROR_" + name) == code
