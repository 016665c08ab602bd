# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host says ahead about the ends of certificates and lists, and what it says when it can't read them."""

from __future__ import annotations

import datetime
import json
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _pki_authority,
    _pki_make,
    _tls_expiry,
    _tls_findings,
)
from pki_fleet import DAY, NOW, Fleet

WARNING_DAYS = {"server": 15.0, "authority": 90.0, "revocation_list": 15.0}
SECONDS = NOW.timestamp()


@pytest.fixture
def placed(fleet: Fleet, tmp_path: pathlib.Path) -> pathlib.Path:
    """A host's directory, with a list that has a day left and two authorities."""
    _pki_make.issue(fleet.directory(), usage="server", name="llm1", names=("DNS:llm1",), days=20)
    _pki_authority.take_step(fleet.directory(), "add", name="CA 2", days=80, check_mode=False)
    _pki_make.renew_crl(fleet.directory(crl_lifetime=DAY))
    folder = tmp_path / "tls"
    folder.mkdir()
    for source in ("ca.crt", "crl.pem", "servers/llm1/server.crt"):
        shutil.copy(fleet.path / source, folder)
    return folder


def test_every_end_is_read(placed: pathlib.Path) -> None:
    ends = _tls_expiry.read_ends(str(placed))
    found = {(end.kind, end.name): _tls_expiry.days_left(end, SECONDS) for end in ends}
    assert found == {
        ("server", "CN=llm1"): 20.0,
        ("authority", "CN=CA"): 3550.0,
        ("authority", "CN=CA 2"): 80.0,
        ("revocation_list", "CN=CA"): 1.0,
        ("revocation_list", "CN=CA 2"): 1.0,
    }


@pytest.mark.parametrize(
    ("days", "near"),
    [(0.0, {"authority CA 2", "revocation_list CA", "revocation_list CA 2"}), (6.0, {"server llm1"}), (-5.0, set())],
)
def test_near_is_by_kind(placed: pathlib.Path, days: float, near: set[str]) -> None:
    now = SECONDS + days * 86400
    found = {
        "%s %s" % (end.kind, end.name[3:])
        for end in _tls_expiry.read_ends(str(placed))
        if _tls_expiry.is_near(end, now, WARNING_DAYS)
    }
    assert near <= found
    if days < 0:
        assert "server llm1" not in found


def test_lines_have_priority_days_and_remedy(placed: pathlib.Path) -> None:
    crl = next(end for end in _tls_expiry.read_ends(str(placed)) if end.kind == "revocation_list")
    ahead = _tls_expiry.line_of(crl, SECONDS)
    assert ahead.startswith("<4>revocation list of CN=CA (") and "ends in 1.0 days, 2026-11-26T12:00:00Z." in ahead
    assert "renew_crl.yml" in ahead
    over = _tls_expiry.line_of(crl, SECONDS + 2 * 86400)
    assert over.startswith("<3>") and "ended 2026-11-26T12:00:00Z" in over


def test_metrics_are_well_formed(placed: pathlib.Path) -> None:
    text = _tls_expiry.metrics(_tls_expiry.read_ends(str(placed)), SECONDS, WARNING_DAYS)
    assert (
        'gpufleet_tls_not_after_timestamp_seconds{kind="server",name="CN=llm1"} %d\n' % (SECONDS + 20 * 86400) in text
    )
    assert 'gpufleet_tls_ends_soon{kind="server",name="CN=llm1"} 0\n' in text
    assert 'gpufleet_tls_ends_soon{kind="revocation_list",name="CN=CA 2"} 1\n' in text
    assert text.endswith("gpufleet_tls_checked_timestamp_seconds %d\n" % SECONDS)
    series = [line for line in text.splitlines() if not line.startswith("#")]
    assert len({line.rsplit(" ", 1)[0] for line in series}) == len(series)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        ("", "nothing in PEM"),
        ("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "openssl says"),
    ],
)
def test_what_cannot_be_read_is_near(placed: pathlib.Path, content: t.Optional[str], problem: str) -> None:
    path = placed / "crl.pem"
    path.unlink()
    if content is not None:
        path.write_text(content)
    (bad,) = [end for end in _tls_expiry.read_ends(str(placed)) if end.kind == "revocation_list"]
    assert problem in bad.problem and _tls_expiry.is_near(bad, SECONDS, WARNING_DAYS)
    assert _tls_expiry.line_of(bad, SECONDS).startswith("<3>")
    assert 'gpufleet_tls_ends_soon{kind="revocation_list",name=""} 1\n' in _tls_expiry.metrics(
        [bad], SECONDS, WARNING_DAYS
    )


def test_without_openssl_it_says_so(placed: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(placed))
    assert all("openssl" in end.problem for end in _tls_expiry.read_ends(str(placed)))


@pytest.mark.parametrize(("days", "rc"), [(30, 0), (10, 1), (-1, 1)])
def test_the_program_runs_alone_and_fails_when_somebody_must_hear(
    fleet: Fleet, tmp_path: pathlib.Path, days: int, rc: int
) -> None:
    """As on the host: the bare file, by the system's Python in its isolated mode, with real time."""
    now = datetime.datetime.now(datetime.timezone.utc)
    directory = fleet.directory(now - 2 * DAY if days < 0 else now, crl_lifetime=abs(days) * DAY)
    _pki_make.issue(fleet.directory(now), usage="server", name="llm1", days=90)
    _pki_make.renew_crl(directory)
    folder = tmp_path / "tls"
    folder.mkdir()
    for source in ("ca.crt", "crl.pem", "servers/llm1/server.crt"):
        shutil.copy(fleet.path / source, folder)
    program = [sys.executable, "-I", str(pathlib.Path(_tls_expiry.__file__).resolve()), "--directory", str(folder)]
    done = subprocess.run(
        [*program, "--metrics-file", str(tmp_path / "m.prom")], capture_output=True, text=True, check=False
    )
    assert done.returncode == rc, done
    assert done.stdout.startswith({0: "<6>nothing ends soon", 1: "<4>" if days > 0 else "<3>"}[rc])
    assert (tmp_path / "m.prom").stat().st_mode & 0o777 == 0o644
    listed = json.loads(subprocess.run([*program, "--json"], capture_output=True, text=True, check=True).stdout)
    assert [end["near"] for end in listed] == [False, False, rc == 1]


@pytest.mark.parametrize(("days", "severity"), [(0, "warning"), (2, "error")])
def test_findings_warn_ahead_and_refuse_what_has_ended(placed: pathlib.Path, days: int, severity: str) -> None:
    ends = _tls_expiry.read_ends(str(placed))
    findings = list(_tls_findings.decide_ends(ends, SECONDS + days * 86400, WARNING_DAYS))
    crl = [found for found in findings if found["check"] == "host.tls.revocation_list"]
    assert [(found["ok"], found["severity"]) for found in crl] == [(False, severity)] * 2
    assert "days left, until 2026-11-26T12:00:00Z" in crl[0]["found"] and "renew_crl.yml" in crl[0]["remedy"]
    assert [found["ok"] for found in findings if found["check"] == "host.tls.server"] == [True]


def test_status_says_what_ends_first(fleet: Fleet) -> None:
    ends = fleet.status()["ends"]
    assert [(end["kind"], end["name"], end["days_left"]) for end in ends] == [
        ("revocation_list", "CA", 29.0),
        ("client", "demo", 89.0),
        ("authority", "CA", 3550.0),
    ]
