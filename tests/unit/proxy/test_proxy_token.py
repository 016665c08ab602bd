# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _proxy_token
from ansible_collections.gpufleet.llm.plugins.module_utils._proxy_checks import Checks
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

RSA = rsa.generate_private_key(65537, 2048).public_key()
EC = ec.generate_private_key(ec.SECP256R1()).public_key()


def text(value: int, size: int = 0) -> str:
    raw = value.to_bytes(size or (value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def rsa_key(**more: t.Any) -> dict[str, t.Any]:
    numbers = RSA.public_numbers()
    return {"kty": "RSA", "kid": "r", "n": text(numbers.n), "e": text(numbers.e), **more}


def ec_key(**more: t.Any) -> dict[str, t.Any]:
    numbers = EC.public_numbers()
    return {"kty": "EC", "crv": "P-256", "kid": "e", "x": text(numbers.x, 32), "y": text(numbers.y, 32), **more}


def plan(*keys: t.Any) -> tuple[list[dict[str, str]], str]:
    checks = Checks()
    planned = _proxy_token.plan_keys(json.dumps({"keys": keys}), "/jwks.json", checks)
    return planned, repr(checks.findings)


def test_keys_are_those_that_cryptography_writes() -> None:
    """The encoding is our own, so that no host needs a library; cryptography is the other opinion."""
    planned, wrong = plan(rsa_key(), ec_key(alg="ES256", use="sig"), rsa_key(kid="x", use="enc"))
    assert wrong == "[]"
    assert [(key["kid"], key["alg"]) for key in planned] == [("r", "RS256"), ("e", "ES256")]
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    assert [base64.b64decode(key["spki"]) for key in planned] == [k.public_bytes(*form) for k in (RSA, EC)]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (rsa_key(d="AQAB"), "it holds a secret"),
        ({"kty": "oct", "k": "AQAB"}, "it holds a secret"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}, "Ed25519"),
        (rsa_key(n="AQAB"), "17 bits"),
        (rsa_key(n="+/"), "isn't base64url"),
        (rsa_key(alg="RS512"), "RS512"),
        (rsa_key(e="Ag"), "exponent is 2"),
        (ec_key(crv="P-384"), "P-384"),
        (ec_key(x="AQAB"), "32 bytes"),
    ],
)
def test_other_keys_are_refused(key: dict[str, t.Any], said: str) -> None:
    planned, wrong = plan(key, ec_key())
    assert said in wrong
    assert [entry["kid"] for entry in planned] == ["e"]


def test_two_keys_of_one_name_are_refused() -> None:
    assert "a kid of its own" in plan(ec_key(), ec_key())[1]


@pytest.mark.parametrize("document", ["", "[]", '{"keys": 1}', '{"keys": [1]}', "{"])
def test_what_is_no_set_is_refused(document: str) -> None:
    checks = Checks()
    assert _proxy_token.plan_keys(document, "/jwks.json", checks) == []
    assert "a JSON Web Key Set" in repr(checks.findings)


def test_tokens_name_a_client_only_with_its_certificate() -> None:
    client = {"name": "demo", "subject_dn": "CN=demo", "jwt_subjects": ["svc"]}
    given = {"jwks": json.dumps({"keys": [ec_key()]}), "jwks_file": "/j", "issuer": "i", "audience": "a"}
    planned = _proxy_token.plan_token(dict(given, skew_seconds=30), [client], Checks())
    assert planned is not None
    assert planned["clients"] == [{"subject": "svc", "certificate": "CN=demo", "client": "demo"}]
    checks = Checks()
    _proxy_token.plan_token(dict(given, issuer="", skew_seconds=301), [client], checks)
    assert len(checks.findings) == 2
    assert _proxy_token.plan_token({"jwks": ""}, [client], Checks()) is None
