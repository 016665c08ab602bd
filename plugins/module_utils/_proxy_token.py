# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Turns a JSON Web Key Set (RFC 7517) into the public keys that the proxy proves tokens with."""

from __future__ import annotations

import base64
import json
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._proxy_checks import Checks

BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
MINIMUM_RSA_BITS = 2048
MAXIMUM_RSA_BITS = 8192
# DER of the algorithm identifiers: rsaEncryption with NULL (RFC 3279, 2.3.1), and ecPublicKey with prime256v1
# (RFC 5480, 2.1.1).
RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")
P256_ALGORITHM = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")

Mapping = t.Mapping[str, t.Any]


class BadKey(Exception):
    """A key that can't be used; the text says why."""


def der(tag: int, content: bytes) -> bytes:
    """Return a DER element (X.690, 8.1)."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def integer(value: int) -> bytes:
    """Return a DER INTEGER that isn't negative."""
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def number(key: Mapping, name: str) -> bytes:
    """Return a member of a key as bytes. Raises BadKey where it isn't base64url."""
    text = key.get(name)
    if not isinstance(text, str) or not BASE64URL.fullmatch(text):
        raise BadKey("its %s isn't base64url" % name)
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_key(key: Mapping) -> t.Tuple[str, bytes]:
    """Return algorithm and SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) of a JSON Web Key.

    Raises:
        BadKey: it is private, symmetric, too short, or of an algorithm other than RS256 and ES256.
    """
    if "d" in key or "k" in key:
        raise BadKey("it holds a secret: only public keys belong here")
    kind = key.get("kty")
    if kind == "RSA":
        modulus = int.from_bytes(number(key, "n"), "big")
        exponent = int.from_bytes(number(key, "e"), "big")
        if not MINIMUM_RSA_BITS <= modulus.bit_length() <= MAXIMUM_RSA_BITS:
            raise BadKey(
                "it has %d bits, %d to %d are used" % (modulus.bit_length(), MINIMUM_RSA_BITS, MAXIMUM_RSA_BITS)
            )
        if exponent < 3 or exponent % 2 == 0:
            raise BadKey("its exponent is %d" % exponent)
        algorithm, identifier = "RS256", RSA_ALGORITHM
        content = der(0x30, integer(modulus) + integer(exponent))
    elif kind == "EC" and key.get("crv") == "P-256":
        x, y = number(key, "x"), number(key, "y")
        if len(x) != 32 or len(y) != 32:
            raise BadKey("its point hasn't 32 bytes each")
        algorithm, identifier, content = "ES256", P256_ALGORITHM, b"\x04" + x + y
    else:
        raise BadKey("its kty is %r, crv %r" % (kind, key.get("crv")))
    if key.get("alg", algorithm) != algorithm:
        raise BadKey("its alg is %r" % key.get("alg"))
    return algorithm, der(0x30, identifier + der(0x03, b"\x00" + content))


def plan_keys(text: str, where: str, checks: Checks) -> t.List[t.Dict[str, str]]:
    """Return ``{kid, alg, spki}`` of each signing key of a set; ``spki`` is base64."""
    try:
        keys = json.loads(text)["keys"]
        entries = [dict(key) for key in keys]
    except (ValueError, TypeError, KeyError):
        checks.refuse(
            "jwks", 'a JSON Web Key Set, {"keys": [...]}', "something else", "It is %s." % where, "Fetch it anew."
        )
        return []
    planned: t.List[t.Dict[str, str]] = []
    for position, key in enumerate(entries):
        if key.get("use", "sig") != "sig":
            continue
        try:
            algorithm, spki = public_key(key)
        except BadKey as exc:
            checks.refuse(
                "jwks_key",
                "a public RSA key for RS256 or a P-256 key for ES256",
                "key %d (kid %r): %s" % (position, key.get("kid"), exc),
                "It is in %s." % where,
                "Take it out of the set.",
            )
            continue
        planned.append({"kid": str(key.get("kid") or ""), "alg": algorithm, "spki": base64.b64encode(spki).decode()})
    names = [(key["kid"], key["alg"]) for key in planned]
    if not planned or len(names) != len(set(names)):
        checks.refuse(
            "jwks",
            "at least one signing key, each with a kid of its own",
            ", ".join("%s %s" % name for name in names) or "none",
            "It is %s." % where,
            "Correct the set.",
        )
    return planned


def plan_token(given: Mapping, clients: t.Sequence[Mapping], checks: Checks) -> t.Optional[t.Dict[str, t.Any]]:
    """Return what the proxy proves tokens by, or None where no key set is given.

    Args:
        given: ``jwks`` (the set's text, empty for none), ``jwks_file`` (where it came from), ``issuer``, ``audience``,
            ``skew_seconds``.
        clients: the planned clients.

    Returns:
        ``{issuer, audience, skewSeconds, keys, clients}``; ``clients`` are ``{subject, certificate, client}``.
    """
    if not given.get("jwks"):
        return None
    for name in ("issuer", "audience"):
        if not re.fullmatch(r"[\x21-\x7e]{1,512}", str(given[name])):
            checks.refuse(
                "jwt_%s" % name,
                "1 to 512 printable characters",
                repr(given[name]),
                "It is llm_proxy_jwt_%s." % name,
                "State what the tokens carry.",
            )
    if not 0 <= given["skew_seconds"] <= 300:
        checks.refuse("jwt_skew", "0 to 300", given["skew_seconds"], "It is llm_proxy_jwt_skew_seconds.", "Correct it.")
    return {
        "issuer": given["issuer"],
        "audience": given["audience"],
        "skewSeconds": given["skew_seconds"],
        "keys": plan_keys(str(given["jwks"]), str(given["jwks_file"]), checks),
        "clients": [
            {"subject": subject, "certificate": client["subject_dn"], "client": client["name"]}
            for client in clients
            for subject in client["jwt_subjects"]
        ],
    }
