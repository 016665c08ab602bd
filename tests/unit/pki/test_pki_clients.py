# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Issue, rotate, revoke, list: what counts afterwards, what a check says, what is refused."""

from __future__ import annotations

import datetime
import json
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _file_lock,
    _pki,
    _pki_client_run,
    _pki_files,
    _pki_make,
    _pki_records,
    _pki_sign,
)
from pki_fleet import DAY, HOUR, NOW, Fleet, digest, records


def test_issue_gives_a_client_a_pair_and_a_key_once(fleet: Fleet) -> None:
    first = fleet.run("issue", "batch", tier="gold", jwt_subjects=("svc",))
    fleet.check_pair("batch")
    assert first["changed"]
    assert sorted(path.rsplit("/", 1)[1] for path in first["handed_over"]) == ["api_key", "client.crt", "client.key"]
    assert records(fleet)["batch"]["tier"] == "gold"
    assert first["clients"][0]["jwt_subjects"] == ["svc"]
    certificate = fleet.certificate("batch")
    assert certificate.serial_number.bit_length() >= _pki_sign.x509.random_serial_number().bit_length() - 40
    assert _pki.has_usage(certificate, "client")
    tree = fleet.tree()
    again = fleet.run("issue", "batch", tier="gold")
    assert not again["changed"]
    assert "diff" not in again
    assert fleet.tree() == tree


def test_serial_numbers_are_random_and_long(fleet: Fleet) -> None:
    fleet.run("issue", *("c%d" % number for number in range(8)))
    serials = [fleet.certificate("c%d" % number).serial_number for number in range(8)]
    assert min(serial.bit_length() for serial in serials) > 120
    assert len(set(serials)) == 8


def test_no_answer_holds_a_key(fleet: Fleet) -> None:
    answers = [fleet.run("issue", "batch"), fleet.run("rotate", "batch", keep=DAY, pause=0 * DAY), fleet.run("list")]
    answers.append(fleet.run("revoke", "batch", check_mode=True))
    keys = [fleet.key("batch"), fleet.key("demo")]
    said = json.dumps(answers)
    assert not any(key in said for key in keys)
    assert "sk-" not in said
    assert "PRIVATE" not in said
    assert digest(keys[0]) in said


@pytest.mark.parametrize("action", ["issue", "rotate", "revoke"])
def test_a_check_writes_nothing_and_says_the_same(fleet: Fleet, action: str) -> None:
    name = "batch" if action == "issue" else "demo"
    tree = fleet.tree()
    check = fleet.run(action, name, check_mode=True)
    assert fleet.tree() == tree
    done = fleet.run(action, name)
    assert check["changed"] and done["changed"]
    assert check["diff"]["before"] == done["diff"]["before"]
    lines = [
        (said, real)
        for said, real in zip(check["diff"]["after"].splitlines(), done["diff"]["after"].splitlines())
        if "a new one" not in said
    ]
    assert all(said == real for said, real in lines)
    assert check["diff"]["after"].count("\n") == done["diff"]["after"].count("\n")


def test_rotate_keeps_the_old_until_its_end(fleet: Fleet) -> None:
    old_key, old = fleet.key("demo"), fleet.certificate("demo")
    answer = fleet.run("rotate", "demo", keep=2 * DAY)
    fleet.check_pair("demo")
    assert [line.split()[0] for line in fleet.lines("demo")] == [digest(fleet.key("demo")), digest(old_key)]
    assert fleet.lines("demo")[1].split()[1] == "2026-11-27T12:00:00Z"
    assert fleet.revoked() == set()
    assert answer["next_revocation"] == "2026-11-27T12:00:00Z"
    # Nothing is due before, the list is due after.
    assert fleet.status(NOW + 2 * DAY - HOUR)["reasons"] == []
    assert fleet.status(NOW + 2 * DAY)["reasons"] == ["revocation list: lists 0 certificates, 1 are revoked"]
    later = fleet.directory(NOW + 2 * DAY)
    assert _pki_make.crl_due(later)
    _pki_make.renew_crl(later)
    assert fleet.revoked() == {old.serial_number}
    assert fleet.status(NOW + 2 * DAY)["reasons"] == []


def test_rotating_again_within_the_pause_changes_nothing(fleet: Fleet) -> None:
    fleet.run("rotate", "demo")
    tree = fleet.tree()
    again = fleet.run("rotate", "demo", now=NOW + HOUR / 2)
    assert not again["changed"]
    assert len(again["notes"]) == 2
    assert fleet.tree() == tree
    assert fleet.run("rotate", "demo", now=NOW + 2 * HOUR)["changed"]
    assert len(fleet.lines("demo")) == 3


def test_what_leaked_ends_at_once_however_young(fleet: Fleet) -> None:
    fleet.run("issue", "batch")
    key, certificate = fleet.key("batch"), fleet.certificate("batch")
    fleet.run("rotate", "batch", keep=datetime.timedelta(0))
    assert fleet.lines("batch") == [digest(fleet.key("batch"))]
    assert digest(key) not in fleet.lines("batch")
    assert fleet.revoked() == {certificate.serial_number}
    fleet.check_pair("batch")


def test_one_part_rotates_alone(fleet: Fleet) -> None:
    key, certificate = fleet.key("demo"), fleet.certificate("demo")
    fleet.run("rotate", "demo", parts=("key",))
    assert fleet.certificate("demo") == certificate and fleet.key("demo") != key
    fleet.run("rotate", "demo", parts=("certificate",))
    assert fleet.certificate("demo") != certificate and len(fleet.lines("demo")) == 2
    fleet.check_pair("demo")


def test_an_end_that_comes_earlier_stays(fleet: Fleet) -> None:
    fleet.run("rotate", "demo", keep=DAY)
    fleet.run("rotate", "demo", keep=9 * DAY, now=NOW + 2 * HOUR)
    ends = [line.split()[1:] for line in fleet.lines("demo")]
    assert ends == [[], ["2026-12-04T14:00:00Z"], ["2026-11-26T12:00:00Z"]]
    fleet.run("rotate", "demo", keep=9 * DAY, now=NOW + 2 * DAY)
    assert len(fleet.lines("demo")) == 3, "a key that has ended is not listed any more"


def test_keys_may_have_a_lifetime(fleet: Fleet) -> None:
    answer = fleet.run("issue", "batch", key_lifetime=30 * DAY)
    assert fleet.lines("batch")[0].endswith(" 2026-12-25T12:00:00Z")
    assert answer["clients"][0]["keys"][0]["end"] == "2026-12-25T12:00:00Z"
    renewed = fleet.run("issue", "batch", now=NOW + 31 * DAY)
    assert renewed["changed"] and len(fleet.lines("batch")) == 1


def test_revoke_takes_all_keys_and_every_certificate(fleet: Fleet) -> None:
    fleet.run("rotate", "demo")
    fleet.run("issue", "batch")
    serials = {entry.serial_number for entry in _pki.read_issued(str(fleet.path))[0]}
    serials.remove(fleet.certificate("batch").serial_number)
    answer = fleet.run("revoke", "demo")
    assert answer["clients"][0]["state"] == "revoked"
    assert fleet.lines("demo") == []
    assert not (fleet.path / "clients/demo/api_key").exists()
    assert fleet.revoked() == serials
    tree = fleet.tree()
    assert not fleet.run("revoke", "demo")["changed"]
    assert fleet.tree() == tree


def test_the_role_leaves_a_revoked_client_revoked(fleet: Fleet) -> None:
    fleet.run("revoke", "demo")
    report = fleet.status()
    assert report["reasons"] == []
    assert [finding["severity"] for finding in report["findings"]] == ["warning"]
    assert "manage_clients.yml revoked it" in report["findings"][0]["found"]


def test_the_role_keeps_the_certificates_of_who_is_only_noted_here(fleet: Fleet) -> None:
    fleet.run("issue", "batch")
    assert fleet.status(NOW + 61 * DAY)["due"]["clients"] == ["demo", "batch"]
    (fleet.path / "clients/batch/api_key").unlink()
    assert fleet.status()["reasons"] == [], "a key that was handed over and removed is no reason for another one"


def test_reinstating_makes_all_anew_and_keeps_the_old_refused(fleet: Fleet) -> None:
    old = fleet.certificate("demo").serial_number
    key = fleet.key("demo")
    fleet.run("revoke", "demo")
    with pytest.raises(_pki_make.Refused, match="llm_pki_client_reinstate"):
        fleet.run("issue", "demo")
    fleet.run("issue", "demo", reinstate=True)
    fleet.check_pair("demo")
    assert fleet.revoked() == {old}
    assert fleet.lines("demo") == [digest(fleet.key("demo"))]
    assert fleet.key("demo") != key


@pytest.mark.parametrize(
    ("action", "names", "wanted", "message"),
    [
        ("issue", (), {}, "issue needs the names"),
        ("issue", ("../ca",), {}, "'../ca' is no name"),
        ("issue", ("De mo",), {}, "is no name"),
        ("rotate", ("nobody",), {}, "no client of this authority"),
        ("revoke", ("nobody",), {}, "check the spelling"),
        ("rotate", ("demo", "nobody"), {}, "no client was changed"),
        ("rotate", ("demo",), {"parts": ()}, "nothing to rotate"),
        ("rotate", ("demo",), {"keep": -1 * HOUR}, "0 or more"),
        ("issue", ("leaver",), {"directory": {"revoked_clients": ("leaver",)}}, "llm_pki_revoked_clients"),
    ],
)
def test_refusals_change_nothing(
    fleet: Fleet, action: str, names: tuple[str, ...], wanted: dict[str, t.Any], message: str
) -> None:
    tree = fleet.tree()
    with pytest.raises(_pki_make.Refused, match=message):
        fleet.run(action, *names, **wanted)
    assert fleet.tree() == tree


def test_list_reads_only_and_shows_all(fleet: Fleet) -> None:
    fleet.run("issue", "batch", tier="gold")
    fleet.run("revoke", "batch")
    tree = fleet.tree()
    answer = fleet.run("list")
    assert not answer["changed"] and fleet.tree() == tree
    assert [line.split(";")[0] for line in answer["summary"]] == ["batch: revoked, tier gold", "demo: active"]
    assert answer["clients"][1]["certificate"]["days_left"] == 89.0


def test_inventory_revocations_stay_on_the_list(fleet: Fleet) -> None:
    """A run over one client signs the lists with what the inventory revokes too."""
    fleet.run("issue", "leaver", record=False)
    leaver = fleet.certificate("leaver").serial_number
    fleet.run("revoke", "demo", directory={"revoked_clients": ("leaver",), "revoked_serials": ("ABCD",)})
    assert fleet.revoked() == {leaver, 0xABCD, fleet.certificate("demo").serial_number}


def test_two_at_once_the_second_is_told_and_changes_nothing(fleet: Fleet) -> None:
    with _pki_files.locked(str(fleet.path), 1):
        tree = fleet.tree()
        with pytest.raises(_file_lock.Held):
            fleet.run("issue", "batch")
        assert fleet.tree() == tree
        assert fleet.run("list")["clients"]
    assert fleet.run("issue", "batch")["changed"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("api_key.sha256", "abc\n", "64 lower-case"),
        ("api_key.sha256", "a" * 64 + " tomorrow\n", "not a time"),
        ("client.json", "{", "no JSON"),
        ("client.json", '{"state": "gone"}', "state must be one of"),
        ("client.json", '{"state": "active", "certificates": {"1": {}}}', "not a time"),
        ("client.json", '{"state": "active", "keys": {"x": {}}}', "no note about a key"),
    ],
)
def test_a_damaged_note_is_named_and_stops(fleet: Fleet, name: str, content: str, message: str) -> None:
    (fleet.path / "clients/demo" / name).write_text(content)
    with pytest.raises((_pki_records.Malformed, _pki.Damaged), match=message):
        fleet.run("rotate", "demo")
    assert any(not finding["ok"] and message in finding["found"] for finding in fleet.status()["findings"])


def test_times_are_read_as_they_are_written() -> None:
    keys = [_pki_records.Key("a" * 64, NOW), _pki_records.Key("b" * 64, None), _pki_records.Key("c" * 64, None, NOW)]
    text = _pki_records.format_keys(keys)
    time = "2026-11-25T12:00:00Z"
    assert text.splitlines() == ["%s %s" % ("a" * 64, time), "b" * 64, "%s %s -" % ("c" * 64, time)]
    assert _pki_records.parse_keys(text, "here") == keys


def test_report_names_what_to_hand_over_and_when_to_come_back(fleet: Fleet) -> None:
    report = _pki_client_run.report(fleet.run("rotate", "demo"))
    assert report[0].startswith("demo: active; certificate ")
    assert sum(line.startswith("Hand over: ") for line in report) == 3
    assert report[-1].startswith("What was replaced is due on the revocation lists at 2026-12-02T12:00:00Z")


def test_an_inventory_client_whose_key_was_moved_away_gets_another_beside_it(fleet: Fleet) -> None:
    old = fleet.key("demo")
    (fleet.path / "clients/demo/api_key").unlink()
    assert fleet.status()["reasons"] == ["API key of demo: missing"]
    fleet.run("issue", "demo", record=False)
    assert fleet.lines("demo") == [digest(fleet.key("demo")), digest(old)]
    assert not (fleet.path / "clients/demo/client.json").exists(), "the role doesn't take the client over"


def test_a_key_that_a_person_put_there_is_listed_and_kept(fleet: Fleet) -> None:
    old, given = fleet.key("demo"), "sk-" + "ab" * 32
    (fleet.path / "clients/demo/api_key").write_text(given + "\n")
    fleet.run("issue", "demo", record=False)
    assert fleet.key("demo") == given
    assert fleet.lines("demo") == [digest(given), digest(old)]
