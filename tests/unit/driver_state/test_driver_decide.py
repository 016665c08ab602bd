# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the way of a driver, and whether it will load at the next boot: a table of hosts."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state as state
from ansible_collections.gpufleet.llm.plugins.module_utils import _finding
from driver_support import KERNEL, NEWER, WANTED, record

DKMS_PLAN: dict[str, t.Any] = {"driver": {"packages": [{"name": "nvidia-kernel-open-dkms", "version": "1-*"}]}}
PREBUILT_PLAN: dict[str, t.Any] = {"driver": {"packages": [{"name": "kmod-nvidia-open", "version": "1-*"}]}}
REPOSITORY = {"id": "cuda-x", "format": "apt", "url": "https://packages.example/x/"}


def named(findings: list[dict[str, t.Any]], check: str) -> dict[str, t.Any]:
    return next(f for f in findings if f["check"] == check)


def failed(findings: list[dict[str, t.Any]]) -> list[str]:
    return [f["check"] for f in findings if not f["ok"]]


def test_a_good_host_has_nothing_in_the_way() -> None:
    assert failed(state.before(record(), DKMS_PLAN, [])) == []


def test_no_gpu_is_refused_unless_the_inventory_names_one() -> None:
    finding = named(state.before(record(gpus=[]), DKMS_PLAN, []), "driver.gpu")
    assert (finding["ok"], finding["severity"], finding["found"]) == (False, "error", "none")
    assert "nvidia_driver_gpus" in finding["remedy"]
    finding = named(state.before(record(gpus=[]), DKMS_PLAN, [{"pci_device_id": "2330"}]), "driver.gpu")
    assert finding["ok"] and "can't be loaded here" in finding["found"]


def test_a_run_file_installation_is_refused() -> None:
    finding = named(state.before(record(runfile=True), DKMS_PLAN, []), "driver.runfile")
    assert (finding["ok"], finding["severity"]) == (False, "error")
    assert "nvidia-uninstall" in finding["remedy"]


def test_cloud_init_is_only_said() -> None:
    assert failed(state.before(record(cloud_init="running"), DKMS_PLAN, [])) == ["driver.cloud_init"]
    assert _finding.refusals(state.before(record(cloud_init="running"), DKMS_PLAN, [])) == []


@pytest.mark.parametrize(
    ("sources", "ok"),
    [
        ({}, True),
        ({"/etc/apt/sources.list.d/gpufleet-cuda-x.sources": ["https://packages.example/x"]}, True),
        ({"/etc/apt/sources.list.d/cuda.list": ["https://packages.example/x"]}, False),
        ({"/etc/apt/sources.list.d/cuda.list": ["https://packages.example/y"]}, True),
    ],
)
def test_another_source_of_the_same_repository_is_refused(sources: dict[str, list[str]], ok: bool) -> None:
    (finding,) = state.sources(record(sources=sources), [REPOSITORY])
    assert finding["ok"] is ok
    assert ok or "/etc/apt/sources.list.d/cuda.list" in finding["remedy"]


def secure(certificate: t.Any, certificates: t.Any = ()) -> dict[str, t.Any]:
    return {
        "state": "enabled",
        "enforced": True,
        "certificates": list(certificates),
        "signing_certificate": certificate,
    }


@pytest.mark.parametrize(
    ("certificate", "ok", "said"),
    [
        (None, False, "the first build makes one"),
        ({"path": "/k.pub", "enrolled": True}, True, "/k.pub, enrolled"),
        ({"path": "/k.pub", "enrolled": False}, False, "/k.pub, not enrolled"),
        ({"path": "/k.pub", "enrolled": None}, False, "mokutil is missing"),
    ],
)
def test_under_secure_boot_the_dkms_certificate_is_said_before_anything(
    certificate: t.Any, ok: bool, said: str
) -> None:
    findings = state.before(record(secure_boot=secure(certificate)), DKMS_PLAN, [])
    finding = named(findings, "driver.secure_boot.certificate")
    assert finding["ok"] is ok and said in finding["found"] and finding["severity"] == "warning"
    assert ok or "mokutil --import" in finding["remedy"]


def test_prebuilt_modules_need_no_certificate_of_the_host() -> None:
    findings = state.before(record(secure_boot=secure(None)), PREBUILT_PLAN, [])
    assert "driver.secure_boot.certificate" not in [f["check"] for f in findings]


def test_the_installed_module_of_the_next_kernel_fits() -> None:
    findings = state.after(record(), WANTED)
    assert [f["check"] for f in findings] == ["driver.next_boot.module", "driver.next_boot.flavour"]
    assert failed(findings) == []


def test_a_kernel_without_the_module_is_refused_with_what_dkms_says() -> None:
    modules = [
        {"module": "nvidia", "version": "100.20.30", "kernel": NEWER, "architecture": "x86_64", "state": "built"},
        {"module": "nvidia", "version": "100.20.30", "kernel": KERNEL, "architecture": "x86_64", "state": "installed"},
    ]
    host = record(kernel__next_boot=NEWER, dkms__modules=modules)
    (finding,) = state.after(host, WANTED)
    assert finding["check"] == "driver.next_boot.module" and finding["severity"] == "error" and not finding["ok"]
    assert finding["expected"] == "version 100.20.30 for kernel " + NEWER
    assert finding["found"] == "no module; DKMS: nvidia/100.20.30 built"
    assert "dkms autoinstall -k " + NEWER in finding["remedy"]


def test_an_old_module_is_refused() -> None:
    host = record()
    host["module"]["on_disk"][KERNEL]["version"] = "99.1"
    assert failed(state.after(host, WANTED)) == ["driver.next_boot.module"]


def test_the_other_flavour_is_refused_and_auto_takes_either() -> None:
    host = record()
    host["module"]["on_disk"][KERNEL]["flavour"] = "proprietary"
    assert failed(state.after(host, WANTED)) == ["driver.next_boot.flavour"]
    assert failed(state.after(host, {"version": WANTED["version"], "flavour": "auto"})) == []


@pytest.mark.parametrize(
    ("signer", "certificates", "ok", "found"),
    [
        ("", [], False, "not signed"),
        ("DKMS", [], False, "signed by DKMS [5A]"),
        ("DKMS", [{"name": "DKMS", "serial": "5a", "key_id": "", "source": "mok"}], True, "signed by DKMS [5A]"),
    ],
)
def test_under_secure_boot_an_unknown_signature_is_refused(
    signer: str, certificates: list[dict[str, str]], ok: bool, found: str
) -> None:
    host = record(secure_boot=secure({"path": "/k.pub", "enrolled": ok}, certificates))
    host["module"]["on_disk"][KERNEL].update(signer=signer, sig_key="5A" if signer else "")
    finding = named(state.after(host, WANTED), "driver.next_boot.signature")
    assert (finding["ok"], finding["severity"], finding["found"]) == (ok, "error", found)
    assert ok or "mokutil --import /k.pub" in finding["remedy"]


def test_a_host_that_runs_anothers_kernel_says_so() -> None:
    host = record(kernel__next_boot_source="running", kernel__has_modules=False)
    (finding,) = state.after(host, WANTED)
    assert (finding["ok"], finding["severity"]) == (False, "warning")
    (finding,) = state.after(dict(host, gpus=[]), WANTED)
    assert finding["ok"]
