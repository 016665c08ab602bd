# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Signs: keys, certificates and revocation lists of a fleet. What it makes is bytes, nothing is written here.

Profiles: ECDSA P-256, serial numbers of 159 random bits, one usage a certificate (RFC 5280, section 4.2.1.12),
authority key identifiers in certificates and lists, so that two authorities can be told apart.
"""

from __future__ import annotations

import datetime
import ipaddress
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _pki

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    pass  # the modules say so, _pki.HAS_CRYPTOGRAPHY

# A host's clock may be behind the control node's.
BACKDATE = datetime.timedelta(minutes=5)
USAGES = ("key_encipherment", "data_encipherment", "key_agreement", "content_commitment", "encipher_only")


class Pair(t.NamedTuple):
    """A private key and its certificate, PEM."""

    key: bytes
    certificate: bytes


def _name(common_name: str) -> "x509.Name":
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(**granted: bool) -> "x509.KeyUsage":
    every = dict.fromkeys((*USAGES, "decipher_only", "digital_signature", "key_cert_sign", "crl_sign"), False)
    return x509.KeyUsage(**dict(every, **granted))


def _key_pem(key: t.Any, passphrase: str = "") -> bytes:
    how: t.Any = serialization.NoEncryption()
    if passphrase:
        how = serialization.BestAvailableEncryption(passphrase.encode("utf-8"))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    return t.cast(bytes, pem)


def pem(thing: t.Any) -> bytes:
    """Return a certificate or a revocation list as PEM."""
    return t.cast(bytes, thing.public_bytes(serialization.Encoding.PEM))


def fingerprint(certificate: "x509.Certificate") -> str:
    """Return a certificate's SHA-256 fingerprint, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _builder(
    subject: str, public_key: t.Any, now: datetime.datetime, lifetime: datetime.timedelta
) -> "x509.CertificateBuilder":
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def make_authority(name: str, *, days: float, passphrase: str, now: datetime.datetime) -> Pair:
    """Return a new authority, its key encrypted.

    Args:
        name: its common name.
        days: its lifetime.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(name, key.public_key(), now, datetime.timedelta(days=days))
        .issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(_key_pem(key, passphrase), pem(certificate))


def _alternative_name(text: str) -> "x509.GeneralName":
    kind, _colon, value = text.partition(":")
    if kind == "IP":
        return x509.IPAddress(ipaddress.ip_address(value))
    return x509.DNSName(value)


def make_leaf(
    authority: _pki.Authority,
    *,
    usage: str,
    name: str,
    names: t.Sequence[str] = (),
    days: float,
    now: datetime.datetime,
) -> Pair:
    """Return a new pair of a server or a client.

    Args:
        usage: ``server`` or ``client``.
        name: its common name, the whole of its subject.
        names: subject alternative names in OpenSSL's notation, ``DNS:`` or ``IP:``.
        days: its lifetime.
    """
    issuer = authority.certificate
    check_can_sign(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    granted = ExtendedKeyUsageOID.SERVER_AUTH if usage == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(name, key.public_key(), now, datetime.timedelta(days=days))
        .issuer_name(t.cast("x509.Certificate", issuer).subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([granted]), critical=False)
        .add_extension(_authority_identifier(t.cast("x509.Certificate", issuer)), critical=False)
    )
    if names:
        alternative = x509.SubjectAlternativeName([_alternative_name(text) for text in names])
        builder = builder.add_extension(alternative, critical=False)
    return Pair(_key_pem(key), pem(builder.sign(t.cast(t.Any, authority.key), hashes.SHA256())))


def check_can_sign(authority: _pki.Authority) -> None:
    """Refuse an authority that can't sign. Raises Damaged."""
    if authority.certificate is None or authority.key is None:
        raise _pki.Damaged("there is no authority yet; the role llm_pki makes it")


def _authority_identifier(issuer: "x509.Certificate") -> "x509.AuthorityKeyIdentifier":
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(t.cast(t.Any, issuer.public_key()))


def make_crl(
    authority: _pki.Authority,
    revoked: t.Iterable[t.Mapping[str, t.Any]],
    *,
    lifetime: datetime.timedelta,
    now: datetime.datetime,
) -> bytes:
    """Return a revocation list, PEM.

    Args:
        revoked: ``{serial_number, revocation_date}``, dates as ``_pki.revocations`` writes them.
        lifetime: how long it is good for. An expired list refuses everybody.
    """
    check_can_sign(authority)
    issuer = t.cast("x509.Certificate", authority.certificate)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - BACKDATE)
        .next_update(now + lifetime)
        .add_extension(_authority_identifier(issuer), critical=False)
        # Each list has a greater number than the one before (RFC 5280, section 5.2.3).
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
    )
    for entry in revoked:
        date = datetime.datetime.strptime(entry["revocation_date"], _pki.ASN1_TIME)
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(entry["serial_number"]).revocation_date(date).build()
        )
    return pem(builder.sign(t.cast(t.Any, authority.key), hashes.SHA256()))
