# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release's consistency: a table of breakages, one or more per link, each named by the link that it breaks."""

from __future__ import annotations

import copy
import re
import shutil

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _release as releasing
from ansible_collections.gpufleet.llm.plugins.module_utils import _release_check as checking
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusals, warnings

ID = "2026.11.0"
LEGACY = "2026.11.1"
CPU_LOCK = "%s/vllm-cpu-py311.txt" % ID
CUDA_LOCK = "%s/vllm-cuda-py312.txt" % ID
LEGACY_LOCK = "%s/vllm-cuda-py312.txt" % LEGACY
OLD_KEY = "EB693B3035CD5710E231E123A4B469963BF863CC"


@pytest.fixture(scope="module")
def loaded(root):
    """The releases as loaded, by id; a test takes a copy."""
    directory = str(root / "releases")
    return {release_id: releasing.load(directory, release_id) for release_id in (ID, LEGACY)}


def failed(release):
    return {finding["check"] for finding in refusals(checking.check_consistency(release))}


def put(*path, value):
    """Return a change that sets one place of a release; the last part of the path is the key."""

    def change(release):
        at = release
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


def drop(*path):
    def change(release):
        at = release
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return change


def all_of(*changes):
    def change(release):
        for one in changes:
            one(release)

    return change


def engine(accelerator, **values):
    return lambda release: release["engines"]["vllm"][accelerator].update(values)


def driver(branch, version):
    return lambda release: release["driver"].update(branch=branch, version=version)


def pinning(platform, package, mechanism="pinning_package"):
    return lambda release: release["platforms"][platform]["nvidia"].update(mechanism=mechanism, pinning_package=package)


def names(package_set, *listed, flavour="open", choice="compute"):
    return put("package_sets", package_set, "packages", flavour, choice, value=list(listed))


EVERY_DEBIAN = ("debian12", "debian13", "ubuntu2204", "ubuntu2404")
# Links that are broken by a driver of another branch, for the names in the package sets carry the branch.
OF_THE_BRANCH = {
    "release.package_sets.ubuntu.names",
    "release.package_sets.rhel.names",
    "release.package_sets.rhel.module_streams",
}

# (what is broken, how, the links that must be named: exactly these)
MUTATIONS = [
    # driver
    ("driver of another branch than it says", driver("580", "595.58.03"), {"release.driver.branch"}),
    (
        "driver older than the release says CUDA needs",
        driver("580", "580.65.05"),
        {"release.driver.cuda", "release.driver.runs_cuda", "release.vllm.cuda.driver"},
    ),
    ("driver just new enough", driver("580", "580.65.06"), set()),
    (
        "branch out of support on the day, by its month",
        driver("610", "610.57.04"),
        {"release.driver.end_of_life"} | OF_THE_BRANCH,
    ),
    (
        "branch out of support, month unknown",
        driver("590", "590.48.01"),
        {"release.driver.end_of_life"} | OF_THE_BRANCH,
    ),
    ("branch that facts.yml doesn't know", driver("999", "999.10.01"), {"release.driver.end_of_life"} | OF_THE_BRANCH),
    (
        "branch ends in the release's month",
        put("facts", "driver_branches", "580", "end_of_life", value="2026-11"),
        set(),
    ),
    (
        "branch ended the month before",
        put("facts", "driver_branches", "580", "end_of_life", value="2026-10"),
        {"release.driver.end_of_life"},
    ),
    (
        "release after the end of its branch",
        put("date", value="2028-07-01"),
        {"release.driver.end_of_life"},
    ),
    (
        "GPU that the branch hasn't got yet",
        put("facts", "architectures", "hopper", "first_driver", value="595"),
        {"release.driver.gpus"},
    ),
    (
        "GPU that the branch no longer has",
        put("facts", "architectures", "turing", "last_driver", value="575"),
        {"release.driver.gpus"},
    ),
    (
        "fabric manager that is too old for a board",
        put("facts", "fabric_manager_minimum_branch", "2901", value="595"),
        {"release.driver.fabric_manager"},
    ),
    # CUDA and cuDNN
    (
        "CUDA level that isn't the wheels'",
        put("cuda", "version", value="13.2"),
        {"release.vllm.cuda.lock.cuda", "release.cuda_toolkit.cuda"}
        | {"release.platforms.%s.cuda_toolkit" % key for key in (*EVERY_DEBIAN, "rhel9")},
    ),
    (
        "CUDA level that facts.yml doesn't know",
        put("facts", "cuda", value={"12.8": {"toolkit_driver": "570.26", "mvc_floor": "525.60.13"}}),
        {
            "release.driver.runs_cuda",
            "release.cuda.minimum_driver",
            "facts.driver_branches.cuda",
            "facts.forward_compatibility",
        },
    ),
    (
        "minimum driver below the floor of CUDA and of cuDNN",
        put("cuda", "minimum_driver", value="570.26"),
        {"release.cuda.minimum_driver", "release.cudnn.driver"},
    ),
    (
        "minimum driver above the pinned one",
        put("cuda", "minimum_driver", value="580.200.01"),
        {"release.driver.cuda", "release.vllm.cuda.minimum_driver"},
    ),
    (
        "cuDNN that wants a newer driver",
        put("facts", "cudnn", "9.20.0", value={"13": "590.44.01"}),
        {"release.cudnn.driver"},
    ),
    ("cuDNN that isn't the wheels'", put("cudnn", "version", value="9.19.0.56"), {"release.vllm.cuda.lock.cudnn"}),
    (
        "compute capability that CUDA 13 has dropped",
        all_of(
            put("cuda", "minimum_compute_capability", value="6.0"),
            engine("cuda", minimum_compute_capability="6.0"),
        ),
        {"release.cuda.compute_capability"},
    ),
    (
        "toolkit of another CUDA level",
        put("cuda_toolkit", "version", value="12.8.1"),
        {"release.cuda_toolkit.cuda"},
    ),
    ("toolkit in another place", put("cuda_toolkit", "path", value="/usr/local/cuda"), {"release.cuda_toolkit.cuda"}),
    (
        "toolkit packages of another level",
        put("platforms", "rhel9", "nvidia", "cuda_toolkit", value=["cuda-toolkit-12-8"]),
        {"release.platforms.rhel9.cuda_toolkit"},
    ),
    (
        "cuDNN packages of another major",
        put("platforms", "debian12", "nvidia", "cudnn", value=["libcudnn9-cuda-12"]),
        {"release.platforms.debian12.cuda_toolkit"},
    ),
    ("no toolkit known", put("platforms", "debian12", "nvidia", "cuda_toolkit", value=None), set()),
    # container toolkit
    (
        "container toolkit below the safe one",
        put("container_toolkit", "version", value="1.17.7"),
        {"release.container_toolkit.safe"},
    ),
    ("container toolkit just safe", put("container_toolkit", "version", value="1.17.8"), set()),
    (
        "a package of the container toolkit forgotten",
        put("container_toolkit", "packages", value=["nvidia-container-toolkit", "libnvidia-container1"]),
        {"release.container_toolkit.packages"},
    ),
    # package sets
    (
        "no open modules, for Blackwell and by default",
        drop("package_sets", "debian", "packages", "open"),
        {"release.package_sets.debian.module_flavour"},
    ),
    (
        "no proprietary modules: every supported GPU has open ones",
        drop("package_sets", "debian", "packages", "proprietary"),
        set(),
    ),
    (
        "a default flavour that isn't offered",
        all_of(
            put("driver", "default_flavour", value="proprietary"),
            drop("package_sets", "debian", "packages", "proprietary"),
        ),
        {"release.package_sets.debian.module_flavour"},
    ),
    (
        "a name of another branch",
        names("ubuntu", "libnvidia-compute-575", "nvidia-dkms-580-open"),
        {"release.package_sets.ubuntu.names", "release.package_sets.ubuntu.pinned"},
    ),
    (
        "a name past the cliff",
        put("facts", "package_names", "last_suffixed_branch", "driver", value="575"),
        {"release.package_sets.ubuntu.names", "release.package_sets.rhel.names"},
    ),
    (
        "a fabric manager's name past its own cliff",
        put("package_sets", "ubuntu", "fabric_manager", "nvswitch", value=["nvidia-fabricmanager-580"]),
        {"release.package_sets.ubuntu.names", "release.package_sets.ubuntu.conflicts"},
    ),
    (
        "a package that isn't pinned",
        names("debian", "nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libsomething1"),
        {"release.package_sets.debian.pinned"},
    ),
    (
        "a fabric manager that isn't pinned",
        put("package_sets", "rhel", "fabric_manager", "nvswitch", value=["fabric-of-another-name"]),
        {"release.package_sets.rhel.pinned"},
    ),
    (
        "a conflict with a package of the set",
        put("package_sets", "debian", "conflicts", value=[{"name": "nvidia-kernel-*", "reason": "Why not."}]),
        {"release.package_sets.debian.conflicts"},
    ),
    (
        "no streams for dnf",
        put("package_sets", "rhel", "module_streams", value=None),
        {"release.package_sets.rhel.module_streams"},
    ),
    (
        "a stream that moves to the next branch",
        put("package_sets", "rhel", "module_streams", "open", value="nvidia-driver:open-dkms"),
        {"release.package_sets.rhel.module_streams"},
    ),
    (
        "a stream for one flavour only",
        drop("package_sets", "rhel", "module_streams", "proprietary"),
        {"release.package_sets.rhel.module_streams"},
    ),
    (
        "streams for apt",
        put("package_sets", "debian", "module_streams", value={"open": "nvidia-driver:580-open"}),
        {"release.package_sets.debian.module_streams"},
    ),
    # repositories and platforms
    (
        "a fingerprint that isn't the key file's",
        put("repositories", "cuda-debian12", "key_fingerprint", value="0" * 40),
        {"release.repositories.cuda-debian12.key"},
    ),
    (
        "a key that Debian 13 refuses",
        put("platforms", "debian13", "nvidia", "driver_repository", value="cuda-debian12"),
        {"release.platforms.debian13.keys"},
    ),
    (
        "a package set that isn't there",
        put("platforms", "debian12", "nvidia", "package_set", value="gentoo"),
        {
            "release.platforms.debian12.package_set",
            "release.platforms.debian12.repositories",
            "release.platforms.debian12.pinning",
        },
    ),
    (
        "a repository that isn't there",
        put("platforms", "debian12", "nvidia", "driver_repository", value="cuda-debian14"),
        {"release.platforms.debian12.repositories"},
    ),
    (
        "a repository of another package manager",
        put("platforms", "rhel9", "nvidia", "container_toolkit_repository", value="container-toolkit-deb"),
        {"release.platforms.rhel9.repositories"},
    ),
    (
        "a repository that isn't published for the platform's machines",
        put("platforms", "debian12", "architectures", value=["x86_64", "aarch64"]),
        {"release.platforms.debian12.repositories"},
    ),
    ("the distribution's own archive", put("platforms", "debian12", "nvidia", "driver_repository", value=None), set()),
    ("dnf's way to pin on apt", pinning("debian12", None, "versionlock"), {"release.platforms.debian12.pinning"}),
    ("apt's way to pin on dnf", pinning("rhel9", None, "preferences_and_hold"), {"release.platforms.rhel9.pinning"}),
    (
        "a pinning package beside a hold",
        pinning("debian13", "nvidia-driver-pinning-580", "preferences_and_hold"),
        {"release.platforms.debian13.pinning"},
    ),
    (
        "a pinning package that lets the version move",
        pinning("ubuntu2404", "nvidia-driver-pinning-580"),
        {"release.platforms.ubuntu2404.pinning"},
    ),
    (
        "a pinning package where none is published",
        pinning("debian12", "nvidia-driver-pinning-580.178.04"),
        {"release.platforms.debian12.pinning"},
    ),
    ("a pinning package for exactly this version", pinning("ubuntu2404", "nvidia-driver-pinning-580.178.04"), set()),
    (
        "a pinning package of a branch that has none",
        all_of(
            pinning("ubuntu2404", "nvidia-driver-pinning-580.178.04"),
            put("facts", "package_names", "pinning_packages", value=["570"]),
        ),
        {"release.platforms.ubuntu2404.pinning"},
    ),
    # the stack as a whole
    ("no driver", drop("driver"), {"release.gpu_stack"}),
    ("no way onto a platform", drop("platforms", "debian13", "nvidia"), {"release.gpu_stack"}),
    # engines
    (
        "engine that wants less than CUDA",
        engine("cuda", minimum_driver="525.60.13"),
        {"release.vllm.cuda.minimum_driver"},
    ),
    ("engine that says no driver", engine("cuda", minimum_driver=None), {"release.vllm.cuda.minimum_driver"}),
    (
        "engine that wants more than the driver",
        engine("cuda", minimum_driver="595.58.03"),
        {"release.vllm.cuda.driver"},
    ),
    (
        "engine for GPUs that CUDA hasn't got",
        engine("cuda", minimum_compute_capability="7.0"),
        {"release.vllm.cuda.minimum_compute_capability"},
    ),
    (
        "engine that says no compute capability",
        engine("cuda", minimum_compute_capability=None),
        {"release.vllm.cuda.minimum_compute_capability"},
    ),
    (
        "engine without code for GPUs that are supported",
        engine("cuda", minimum_compute_capability="10.0"),
        {"release.vllm.cuda.gpus"},
    ),
    ("engine on another Python", engine("cuda", python="3.13"), {"release.vllm.cuda.python"}),
    ("engine of another version", engine("cuda", version="0.33.0"), {"release.vllm.cuda.lock.version"}),
    (
        "a stand-in for a distribution that is there",
        engine("cpu", distributions=[{"name": "torch", "version": "1"}]),
        {"release.vllm.cpu.distributions"},
    ),
    (
        "glibc newer than a platform's",
        engine("cuda", minimum_glibc="2.35"),
        {"release.vllm.cuda.glibc.rhel9"},
    ),
    ("glibc newer than Debian 12's", engine("cpu", minimum_glibc="2.37"), {"release.vllm.cpu.glibc.debian12"}),
    (
        "glibc older than the lock file's",
        engine("cuda", minimum_glibc="2.17"),
        {"release.vllm.cuda.lock.glibc"},
    ),
    (
        "no package list for a family",
        engine("cuda", packages={"debian": []}),
        {"release.vllm.cuda.packages.rhel9"},
    ),
    (
        "an accelerator nothing is built for",
        drop("engines", "vllm", "cpu"),
        {"release.platforms.debian12.accelerators", "release.platforms.debian13.accelerators"},
    ),
    ("a lock file that isn't there", engine("cuda", lock_path="/nonexistent"), {"release.vllm.cuda.lock_file"}),
    # facts
    (
        "a GPU of no architecture",
        put("facts", "gpus", "2330", "architecture", value="grace"),
        {"facts.gpus.architecture"},
    ),
    (
        "a board without its fabric manager's first branch",
        drop("facts", "fabric_manager_minimum_branch", "2335"),
        {"facts.gpus.fabric"},
    ),
    (
        "a range of ids over a GPU that is named",
        put("facts", "pci_ranges", 0, "last", value="1fff"),
        {"facts.gpus.pci_ranges"},
    ),
    (
        "an architecture until a branch that isn't there",
        put("facts", "architectures", "pascal", "last_driver", value="581"),
        {"facts.architectures.driver"},
    ),
    (
        "an architecture without modules",
        put("facts", "architectures", "volta", "proprietary_module", value=False),
        {"facts.architectures.modules"},
    ),
    (
        "a floor that isn't its major's",
        put("facts", "cuda", "12.9", "mvc_floor", value="535.54.03"),
        {"facts.cuda.floor"},
    ),
    (
        "a branch with a CUDA it didn't ship with",
        put("facts", "driver_branches", "580", "cuda", value="13.1"),
        {"facts.driver_branches.cuda"},
    ),
    (
        "a branch with support, and no end",
        put("facts", "driver_branches", "595", "end_of_life", value=None),
        {"facts.driver_branches.status"},
    ),
    (
        "a compatibility row of no CUDA",
        put("facts", "forward_compatibility", "matrix", "14.0", value={}),
        {"facts.forward_compatibility"},
    ),
    (
        "a safe container toolkit nobody has seen",
        all_of(
            put("facts", "container_toolkit", "minimum_safe", value="1.20.2"),
            put("container_toolkit", "version", value="1.20.2"),
        ),
        {"facts.container_toolkit"},
    ),
]


@pytest.mark.parametrize(("change", "broken"), [row[1:] for row in MUTATIONS], ids=[row[0] for row in MUTATIONS])
def test_an_inconsistent_release_names_the_broken_link(loaded, change, broken):
    release = copy.deepcopy(loaded[ID])
    change(release)
    assert failed(release) == broken


LEGACY_MUTATIONS = [
    (
        "minimum driver below what cuDNN says for Blackwell",
        all_of(put("cuda", "minimum_driver", value="525.60.13"), engine("cuda", minimum_driver="525.60.13")),
        {"release.cudnn.driver"},
    ),
    (
        "a legacy release on a branch that is over",
        driver("570", "570.124.06"),
        {"release.driver.end_of_life", "release.package_sets.rhel.module_streams"}
        | {"release.package_sets.%s.names" % key for key in ("ubuntu", "rhel")},
    ),
    ("CUDA 13 in a release of CUDA 12", put("cudnn", "version", value="9.20.0.48"), {"release.vllm.cuda.lock.cudnn"}),
]


@pytest.mark.parametrize(
    ("change", "broken"), [row[1:] for row in LEGACY_MUTATIONS], ids=[row[0] for row in LEGACY_MUTATIONS]
)
def test_an_inconsistent_legacy_release_names_the_broken_link(loaded, change, broken):
    release = copy.deepcopy(loaded[LEGACY])
    change(release)
    assert failed(release) == broken


@pytest.mark.parametrize("release_id", [ID, LEGACY])
def test_the_releases_are_consistent(loaded, release_id):
    assert failed(loaded[release_id]) == set()


def general(check):
    """Return a check's name without what stands for one platform, package set or repository."""
    check = re.sub(r"^release\.(platforms|package_sets|repositories)\.[^.]+\.", r"release.\1.*.", check)
    check = re.sub(r"^release\.vllm\.(cpu|cuda)\.", "release.vllm.*.", check)
    return re.sub(r"\.(glibc|packages)\.[a-z]+[0-9]+$", r".\1.*", check)


def test_every_link_that_can_break_is_in_a_table(loaded):
    """What is decided, and nothing else: a link that no breakage names, or a name that no link has, is a mistake."""
    decided = set()
    for release in loaded.values():
        decided |= {general(f["check"]) for f in checking.check_consistency(release) if f["severity"] == "error"}
    broken = {general(check) for row in MUTATIONS + LEGACY_MUTATIONS for check in row[2]}
    broken |= {general(row[3]) for row in LOCKS}
    assert decided == broken


# -- what is said, but doesn't refuse


def said(release):
    return {finding["check"] for finding in warnings(checking.check_consistency(release))}


def test_what_is_not_known_is_said(loaded):
    assert said(loaded[ID]) == {"release.cudnn.row", "release.package_sets.debian.fabric_manager"}
    assert said(loaded[LEGACY]) == {"release.package_sets.debian.fabric_manager"}


def test_a_driver_that_cannot_compile_for_its_cuda_is_said(loaded):
    """CUDA 12.8 with a driver between minor version compatibility's floor and the one it shipped with."""
    release = copy.deepcopy(loaded[LEGACY])
    release["facts"]["cuda"]["12.8"]["toolkit_driver"] = "580.200.01"
    assert "release.driver.compiles_cuda" in said(release)
    release["facts"]["cuda"]["12.8"]["toolkit_driver"] = None
    assert "release.driver.compiles_cuda" in said(release)


def test_a_cudnn_without_any_row_is_said_and_does_not_refuse(loaded):
    release = copy.deepcopy(loaded[ID])
    release["facts"]["cudnn"] = {}
    assert failed(release) == set()
    assert "release.cudnn.row" in said(release)


def test_a_release_for_cpus_alone_needs_no_gpu_stack(loaded):
    release = copy.deepcopy(loaded[ID])
    for part in ("driver", "cuda_toolkit", "cudnn", "container_toolkit", "package_sets", "repositories"):
        del release[part]
    del release["engines"]["vllm"]["cuda"]
    release["platforms"] = {"debian12": release["platforms"]["debian12"]}
    del release["platforms"]["debian12"]["accelerators"]["cuda"]
    findings = checking.check_consistency(release)
    assert {finding["check"] for finding in refusals(findings)} == set()
    assert "release.gpu_stack" not in {finding["check"] for finding in findings}


# -- lock files

LOCKS = [
    (ID, "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-runtime==12.8.90", "release.vllm.cuda.lock.cuda", CUDA_LOCK),
    (ID, "\ntorch==", "\ntorch-other==", "release.vllm.cuda.lock.cuda", CUDA_LOCK),
    (ID, "nvidia-cudnn-cu13==", "nvidia-cudnn-cu12==", "release.vllm.cuda.lock.cudnn", CUDA_LOCK),
    (ID, "x86_64-manylinux_2_28", "x86_64-manylinux_2_39", "release.vllm.cuda.lock.glibc", CUDA_LOCK),
    (ID, "--python-platform", "--platform", "release.vllm.cuda.lock.glibc", CUDA_LOCK),
    (ID, "agent-detector==", "nvidia-cuda-runtime==", "release.vllm.cpu.lock.cuda", CPU_LOCK),
    (ID, "torch==2.13.0+cpu \\", "torch==2.13.0+cpu\n#", "release.vllm.cpu.lock.hashes", CPU_LOCK),
    (ID, "agent-detector==", "agent-detector>=", "release.vllm.cpu.lock.hashes", CPU_LOCK),
    (
        LEGACY,
        "nvidia-cuda-runtime-cu12==12.8.90",
        "nvidia-cuda-runtime-cu12==12.6.77",
        "release.vllm.cuda.lock.cuda",
        LEGACY_LOCK,
    ),
    (LEGACY, "nvidia-cudnn-cu12==9.10", "nvidia-cudnn-cu12==9.11", "release.vllm.cuda.lock.cudnn", LEGACY_LOCK),
]


@pytest.mark.parametrize(("release_id", "old", "new", "broken", "lock_file"), LOCKS)
def test_a_lock_file_that_does_not_fit_names_the_broken_link(root, tmp_path, release_id, old, new, broken, lock_file):
    shutil.copytree(root / "releases", tmp_path / "releases")
    path = tmp_path / "releases" / lock_file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert broken in failed(releasing.load(str(tmp_path / "releases"), release_id))


def test_an_empty_lock_file_is_refused(root, tmp_path):
    shutil.copytree(root / "releases", tmp_path / "releases")
    (tmp_path / "releases" / CPU_LOCK).write_text("# nothing\n")
    assert "release.vllm.cpu.lock.hashes" in failed(releasing.load(str(tmp_path / "releases"), ID))
