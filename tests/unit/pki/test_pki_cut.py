# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writers that are killed at every single change of a file, by a real SIGKILL, and run again."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _pki, _pki_authority, _pki_make
from pki_fleet import DAY, HOUR, NOW, Fleet, digest, killed_at, make, records

MOST_STEPS = 40


def every_cut(path: pathlib.Path, work: t.Callable[[Fleet], t.Any]) -> t.Iterator[Fleet]:
    """Give a fresh directory for every change at which the work can be killed, before and after it."""
    cuts = 0
    for after in (False, True):
        for step in range(1, MOST_STEPS):
            fleet = make(path / ("%d-%s" % (step, after)))
            if not killed_at(step, after, lambda fleet=fleet: work(fleet)):
                break
            cuts += 1
            yield fleet
        else:
            raise AssertionError("the work has more steps than the test makes")
    assert cuts >= 4


def test_issue(tmp_path: pathlib.Path) -> None:
    for fleet in every_cut(tmp_path, lambda fleet: fleet.run("issue", "batch", tier="gold")):
        fleet.run("issue", "batch", tier="gold")
        fleet.check_pair("batch")
        assert len(fleet.lines("batch")) == 1
        assert records(fleet)["batch"]["tier"] == "gold"
        assert fleet.status(clients=("demo", "batch"))["reasons"] == []


def test_rotate(tmp_path: pathlib.Path) -> None:
    """However it was cut: one new key, the old one ends when it was said, one certificate is to be revoked."""
    for fleet in every_cut(tmp_path, lambda fleet: fleet.run("rotate", "demo", keep=2 * DAY)):
        listed = [line.split()[0] for line in fleet.lines("demo")]
        assert fleet.revoked() == set(), "a cut run refuses nobody"
        fleet.run("rotate", "demo", keep=2 * DAY, now=NOW + HOUR / 2)
        fleet.check_pair("demo")
        lines = fleet.lines("demo")
        assert len(lines) == 2, "no key that nobody was given"
        assert set(listed) <= {line.split()[0] for line in lines}
        assert lines[1].split()[1].startswith("2026-11-27T12:")
        noted = records(fleet)["demo"]["certificates"]
        current = fleet.certificate("demo").serial_number
        assert len(noted) == 1 and "%x" % current not in noted
        assert digest(fleet.key("demo")) in records(fleet)["demo"]["keys"]
        assert fleet.status(NOW + HOUR)["reasons"] == []


def test_revoke(tmp_path: pathlib.Path) -> None:
    """From the first change on the client is revoked; the next run of anything ends it."""
    for fleet in every_cut(tmp_path, lambda fleet: fleet.run("revoke", "demo")):
        serial = fleet.certificate("demo").serial_number
        if records(fleet).get("demo"):
            assert fleet.status()["due"]["clients"] == [], "the role doesn't give it a new certificate"
        fleet.run("revoke", "demo")
        assert fleet.lines("demo") == []
        assert fleet.revoked() == {serial}
        assert fleet.status()["reasons"] == []


@pytest.mark.parametrize("step", ["add", "switch", "drop"])
def test_authority(tmp_path: pathlib.Path, step: str) -> None:
    """A cut step is taken again; in between there is always one authority that signs, or a refusal that says why."""

    def take(fleet: Fleet, which: str) -> dict[str, t.Any]:
        return _pki_authority.take_step(fleet.directory(), which, name="CA 2", days=3650, check_mode=False)

    def prepare(fleet: Fleet) -> None:
        if step != "add":
            take(fleet, "add")
        if step == "drop":
            take(fleet, "switch")
            fleet.run("issue", "demo", record=False)

    def work(fleet: Fleet) -> None:
        take(fleet, step)

    for after in (False, True):
        for number in range(1, MOST_STEPS):
            fleet = make(tmp_path / ("%d-%s" % (number, after)))
            prepare(fleet)
            if not killed_at(number, after, lambda fleet=fleet: work(fleet)):
                break
            take(fleet, step)
            authority = fleet.directory().authority()
            names = [_pki.common_name(certificate) for certificate in authority.trusted()]
            assert names == {"add": ["CA", "CA 2"], "switch": ["CA 2", "CA"], "drop": ["CA 2"]}[step]
            assert len(_pki.read_crls(str(fleet.path / "crl.pem"))) == len(names)
            assert _pki_make.crl_due(fleet.directory()) == ""
            assert len(list((fleet.path / "authorities").iterdir())) == 2 * len(names) + 1


def test_what_a_killed_writer_left_beside_is_swept(fleet: Fleet) -> None:
    for left in ("issued/.client-ab.crt.a1b2c3d4", "clients/demo/.api_key.next.zzzzzzzz"):
        (fleet.path / left).write_text("half")
    assert fleet.status()["findings"] == []
    fleet.run("issue", "batch")
    assert [path.name for path in fleet.path.rglob(".*")] == [".lock"]
