# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The fingerprint of an OpenPGP key, without a keyring and without gpg, which a minimal host lacks.

Version 4 and 6 primary keys (RFC 9580, 5.5.4): SHA-1 over ``0x99``, the packet's length in two octets and the packet;
version 6 is SHA-256 over ``0x9b`` and four octets.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import typing as t

PUBLIC_KEY_PACKET = 6
ARMOR_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"


class KeyFileError(ValueError):
    """What was given is no OpenPGP public key."""


def dearmor(data: bytes) -> bytes:
    """Return the packets of a key file, armoured or not.

    Raises:
        KeyFileError: the armour holds no base64.
    """
    text = data.decode("ascii", "replace")
    if ARMOR_BEGIN not in text:
        return data
    packets = b""
    for block in re.findall(r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)-----END", text, re.DOTALL):
        _headers, sep, body = block.replace("\r\n", "\n").partition("\n\n")
        lines = [line.strip() for line in (body if sep else block).splitlines()]
        try:
            packets += base64.b64decode("".join(line for line in lines if not line.startswith("=")), validate=True)
        except binascii.Error as exc:
            raise KeyFileError("its armour holds no base64: %s" % exc) from exc
    return packets


def armor(packets: bytes) -> bytes:
    """Return packets in armour, as apt wants a file called .asc; the checksum is optional and left out."""
    text = base64.b64encode(packets).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return ("%s\n\n%s\n-----END PGP PUBLIC KEY BLOCK-----\n" % (ARMOR_BEGIN, "\n".join(lines))).encode("ascii")


def _packets(data: bytes) -> t.Iterator[t.Tuple[int, bytes]]:
    """Yield ``(tag, body)`` of each packet."""
    position = 0
    while position < len(data):
        header = data[position]
        if not header & 0x80:
            raise KeyFileError("octet %d begins no OpenPGP packet" % position)
        position += 1
        try:
            if header & 0x40:
                tag, first = header & 0x3F, data[position]
                if first < 192:
                    length, used = first, 1
                elif first < 224:
                    length, used = ((first - 192) << 8) + data[position + 1] + 192, 2
                elif first == 255:
                    length, used = int.from_bytes(data[position + 1 : position + 5], "big"), 5
                else:
                    raise KeyFileError("a packet of a key has a partial length")
            else:
                tag, kind = (header >> 2) & 0x0F, header & 0x03
                if kind == 3:
                    raise KeyFileError("a packet of a key has no length")
                used = 1 << kind
                length = int.from_bytes(data[position : position + used], "big")
        except IndexError as exc:
            raise KeyFileError("it ends within a packet") from exc
        body = data[position + used : position + used + length]
        if len(body) != length:
            raise KeyFileError("it ends within a packet")
        yield tag, body
        position += used + length


def fingerprints(data: bytes) -> t.List[str]:
    """Return the fingerprints of the primary keys in a key file, upper case.

    Raises:
        KeyFileError: it holds none, or something else.
    """
    found = []
    for tag, body in _packets(dearmor(data)):
        if tag != PUBLIC_KEY_PACKET:
            continue
        version = body[0] if body else 0
        if version == 4:
            # SHA-1 is what a version 4 fingerprint is made of; it's compared with the whole of a pinned one.
            digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest()  # noqa: S324 - see above
        elif version == 6:
            digest = hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest()
        else:
            raise KeyFileError("a key of version %d, expected 4 or 6" % version)
        found.append(digest.upper())
    if not found:
        raise KeyFileError("it holds no OpenPGP public key")
    return found


def normal(fingerprint: str) -> str:
    """Return a fingerprint as a person writes it in the form of :func:`fingerprints`."""
    return re.sub(r"[^0-9A-Fa-f]", "", fingerprint).upper()


def check(data: bytes, fingerprint: str, where: str) -> str:
    """Return an empty string when a key file holds exactly the one key that is trusted, else what is wrong with it.

    A second key in the file would be trusted as well, so that it's refused like a wrong one.
    """
    try:
        found = fingerprints(data)
    except KeyFileError as exc:
        return "%s is no key: %s. Expected the OpenPGP key %s." % (where, exc, normal(fingerprint))
    if found == [normal(fingerprint)]:
        return ""
    return "%s holds the key %s, expected %s and no other." % (where, ", ".join(found), normal(fingerprint))


def for_path(data: bytes, path: str) -> bytes:
    """Return a key in the form apt takes by the file's name: ``.gpg`` is binary, everything else armoured."""
    packets = dearmor(data)
    return packets if path.endswith(".gpg") else armor(packets)
