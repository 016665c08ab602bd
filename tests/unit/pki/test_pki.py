# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import pathlib
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _finding, _pki
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
PASSPHRASE = "correct horse"
KEY = "sk-" + "1f" * 32


class Directory:
    """A sound directory that tests damage."""

    def __init__(self, path: pathlib.Path, ca_days: int = 3650) -> None:
        self.path = path
        path.mkdir(mode=0o700, exist_ok=True)
        self.ca_key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self.certificate(self.ca_key, "CA", ca_days, ca=True)
        self.write("ca.crt", self.ca)
        self.write_key("ca.key", self.ca_key, PASSPHRASE)
        self.write("ca.passphrase", PASSPHRASE + "\n")
        self.server()
        self.client("demo")
        self.crl([])

    def certificate(self, key: t.Any, name: str, days: float, *, ca: bool = False, **kind: t.Any) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if ca else kind.get("issuer", self.ca.subject if not ca else subject))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 400 * DAY)
            .not_valid_after(NOW + days * DAY)
        )
        if "usage" in kind:
            usage = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage[kind["usage"]]]), critical=False)
        if kind.get("names"):
            builder = builder.add_extension(x509.SubjectAlternativeName(kind["names"]), critical=False)
        return builder.sign(kind.get("signer", self.ca_key), hashes.SHA256())

    def write(self, name: str, content: t.Any) -> pathlib.Path:
        path = self.path / name
        for parent in reversed(path.relative_to(self.path).parents):
            (self.path / parent).mkdir(exist_ok=True, mode=0o700)
        if not isinstance(content, str):
            content = content.public_bytes(serialization.Encoding.PEM).decode()
        path.write_text(content)
        path.chmod(0o600)
        return path

    def write_key(self, name: str, key: t.Any, passphrase: str = "") -> None:
        how: t.Any = serialization.NoEncryption()
        if passphrase:
            how = serialization.BestAvailableEncryption(passphrase.encode())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
        self.write(name, pem.decode())

    def server(self, days: float = 90, names: t.Sequence[str] = ("llm1",), **kind: t.Any) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = [x509.DNSName(name) for name in names]
        made = self.certificate(key, kind.pop("name", "llm1"), days, usage="server", names=alternative, **kind)
        self.write("servers/llm1/server.crt", made)
        self.write_key("servers/llm1/server.key", key)

    def client(self, name: str, days: float = 90, usage: str = "client", **kind: t.Any) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self.certificate(key, kind.pop("subject", name), days, usage=usage, **kind)
        self.write("clients/%s/client.crt" % name, made)
        self.write_key("clients/%s/client.key" % name, key)
        self.write("clients/%s/api_key" % name, KEY + "\n")
        self.write("clients/%s/api_key.sha256" % name, hashlib.sha256(KEY.encode()).hexdigest() + "\n")
        self.write("issued/client-%s.crt" % made.serial_number, made)
        return made

    def crl(self, serials: t.Sequence[int], days: float = 30, signer: t.Any = None) -> None:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.ca.subject)
            .last_update(NOW - 60 * DAY)
            .next_update(NOW + days * DAY)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        self.write("crl.pem", builder.sign(signer or self.ca_key, hashes.SHA256()))

    def report(self, **changes: t.Any) -> dict[str, t.Any]:
        request = _pki.Request(
            directory=str(self.path), now=NOW, server_name="llm1", server_names=("llm1",), clients=("demo",)
        )
        return _pki.inspect(dataclasses.replace(request, **changes))


@pytest.fixture
def pki(tmp_path: pathlib.Path) -> Directory:
    return Directory(tmp_path / "pki")


def test_nothing_is_due_in_a_sound_directory(pki: Directory) -> None:
    report = pki.report()
    assert report["findings"] == []
    assert report["reasons"] == []
    assert report["authority_name"] == "CA"


def test_everything_is_due_where_nothing_is(tmp_path: pathlib.Path) -> None:
    request = _pki.Request(directory=str(tmp_path / "none"), now=NOW, server_name="llm1", clients=("demo",))
    due = _pki.inspect(request)["due"]
    assert due["authority"]
    assert due["server"]
    assert due["crl"]
    assert due["clients"] == ["demo"]
    assert due["api_keys"] == [{"name": "demo", "new": True, "digests": []}]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"days": 29}, "ends "),
        ({"days": -1}, "ends "),
        ({"names": ["llm1", "llm2"]}, "its names are DNS:llm1, DNS:llm2"),
        ({"name": "llm9"}, "made for 'llm9'"),
        ({"signer": ec.generate_private_key(ec.SECP256R1())}, "not signed by this authority"),
        (
            {"issuer": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])},
            "not signed by this authority",
        ),
    ],
)
def test_server_is_due(pki: Directory, made: dict[str, t.Any], reason: str) -> None:
    pki.server(**made)
    report = pki.report()
    assert report["due"]["server"]
    assert report["due"]["clients"] == []
    assert any(reason in line for line in report["reasons"])


def test_certificate_with_31_days_left_is_kept(pki: Directory) -> None:
    pki.server(days=31)
    assert not pki.report()["due"]["server"]


def test_client_certificate_of_wrong_kind_or_name_is_due(pki: Directory) -> None:
    pki.client("demo", usage="server")
    assert pki.report()["due"]["clients"] == ["demo"]
    pki.client("demo", subject="somebody")
    assert pki.report()["due"]["clients"] == ["demo"]


def test_exchanged_key_is_due_and_said(pki: Directory) -> None:
    pki.write_key("servers/llm1/server.key", ec.generate_private_key(ec.SECP256R1()))
    report = pki.report()
    assert report["due"]["server"]
    assert [f["check"] for f in _finding.warnings(report["findings"])] == ["pki.pair_intact"]


def test_garbage_certificate_is_due_and_said(pki: Directory) -> None:
    pki.write("clients/demo/client.crt", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    report = pki.report()
    assert report["due"]["clients"] == ["demo"]
    assert [f["check"] for f in _finding.warnings(report["findings"])] == ["pki.pair_intact"]


def test_expired_authority_is_refused_with_directory_date_and_remedy(tmp_path: pathlib.Path) -> None:
    message = _finding.refusal_message(Directory(tmp_path / "pki", ca_days=-1).report()["findings"], "x")
    assert str(tmp_path / "pki") in message
    assert "2026-11-22" in message
    assert "move" in message


def test_ending_authority_is_a_warning(tmp_path: pathlib.Path) -> None:
    report = Directory(tmp_path / "pki", ca_days=80).report()
    assert _finding.refusals(report["findings"]) == []
    assert [f["check"] for f in report["findings"]] == ["pki.authority_ends_soon"]


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (lambda pki: pki.write("ca.passphrase", "wrong\n"), "pki.authority_readable"),
        (lambda pki: (pki.path / "ca.passphrase").unlink(), "pki.authority_readable"),
        (lambda pki: pki.write("ca.crt", "rubbish"), "pki.authority_readable"),
        (lambda pki: (pki.path / "ca.crt").unlink(), "pki.authority_readable"),
        (lambda pki: (pki.path / "ca.key").unlink(), "pki.authority_pair"),
        (
            lambda pki: pki.write_key("ca.key", ec.generate_private_key(ec.SECP256R1()), PASSPHRASE),
            "pki.authority_pair",
        ),
        (lambda pki: pki.write("clients/demo/api_key", "hunter2\n"), "pki.api_key_form"),
        (lambda pki: pki.write("clients/demo/api_key.sha256", KEY + "\n"), "pki.api_key_form"),
        (lambda pki: pki.write("issued/x.crt", "rubbish"), "pki.issued_readable"),
    ],
)
def test_damage_that_is_refused(pki: Directory, damage: t.Callable[[Directory], t.Any], check: str) -> None:
    damage(pki)
    report = pki.report()
    assert [f["check"] for f in _finding.refusals(report["findings"])] == [check]
    assert KEY not in repr(report)


def test_given_passphrase_goes_before_the_file(pki: Directory) -> None:
    pki.write("ca.passphrase", "wrong\n")
    assert pki.report(passphrase=PASSPHRASE)["findings"] == []


def test_new_key_keeps_the_digests_of_old_ones(pki: Directory) -> None:
    (pki.path / "clients/demo/api_key").unlink()
    digests = [hashlib.sha256(KEY.encode()).hexdigest()]
    assert pki.report()["due"]["api_keys"] == [{"name": "demo", "new": True, "digests": digests}]


def test_key_whose_digest_is_not_listed_is_due(pki: Directory) -> None:
    pki.write("clients/demo/api_key.sha256", "0" * 64 + "\n")
    assert pki.report()["due"]["api_keys"] == [{"name": "demo", "new": False, "digests": ["0" * 64]}]


def test_revoked_client_takes_every_certificate_it_ever_had(pki: Directory) -> None:
    serials = {pki.client("leaver").serial_number for _number in range(2)}
    pki.client("leaver", days=-1)
    report = pki.report(revoked_clients=("leaver",))
    assert {entry["serial_number"] for entry in report["revoked"]} == serials
    assert report["due"]["crl"]
    pki.crl(sorted(serials))
    report = pki.report(revoked_clients=("leaver",))
    assert not report["due"]["crl"]
    assert {entry["revocation_date"] for entry in report["revoked"]} == {"20261122120000Z"}
    assert pki.report()["due"]["crl"], "taken out of the list, it must leave the CRL"


def test_revoked_serial_makes_its_client_due(pki: Directory) -> None:
    serial = "%x" % pki.client("demo").serial_number
    report = pki.report(revoked_serials=(serial,))
    assert report["due"]["clients"] == ["demo"]
    assert report["due"]["crl"]


def test_unknown_revoked_client_is_a_warning(pki: Directory) -> None:
    findings = pki.report(revoked_clients=("dmeo",))["findings"]
    assert [(f["check"], f["severity"]) for f in findings] == [("pki.revoked_client_known", "warning")]


@pytest.mark.parametrize(("days", "due"), [(19, True), (21, False), (-1, True)])
def test_crl_is_made_before_it_ends(pki: Directory, days: int, due: bool) -> None:
    pki.crl([], days=days)
    assert pki.report()["due"]["crl"] is due


def test_crl_of_another_authority_is_due(pki: Directory) -> None:
    pki.crl([], signer=ec.generate_private_key(ec.SECP256R1()))
    assert pki.report()["due"]["crl"]


def test_open_permissions_are_due(pki: Directory) -> None:
    (pki.path / "ca.key").chmod(0o640)
    (pki.path / "clients").chmod(0o755)
    found = {entry["path"]: entry["mode"] for entry in pki.report()["due"]["permissions"]}
    assert found == {str(pki.path / "ca.key"): "0600", str(pki.path / "clients"): "0700"}


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"clients": ("../x",)}, "pki.client_name"),
        ({"clients": ("Demo",)}, "pki.client_name"),
        ({"clients": ("demo", "demo")}, "pki.client_name"),
        ({"revoked_clients": ("demo",)}, "pki.revoked_client"),
        ({"revoked_serials": ("xyz",)}, "pki.revoked_serial"),
        ({"server_name": "x" * 65}, "pki.server_name"),
        ({"server_days": 30}, "pki.lifetime_days"),
        ({"crl_days": 20}, "pki.lifetime_days"),
    ],
)
def test_bad_requests_are_refused_before_any_file_is_read(
    pki: Directory, changes: dict[str, t.Any], check: str
) -> None:
    (pki.path / "ca.crt").write_text("never read")
    assert [f["check"] for f in pki.report(**changes)["findings"]] == [check]


def test_names_and_addresses_become_alternative_names() -> None:
    given = ["llm1", "192.0.2.1", "[2001:DB8::1]", "llm1", ""]
    assert _pki.subject_alternative_names(given) == ["DNS:llm1", "IP:192.0.2.1", "IP:2001:db8::1"]
