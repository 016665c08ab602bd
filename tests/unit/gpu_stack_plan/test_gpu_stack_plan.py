# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of the GPU stack: tables of hosts, and what each of them gets or why it is refused."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.gpufleet.llm.plugins.filter import gpu_stack_plan as filter_plugin
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan_gpus as gpus_of
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan_packages as naming
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusals, warnings
from gpu_stack_hosts import host

T4, A10, A100_SXM, H100, H100_PCIE, H200, GH200 = "1eb8", "2236", "20b2", "2330", "2331", "2335", "2342"
B200, GB200, RTX_4090, RTX_5090, RTX_PRO, V100, UNKNOWN = "2901", "2941", "2684", "2b85", "2bb5", "1db6", "ffff"
EVERY_PLATFORM = ["debian12", "debian13", "ubuntu2204", "ubuntu2404", "rhel9"]


def names(packages):
    return [package["name"] for package in packages]


def refused(plan):
    return sorted(finding["check"] for finding in refusals(plan["findings"]))


def warned(plan):
    return sorted(finding["check"] for finding in warnings(plan["findings"]))


# -- kernel module flavour


@pytest.mark.parametrize(
    ("devices", "wanted", "flavour"),
    [
        ([H100], "auto", "open"),
        ([T4], "auto", "open"),
        ([RTX_4090], "auto", "open"),
        ([A10, H100_PCIE], "auto", "open"),
        ([B200], "auto", "open"),
        ([RTX_5090, RTX_4090], "auto", "open"),
        ([GH200], "auto", "open"),
        ([V100], "auto", "proprietary"),
        ([V100, T4], "auto", "proprietary"),
        ([H100], "proprietary", "proprietary"),
        ([T4], "open", "open"),
        ([UNKNOWN], "auto", "open"),
        ([UNKNOWN], "proprietary", "proprietary"),
        ([], "auto", "open"),
    ],
)
@pytest.mark.parametrize("platform", EVERY_PLATFORM)
def test_the_flavour_by_gpu(plan, platform, devices, wanted, flavour):
    result = plan(*devices, platform=platform, nvswitches=[], options={"flavour": wanted})
    if platform.startswith("debian") and B200 in devices:
        assert refused(result) == ["gpu_stack.fabric_manager.nvlink5"]
    else:
        assert result["refusal"] == ""
    assert result["driver"]["flavour"] == flavour
    modules = [name for name in names(result["driver"]["packages"]) if "dkms" in name]
    assert len(modules) == 1
    assert ("open" in modules[0]) is (flavour == "open")


@pytest.mark.parametrize(
    ("devices", "wanted", "checks", "text"),
    [
        ([B200], "proprietary", ["gpu_stack.0000:01:00.0.module_flavour"], "driven by open kernel modules only"),
        ([RTX_PRO], "proprietary", ["gpu_stack.0000:01:00.0.module_flavour"], "Set the flavour to auto, or to open"),
        ([GH200], "proprietary", ["gpu_stack.0000:01:00.0.module_flavour"], "NVIDIA GH200"),
        ([V100], "open", ["gpu_stack.0000:01:00.0.module_flavour"], "driven by proprietary kernel modules only"),
        ([V100, RTX_5090], "auto", ["gpu_stack.module_flavour"], "Move the GPUs that need another flavour"),
        (
            [V100, RTX_5090],
            "open",
            ["gpu_stack.0000:01:00.0.module_flavour"],
            "a GPU older than Turing is driven by proprietary",
        ),
    ],
)
def test_a_flavour_that_a_gpu_does_not_take_is_refused(plan, devices, wanted, checks, text):
    result = plan(*devices, platform="ubuntu2404", options={"flavour": wanted})
    assert refused(result) == checks
    assert text in result["refusal"]
    assert "nothing was changed" in result["refusal"]


def test_a_flavour_that_the_repositories_do_not_have_is_refused(release):
    """What a branch without proprietary modules looks like."""
    del release["package_sets"]["debian"]["packages"]["proprietary"]
    result = planning.gpu_stack_plan(release, host(V100))
    assert refused(result) == ["gpu_stack.module_flavour"]
    result = planning.gpu_stack_plan(release, host(H100), {"flavour": "proprietary"})
    assert refused(result) == ["gpu_stack.module_flavour"]
    assert "don't have it at this branch" in result["refusal"]
    assert result["driver"]["packages"] == [
        {"name": name, "version": "580.178.04-*"} for name in ("nvidia-fabricmanager", "libnvidia-nscq")
    ]


@pytest.mark.parametrize(
    ("branch", "version", "device", "named"),
    [
        ("595", "595.58.03", V100, "580"),
        ("620", "620.10.01", V100, "580"),
        ("535", "535.54.03", RTX_5090, "580, 595, 620"),
    ],
)
def test_a_gpu_the_branch_does_not_drive_is_refused_with_those_that_do(release, branch, version, device, named):
    release["driver"].update(branch=branch, version=version)
    result = planning.gpu_stack_plan(release, host(device))
    assert "gpu_stack.0000:01:00.0.driver_branch" in refused(result)
    assert "found %s, expected a branch that drives" % branch in result["refusal"]
    assert ": %s. The release pins driver %s." % (named, version) in result["refusal"]


def test_without_a_supported_branch_all_that_drive_it_are_named(release):
    release["facts"]["driver_branches"]["580"]["status"] = "end_of_life"
    kind = gpus_of.identify({"pci_device_id": V100}, release["facts"])
    assert gpus_of.branches_for(kind, release["facts"]) == ["535", "550", "570", "575", "580"]


def test_an_unknown_gpu_is_said_and_gets_the_default(plan):
    result = plan(UNKNOWN)
    assert warned(result) == ["gpu_stack.0000:01:00.0.known"]
    assert "releases/facts.yml" in str(warnings(result["findings"]))


def test_no_gpu_is_said(plan):
    assert warned(plan()) == ["gpu_stack.gpus"]


def test_a_gpu_the_engine_cannot_use_is_said(release):
    release["cuda"]["minimum_compute_capability"] = "8.0"
    result = planning.gpu_stack_plan(release, host(T4, H100_PCIE))
    assert warned(result) == ["gpu_stack.0000:01:00.0.compute_capability"]
    assert result["refusal"] == ""


@pytest.mark.parametrize(
    ("device_id", "known", "name"),
    [
        ("2330", True, "NVIDIA H100 80GB HBM3"),
        ("0x233B", True, "NVIDIA H200 NVL"),
        ("1340", True, "a GPU older than Turing"),
        ("1DFF", True, "a GPU older than Turing"),
        ("133f", False, "unknown GPU"),
        ("1e00", False, "unknown GPU"),
        ("", False, "unknown GPU"),
    ],
)
def test_a_gpu_is_known_by_its_device_id(release, device_id, known, name):
    kind = gpus_of.identify({"pci_device_id": device_id}, release["facts"])
    assert (kind.known, kind.name) == (known, name)
    assert kind.where == device_id.lower().replace("0x", "")


def test_a_range_has_what_its_architectures_have_in_common(release):
    facts = copy.deepcopy(release["facts"])
    facts["pci_ranges"] = [{"first": "3000", "last": "3001", "architectures": ["volta", "turing"], "name": "either"}]
    kind = gpus_of.identify({"pci_device_id": "3000"}, facts)
    assert kind.flavours == ("proprietary",)
    assert kind.last_driver is None


# -- packages


@pytest.mark.parametrize(
    ("platform", "flavour", "choice", "wanted"),
    [
        ("debian12", "open", "compute", ["nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"]),
        ("debian13", "proprietary", "compute", ["nvidia-driver-cuda", "nvidia-kernel-dkms", "nvidia-persistenced"]),
        (
            "debian13",
            "open",
            "full",
            [
                "nvidia-driver",
                "nvidia-driver-cuda",
                "nvidia-kernel-open-dkms",
                "nvidia-persistenced",
                "nvidia-settings",
            ],
        ),
        (
            "ubuntu2404",
            "open",
            "compute",
            [
                "libnvidia-compute-580",
                "nvidia-utils-580",
                "nvidia-dkms-580-open",
                "nvidia-persistenced",
                "nvidia-modprobe",
            ],
        ),
        ("ubuntu2204", "proprietary", "full", ["cuda-drivers-580", "nvidia-persistenced", "nvidia-modprobe"]),
        (
            "rhel9",
            "proprietary",
            "compute",
            ["nvidia-driver-cuda", "kmod-nvidia-latest-dkms", "nvidia-persistenced", "nvidia-modprobe"],
        ),
    ],
)
def test_the_packages(plan, platform, flavour, choice, wanted):
    result = plan(H100_PCIE, platform=platform, options={"flavour": flavour, "packages": choice})
    assert result["refusal"] == ""
    assert names(result["driver"]["packages"]) == wanted
    assert {package["version"] for package in result["driver"]["packages"]} == {"580.178.04-*"}
    assert result["driver"]["fabric_manager"] is None
    for name in wanted:
        assert naming.is_pinned(name, result["driver"]["pin_patterns"])


def test_kernel_packages_are_the_architectures(plan):
    result = plan(H100_PCIE, platform="debian12")
    assert "linux-image-amd64" in result["driver"]["kernel_packages"]
    assert "linux-headers-6.1.0-50-amd64" in result["driver"]["kernel_packages"]
    assert result["driver"]["build_packages"] == ["linux-headers-6.1.0-50-amd64"]
    result = plan(H100_PCIE, platform="ubuntu2404", architecture="aarch64", kernel="")
    assert result["driver"]["build_packages"] == []
    assert not [name for name in result["driver"]["kernel_packages"] if "{" in name or name.endswith("-")]
    assert naming.expand(["linux-image-{architecture}"], {"architecture": "aarch64", "kernel": ""}, "apt") == [
        "linux-image-arm64"
    ]
    assert naming.expand(["kernel.{architecture}"], {"architecture": "aarch64", "kernel": ""}, "dnf") == [
        "kernel.aarch64"
    ]


# -- pins and holds


def test_preferences_pin_the_version_and_bar_every_other(plan):
    result = plan(H100, platform="debian12")
    driver = result["driver"]
    assert driver["mechanism"] == "preferences_and_hold"
    stanzas = driver["preferences"].split("\n\n")
    assert len(stanzas) == 2
    assert "\nPin: version 580.178.04-*\nPin-Priority: 1001" in stanzas[0]
    assert "\nPin: version *\nPin-Priority: -1" in stanzas[1]
    for stanza in stanzas:
        assert "\nPackage: %s\n" % " ".join(driver["pin_patterns"]) in stanza
    assert driver["hold"] == sorted(driver["pin_patterns"])


def test_a_hold_does_not_depend_on_what_is_installed(plan):
    """Or else the second run would hold more than the first."""
    first = plan(H100, platform="ubuntu2404")
    second = plan(H100, platform="ubuntu2404", installed={"libnvidia-cfg1-580": "580.178.04-1ubuntu1"})
    assert first["driver"]["hold"] == second["driver"]["hold"]
    assert first["driver"]["packages"] == second["driver"]["packages"]


def test_a_pinning_package_goes_without_holds_and_preferences(release):
    release["platforms"]["debian13"]["nvidia"].update(
        mechanism="pinning_package", pinning_package="nvidia-driver-pinning-580.178.04"
    )
    driver = planning.gpu_stack_plan(release, host(H100, platform="debian13"))["driver"]
    assert driver["pinning_package"] == "nvidia-driver-pinning-580.178.04"
    assert driver["hold"] == []
    assert driver["preferences"] == ""
    assert driver["kernel_packages"]


def test_versionlock_holds_by_patterns_and_writes_no_preferences(plan):
    driver = plan(H100, platform="rhel9")["driver"]
    assert driver["mechanism"] == "versionlock"
    assert "kmod-nvidia*" in driver["hold"]
    assert driver["preferences"] == ""


@pytest.mark.parametrize("platform", EVERY_PLATFORM)
def test_automatic_upgrades_leave_the_family_and_the_kernel_alone(plan, platform):
    import re

    driver = plan(H100, platform=platform)["driver"]
    patterns = [re.compile(text) for text in driver["unattended_patterns"]]
    untouched = [*names(driver["packages"]), *driver["kernel_packages"], "nvidia-container-toolkit"]
    assert [name for name in untouched if not any(pattern.match(name) for pattern in patterns)] == []
    assert not any(pattern.match(name) for pattern in patterns for name in ("openssh-server", "python3", "nginx"))


def test_patterns_are_regular_expressions():
    assert naming.unattended_patterns(["libstdc++6", "a.b-"]) == [r"libstdc\+\+6", r"a\.b-"]


# -- what is installed already


def test_installed_members_go_to_the_version_too(plan):
    """A library that is content with any newer driver would stay behind in a downgrade."""
    installed = {
        "nvidia-driver-cuda": "595.58.03-1",
        "libnvidia-ml1": "595.58.03-1",
        "libcuda1": "580.178.04-1",
        "nvidia-container-toolkit": "1.20.1-1",
        "libnvidia-container1": "1.20.1-1",
        "nvlsm": "2025.10.12-1",
        "nginx": "1.22.1-9",
    }
    driver = plan(H100_PCIE, installed=installed)["driver"]
    assert names(driver["packages"]) == [
        "nvidia-driver-cuda",
        "nvidia-kernel-open-dkms",
        "nvidia-persistenced",
        "libnvidia-ml1",
    ]
    assert driver["conflicts"] == []


@pytest.mark.parametrize(
    ("platform", "installed", "conflicts"),
    [
        ("debian12", {}, {}),
        (
            "debian13",
            {"nvidia-driver-pinning-595": "595-1", "nvidia-driver": "595.58.03-1"},
            {"nvidia-driver-pinning-595": "Its preferences file (priority 1000)"},
        ),
        (
            "debian12",
            {"nvidia-kernel-dkms": "580.178.04-1"},
            {"nvidia-kernel-dkms": "of the proprietary kernel modules, and this host gets the open"},
        ),
        (
            "ubuntu2404",
            {"nvidia-fabricmanager-580": "580.126.09-0ubuntu1", "nvidia-fabricmanager": "580.178.04-1"},
            {"nvidia-fabricmanager-580": "becomes a transitional package that pulls the next branch"},
        ),
        (
            "ubuntu2404",
            {"linux-modules-nvidia-580-generic": "6.8.0-1"},
            {"linux-modules-nvidia-580-generic": "loaded instead of those that DKMS builds"},
        ),
        (
            "ubuntu2204",
            {
                "nvidia-fabricmanager-575": "575.57.08-1",
                "libnvidia-nscq-575": "575.57.08-1",
                "libnvidia-compute-575": "575.57.08-1",
                "libnvidia-compute-580": "580.178.04-1ubuntu1",
            },
            {
                "nvidia-fabricmanager-575": "transitional",
                "libnvidia-nscq-575": "It is of driver branch 575, and the release pins branch 580.",
            },
        ),
        (
            "debian12",
            {"nvidia-open-595": "595.58.03-1", "nvidia-open-580": "580.178.04-1"},
            {"nvidia-open-595": "It is of driver branch 595, and the release pins branch 580."},
        ),
    ],
)
def test_conflicts(plan, platform, installed, conflicts):
    driver = plan(H100, platform=platform, installed=installed)["driver"]
    assert {
        conflict["name"]: conflicts[conflict["name"]] in conflict["reason"] for conflict in driver["conflicts"]
    } == dict.fromkeys(conflicts, True)
    assert not set(names(driver["packages"])) & set(conflicts)


def test_a_conflict_named_in_full_is_always_returned_except_for_a_wanted_package(release):
    release["package_sets"]["debian"]["conflicts"] = [
        {"name": "nvidia-legacy-driver", "reason": "Another\n  family."},
        {"name": "nvidia-driver-cuda", "reason": "Never."},
        {"name": "nvidia-kernel-*", "reason": "By a glob."},
    ]
    driver = planning.gpu_stack_plan(
        release, host(H100_PCIE, installed={"nvidia-kernel-open-dkms": "1", "nvidia-kernel-source": "1"})
    )["driver"]
    assert driver["conflicts"] == [
        {"name": "nvidia-kernel-source", "reason": "By a glob."},
        {"name": "nvidia-legacy-driver", "reason": "Another family."},
    ]


@pytest.mark.parametrize(
    ("version", "pattern", "same"),
    [
        ("580.178.04-1", "580.178.04-*", True),
        ("580.178.04-1ubuntu1", "580.178.04-*", True),
        ("580.178.040-1", "580.178.04-*", False),
        ("3:580.178.04-1.el9", "580.178.04-*", True),
        ("3:580.178.04-1.el9", "3:580.178.04-*", True),
        ("580.178.04-1", "3:580.178.04-*", False),
        ("535.261.03-1", "535.261.03-1", True),
    ],
)
def test_an_installed_version_is_held_against_the_wanted_one(version, pattern, same):
    assert naming.matches(version, pattern) is same


# -- fabric manager


@pytest.mark.parametrize(
    ("device", "platform", "packages"),
    [
        (A100_SXM, "debian12", ["nvidia-fabricmanager", "libnvidia-nscq"]),
        (H100, "ubuntu2404", ["nvidia-fabricmanager", "libnvidia-nscq"]),
        (H200, "rhel9", ["nvidia-fabricmanager", "libnvidia-nscq"]),
        (B200, "ubuntu2204", ["nvlink5-580"]),
        ("3182", "rhel9", ["nvlink5-580"]),
        (H100_PCIE, "debian12", None),
        (RTX_4090, "ubuntu2404", None),
        ("233b", "rhel9", None),
    ],
)
def test_the_fabric_manager_by_gpu(plan, device, platform, packages):
    result = plan(device, device, platform=platform)
    assert result["refusal"] == ""
    driver = result["driver"]
    if packages is None:
        assert driver["fabric_manager"] is None
        assert driver["services"]["enable"] == ["nvidia-persistenced.service"]
        return
    assert driver["fabric_manager"] == {"packages": packages, "unit": "nvidia-fabricmanager.service"}
    assert driver["services"]["enable"][-1] == "nvidia-fabricmanager.service"
    for name in packages:
        assert {"name": name, "version": "580.178.04-*"} in driver["packages"]


@pytest.mark.parametrize(
    ("nvswitches", "wanted"), [(None, True), ([], False), ([{"pci_address": "0000:05:00.0"}], True)]
)
def test_a_board_without_nvswitches_needs_no_manager(plan, nvswitches, wanted):
    assert bool(plan(H100, nvswitches=nvswitches)["driver"]["fabric_manager"]) is wanted


def test_nvlink5_has_no_nvswitch_on_the_bus_and_needs_its_manager_all_the_same(plan):
    assert plan(B200, platform="ubuntu2404", nvswitches=[])["driver"]["fabric_manager"]


def test_a_fabric_whose_packages_are_not_known_is_refused(plan):
    result = plan(B200, platform="debian12")
    assert refused(result) == ["gpu_stack.fabric_manager.nvlink5"]
    assert "none known for this platform" in result["refusal"]


def test_a_domain_of_several_hosts_is_refused(plan):
    result = plan(GB200, platform="ubuntu2404", architecture="aarch64")
    assert refused(result) == ["gpu_stack.0000:01:00.0.fabric"]
    assert "IMEX" in result["refusal"]


def test_a_fabric_manager_older_than_the_board_is_refused(release):
    release["facts"]["fabric_manager_minimum_branch"]["2330"] = "595"
    result = planning.gpu_stack_plan(release, host(H100))
    assert refused(result) == ["gpu_stack.0000:01:00.0.fabric_manager_branch"]


# -- repositories


@pytest.mark.parametrize("platform", EVERY_PLATFORM)
def test_public_repositories(plan, platform):
    result = plan(H100, platform=platform)
    driver, toolkit = result["repositories"]
    base = "https://developer.download.nvidia.com/compute/cuda/repos/%s/x86_64" % platform
    slash = "" if platform == "rhel9" else "/"
    assert driver["url"] == base + slash
    assert driver["key_url"].startswith(base + "/")
    assert driver["suite"] == slash
    assert driver["key_path"].startswith("/etc/")
    assert toolkit["url"].startswith("https://nvidia.github.io/libnvidia-container/stable/")
    assert (driver["module_stream"], toolkit["module_stream"]) == (
        "nvidia-driver:580-open" if platform == "rhel9" else None,
        None,
    )


def test_debian_13_has_a_key_of_its_own(plan):
    keys = {platform: plan(H100, platform=platform)["repositories"][0] for platform in EVERY_PLATFORM}
    assert keys["debian13"]["key_url"].endswith("/8793F200.pub")
    assert keys["debian13"]["key_fingerprint"].endswith("8793F200")
    assert keys["debian13"]["key_fingerprint"] != keys["debian12"]["key_fingerprint"]


def test_the_stream_is_the_flavours(plan):
    result = plan(V100, platform="rhel9")
    assert result["repositories"][0]["module_stream"] == "nvidia-driver:580-dkms"


def test_sbsa(plan):
    result = plan(H100_PCIE, platform="ubuntu2404", architecture="aarch64")
    assert result["repositories"][0]["url"].endswith("/ubuntu2404/sbsa/")
    assert result["repositories"][0]["key_url"].endswith("/ubuntu2404/sbsa/3bf863cc.pub")
    assert result["repositories"][1]["url"].endswith("/stable/deb/arm64/")


def test_an_architecture_that_is_not_published_is_refused(plan):
    result = plan(H100, platform="debian12", architecture="aarch64")
    assert refused(result) == ["gpu_stack.architecture"]
    assert "expected one of x86_64" in result["refusal"]
    assert result["repositories"] == []


def test_a_container_toolkit_that_is_not_published_is_refused(release):
    del release["repositories"]["container-toolkit-deb"]["paths"]["aarch64"]
    result = planning.gpu_stack_plan(release, host(H100_PCIE, platform="ubuntu2404", architecture="aarch64"))
    assert refused(result) == ["gpu_stack.repository.container-toolkit-deb"]


@pytest.mark.parametrize("mirror", ["http://198.18.77.1:8000/nvidia", "http://198.18.77.1:8000/nvidia/"])
def test_a_mirror_takes_the_place_of_every_base(plan, mirror):
    result = plan(H100, options={"mirror_url": mirror, "mirror_key_fingerprint": "A" * 40})
    driver, toolkit = result["repositories"]
    assert driver["url"] == "http://198.18.77.1:8000/nvidia/debian12/x86_64/"
    assert driver["key_url"] == "http://198.18.77.1:8000/nvidia/debian12/x86_64/3bf863cc.pub"
    assert toolkit["url"] == "http://198.18.77.1:8000/nvidia/libnvidia-container/stable/deb/amd64/"
    assert {driver["key_fingerprint"], toolkit["key_fingerprint"]} == {"A" * 40}
    assert "nvidia.com" not in str(result["repositories"])


def test_a_mirror_with_nvidias_own_keys_keeps_their_fingerprints(plan):
    theirs = [entry["key_fingerprint"] for entry in plan(H100)["repositories"]]
    mirrored = plan(H100, options={"mirror_url": "http://mirror.example"})["repositories"]
    assert [entry["key_fingerprint"] for entry in mirrored] == theirs


def test_a_fingerprint_without_a_mirror_counts_for_nothing(plan):
    repositories = plan(H100, options={"mirror_key_fingerprint": "A" * 40})["repositories"]
    assert "A" * 40 not in {entry["key_fingerprint"] for entry in repositories}


def test_one_repository_may_carry_both(release):
    release["platforms"]["debian12"]["nvidia"]["container_toolkit_repository"] = "cuda-debian12"
    result = planning.gpu_stack_plan(release, host(H100))
    assert [entry["id"] for entry in result["repositories"]] == ["cuda-debian12"]
    assert result["container_toolkit"]["packages"]


# -- the distribution's own archive


def test_debians_own_driver_is_data_only(debian_archive):
    result = planning.gpu_stack_plan(debian_archive, host(A10), {"container_toolkit_wanted": False})
    assert result["refusal"] == ""
    assert result["repositories"] == []
    driver = result["driver"]
    assert driver["flavour"] == "proprietary"
    assert driver["packages"] == [
        {"name": "nvidia-kernel-dkms", "version": "535.261.03-1"},
        {"name": "libcuda1", "version": "535.261.03-1"},
        {"name": "nvidia-smi", "version": "535.261.03-1"},
        {"name": "nvidia-persistenced", "version": "535.171.04-1~deb12u1"},
    ]
    assert "nvidia-persistenced" in driver["hold"]
    assert driver["preferences"].count("Package: nvidia-persistenced\n") == 2
    assert "Pin: version 535.171.04-1~deb12u1" in driver["preferences"]


def test_an_own_archive_takes_the_platforms_architectures(debian_archive):
    result = planning.gpu_stack_plan(debian_archive, host(A10, architecture="aarch64"))
    assert refused(result) == ["gpu_stack.architecture"]


# -- toolkits


def test_the_cuda_toolkit_is_not_wanted_and_the_plan_says_why(plan):
    toolkit = plan(H100)["cuda_toolkit"]
    assert toolkit["wanted"] is False
    assert toolkit["reason"].startswith("The engine's wheels bring their own CUDA runtime")
    assert toolkit["reason"].endswith(".")
    assert (toolkit["packages"], toolkit["hold"], toolkit["default_path"]) == ([], [], None)


@pytest.mark.parametrize(
    ("options", "packages", "path", "reason"),
    [
        ({"cuda_toolkit_wanted": True}, ["cuda-toolkit-13-0=13.0.3-1"], "/usr/local/cuda-13.0", "CUDA toolkit on"),
        ({"cudnn_wanted": True}, ["libcudnn9-cuda-13=9.20.0.48-1"], None, "cuDNN on"),
        (
            {"cuda_toolkit_wanted": True, "cudnn_wanted": True},
            ["cuda-toolkit-13-0=13.0.3-1", "libcudnn9-cuda-13=9.20.0.48-1"],
            "/usr/local/cuda-13.0",
            "CUDA toolkit and cuDNN on",
        ),
    ],
)
def test_a_toolkit_that_the_inventory_asks_for(plan, options, packages, path, reason):
    toolkit = plan(H100, options=options)["cuda_toolkit"]
    assert toolkit["wanted"] is True
    assert ["%(name)s=%(version)s" % package for package in toolkit["packages"]] == packages
    assert toolkit["hold"] == names(toolkit["packages"])
    assert toolkit["default_path"] == path
    assert toolkit["reason"] == "The inventory asks for %s this host." % reason


def test_a_toolkit_that_the_release_wants(release):
    release["cuda_toolkit"].update(wanted=True, reason="Something\n  compiles.")
    toolkit = planning.gpu_stack_plan(release, host(H100))["cuda_toolkit"]
    assert (toolkit["wanted"], toolkit["reason"]) == (True, "Something compiles.")
    toolkit = planning.gpu_stack_plan(release, host(H100), {"cuda_toolkit_wanted": False})["cuda_toolkit"]
    assert (toolkit["wanted"], toolkit["packages"]) == (False, [])


@pytest.mark.parametrize(("part", "option"), [("cuda_toolkit", "cuda_toolkit_wanted"), ("cudnn", "cudnn_wanted")])
def test_a_toolkit_that_is_not_known_for_the_platform_is_refused(release, part, option):
    release["platforms"]["debian13"]["nvidia"][part] = None
    result = planning.gpu_stack_plan(release, host(H100, platform="debian13"), {option: True})
    assert refused(result) == ["gpu_stack.%s" % part]
    assert planning.gpu_stack_plan(release, host(H100, platform="debian13"))["refusal"] == ""


def test_the_container_toolkit_is_four_packages_at_one_version(plan):
    toolkit = plan(H100)["container_toolkit"]
    assert len(toolkit["packages"]) == 4
    assert {package["version"] for package in toolkit["packages"]} == {"1.20.1-1"}
    assert toolkit["hold"] == names(toolkit["packages"])
    assert toolkit["wanted"] is True


def test_a_host_without_containers_gets_no_container_toolkit_and_no_repository_for_it(plan):
    result = plan(H100, options={"container_toolkit_wanted": False})
    assert result["container_toolkit"]["wanted"] is False
    assert result["container_toolkit"]["packages"] == []
    assert len(result["repositories"]) == 1


def test_an_unsafe_container_toolkit_is_refused_where_it_is_wanted(release):
    release["container_toolkit"]["version"] = "1.17.7"
    assert refused(planning.gpu_stack_plan(release, host(H100))) == ["gpu_stack.container_toolkit.safe"]
    assert planning.gpu_stack_plan(release, host(H100), {"container_toolkit_wanted": False})["refusal"] == ""


def test_a_container_toolkit_without_a_repository_is_refused(release):
    release["platforms"]["debian12"]["nvidia"]["container_toolkit_repository"] = None
    assert refused(planning.gpu_stack_plan(release, host(H100))) == ["gpu_stack.container_toolkit.repository"]


# -- hosts and options that can't be planned for


@pytest.mark.parametrize(
    ("platform", "found"),
    [("fedora44", "found fedora44"), ("", "found none"), ("debian11", "expected one of debian12")],
)
def test_an_unknown_platform_is_refused_and_the_plan_is_whole(plan, platform, found):
    result = plan(H100, platform=platform)
    assert refused(result) == ["gpu_stack.platform"]
    assert found in result["refusal"]
    assert set(result) == set(plan(H100))
    assert set(result["driver"]) == set(plan(H100)["driver"])
    assert set(result["cuda_toolkit"]) == set(plan(H100)["cuda_toolkit"])
    assert set(result["container_toolkit"]) == set(plan(H100)["container_toolkit"])


@pytest.mark.parametrize(("alias", "key"), [("rocky9", "rhel9"), ("ubuntu24", "ubuntu2404")])
def test_a_platform_may_go_by_another_name(plan, alias, key):
    assert plan(H100, platform=alias)["repositories"] == plan(H100, platform=key)["repositories"]


@pytest.mark.parametrize("part", planning.PARTS)
def test_a_release_without_a_gpu_stack_refuses(release, part):
    del release[part]
    result = planning.gpu_stack_plan(release, host(H100))
    assert refused(result) == ["gpu_stack.platform"]
    assert "the release has no GPU stack" in result["refusal"]


def test_options_that_are_not_are_refused_all_at_once(plan):
    result = plan(H100, options={"flavour": "nouveau", "packages": "some", "driver_version": "1"})
    assert refused(result) == ["gpu_stack.options.flavour", "gpu_stack.options.names", "gpu_stack.options.packages"]
    assert result["refusal"].startswith("The GPU stack of release 2026.11.0 on debian12 refused, 3 reasons")


def test_every_reason_is_said_at_once(plan):
    result = plan(V100, B200, platform="debian12", options={"flavour": "open"})
    assert refused(result) == ["gpu_stack.0000:01:00.0.module_flavour", "gpu_stack.fabric_manager.nvlink5"]


def test_the_plan_is_pure(release):
    before = copy.deepcopy(release)
    given = host(H100, installed={"nvidia-open-595": "595.58.03-1"})
    first = planning.gpu_stack_plan(release, copy.deepcopy(given))
    first["driver"]["packages"].clear()
    first["driver"]["pin_patterns"].clear()
    assert planning.gpu_stack_plan(release, given)["driver"]["packages"]
    assert release == before


def test_installed_may_be_null(release):
    assert planning.gpu_stack_plan(release, dict(host(H100), installed=None))["refusal"] == ""


def test_the_filter_is_the_plan():
    assert filter_plugin.FilterModule().filters() == {"gpu_stack_plan": planning.gpu_stack_plan}
