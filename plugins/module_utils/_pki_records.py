# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What is noted about a client beside its certificate: keys with their ends, state, tier, what is to be revoked when.

``clients/<name>/api_key.sha256`` holds the keys, the present one first: ``<SHA-256>``, ``<SHA-256> <end>`` or
``<SHA-256> <begin> <end>`` a line, ``-`` for no time.
``clients/<name>/client.json`` holds the rest: ``{state, tier, jwt_subjects, keys: {<SHA-256>: {made}}, certificates:
{<serial, hexadecimal>: {revoke_at}}}``. A client that only the inventory names has no such file. Neither holds a
secret. Times are UTC as in RFC 3339, ``2026-12-01T00:00:00Z``.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import typing as t

DIGEST = re.compile(r"[0-9a-f]{64}")
SERIAL = re.compile(r"[0-9a-f]{1,40}")
TIME = "%Y-%m-%dT%H:%M:%SZ"
STATES = ("active", "revoked")
ID_CHARACTERS = 12

Record = t.Dict[str, t.Any]


class Malformed(Exception):
    """A file isn't in its form; the text says what and where."""


class Key(t.NamedTuple):
    """An API key: its SHA-256, hexadecimal, and the end and the begin of its validity, None for none."""

    digest: str
    end: t.Optional[datetime.datetime]
    begin: t.Optional[datetime.datetime] = None


def format_time(when: datetime.datetime) -> str:
    """Return an aware time as RFC 3339 in UTC, whole seconds."""
    return when.astimezone(datetime.timezone.utc).strftime(TIME)


def parse_time(text: t.Any, where: str) -> datetime.datetime:
    """Return the aware time that a text in RFC 3339's form for UTC says. Raises Malformed."""
    try:
        return datetime.datetime.strptime(text, TIME).replace(tzinfo=datetime.timezone.utc)
    except (TypeError, ValueError) as exc:
        raise Malformed("%s: %r is not a time like 2026-12-01T00:00:00Z" % (where, text)) from exc


def _parse_bound(text: str, where: str) -> t.Optional[datetime.datetime]:
    return None if text == "-" else parse_time(text, where)


def _format_bound(when: t.Optional[datetime.datetime]) -> str:
    return format_time(when) if when else "-"


def parse_keys(text: str, where: str) -> t.List[Key]:
    """Return the keys of an ``api_key.sha256``, order kept. Raises Malformed."""
    keys: t.List[Key] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        words = line.split(" ")
        if len(words) > 3 or not DIGEST.fullmatch(words[0]):
            raise Malformed(
                "%s holds a line that is not 64 lower-case hexadecimal digits, then maybe an end, or a begin and an end"
                % where
            )
        end = _parse_bound(words[-1], where) if len(words) > 1 else None
        begin = _parse_bound(words[1], where) if len(words) == 3 else None
        keys.append(Key(words[0], end, begin))
    return keys


def format_keys(keys: t.Iterable[Key]) -> str:
    """Return the text of an ``api_key.sha256``."""
    lines = []
    for key in keys:
        words = [key.digest]
        if key.begin:
            words += [_format_bound(key.begin), _format_bound(key.end)]
        elif key.end:
            words.append(format_time(key.end))
        lines.append(" ".join(words) + "\n")
    return "".join(lines)


def key_id(digest: str) -> str:
    """Return the short name of a key by which people speak of it."""
    return digest[:ID_CHARACTERS]


def check_record(value: t.Any, where: str) -> Record:
    """Return a record that is in its form. Raises Malformed."""
    if not isinstance(value, dict) or value.get("state") not in STATES:
        raise Malformed("%s: state must be one of %s" % (where, ", ".join(STATES)))
    keys = value.get("keys", {})
    certificates = value.get("certificates", {})
    if not isinstance(keys, dict) or not isinstance(certificates, dict):
        raise Malformed("%s: keys and certificates must be dictionaries" % where)
    for digest, noted in keys.items():
        if not DIGEST.fullmatch(digest) or not isinstance(noted, dict):
            raise Malformed("%s: %r is no note about a key" % (where, digest))
        parse_time(noted.get("made"), where)
    for serial, noted in certificates.items():
        if not SERIAL.fullmatch(serial) or not isinstance(noted, dict):
            raise Malformed("%s: %r is no note about a certificate" % (where, serial))
        parse_time(noted.get("revoke_at"), where)
    return value


def _read(path: str) -> t.Optional[str]:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise Malformed("%s can't be read: %s" % (path, exc)) from exc


def read_keys(folder: str) -> t.List[Key]:
    """Return the keys of the client whose directory is ``folder``. Raises Malformed."""
    path = os.path.join(folder, "api_key.sha256")
    return parse_keys(_read(path) or "", path)


def read_record(folder: str) -> t.Optional[Record]:
    """Return what is noted about the client whose directory is ``folder``, None for nothing. Raises Malformed."""
    path = os.path.join(folder, "client.json")
    text = _read(path)
    if text is None:
        return None
    try:
        return check_record(json.loads(text), path)
    except ValueError as exc:
        raise Malformed("%s holds no JSON: %s" % (path, exc)) from exc


def client_names(directory: str) -> t.List[str]:
    """Return the names of all clients that have a directory."""
    folder = os.path.join(directory, "clients")
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name)))


def read_records(directory: str) -> t.Dict[str, Record]:
    """Return what is noted about all clients, by name. Raises Malformed."""
    found = {name: read_record(os.path.join(directory, "clients", name)) for name in client_names(directory)}
    return {name: record for name, record in found.items() if record is not None}


def revoked_names(records: t.Mapping[str, Record]) -> t.List[str]:
    """Return the clients that are revoked as a whole."""
    return sorted(name for name, record in records.items() if record["state"] == "revoked")


def revoked_serials(records: t.Mapping[str, Record], now: datetime.datetime) -> t.Set[int]:
    """Return the serial numbers whose time to be revoked has come."""
    return {
        int(serial, 16)
        for record in records.values()
        for serial, noted in record.get("certificates", {}).items()
        if parse_time(noted["revoke_at"], "client.json") <= now
    }


def next_revocation(records: t.Mapping[str, Record], now: datetime.datetime) -> t.Optional[datetime.datetime]:
    """Return when the next certificate is to be revoked, None for never."""
    times = [
        parse_time(noted["revoke_at"], "client.json")
        for record in records.values()
        for noted in record.get("certificates", {}).values()
    ]
    return min((when for when in times if when > now), default=None)


def valid_keys(keys: t.Iterable[Key], now: datetime.datetime) -> t.List[Key]:
    """Return the keys that haven't ended."""
    return [key for key in keys if key.end is None or key.end > now]


def limit_keys(keys: t.Iterable[Key], end: datetime.datetime, now: datetime.datetime) -> t.List[Key]:
    """Return the valid keys, none of which outlives ``end``."""
    limited = [Key(key.digest, min(key.end, end) if key.end else end, key.begin) for key in keys]
    return valid_keys(limited, now)
