# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays an issuer of tokens: ``make_jwks.py DIRECTORY`` makes its keys rs256.pem and es256.pem, and jwks.json, once."""

from __future__ import annotations

import base64
import json
import pathlib
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa


def text(number: int, size: int = 0) -> str:
    """Return a number as base64url (RFC 7518, 2)."""
    raw = number.to_bytes(size or (number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


folder = pathlib.Path(sys.argv[1])
folder.mkdir(mode=0o700, parents=True, exist_ok=True)
if not (folder / "jwks.json").exists():
    keys = {"rs256": rsa.generate_private_key(65537, 2048), "es256": ec.generate_private_key(ec.SECP256R1())}
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for name, key in keys.items():
        (folder / (name + ".pem")).write_bytes(key.private_bytes(*form))
    n, e = keys["rs256"].public_key().public_numbers().n, keys["rs256"].public_key().public_numbers().e
    point = keys["es256"].public_key().public_numbers()
    entries = [
        {"kty": "RSA", "kid": "rs256", "use": "sig", "n": text(n), "e": text(e)},
        {"kty": "EC", "crv": "P-256", "kid": "es256", "use": "sig", "x": text(point.x, 32), "y": text(point.y, 32)},
    ]
    (folder / "jwks.json").write_text(json.dumps({"keys": entries}))
