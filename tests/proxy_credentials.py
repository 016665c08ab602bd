# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what a caller of the proxy may hold and must be refused for: certificates, and JSON Web Tokens."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import pathlib
import time
import typing as t

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Pair = t.Tuple[str, str]
Private = t.Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]
DAY = datetime.timedelta(days=1)


class Missing(Exception):
    """The environment doesn't give what a case needs."""


def load_authority(path: str, passphrase_path: str) -> ec.EllipticCurvePrivateKey:
    """Return the authority's key."""
    secret = pathlib.Path(passphrase_path).read_bytes().strip()
    key = serialization.load_pem_private_key(pathlib.Path(path).read_bytes(), secret)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Missing("the authority's key is of a kind that isn't known here")
    return key


def make_certificate(
    kind: str,
    own: x509.Certificate,
    authority: x509.Certificate,
    authority_key: t.Callable[[], ec.EllipticCurvePrivateKey],
    directory: pathlib.Path,
) -> Pair:
    """Make a pair that must be refused together with our own client's key; its subject is ours where not said.

    Kinds signed by nobody we know: ``self_signed``, ``foreign`` (another authority), ``foreign_same_subject`` (another
    authority of the same name). Kinds signed by our authority: ``expired``, ``not_yet_valid``, ``server_usage``,
    ``other_case`` (the subject in capitals), ``longer_subject`` (ours and one more part), ``shorter_subject``.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signer, issuer, subject = ec.generate_private_key(ec.SECP256R1()), authority.subject, own.subject
    name = str(own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    if kind == "self_signed":
        signer, issuer = key, own.subject
    elif kind == "foreign":
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else's CA")])
    elif kind != "foreign_same_subject":
        signer = authority_key()
    if kind == "other_case":
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name.upper())])
    elif kind == "longer_subject":
        more = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "more")
        subject = x509.Name([more, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    elif kind == "shorter_subject":
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:-1])])
    now = datetime.datetime.now(datetime.timezone.utc)
    begin = now + DAY if kind == "not_yet_valid" else now - 2 * DAY
    end = now - datetime.timedelta(hours=1) if kind == "expired" else now + 2 * DAY
    usage = ExtendedKeyUsageOID.SERVER_AUTH if kind == "server_usage" else ExtendedKeyUsageOID.CLIENT_AUTH
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    paths = (directory / (kind + ".crt"), directory / (kind + ".key"))
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(paths[0]), str(paths[1])


def encode(raw: bytes) -> str:
    """Return base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _signature(how: str, algorithm: str, keys: pathlib.Path, signed: bytes) -> str:
    if how == "empty":
        return ""
    if how == "hmac":
        # The classical confusion: the public key as the secret of HS256.
        public = _load(keys, "RS256").public_key()
        form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return encode(hmac.new(public.public_bytes(*form), signed, hashlib.sha256).digest())
    if how == "foreign":
        key: Private = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )
    else:
        key = _load(keys, algorithm)
    if isinstance(key, rsa.RSAPrivateKey):
        raw = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        raw = key.sign(signed, ec.ECDSA(hashes.SHA256()))
        if how != "der":
            raw = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(raw))
    if how == "zeros":
        raw = bytes(len(raw))
    if how == "flipped":
        raw = bytes([raw[0] ^ 1]) + raw[1:]
    if how == "shortened":
        raw = raw[:-1]
    return encode(raw)


def _load(keys: pathlib.Path, algorithm: str) -> Private:
    path = keys / (algorithm.lower() + ".pem")
    if not path.is_file():
        raise Missing("%s isn't there" % path)
    return t.cast(Private, serialization.load_pem_private_key(path.read_bytes(), None))


def make_token(asked: t.Mapping[str, t.Any], claims: t.Mapping[str, t.Any], keys: pathlib.Path) -> str:
    """Return a token as a case states it.

    Args:
        asked: ``algorithm`` (ES256), ``claims`` (over the good ones; ``exp``, ``nbf`` and ``iat`` in seconds from now
            where they are integers; null takes one out), ``header`` (over the good one, null takes one out), ``sign``:
            own, foreign, der, flipped, shortened, zeros, empty, hmac; ``payload``: JSON text in place of the claims;
            ``append``: text behind it; ``changed``: claims that are changed after it was signed.
        claims: the claims that are good here.
        keys: directory with the issuer's private keys.
    """
    algorithm = asked.get("algorithm", "ES256")
    now = int(time.time())
    header = {"alg": algorithm, "typ": "JWT", "kid": algorithm.lower(), **asked.get("header", {})}

    def body(more: t.Mapping[str, t.Any]) -> str:
        wanted = {"exp": 300, **claims, **asked.get("claims", {}), **more}
        for name in ("exp", "nbf", "iat"):
            if isinstance(wanted.get(name), int) and not isinstance(wanted[name], bool):
                wanted[name] += now
        text = json.dumps({name: value for name, value in wanted.items() if value is not None})
        return encode(str(asked.get("payload", text)).encode())

    head = encode(json.dumps({name: value for name, value in header.items() if value is not None}).encode())
    signature = _signature(asked.get("sign", "own"), algorithm, keys, ("%s.%s" % (head, body({}))).encode())
    return "%s.%s.%s%s" % (head, body(asked.get("changed", {})), signature, asked.get("append", ""))
