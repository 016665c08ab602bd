# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every link: a host on which all hold, and one change after another that breaks exactly the links that it should."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity
from ansible_collections.gpufleet.llm.plugins.module_utils._cuda_parity_view import LINKS, View
from parity_chain import FLOOR, KERNEL, PINNED, RELEASE, computed, gpu, library, put

OTHER = "570.10.02"
COMPAT = {
    "path": "/usr/local/cuda-13.0/compat/libcuda.so.%s" % FLOOR,
    "version": FLOOR,
    "cuda": "13.0",
    "default": False,
}
VLLM = RELEASE["engines"]["vllm"]["cuda"]["version"]
UNIT = "nvidia-fabricmanager.service"


def broken(found):
    """Return the links with a finding of severity error that isn't ok."""
    return [link for link, findings in found.items() if any(not f["ok"] and f["severity"] == "error" for f in findings)]


def test_on_a_good_host_every_link_is_told_and_holds(decide):
    found = decide()
    assert list(found) == list(LINKS)
    assert [link for link, findings in found.items() for f in findings if not f["ok"]] == []


def test_every_link_has_a_remedy_that_can_be_filled_in(record, release, options):
    view = View(record, release, options)
    for link in LINKS:
        assert len(view.remedy(link)) > 40, link
        assert "None" not in view.remedy(link), link


# What is changed in the good record (path by slashes: value), which links break, and what the first of them says.
BROKEN = [
    # the GPUs
    ({"gpu/gpus": [gpu(0)], "engine/compute/devices": [computed(0)]}, ["gpu"], "2 on the PCI bus, 1 by NVML"),
    ({"gpu/driver/state": "gpu_lost", "gpu/driver/message": "GPU 1 is lost"}, ["gpu"], "unknown by NVML"),
    ({"gpu/gpus/1/error": "GPU is lost", "gpu/driver/state": "gpu_lost"}, ["gpu"], "2 on the PCI bus"),
    # the driver
    ({"gpu/driver/state": "no_permission", "gpu/driver/message": "denied"}, ["driver"], "NVML says no_permission"),
    ({"gpu/driver/state": "no_answer", "gpu/driver/message": "no answer"}, ["driver"], "NVML says no_answer"),
    ({"driver_api/state": "timeout", "driver_api/error": "no answer in 60 s"}, ["driver"], "driver %s" % PINNED),
    # packages and libraries
    (
        {"libraries/libcuda.so.1/package": {"name": "libcuda1", "version": OTHER + "-1"}},
        ["package_library"],
        "libcuda.so.1 is %s in libcuda1 %s-1" % (PINNED, OTHER),
    ),
    (
        {"libraries/libnvidia-ml.so.1": library("libnvidia-ml.so.1", OTHER)},
        ["driver_library"],
        "libnvidia-ml.so.1 is %s" % OTHER,
    ),
    (
        {"gpu/driver/state": "version_mismatch", "gpu/driver/message": "NVML 18", "gpu/gpus": []},
        ["driver_library"],
        "NVML says version_mismatch",
    ),
    # the module
    (
        {"module/on_disk": {KERNEL: {"version": OTHER}}},
        ["module_disk", "module_next_boot"],
        OTHER,
    ),
    (
        {"kernel/next_boot": "6.1.0-51-amd64"},
        ["module_next_boot"],
        "none",
    ),
    (
        {"module/flavour": "open", "gpu/gpus/0/compute_capability": "6.1"},
        ["module_gpu", "compute_capability", "engine_compute_capability"],
        "isn't driven by the open module",
    ),
    (
        {"module/flavour": "proprietary", "gpu/gpus/1/pci_device_id": "2342"},
        ["module_gpu"],
        "GPU 1 (NVIDIA H100 80GB HBM3) isn't driven by the proprietary module",
    ),
    # the driver and the release
    ({"module/version": "580.10.02"}, None, "libcuda.so.1 is %s" % PINNED),
    # forward compatibility
    (
        {"compat": [COMPAT], "engine/driver/library": COMPAT["path"], "engine/driver/init_code": 803},
        ["forward_compatibility"],
        "CUDA error 803",
    ),
    (
        {"compat": [COMPAT], "engine/driver/library": COMPAT["path"], "gpu/gpus/1": gpu(1, pci_device_id="2b85")},
        ["forward_compatibility"],
        "GPU 1 (NVIDIA H100 80GB HBM3) is no data center GPU",
    ),
    (
        {"compat": [dict(COMPAT, cuda="12.9")], "engine/driver/library": COMPAT["path"]},
        ["forward_compatibility"],
        "it's unsupported on driver %s" % PINNED,
    ),
    # the fabric
    ({"fabric_manager/package": None}, ["fabric_manager"], "not installed"),
    (
        {"fabric_manager/package": {"name": "nvidia-fabricmanager", "version": OTHER + "-1"}},
        ["fabric_manager"],
        "nvidia-fabricmanager is %s-1" % OTHER,
    ),
    ({"fabric_manager/unit/active_state": "failed"}, ["fabric_manager"], "%s is failed" % UNIT),
    ({"fabric_manager/unit/unit_file_state": "disabled"}, ["fabric_manager"], "%s is disabled" % UNIT),
    ({"fabric_manager/unit": None}, ["fabric_manager"], "%s is unknown to systemd" % UNIT),
    (
        {"gpu/gpus/1/fabric": {"state": "in_progress", "status": None}},
        ["fabric"],
        "GPU 1 (NVIDIA H100 80GB HBM3): in_progress, None",
    ),
    (
        {"gpu/gpus/1/fabric": {"state": "completed", "status": "Unknown Error"}},
        ["fabric"],
        "completed, Unknown Error",
    ),
    # containers
    ({"packages": {}}, ["container_toolkit"], "none"),
    ({"cdi": []}, ["cdi"], "none"),
    ({"cdi": [{"path": "/run/cdi/a.yaml", "versions": [OTHER]}]}, ["cdi"], "/run/cdi/a.yaml mentions %s" % OTHER),
    ({"cdi": [{"path": "/run/cdi/a.yaml", "versions": []}]}, ["cdi"], "/run/cdi/a.yaml mentions no driver"),
    # the engine
    ({"engine": None}, ["engine"], "no /opt/gpufleet/engines/vllm/current/bin/python3"),
    ({"engine/state": "timeout", "engine/error": "no answer in 180 s", "engine/torch": None}, ["engine"], "no answer"),
    (
        {"engine/torch": None, "engine/torch_error": {"type": "ImportError", "text": "libcudart.so.13: not found"}},
        ["engine"],
        "ImportError: libcudart.so.13: not found",
    ),
    ({"engine/distributions/vllm": "0.1.0"}, ["engine_release"], "0.1.0"),
    ({"engine/distributions/vllm": None}, ["engine_release"], "not installed"),
    ({"engine/torch/cuda": None}, ["torch_release"], "built without CUDA"),
    ({"engine/torch/cuda": "12.8", "engine/distributions": {}}, ["engine_release", "torch_release"], "not installed"),
    ({"glibc": "2.17"}, ["glibc"], "2.17"),
    (
        {"engine/torch/cudnn": 91002},
        ["cudnn_engine"],
        "cuDNN 9.10.2 is loaded",
    ),
    (
        {"engine/torch/error": {"text": "cuDNN version incompatibility"}, "engine/torch/cudnn": None},
        ["cudnn_engine"],
        "cuDNN version incompatibility",
    ),
    # what torch was built for
    ({"engine/torch/arch_list": ["sm_75", "sm_80"]}, ["compute_capability"], "no code for GPU 0"),
    (
        {"engine/torch/arch_list": ["compute_80"], "engine/torch/cuda": "13.2"},
        ["torch_release", "ptx"],
        "CUDA 13.2",
    ),
    # what was computed
    ({"engine/compute/devices/1": computed(1, wrong=3)}, ["compute"], "GPU 1: 3 of 65536 elements are wrong"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "links", "says"), BROKEN, ids=[", ".join(change[0]) for change in BROKEN])
def test_a_change_breaks_its_links(record, decide, changes, links, says):
    for path, value in changes.items():
        put(record, path, value)
    found = decide()
    if links is None:  # an older driver in memory than on disk: several links know
        links = ["driver_library", "module_disk", "driver_release", "driver_cuda", "fabric_manager", "torch_driver"]
        links += ["cudnn_engine"]
    assert sorted(broken(found)) == sorted(links)
    first = next(f for f in found[broken(found)[0]] if not f["ok"])
    assert says in str(first["found"])
    assert first["remedy"]


# What is changed, which link says so without being broken, and how.
TOLD = [
    ({"libraries/libcuda.so.1/package": None}, "package_library", "warning", "/libcuda.so."),
    ({"libraries": {"libcuda.so.1": None}}, "driver_library", "warning", "unknown"),
    ({"module/on_disk": {}, "kernel/next_boot_source": "running"}, "module_disk", "warning", "none"),
    ({"engine/torch/arch_list": []}, "compute_capability", "warning", "unknown"),
    ({"engine/torch/cudnn": None}, "cudnn_engine", "warning", "unknown"),
    ({"engine/torch/cudnn": 8902, "engine/distributions": {"vllm": VLLM}}, "cudnn_engine", "warning", "unknown"),
    ({"glibc": ""}, "glibc", "warning", "unknown"),
    (
        {"compat": [dict(COMPAT, cuda=None)], "engine/driver/library": COMPAT["path"]},
        "forward_compatibility",
        "warning",
        "unknown",
    ),
    (
        {"compat": [COMPAT], "engine/driver/library": COMPAT["path"]},
        "forward_compatibility",
        "warning",
        "it's not needed on driver",
    ),
    (
        {"engine/compute": None, "engine/skipped": [{"index": 0, "reason": "100 MiB are free"}]},
        "compute",
        "info",
        "skipped",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "link", "severity", "says"), TOLD, ids=[told[1] for told in TOLD])
def test_what_cannot_be_decided_is_said(record, decide, changes, link, severity, says):
    for path, value in changes.items():
        put(record, path, value)
    found = decide()
    loose = [f for f in found[link] if not f["ok"]]
    assert [f["severity"] for f in loose] == [severity]
    assert says in str(loose[0]["found"])
    if link == "compute":
        assert "100 MiB are free" in loose[0]["detail"]


HOLDS = [
    # No kernel in /boot: a container, whose kernel is the outer host's.
    ({"module/on_disk": {}, "kernel/next_boot_source": "running"}, "module_next_boot"),
    # A newer minor of CUDA than the driver's, by minor version compatibility.
    ({"engine/torch/cuda": "13.2"}, "torch_driver"),
    # A virtual machine that was given GPUs of an HGX board: the switches are run outside.
    ({"fabric_manager/package": None, "fabric_manager/unit": None, "pci/switches": []}, "fabric_manager"),
    # No GPU on a switch, whatever runs.
    ({"gpu/gpus": [gpu(0, pci_device_id="27b8"), gpu(1, pci_device_id="27b8")]}, "fabric_manager"),
    ({"gpu/gpus": [gpu(0, pci_device_id="27b8"), gpu(1, pci_device_id="27b8")]}, "fabric"),
    # A100: NVML tells no state of its fabric.
    (
        {"gpu/gpus": [gpu(n, pci_device_id="20b2", compute_capability="8.0", fabric={}) for n in range(2)]},
        "fabric",
    ),
    # A GPU that runs from PTX, and a driver of torch's own CUDA.
    ({"engine/torch/arch_list": ["compute_80"]}, "ptx"),
    # A compat package that lies there and isn't loaded.
    ({"compat": [COMPAT]}, "forward_compatibility"),
    # A GPU that the facts don't know has an architecture all the same.
    ({"gpu/gpus/0/pci_device_id": "ffff"}, "module_gpu"),
    ({"gpu/gpus/0/pci_device_id": "ffff", "gpu/gpus/0/compute_capability": None}, "module_gpu"),
    ({"module/flavour": None}, "module_gpu"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "link"), HOLDS, ids=[held[1] for held in HOLDS])
def test_what_is_no_fault_holds(record, decide, changes, link):
    for path, value in changes.items():
        put(record, path, value)
    assert [f["ok"] for f in decide()[link]] == [True]


def test_no_library_at_all_is_told_by_its_package_link(record, decide):
    record["libraries"] = {}
    assert "package_library" in broken(decide())


def test_an_unknown_compute_capability_is_no_guess(record, decide):
    for one in record["gpu"]["gpus"]:
        one.update(pci_device_id="ffff", compute_capability=None)
    found = decide()
    assert broken(found) == []
    assert found["compute_capability"][0]["severity"] == "warning"
    assert found["ptx"][0]["ok"]


def test_blackwell_wants_the_open_module_and_its_first_branch(record, release, decide):
    for one in record["gpu"]["gpus"]:
        one.update(name="NVIDIA B200", pci_device_id="2901", compute_capability="10.0")
    record["module"]["flavour"] = "proprietary"
    assert "isn't driven by the proprietary module" in decide()["module_gpu"][0]["found"]
    record["module"].update(flavour="open", version="550.10.02")
    assert "needs branch 570 or newer" in decide()["module_gpu"][0]["found"]
    assert decide()["driver_release"][0]["found"] == "550.10.02"


def test_a_gpu_older_than_turing_has_a_last_branch(record, decide):
    record["gpu"]["gpus"][0].update(name="Tesla V100", pci_device_id="1db4", compute_capability="7.0")
    record["module"].update(flavour="proprietary", version="595.10.02")
    assert decide()["module_gpu"][0]["found"] == "GPU 0 (Tesla V100) has no support after branch 580"


def test_a_release_without_an_exact_driver_is_held_to_its_branch(release, record, decide):
    release["driver"]["version"] = None
    assert decide()["driver_release"][0]["ok"]
    release["driver"]["branch"] = "595"
    assert not decide()["driver_release"][0]["ok"]


def test_a_release_that_names_no_floor_takes_any(release, decide):
    release["engines"]["vllm"]["cuda"].update(minimum_compute_capability=None, minimum_glibc=None)
    found = decide()
    assert found["engine_compute_capability"][0]["ok"]
    assert found["glibc"][0]["severity"] == "warning"


def test_a_cuda_that_the_facts_do_not_know_is_a_warning(release, record, decide):
    release["cuda"]["version"] = "99.0"
    record["engine"]["torch"]["cuda"] = "99.0"
    found = decide()
    assert [found[link][0]["severity"] for link in ("driver_cuda", "torch_driver")] == ["warning", "warning"]


def test_an_engine_on_the_cuda_before_runs_on_the_newer_driver(release, record, decide):
    release["cuda"]["version"] = record["engine"]["torch"]["cuda"] = "12.8"
    record["engine"]["torch"]["cudnn"] = 91002
    record["engine"]["distributions"]["nvidia-cudnn-cu12"] = "9.10.2.1"
    found = decide()
    assert broken(found) == []
    assert found["cudnn_engine"][0]["detail"] == "By the row of cuDNN 9.10.2 and CUDA 12 in NVIDIA's matrix."


def test_an_old_driver_with_a_supported_compat_package_runs_the_release(record, decide):
    record["module"]["version"] = OTHER
    record["compat"] = [COMPAT]
    record["driver_api"]["version"] = 12080
    record["engine"]["driver"]["library"] = COMPAT["path"]
    found = decide()
    assert found["forward_compatibility"][0]["ok"]
    assert "forward compatibility package" in found["torch_driver"][0]["detail"]
    assert found["torch_driver"][0]["ok"]


def test_the_toolkit_is_wanted_or_not(record, options, decide):
    record["toolkits"] = {"installed": [{"path": "/usr/local/cuda-12.8", "version": "12.8.1"}], "default": None}
    assert decide()["cuda_toolkit"][0]["found"] == "12.8.1 in /usr/local/cuda-12.8"
    options["cuda_toolkit_wanted"] = True
    assert not decide()["cuda_toolkit"][0]["ok"]
    record["toolkits"]["installed"].append({"path": "/usr/local/cuda-13.0", "version": "13.0.2"})
    assert "/usr/local/cuda is absent" in decide()["cuda_toolkit"][0]["found"]
    record["toolkits"]["default"] = "/usr/local/cuda-13.0"
    assert decide()["cuda_toolkit"][0]["ok"]


def test_a_cudnn_of_the_host_is_wanted_or_not(record, options, decide):
    assert decide()["cudnn_host"][0]["expected"] == "none needed"
    options["cudnn_wanted"] = True
    assert not decide()["cudnn_host"][0]["ok"]
    record["cudnn"] = [{"path": "/usr/lib/libcudnn.so.9.17.0", "version": "9.17.0"}]
    assert decide()["cudnn_host"][0]["ok"]
    record["module"]["version"] = OTHER
    assert decide()["cudnn_host"][0]["expected"] == "driver %s or newer for cuDNN 9.17.0" % FLOOR


def test_the_container_toolkit_is_of_one_safe_version(record, release, options, decide):
    names = release["container_toolkit"]["packages"]
    record["packages"][names[0]] = "1.0.1-1"
    found = decide()["container_toolkit"][0]["found"]
    safe = release["facts"]["container_toolkit"]["minimum_safe"]
    for words in (
        "packages of different versions",
        "%s 1.0.1 is older than %s" % (names[0], safe),
        "%s is 1.0.1" % names[0],
    ):
        assert words in found
    del record["packages"][names[1]]
    assert "%s isn't installed" % names[1] in decide()["container_toolkit"][0]["found"]
    # Where it isn't wanted, it may be of another version, and absent, but not unsafe.
    options["container_toolkit_wanted"] = False
    record["packages"] = dict.fromkeys(names, "99.1.0-1")
    assert decide()["container_toolkit"][0]["ok"]
    record["packages"] = dict.fromkeys(names, "1.0.1-1")
    assert not decide()["container_toolkit"][0]["ok"]
    record["packages"], record["cdi"] = {}, []
    assert decide()["container_toolkit"][0]["ok"]
    assert decide()["cdi"][0]["ok"]


def test_before_an_engine_is_deployed_its_side_is_left_out(record, options, decide):
    record["engine"] = None
    options["engine_required"] = False
    found = decide()
    assert broken(found) == []
    assert found["engine"][0]["severity"] == "info"
    assert "torch_driver" not in found


def test_computing_can_be_left_out_and_is_said_to_be(record, options, decide):
    options["compute"] = False
    record["engine"].update(compute=None, skipped=[])
    (only,) = decide()["compute"]
    assert (only["ok"], only["severity"], only["found"]) == (False, "info", "skipped")


def test_a_host_without_gpu_is_one_clear_finding(record, options, decide):
    record["pci"] = {"gpus": [], "switches": []}
    record["module"] = {"loaded": False, "version": None, "flavour": None, "on_disk": {KERNEL: None}}
    record["gpu"] = {"driver": {"state": "library_not_found", "message": "no library", "version": None}, "gpus": []}
    record["driver_api"].update(library=None, version=None, init_code=None, error="libcuda.so.1: cannot open")
    found = decide()
    assert broken(found) == ["gpu"]
    assert list(found) == ["gpu"]
    assert found["gpu"][0]["found"] == "none on the PCI bus, and no driver"
    options["expect_gpus"] = False
    found = decide()
    assert [(f["ok"], f["severity"]) for f in found["gpu"]] == [(True, "info")]


def test_a_driver_without_any_gpu_is_told_too(record, decide):
    record["pci"]["gpus"], record["gpu"]["gpus"] = [], []
    record["engine"]["compute"] = None
    found = decide()
    assert found["gpu"][0]["found"] == "none on the PCI bus, and none by NVML"
    assert not found["gpu"][0]["ok"]


def test_a_gpu_host_without_a_driver_says_so_and_judges_what_needs_none(record, decide):
    record["module"] = {"loaded": False, "version": None, "flavour": None, "on_disk": {KERNEL: None}}
    record["libraries"] = {"libcuda.so.1": None, "libnvidia-ml.so.1": None}
    record["gpu"] = {"driver": {"state": "library_not_found", "message": "no NVML", "version": None}, "gpus": []}
    record["driver_api"].update(library=None, version=None, init_code=None, error="libcuda.so.1: cannot open")
    record["engine"]["driver"].update(library=None, init_code=None)
    record["engine"].update(compute=None)
    record["engine"]["torch"]["arch_list"] = ["sm_75"]
    found = decide()
    assert found["driver"][0]["found"] == "no driver in memory, none installed"
    assert "Links that need a driver weren't looked at." in found["driver"][0]["detail"]
    # By their PCI ids the facts know what the GPUs are: this torch has no code for them, driver or not.
    assert broken(found) == ["driver", "compute_capability"]
    assert "NVIDIA H100 80GB HBM3 at 0000:10:00.0" in found["compute_capability"][0]["found"]
    assert "torch_driver" not in found


def test_an_unknown_pci_device_is_named_by_its_id(record, decide):
    record["gpu"]["gpus"] = []
    record["pci"]["gpus"] = [{"pci_address": "0000:01:00.0", "pci_device_id": "abcd"}]
    record["engine"]["compute"] = None
    assert "PCI device abcd at 0000:01:00.0" in decide()["module_gpu"][0]["detail"]


def test_broken_links_and_the_table(record, release, options):
    record["glibc"] = "2.17"
    record["engine"].update(skipped=[{"index": 0, "reason": "x"}], compute=None)
    findings = _cuda_parity.decide(record, release, options)
    assert _cuda_parity.broken_links(findings) == ["glibc"]
    lines = _cuda_parity.summary(findings)
    assert [line.split()[:2] for line in lines if " holds " not in line] == [["glibc", "BROKEN"], ["compute", "note"]]
    assert len(lines) == len(findings)
