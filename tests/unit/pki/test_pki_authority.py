# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One authority follows another: what is trusted, what is due, what is refused at each step."""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _pki, _pki_authority, _pki_make
from pki_fleet import DAY, NOW, Fleet


def take(fleet: Fleet, step: str, *, check_mode: bool = False, name: str = "CA 2") -> dict[str, t.Any]:
    return _pki_authority.take_step(fleet.directory(), step, name=name, days=3650, check_mode=check_mode)


def verify(fleet: Fleet, certificate: bytes) -> str:
    """Ask openssl, as nginx would, with the lists of every authority. Returns what it says against it."""
    path = fleet.path.with_name("under-test.pem")
    path.write_bytes(certificate)
    argv = ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-crl_check_all", "-CRLfile"]
    argv += [str(fleet.path / "crl.pem"), "-CAfile", str(fleet.path / "ca.crt"), str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def pair(fleet: Fleet) -> bytes:
    return (fleet.path / "clients/demo/client.crt").read_bytes()


def test_an_authority_follows_another_and_nobody_is_refused_in_between(fleet: Fleet) -> None:
    old = pair(fleet)
    assert verify(fleet, old) == ""
    fleet.run("issue", "leaver", record=False)
    leaver = (fleet.path / "clients/leaver/client.crt").read_bytes()
    fleet.run("revoke", "leaver")

    added = take(fleet, "add")
    assert [line.split(",")[0] for line in added["authorities"]] == [
        "signs and is trusted: CA (%s)" % added["authorities"][0].split("(")[1].split(")")[0],
        "is trusted: CA 2 (%s)" % added["authorities"][1].split("(")[1].split(")")[0],
    ]
    assert fleet.status()["reasons"] == []
    assert verify(fleet, old) == ""
    assert "revoked" in verify(fleet, leaver)

    take(fleet, "switch")
    assert fleet.status()["reasons"] == ["client demo: not signed by this authority"]
    assert verify(fleet, old) == ""
    with pytest.raises(_pki_make.Refused, match="client demo"):
        take(fleet, "drop")
    fleet.run("issue", "demo", record=False)
    new = pair(fleet)
    assert fleet.status()["reasons"] == []
    assert verify(fleet, old) == verify(fleet, new) == ""
    assert "revoked" in verify(fleet, leaver)

    take(fleet, "drop")
    assert fleet.status()["reasons"] == []
    assert verify(fleet, new) == ""
    assert verify(fleet, old) != ""
    keys = sorted(path.name for path in (fleet.path / "authorities").iterdir())
    assert len(keys) == 3, "the key of an authority that isn't trusted is gone"


def test_the_switch_can_be_undone(fleet: Fleet) -> None:
    take(fleet, "add")
    take(fleet, "switch")
    take(fleet, "switch_back")
    assert fleet.status()["reasons"] == []
    take(fleet, "drop")
    assert [_pki.common_name(found) for found in fleet.directory().authority().trusted()] == ["CA"]


@pytest.mark.parametrize("steps", [("add",), ("add", "switch"), ("add", "switch", "switch_back")])
def test_a_step_that_was_taken_changes_nothing(fleet: Fleet, steps: tuple[str, ...]) -> None:
    for step in steps:
        assert take(fleet, step)["changed"]
    tree = fleet.tree()
    assert not take(fleet, steps[-1])["changed"]
    assert fleet.tree() == tree


def test_a_check_writes_nothing_and_says_what_comes(fleet: Fleet) -> None:
    for step in ("add", "switch"):
        tree = fleet.tree()
        check = take(fleet, step, check_mode=True)
        assert fleet.tree() == tree
        done = take(fleet, step)
        assert check["changed"] and done["changed"]
        assert check["diff"]["before"] == done["diff"]["before"]
        assert "CA 2" in check["diff"]["after"]
    with pytest.raises(_pki_make.Refused):
        take(fleet, "drop", check_mode=True)


@pytest.mark.parametrize(("step", "name"), [("switch", "CA 2"), ("drop", "CA 2"), ("add", "CA")])
def test_refusals(fleet: Fleet, step: str, name: str) -> None:
    tree = fleet.tree()
    with pytest.raises(_pki_make.Refused, match="nothing was changed"):
        take(fleet, step, name=name)
    assert fleet.tree() == tree


def test_a_third_may_follow_the_second(fleet: Fleet) -> None:
    for name in ("CA 2", "CA 3"):
        take(fleet, "add", name=name)
        take(fleet, "switch")
        fleet.run("issue", "demo", record=False)
        take(fleet, "drop")
    assert [_pki.common_name(found) for found in fleet.directory().authority().trusted()] == ["CA 3"]
    assert verify(fleet, pair(fleet)) == ""


def test_a_trusted_authority_without_a_list_is_due(fleet: Fleet) -> None:
    first = (fleet.path / "crl.pem").read_bytes()
    take(fleet, "add")
    (fleet.path / "crl.pem").write_bytes(first)
    assert fleet.status()["reasons"] == ["revocation list: CA 2 has none"]
    _pki_make.renew_crl(fleet.directory())
    assert fleet.status()["reasons"] == []


def test_a_lost_key_of_a_trusted_authority_is_named(fleet: Fleet) -> None:
    take(fleet, "add")
    for path in (fleet.path / "authorities").glob("*.key"):
        path.unlink()
    with pytest.raises(_pki_make.Refused, match="restore"):
        _pki_make.renew_crl(fleet.directory())


def test_a_list_ends_when_it_says(fleet: Fleet, tmp_path: pathlib.Path) -> None:
    """The pitfall that the alert is for: openssl refuses everybody once a list has ended."""
    short = fleet.directory(NOW, crl_lifetime=DAY / 24)
    _pki_make.renew_crl(short)
    assert verify(fleet, pair(fleet)) == ""
    late = fleet.directory(NOW - DAY, crl_lifetime=DAY / 24)
    _pki_make.renew_crl(late)
    assert "CRL has expired" in verify(fleet, pair(fleet))
