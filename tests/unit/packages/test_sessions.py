# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs of package_set and package_hold, replayed: what apt and dnf said to the same commands on real hosts.

``sessions/`` was recorded by package_sessions.py on Debian 12 and 13 (apt 2.6 and 3.0) and with dnf 4.14, against the
stand-in repositories of tests/mirror.
"""

from __future__ import annotations

import pathlib
import typing as t

import package_sessions
import pytest

SESSIONS = sorted((pathlib.Path(__file__).parent / "sessions").glob("*.json"))
A, B = "580.901.01-1", "580.902.02-1"
CHANGING = ("apt-get", "apt-mark", "dpkg", "dnf")


def session(name: str) -> dict[str, t.Any]:
    return package_sessions.load(pathlib.Path(__file__).parent / "sessions" / (name + ".json"))


def commands(name: str) -> list[list[str]]:
    return [call["asked"] for call in session(name)["calls"] if call["kind"] == "run"]


def moved(name: str) -> dict[str, tuple[str | None, str | None, str]]:
    packages = session(name)["result"]["packages"]
    return {key: (p["from"], p["to"], p["action"]) for key, p in packages.items()}


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_a_run_does_and_says_what_it_did(path: pathlib.Path) -> None:
    recorded = package_sessions.load(path)
    host = package_sessions.ReplayHost(recorded["calls"])
    result = package_sessions.act(recorded["manager"], host, recorded["given"])
    assert result == recorded["result"]
    assert host.commands == [], "commands that weren't run any more"


@pytest.mark.parametrize("name", ["apt-none", "dnf-none", "apt-held-again"])
def test_nothing_to_change_costs_one_query(name: str) -> None:
    assert [argv[0] for argv in commands(name)] == ["dpkg-query" if name.startswith("apt") else "rpm"]
    assert session(name)["result"]["changed"] is False


@pytest.mark.parametrize("name", [path.stem for path in SESSIONS if "check" in path.stem])
def test_check_mode_changes_nothing(name: str) -> None:
    for argv in commands(name):
        assert argv[0] not in ("apt-mark", "dpkg")
        assert argv[0] != "apt-get" or "--simulate" in argv
        assert argv[0] != "dnf" or "repoquery" in argv or "--assumeno" in argv


@pytest.mark.parametrize(("name", "suffix"), [("apt", ""), ("dnf", ".el9")])
def test_up_and_down(name: str, suffix: str) -> None:
    library = "libnvidia-ml1" if name == "apt" else "libnvidia-ml"
    epoch = "" if name == "apt" else "3:"
    old, new = epoch + A + suffix, epoch + B + suffix
    assert moved(name + "-install")[library] == (None, old, "install")
    assert moved(name + "-upgrade")[library] == (old, new, "upgrade")
    assert moved(name + "-check-upgrade") == moved(name + "-upgrade")
    assert moved(name + "-downgrade")[library] == (new, old, "downgrade")
    for step in ("-install", "-upgrade", "-downgrade"):
        result = session(name + step)["result"]
        versions = {package["to"] for key, package in result["packages"].items() if not key.startswith("kernel")}
        assert len(versions) == 1, "a member of the family stayed behind"
        assert set(result["packages"]) <= set(result["held"])


def test_one_transaction_and_holds_stay_on() -> None:
    run = [argv for argv in commands("apt-upgrade") if argv[0] in CHANGING and "--simulate" not in argv]
    assert [
        (argv[0], next(word for word in argv if word in ("install", "auto", "showauto", "hold"))) for argv in run
    ] == [
        ("apt-mark", "showauto"),
        ("apt-get", "install"),
        ("apt-mark", "auto"),
        ("apt-mark", "hold"),
    ]
    assert "nvidia-driver-cuda=" + B in run[1]
    assert "--allow-downgrades" in run[1]
    install = [argv for argv in commands("dnf-flavour") if "install" in argv and "--assumeno" not in argv]
    assert len(install) == 1
    assert "--disableplugin=versionlock" in install[0]


@pytest.mark.parametrize(
    ("name", "check", "texts"),
    [
        (
            "apt-removed-version",
            "package.version",
            ["expected nvidia-driver-cuda 580.901.01-*", "found nvidia-driver-cuda: " + B],
        ),
        (
            "dnf-removed-version",
            "package.version",
            ["3:%s.el9, 3:%s.el9" % (B, A), "expected nvidia-driver-cuda 580.1.1-*"],
        ),
        ("apt-signature", "package.update.signature", ["NO_PUBKEY", "don't switch the check off"]),
        ("apt-signature-trixie", "package.update.signature", ["Missing key", "is not signed"]),
        ("dnf-signature", "package.update.signature", ["Bad GPG signature"]),
        ("apt-expired", "package.update.expired", ["is expired (invalid since"]),
        ("apt-incomplete-trixie", "package.resolve.unmet", ["libnvidia-ml1 (= %s)" % B]),
        ("dnf-unmet", "package.resolve.unmet", ["conflict"]),
        (
            "apt-tampered-trixie",
            "package.transaction.tampered",
            ["Hash Sum mismatch", "libnvidia-ml1", "Nothing was installed."],
        ),
        (
            "dnf-tampered",
            "package.transaction.tampered",
            ["checksum doesn't match", "Nothing was installed or removed."],
        ),
        ("dnf-missing-file", "package.transaction.missing_file", ["Status code: 404"]),
        ("dnf-repository-gone", "package.update.missing_file", ["Failed to download metadata for repo 'nv'"]),
        ("apt-disk-full", "package.transaction.disk_full", ["No space left on device", "Nothing was installed."]),
        (
            "apt-script-fails",
            "package.transaction.script",
            ["nvidia-kernel-open-dkms: asked to fail", "stay held", "make.log"],
        ),
        ("apt-downgrade-forbidden", "package.downgrade", ["%s -> %s" % (B, A), "allow_downgrade"]),
        ("apt-foreign-removal", "package.removal", ["hello would be removed"]),
        ("apt-foreign-removal-check", "package.removal", ["hello would be removed"]),
        ("apt-both", "package.request", ["hello in both"]),
    ],
)
def test_failures_say_what_was_found_and_what_to_do(name: str, check: str, texts: list[str]) -> None:
    result = session(name)["result"]
    assert result["findings"][0]["check"] == check
    assert result["findings"][0]["remedy"]
    for text in texts:
        assert text in result["msg"]


@pytest.mark.parametrize(
    "name", ["apt-tampered-trixie", "apt-disk-full", "apt-signature", "apt-expired", "dnf-tampered", "dnf-signature"]
)
def test_a_download_that_fails_changes_nothing(name: str) -> None:
    result = session(name)["result"]
    assert result["changed"] is False
    assert {package["action"] for package in result["packages"].values()} == {"none"}


def test_a_failed_transaction_stays_held_and_can_be_run_again() -> None:
    failed = session("apt-script-fails")["result"]
    assert {"nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libcuda1"} <= set(failed["held"])
    assert ["dpkg", "--force-confdef", "--force-confold", "--configure", "--pending"] in commands("apt-goes-on")
    again = session("apt-goes-on")["result"]
    assert again["packages"]["nvidia-driver-cuda"]["to"] == A
    assert again["findings"][0]["check"] == "package.interrupted"
    elsewhere = session("apt-goes-elsewhere")["result"]
    assert {package["to"] for package in elsewhere["packages"].values()} == {A}
    assert session("dnf-cut")["result"]["findings"][0]["check"] == "package.interrupted"


def test_a_family_that_somebody_took_apart_is_whole_again() -> None:
    assert moved("apt-partial")["libcuda1"] == (A, B, "upgrade")
    assert moved("apt-partial")["nvidia-smi"] == (None, B, "install")
    assert any("--fix-broken" in argv for argv in commands("apt-partial"))


def test_what_must_go_goes_with_its_configuration() -> None:
    run = next(argv for argv in commands("apt-remove") if argv[0] == "apt-get" and "--simulate" not in argv)
    assert run[-2:] == ["nvidia-driver-pinning-580.901.01-", "hello-"]
    assert "--purge" in run
    assert moved("apt-remove")["hello"][2] == "remove"
    assert moved("apt-flavour")["nvidia-kernel-open-dkms"][2] == "remove"
    assert moved("dnf-flavour")["kmod-nvidia-open-dkms"][2] == "remove"
    assert moved("dnf-remove")["foreign-tool"][2] == "remove"
    assert moved("apt-remove-check")["nvidia-persistenced"][2] == "remove"


def test_a_module_stream_is_enabled_once() -> None:
    assert [argv[-2:] for argv in commands("dnf-install") if "module" in argv] == [
        ["reset", "nvidia-driver"],
        ["enable", "nvidia-driver:580-open"],
    ]
    assert [argv for argv in commands("dnf-upgrade") if "module" in argv] == []


def test_what_check_mode_cannot_know_is_said() -> None:
    finding = session("dnf-check-virgin")["result"]["findings"][0]
    assert (finding["check"], finding["severity"]) == ("package.check_mode", "warning")
    assert moved("dnf-check-virgin")["nvidia-driver-cuda"] == (None, "580.901.01-*", "install")


def test_holds_alone() -> None:
    assert [argv[0] for argv in commands("apt-only-holds")] == ["dpkg-query", "apt-mark", "dpkg-query"]
    assert commands("apt-only-holds")[1] == ["apt-mark", "hold", "nvidia-smi"]
    assert session("apt-only-holds-check")["result"]["changed"] is True
    assert session("apt-free")["result"] == {"changed": True, "held": session("apt-free")["result"]["held"]}
    assert "nvidia-smi" not in session("apt-free")["result"]["held"]
    assert "libcuda1" in session("apt-free")["result"]["held"]
    assert "nvidia-smi" in session("apt-held")["result"]["held"]
    assert session("apt-hold-check")["result"]["changed"] is True
    assert "nvidia-kmod-common" not in session("dnf-free")["result"]["held"]
    assert "nvidia-kmod-common" in session("dnf-held")["result"]["held"]
