# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a pair in a server's place that expired an hour ago: ``expire_server.py PKI_DIRECTORY INVENTORY_NAME``."""

from __future__ import annotations

import datetime
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

pki = pathlib.Path(sys.argv[1])
place = pki / "servers" / sys.argv[2]
authority = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes())
secret = (pki / "ca.passphrase").read_bytes().strip()
signer = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), secret)
old = x509.load_pem_x509_certificate((place / "server.crt").read_bytes())
key = ec.generate_private_key(ec.SECP256R1())
now = datetime.datetime.now(datetime.timezone.utc)
builder = x509.CertificateBuilder().subject_name(old.subject).issuer_name(authority.subject)
builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
builder = builder.not_valid_before(now - datetime.timedelta(days=2)).not_valid_after(now - datetime.timedelta(hours=1))
for extension in old.extensions:
    if extension.oid not in (x509.ExtensionOID.SUBJECT_KEY_IDENTIFIER, x509.ExtensionOID.AUTHORITY_KEY_IDENTIFIER):
        builder = builder.add_extension(extension.value, extension.critical)
form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
(place / "server.crt").write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
(place / "server.key").write_bytes(key.private_bytes(*form))
