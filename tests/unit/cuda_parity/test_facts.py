# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What NVIDIA's facts say about versions that meet, table by table."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_facts as known
from parity_chain import FLOOR


@pytest.fixture(scope="module")
def facts(shipped):
    return shipped["facts"]


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("3:570.10.02-1.el9", "570.10.02"),
        ("570.10.02-0ubuntu0.24.04.1", "570.10.02"),
        ("570.10.02", "570.10.02"),
        (None, ""),
    ],
)
def test_a_package_version_without_epoch_and_revision(version, wanted):
    assert known.upstream(version) == wanted


@pytest.mark.parametrize(
    ("version", "floor", "wanted"),
    [
        (FLOOR, FLOOR, True),
        ("580.65.05", FLOOR, False),
        ("595.84", "595.45.04", True),
        ("570.26", "570.26", True),
        ("580", FLOOR, True),
        ("575", FLOOR, False),
        ("580.9.1", FLOOR, False),
    ],
)
def test_at_least(version, floor, wanted):
    assert known.at_least(version, floor) is wanted


@pytest.mark.parametrize(("number", "wanted"), [(13000, "13.0"), (12080, "12.8"), (None, None), (0, None)])
def test_cuda_of_number(number, wanted):
    assert known.cuda_of_number(number) == wanted


@pytest.mark.parametrize(("number", "wanted"), [(92000, "9.20.0"), (91002, "9.10.2"), (8902, "8.9.2"), (None, None)])
def test_cudnn_of_number(number, wanted):
    assert known.cudnn_of_number(number) == wanted


@pytest.mark.parametrize(
    ("driver", "cuda", "api", "wanted"),
    [
        (FLOOR, "13.0", None, ("full", FLOOR)),
        (FLOOR, "13.2", None, ("minor", FLOOR)),
        ("595.45.04", "13.2", None, ("full", FLOOR)),
        # 13.4 has no driver version in the facts: the driver's own word counts.
        ("615.71.09", "13.4", None, ("minor", FLOOR)),
        ("615.71.09", "13.4", "13.4", ("full", FLOOR)),
        # A minor that the facts don't list, of a major that they do.
        (FLOOR, "13.9", None, ("minor", FLOOR)),
        ("575.51.03", "13.0", None, ("too_old", FLOOR)),
        # Newer drivers run older CUDA, whatever the upper end of minor version compatibility.
        (FLOOR, "12.8", None, ("full", "525.60.13")),
        ("570.10.02", "12.8", None, ("minor", "525.60.13")),
        ("535.54.03", "12.8", None, ("minor", "525.60.13")),
        ("470.10.01", "12.4", None, ("too_old", "525.60.13")),
        (FLOOR, "99.0", None, ("unknown", None)),
    ],
)
def test_runs_cuda(facts, driver, cuda, api, wanted):
    assert known.runs_cuda(facts, driver, cuda, api) == wanted


ARCHES = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("arch_list", "capability", "sass", "ptx"),
    [
        (ARCHES, "9.0", ["sm_90"], []),
        (ARCHES, "8.6", ["sm_80", "sm_86"], []),
        (ARCHES, "8.9", ["sm_80", "sm_86"], []),  # the same major, a higher minor
        (ARCHES, "10.3", ["sm_100"], []),
        (ARCHES, "12.1", ["sm_120"], ["compute_120"]),
        (ARCHES, "7.0", [], []),  # Volta isn't Turing: the minor is lower
        (ARCHES, "6.1", [], []),
        (["sm_86"], "8.0", [], []),  # machine code doesn't run on a lower minor
        (["sm_80"], "9.0", [], []),  # nor on another major
        (["compute_80"], "9.0", [], ["compute_80"]),  # PTX does
        (["compute_90"], "8.9", [], []),  # but not on an older one
        (["sm_90a"], "9.0", ["sm_90a"], []),
        (["sm_100a"], "10.3", [], []),  # architecture specific: that one alone
        (["sm_100f"], "10.3", ["sm_100f"], []),  # family specific: that major
        (["sm_100f"], "12.0", [], []),
        (["compute_90a"], "10.0", [], []),
        (["compute_90a"], "9.0", [], ["compute_90a"]),
        (["compute_100f"], "12.0", [], []),
        (["compute_100f"], "10.3", [], ["compute_100f"]),
        (["gfx942", ""], "9.0", [], []),
        ([], "9.0", [], []),
    ],
)
def test_code_for(arch_list, capability, sass, ptx):
    assert known.code_for(arch_list, capability) == {"sass": sass, "ptx": ptx}


@pytest.mark.parametrize(
    ("cuda", "driver", "wanted"),
    [
        ("13.0", "570.10.02", "compatible"),
        ("13.0", FLOOR, "not_needed"),
        ("13.0", "595.84", "unsupported"),
        ("12.6", "610.43.02", "unknown"),
        ("11.0", FLOOR, "unknown"),
        (None, FLOOR, "unknown"),
    ],
)
def test_compat_status(facts, cuda, driver, wanted):
    assert known.compat_status(facts, cuda, driver) == wanted


@pytest.mark.parametrize(
    ("version", "major", "architectures", "wanted"),
    [
        ("9.17.0", "13", ["hopper"], (FLOOR, "9.17.0")),
        # The row of 9.20.0 is unknown: the newest at or below it that's known counts, and is named.
        ("9.20.0.48", "13", ["hopper"], (FLOOR, "9.17.0")),
        ("9.10.2.21", "12", ["hopper"], ("525.60.13", "9.10.2")),
        ("9.10.2.21", "12", ["blackwell", "hopper"], ("570.26", "9.10.2")),
        ("9.1.0", "13", [], (None, None)),
        ("8.9.2", "12", [], (None, None)),
    ],
)
def test_cudnn_floor(facts, version, major, architectures, wanted):
    assert known.cudnn_floor(facts, version, major, architectures) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver", 35),
        ("CUDA driver version is insufficient for CUDA runtime version", 35),
        ("CUDA error: no kernel image is available for execution on the device CUDA kernel errors might", 209),
        ("CUDA error: the provided PTX was compiled with an unsupported toolchain.", 222),
        ("Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized", 802),
        ("system has unsupported display driver / cuda driver combination", 803),
        ("forward compatibility was attempted on non supported HW", 804),
        ("No CUDA GPUs are available", 100),
        ("CUDA error: out of memory", None),
    ],
)
def test_code_of_text(text, wanted):
    assert known.code_of_text(text) == wanted


def test_every_error_that_is_recognised_by_its_text_is_in_the_facts(facts):
    for _text, code in known.ERROR_TEXTS:
        assert known.error_fact(facts, code)["link"], code
    assert known.error_fact(facts, 999) == {}
    assert known.error_fact(facts, None) == {}


def test_gpus_and_architectures(facts):
    assert known.gpu_fact(facts, "2B85")["class"] == "geforce"
    assert known.gpu_fact(facts, "ffff") == {}
    assert known.gpu_fact(facts, None) == {}
    assert known.architecture_of(facts, "12.0")[0] == "blackwell"
    assert known.architecture_of(facts, None) == (None, {})
