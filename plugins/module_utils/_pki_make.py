# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Makes pairs and revocation lists in a fleet's certificate directory. The caller holds its lock (``_pki_files``)."""

from __future__ import annotations

import dataclasses
import datetime
import os
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _finding,
    _pki,
    _pki_files,
    _pki_records,
    _pki_sign,
)

if t.TYPE_CHECKING:
    from cryptography import x509


class Refused(Exception):
    """The directory's authority can't be used; the text has every reason and its remedy."""


@dataclasses.dataclass(frozen=True)
class Directory:
    """A certificate directory, and what of the inventory its revocation lists depend on. ``now`` is aware."""

    path: str
    now: datetime.datetime
    passphrase: t.Optional[str] = None
    crl_lifetime: datetime.timedelta = datetime.timedelta(days=30)
    crl_renew_before_days: int = 20
    revoked_clients: t.Tuple[str, ...] = ()
    revoked_serials: t.Tuple[str, ...] = ()

    def join(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def secret(self) -> str:
        """Return the passphrase of the authority's key: the one given, or the one in ``ca.passphrase``."""
        if self.passphrase:
            return self.passphrase
        stored = _pki.read_bytes(self.join("ca.passphrase"))
        if stored is None:
            raise Refused("%s is gone. Remedy: restore it, or give llm_pki_ca_passphrase." % self.join("ca.passphrase"))
        return stored.decode("utf-8").strip()

    def authority(self) -> _pki.Authority:
        """Return the authority that signs. Raises Refused when it is absent, damaged or ended."""
        request = _pki.Request(directory=self.path, now=self.now, passphrase=self.passphrase)
        found, findings = _pki.check_authority(request)
        message = _finding.refusal_message(findings, "The certificates")
        if message:
            raise Refused(message)
        if found.certificate is None:
            raise Refused("%s holds no authority. Remedy: run the role llm_pki first, it makes one." % self.path)
        return found

    def authorities(self) -> t.List[_pki.Authority]:
        """Return every trusted authority with its key, the one that signs first. Raises Refused."""
        signing = self.authority()
        found = [_pki.Authority(signing.certificate, signing.key)]
        for certificate in signing.others:
            path = self.join("authorities", _pki_sign.fingerprint(certificate)[:16] + ".key")
            try:
                key = _pki.read_key(path, self.secret())
            except _pki.Damaged as exc:
                raise Refused("%s. Remedy: restore it from your backup." % exc) from exc
            if key is None:
                raise Refused(
                    "%s is trusted and %s is gone, so it can have no revocation list. Remedy: restore the key from "
                    "your backup." % (_pki.common_name(certificate), path)
                )
            found.append(_pki.Authority(certificate, key))
        return found


def pem_text(parts: t.Iterable[bytes]) -> bytes:
    """Return PEM blocks as one file's content."""
    return b"".join(part.strip() + b"\n" for part in parts)


def wanted_revocations(directory: Directory, crls: t.Sequence[t.Any]) -> t.List[t.Dict[str, t.Any]]:
    """Return what the revocation lists must hold now. Raises Refused for a damaged list of issued certificates."""
    issued, damaged = _pki.read_issued(directory.path)
    if damaged:
        raise Refused(
            "Not PEM certificates: %s. They are what a revocation by name goes by. Remedy: restore them from your "
            "backup, or remove them if no such certificate is in use." % ", ".join(damaged)
        )
    records = _pki_records.read_records(directory.path)
    return _pki.revocations(
        issued,
        crls,
        clients={*directory.revoked_clients, *_pki_records.revoked_names(records)},
        serials={_pki.parse_serial(serial) for serial in directory.revoked_serials}
        | _pki_records.revoked_serials(records, directory.now),
        now=directory.now,
    )


def crl_due(directory: Directory) -> str:
    """Return why the revocation lists have to be made anew, or an empty string."""
    try:
        crls = _pki.read_crls(directory.join("crl.pem"))
    except _pki.Damaged as exc:
        return str(exc)
    revoked = {entry["serial_number"] for entry in wanted_revocations(directory, crls)}
    trusted = directory.authority().trusted()
    renew_before_days = directory.crl_renew_before_days
    return _pki.crl_reason(crls, trusted, revoked=revoked, now=directory.now, renew_before_days=renew_before_days)


def renew_crl(directory: Directory) -> None:
    """Sign a revocation list for every trusted authority, all in one file."""
    try:
        crls = _pki.read_crls(directory.join("crl.pem"))
    except _pki.Damaged:
        crls = []
    entries = wanted_revocations(directory, crls)
    signed = [
        _pki_sign.make_crl(authority, entries, lifetime=directory.crl_lifetime, now=directory.now)
        for authority in directory.authorities()
    ]
    _pki_files.write(directory.join("crl.pem"), pem_text(signed))


def finish_pair(folder: str, usage: str, issued: str, placing: t.Callable[[], None] = lambda: None) -> bool:
    """Put a pair in place that was made in ``folder``. Returns whether there was one.

    A pair counts from the moment its certificate is in ``issued``: only from then on can it be revoked by name. What
    a killed writer hasn't brought that far is dropped, nobody has it. ``placing`` is called before the old pair goes.
    """
    key, certificate = (os.path.join(folder, "%s.%s" % (usage, kind)) for kind in ("key", "crt"))
    try:
        new = _pki.read_certificate(certificate + ".next")
        new_key = _pki.read_key(key + ".next")
        kept_key = _pki.read_key(key)
    except _pki.Damaged:
        new = new_key = kept_key = None
    fits = new is not None and any(
        candidate is not None and _pki.public_bytes(candidate.public_key()) == _pki.public_bytes(new.public_key())
        for candidate in (new_key, kept_key)
    )
    if new is not None and fits and os.path.exists(os.path.join(issued, issued_name(usage, new))):
        placing()
        if new_key is not None:
            _pki_files.move(key + ".next", key)
        _pki_files.move(certificate + ".next", certificate)
        return True
    _pki_files.remove(key + ".next")
    _pki_files.remove(certificate + ".next")
    return False


def issued_name(usage: str, certificate: "x509.Certificate") -> str:
    """Return the name under which a certificate is kept for a later revocation."""
    return "%s-%s.crt" % (usage, _pki_sign.fingerprint(certificate))


def issue(
    directory: Directory,
    *,
    usage: str,
    name: str,
    names: t.Sequence[str] = (),
    days: float,
    placing: t.Callable[[], None] = lambda: None,
) -> None:
    """Make a pair below ``servers/<name>`` or ``clients/<name>``.

    Killed at any point, it leaves the old pair or the new one once ``finish_pair`` has run.
    """
    folder = directory.join(usage + "s", name)
    issued = directory.join("issued")
    for path in (os.path.dirname(folder), folder, issued):
        _pki_files.make_directory(path)
    pair = _pki_sign.make_leaf(directory.authority(), usage=usage, name=name, names=names, days=days, now=directory.now)
    _pki_files.write(os.path.join(folder, usage + ".key.next"), pair.key)
    _pki_files.write(os.path.join(folder, usage + ".crt.next"), pair.certificate)
    made = _pki.read_certificate(os.path.join(folder, usage + ".crt.next"))
    _pki_files.write(os.path.join(issued, issued_name(usage, t.cast("x509.Certificate", made))), pair.certificate)
    finish_pair(folder, usage, issued, placing)
