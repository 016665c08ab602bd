# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The life of a client: issue, rotate, revoke, list. Deciding is pure; ``Work`` does what was decided, in an order in
which a killed run can be run again.

The certificate counts from the moment it is among the issued ones, a key from the moment its digest is listed. What
a killed run left before that is dropped, what it left after it is finished, at the beginning of the next run.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
import secrets
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _pki,
    _pki_files,
    _pki_make,
    _pki_records,
    _pki_sign,
)

Record = _pki_records.Record
Key = _pki_records.Key
PARTS = ("certificate", "key")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked for. ``keep`` is how long what is replaced stays valid, ``pause`` how young it may not be.

    What is to end at once has leaked: then it may be as young as it is.
    """

    action: str
    now: datetime.datetime
    parts: t.Tuple[str, ...] = PARTS
    keep: datetime.timedelta = datetime.timedelta(days=7)
    pause: datetime.timedelta = datetime.timedelta(hours=1)
    key_lifetime: t.Optional[datetime.timedelta] = None
    tier: t.Optional[str] = None
    jwt_subjects: t.Optional[t.Tuple[str, ...]] = None
    reinstate: bool = False
    record: bool = True


@dataclasses.dataclass(frozen=True)
class Client:
    """A client as found. ``certificate_due`` and ``key_due`` say why a new one is needed, empty for no reason."""

    name: str
    record: t.Optional[Record]
    keys: t.Tuple[Key, ...]
    certificate: t.Optional[t.Any]
    certificate_due: str
    key_due: str = ""
    issued_serials: t.Tuple[int, ...] = ()

    def is_known(self) -> bool:
        return bool(self.record or self.keys or self.certificate or self.issued_serials)

    def is_revoked(self) -> bool:
        return bool(self.record and self.record["state"] == "revoked")


@dataclasses.dataclass
class Decision:
    """What is to be done with one client; ``keys`` and ``record`` as they'll be, without a key that is to be made."""

    name: str
    keys: t.List[Key]
    record: t.Optional[Record]
    make_key: bool = False
    adopt_key: bool = False
    make_certificate: str = ""
    retire_at: t.Optional[datetime.datetime] = None
    refusal: str = ""
    notes: t.List[str] = dataclasses.field(default_factory=list)


def _copy(record: t.Optional[Record]) -> Record:
    found = dict(record or {"state": "active"})
    found["keys"] = dict(found.get("keys", {}))
    found["certificates"] = dict(found.get("certificates", {}))
    return found


def _describe(decision: Decision, wanted: Wanted) -> None:
    """Note tier and subjects where they are given."""
    record = t.cast(Record, decision.record)
    if wanted.tier is not None:
        record["tier"] = wanted.tier
    if wanted.jwt_subjects is not None:
        record["jwt_subjects"] = list(wanted.jwt_subjects)


def _decide_issue(client: Client, wanted: Wanted) -> Decision:
    decision = Decision(client.name, list(client.keys), client.record)
    if client.is_revoked() and not wanted.reinstate:
        decision.refusal = (
            "%s was revoked at %s. Remedy: to serve it again with a new certificate and a new key, say "
            "llm_pki_client_reinstate; what it had stays refused."
            % (client.name, t.cast(Record, client.record).get("revoked_at", "an unknown time"))
        )
        return decision
    decision.keys = _pki_records.valid_keys(client.keys, wanted.now)
    decision.make_key = bool(client.key_due) or not decision.keys
    # A key that lies there unlisted was put there by a person; a revoked one never comes back.
    decision.adopt_key = client.key_due == _pki.UNLISTED and not client.is_revoked()
    decision.make_certificate = "revoked" if client.is_revoked() else client.certificate_due
    if wanted.record or client.record:
        record = _copy(client.record)
        record["state"] = "active"
        record.pop("revoked_at", None)
        decision.record = record
        _describe(decision, wanted)
    return decision


def _is_young(made: datetime.datetime, wanted: Wanted) -> bool:
    return bool(wanted.keep) and wanted.now - made < wanted.pause


def _decide_rotate(client: Client, wanted: Wanted) -> Decision:
    decision = Decision(client.name, list(client.keys), _copy(client.record))
    if not client.is_known() or client.is_revoked():
        decision.refusal = "%s is %s. Remedy: issue it first." % (
            client.name,
            "revoked" if client.is_revoked() else "no client of this authority",
        )
        return decision
    record = t.cast(Record, decision.record)
    _describe(decision, wanted)
    end = wanted.now + wanted.keep
    present = client.keys[0] if client.keys else None
    if "key" in wanted.parts:
        made = record["keys"].get(present.digest, {}).get("made") if present else None
        if made and _is_young(_pki_records.parse_time(made, client.name), wanted):
            decision.notes.append("its key was made at %s, less than the pause ago; it is not rotated again" % made)
        else:
            decision.make_key = True
            decision.keys = _pki_records.limit_keys(client.keys, end, wanted.now)
    if "certificate" in wanted.parts:
        begun = _pki.not_before(client.certificate) + _pki_sign.BACKDATE if client.certificate else None
        if begun and not client.certificate_due and _is_young(begun, wanted):
            decision.notes.append(
                "its certificate was made at %s, less than the pause ago; it is not rotated again"
                % _pki_records.format_time(begun)
            )
        else:
            decision.make_certificate = client.certificate_due or "rotated"
            decision.retire_at = end
    return decision


def _retire(record: Record, serial: int, at: datetime.datetime) -> None:
    """Note when a certificate is to be revoked; an earlier time that is noted already stays."""
    noted = record["certificates"].get("%x" % serial)
    when = _pki_records.format_time(at)
    if noted is None or noted["revoke_at"] > when:
        record["certificates"]["%x" % serial] = {"revoke_at": when}


def _decide_revoke(client: Client, wanted: Wanted) -> Decision:
    decision = Decision(client.name, [], _copy(client.record))
    if not client.is_known():
        decision.refusal = "%s is no client of this authority. Remedy: check the spelling." % client.name
        return decision
    record = t.cast(Record, decision.record)
    if record["state"] != "revoked":
        record["state"] = "revoked"
        record["revoked_at"] = _pki_records.format_time(wanted.now)
    for serial in client.issued_serials:
        _retire(record, serial, wanted.now)
    record["keys"] = {}
    return decision


def decide(client: Client, wanted: Wanted) -> Decision:
    """Return what is to be done with a client."""
    if wanted.action == "issue":
        return _decide_issue(client, wanted)
    if wanted.action == "rotate":
        return _decide_rotate(client, wanted)
    if wanted.action == "revoke":
        return _decide_revoke(client, wanted)
    return Decision(client.name, list(client.keys), client.record)


def _until(end: t.Optional[datetime.datetime]) -> str:
    return "until %s" % _pki_records.format_time(end) if end else "without an end"


def describe(client: Client, decision: t.Optional[Decision] = None) -> str:
    """Return a client as lines for ``--diff``, as it is or as a decision will leave it. No secret is in it."""
    record = decision.record if decision else client.record
    keys = decision.keys if decision else list(client.keys)
    lines = ["%s: %s" % (client.name, record["state"] if record else "active" if client.is_known() else "unknown")]
    for what in ("tier", "jwt_subjects"):
        if record and record.get(what):
            lines.append("  %s: %s" % (what, record[what]))
    if decision and decision.make_key:
        lines.append("  key: a new one")
    lines += ["  key: %s, %s" % (_pki_records.key_id(key.digest), _until(key.end)) for key in keys]
    if decision and decision.make_certificate:
        lines.append("  certificate: a new one")
    elif client.certificate is not None:
        end = _pki.not_after(client.certificate)
        lines.append("  certificate: %x, %s" % (client.certificate.serial_number, _until(end)))
    retired = dict((record or {}).get("certificates", {}))
    if decision and decision.retire_at and client.certificate is not None:
        _retire({"certificates": retired}, client.certificate.serial_number, decision.retire_at)
    for serial, noted in sorted(retired.items()):
        lines.append("  certificate %s: revoked from %s on" % (serial, noted["revoke_at"]))
    return "".join(line + "\n" for line in lines)


def days_left(end: datetime.datetime, now: datetime.datetime) -> float:
    """Return the days between two times, one decimal, negative when it is over."""
    return round((end - now).total_seconds() / 86400, 1)


def view(client: Client, now: datetime.datetime) -> t.Dict[str, t.Any]:
    """Return a client as a record for people and for other tools. No secret is in it."""
    record = client.record or {}
    end = _pki.not_after(client.certificate) if client.certificate is not None else None
    return {
        "name": client.name,
        "state": record.get("state", "active" if client.is_known() else "unknown"),
        "tier": record.get("tier"),
        "jwt_subjects": record.get("jwt_subjects", []),
        "keys": [
            {
                "id": _pki_records.key_id(key.digest),
                "sha256": key.digest,
                "made": record.get("keys", {}).get(key.digest, {}).get("made"),
                "begin": _pki_records.format_time(key.begin) if key.begin else None,
                "end": _pki_records.format_time(key.end) if key.end else None,
                "valid": (key.end is None or key.end > now) and (key.begin is None or key.begin <= now),
            }
            for key in client.keys
        ],
        "certificate": {
            "serial": "%x" % client.certificate.serial_number,
            "not_after": _pki_records.format_time(end),
            "days_left": days_left(end, now),
            "due": client.certificate_due,
        }
        if client.certificate is not None and end is not None
        else None,
        "to_be_revoked": [
            {"serial": serial, "at": noted["revoke_at"]}
            for serial, noted in sorted(record.get("certificates", {}).items())
        ],
    }


def make_key() -> str:
    """Return a new API key: 256 random bits."""
    return "sk-" + secrets.token_hex(32)


class Work:
    """Reads and changes clients of one directory. The caller holds the directory's lock for what changes."""

    def __init__(self, directory: _pki_make.Directory, *, client_days: float, renew_before_days: int) -> None:
        self.directory = directory
        self.client_days = client_days
        self.renew_before_days = renew_before_days

    def folder(self, name: str) -> str:
        return self.directory.join("clients", name)

    def read(self, name: str) -> Client:
        """Return a client as found. Raises Malformed, Damaged or Refused."""
        now = self.directory.now
        folder = self.folder(name)
        certificate, key = (os.path.join(folder, "client." + kind) for kind in ("crt", "key"))
        issued, _damaged = _pki.read_issued(self.directory.path)
        crls = self._crls()
        revoked = {entry["serial_number"] for entry in _pki_make.wanted_revocations(self.directory, crls)}
        try:
            found = _pki.read_certificate(certificate)
            found_key = _pki.read_key(key)
        except _pki.Damaged:
            found = found_key = None
        due = _pki.leaf_reason(
            found,
            found_key,
            self.directory.authority().certificate,
            name=name,
            usage="client",
            names=(),
            now=now,
            renew_before_days=self.renew_before_days,
            revoked=revoked,
        )
        serials = tuple(
            certificate.serial_number
            for certificate in issued
            if _pki.common_name(certificate) == name
            and _pki.has_usage(certificate, "client")
            and _pki.not_after(certificate) > now
        )
        keys = tuple(_pki_records.read_keys(folder))
        key_due = _pki.api_key_state(folder, now)["reason"]
        return Client(name, _pki_records.read_record(folder), keys, found, due, key_due, serials)

    def _crls(self) -> t.List[t.Any]:
        try:
            return list(_pki.read_crls(self.directory.join("crl.pem")))
        except _pki.Damaged:
            return []

    def finish(self, name: str, wanted: Wanted) -> t.List[str]:
        """End what a killed run began with a client. Returns what was finished, for people."""
        folder = self.folder(name)
        finished = []
        placing = self._retiring(name, wanted.now + wanted.keep)
        if _pki_make.finish_pair(folder, "client", self.directory.join("issued"), placing):
            finished.append("%s: its certificate that an earlier run began is in place" % name)
        if self._finish_key(folder):
            finished.append("%s: its key that an earlier run began is in place" % name)
        return finished

    def _retiring(self, name: str, at: datetime.datetime) -> t.Callable[[], None]:
        """Return what notes, before the pair in place is replaced, when it is to be revoked."""
        folder = self.folder(name)

        def note() -> None:
            record = _pki_records.read_record(folder)
            try:
                old = _pki.read_certificate(os.path.join(folder, "client.crt"))
                new = _pki.read_certificate(os.path.join(folder, "client.crt.next"))
            except _pki.Damaged:
                return
            if record is not None and old is not None and new is not None and old.serial_number != new.serial_number:
                record = _copy(record)
                _retire(record, old.serial_number, at)
                self._write_record(folder, record)

        return note

    def _finish_key(self, folder: str) -> bool:
        staged = os.path.join(folder, "api_key.next")
        content = _pki.read_bytes(staged)
        if content is None:
            return False
        digest = hashlib.sha256(content.strip()).hexdigest()
        if digest not in [key.digest for key in _pki_records.read_keys(folder)]:
            _pki_files.remove(staged)
            return False
        record = _pki_records.read_record(folder)
        if record is not None and digest not in record.get("keys", {}):
            record = _copy(record)
            record["keys"][digest] = {"made": _pki_records.format_time(self.directory.now)}
            _pki_files.write_json(os.path.join(folder, "client.json"), record)
        _pki_files.move(staged, os.path.join(folder, "api_key"))
        return True

    def apply(self, decision: Decision, wanted: Wanted) -> t.List[str]:
        """Do what was decided. Returns the paths of what there is to hand over.

        The order: what is noted comes first, so that a killed revocation has revoked; then the certificate; then the
        key.
        """
        folder = self.folder(decision.name)
        for path in (self.directory.join("clients"), folder):
            _pki_files.make_directory(path)
        handed: t.List[str] = []
        record = decision.record
        if record is not None:
            record["keys"] = {
                digest: noted
                for digest, noted in record.get("keys", {}).items()
                if digest in [key.digest for key in decision.keys]
            }
            self._write_record(folder, record)
        if decision.make_certificate:
            placing = self._retiring(decision.name, decision.retire_at) if decision.retire_at else lambda: None
            _pki_make.issue(self.directory, usage="client", name=decision.name, days=self.client_days, placing=placing)
            if record is not None:
                record = _copy(_pki_records.read_record(folder))
            handed += [os.path.join(folder, "client." + kind) for kind in ("crt", "key")]
        if decision.make_key:
            self._new_key(folder, decision, record, wanted)
            handed.append(os.path.join(folder, "api_key"))
        elif decision.keys:
            self._write_keys(folder, decision.keys)
        else:
            _pki_files.remove(os.path.join(folder, "api_key.sha256"))
            if wanted.action == "revoke":
                _pki_files.remove(os.path.join(folder, "api_key"))
        return handed

    @staticmethod
    def _write_record(folder: str, record: Record) -> None:
        kept = {name: value for name, value in record.items() if value not in ({}, None)}
        _pki_files.write_json(os.path.join(folder, "client.json"), kept)

    @staticmethod
    def _write_keys(folder: str, keys: t.Iterable[Key]) -> None:
        text = _pki_records.format_keys(keys)
        _pki_files.write(os.path.join(folder, "api_key.sha256"), text.encode("ascii"))

    def _new_key(self, folder: str, decision: Decision, record: t.Optional[Record], wanted: Wanted) -> None:
        path = os.path.join(folder, "api_key")
        kept = _pki.read_bytes(path) if decision.adopt_key else None
        key = kept.decode("ascii").strip() if kept else make_key()
        digest = hashlib.sha256(key.encode("ascii")).hexdigest()
        end = wanted.now + wanted.key_lifetime if wanted.key_lifetime else None
        _pki_files.write(path + ".next", key.encode("ascii") + b"\n")
        self._write_keys(folder, [Key(digest, end), *decision.keys])
        if record is not None:
            record["keys"][digest] = {"made": _pki_records.format_time(wanted.now)}
            self._write_record(folder, record)
        _pki_files.move(path + ".next", path)
