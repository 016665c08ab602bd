# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Reads a fleet's certificate directory and decides what is due in it.

Nothing here writes. ``inspect`` reads every file of the directory once and returns a report; what the
report calls due is made by the tasks of the role ``llm_pki``.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import ipaddress
import os
import re
import stat
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _finding, _pki_records

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True

CLIENT_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
API_KEY = re.compile(r"sk-[0-9a-f]{64}")
SERIAL = re.compile(r"[0-9a-f]{1,40}")
UNLISTED = "its digest isn't listed"
ASN1_TIME = "%Y%m%d%H%M%SZ"
PEM_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
PEM_CRL = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


class Damaged(Exception):
    """A file of the directory is there and can't be used; the text says why."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What the inventory asks of the directory. Days are counted from ``now``."""

    directory: str
    now: datetime.datetime
    server_name: t.Optional[str] = None
    server_names: t.Tuple[str, ...] = ()
    clients: t.Tuple[str, ...] = ()
    revoked_clients: t.Tuple[str, ...] = ()
    revoked_serials: t.Tuple[str, ...] = ()
    passphrase: t.Optional[str] = None
    server_days: int = 90
    client_days: int = 90
    crl_days: int = 30
    renew_before_days: int = 30
    crl_renew_before_days: int = 20


@dataclasses.dataclass(frozen=True)
class Authority:
    """The certificate authority that signs, as found: None where a file is absent.

    ``others`` are trusted too while one authority follows another.
    """

    certificate: t.Optional["x509.Certificate"]
    key: t.Optional[t.Any]
    others: t.Tuple["x509.Certificate", ...] = ()

    def trusted(self) -> t.List["x509.Certificate"]:
        return ([self.certificate] if self.certificate is not None else []) + list(self.others)


def parse_serial(text: str) -> int:
    """Return a serial number written in hexadecimal, with or without colons, as openssl prints it."""
    plain = text.replace(":", "").lower()
    if not SERIAL.fullmatch(plain):
        raise ValueError("%r is not a serial number in hexadecimal" % text)
    return int(plain, 16)


def subject_alternative_name(name: str) -> str:
    """Return a host name or address as OpenSSL writes it in a subject alternative name."""
    try:
        return "IP:%s" % ipaddress.ip_address(name.strip("[]")).compressed
    except ValueError:
        return "DNS:%s" % name


def subject_alternative_names(names: t.Iterable[str]) -> t.List[str]:
    """Return names and addresses as subject alternative names, each once, order kept."""
    return list(dict.fromkeys(subject_alternative_name(name) for name in names if name))


def common_name(certificate: "x509.Certificate") -> str:
    """Return the certificate's only common name, or an empty string."""
    values = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[0].value) if len(values) == 1 else ""


def not_after(certificate: "x509.Certificate") -> datetime.datetime:
    """Return the end of validity as an aware UTC time, on old and new releases of cryptography."""
    aware = getattr(certificate, "not_valid_after_utc", None)
    if aware is None:
        aware = certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)
    return t.cast(datetime.datetime, aware)


def not_before(certificate: "x509.Certificate") -> datetime.datetime:
    """Return the start of validity as an aware UTC time, on old and new releases of cryptography."""
    aware = getattr(certificate, "not_valid_before_utc", None)
    if aware is None:
        aware = certificate.not_valid_before.replace(tzinfo=datetime.timezone.utc)
    return t.cast(datetime.datetime, aware)


def next_update(crl: "x509.CertificateRevocationList") -> t.Optional[datetime.datetime]:
    """Return the end of a revocation list's validity as an aware UTC time, or None when it has none."""
    aware = getattr(crl, "next_update_utc", None)
    if aware is None and crl.next_update is not None:
        aware = crl.next_update.replace(tzinfo=datetime.timezone.utc)
    return t.cast(t.Optional[datetime.datetime], aware)


def public_bytes(key: t.Any) -> bytes:
    """Return a public key as DER, which two equal keys share."""
    return t.cast(
        bytes,
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


def is_signed_by(certificate: "x509.Certificate", authority: "x509.Certificate") -> bool:
    """Say whether the authority's key made the certificate's signature and its name is the issuer."""
    if certificate.issuer != authority.subject:
        return False
    algorithm = certificate.signature_hash_algorithm
    key = authority.public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(algorithm))
        elif isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(), algorithm)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def read_bytes(path: str) -> t.Optional[bytes]:
    """Return a file's bytes, or None when it isn't there. Raises Damaged when it can't be read."""
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Damaged("%s: %s" % (path, exc.strerror)) from exc


def read_certificate(path: str) -> t.Optional["x509.Certificate"]:
    """Return a PEM certificate, or None when it isn't there. Raises Damaged when it's something else."""
    content = read_bytes(path)
    if content is None:
        return None
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as exc:
        raise Damaged("%s holds no PEM certificate" % path) from exc


def read_certificates(path: str) -> t.List["x509.Certificate"]:
    """Return all PEM certificates of a file, none when it isn't there. Raises Damaged when it holds none."""
    content = read_bytes(path)
    if content is None:
        return []
    try:
        found = [x509.load_pem_x509_certificate(part) for part in PEM_CERTIFICATE.findall(content)]
    except ValueError as exc:
        raise Damaged("%s holds a certificate that can't be read" % path) from exc
    if not found:
        raise Damaged("%s holds no PEM certificate" % path)
    return found


def read_key(path: str, passphrase: t.Optional[str] = None) -> t.Optional[t.Any]:
    """Return a PEM private key, or None when it isn't there. Raises Damaged when it doesn't open."""
    content = read_bytes(path)
    if content is None:
        return None
    try:
        return serialization.load_pem_private_key(content, passphrase.encode("utf-8") if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        how = " with its passphrase" if passphrase else ""
        raise Damaged("%s doesn't open as a private key%s" % (path, how)) from exc


def read_crls(path: str) -> t.List["x509.CertificateRevocationList"]:
    """Return all PEM revocation lists of a file, none when it isn't there. Raises Damaged when it holds none."""
    content = read_bytes(path)
    if content is None:
        return []
    try:
        found = [x509.load_pem_x509_crl(part) for part in PEM_CRL.findall(content)]
    except ValueError as exc:
        raise Damaged("%s holds a revocation list that can't be read" % path) from exc
    if not found:
        raise Damaged("%s holds no PEM revocation list" % path)
    return found


def extension_names(certificate: "x509.Certificate") -> t.Set[str]:
    """Return the certificate's subject alternative names in OpenSSL's notation."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {"DNS:%s" % name for name in names.get_values_for_type(x509.DNSName)} | {
        "IP:%s" % address for address in names.get_values_for_type(x509.IPAddress)
    }


def has_usage(certificate: "x509.Certificate", usage: str) -> bool:
    """Say whether the certificate may be used as ``server`` or ``client``, and as nothing else."""
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if usage == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return list(usages) == [wanted]


def leaf_reason(
    certificate: t.Optional["x509.Certificate"],
    key: t.Optional[t.Any],
    authority: t.Optional["x509.Certificate"],
    *,
    name: str,
    usage: str,
    names: t.Sequence[str],
    now: datetime.datetime,
    renew_before_days: int,
    revoked: t.AbstractSet[int],
) -> str:
    """Return why a pair of key and certificate has to be made anew, or an empty string.

    Args:
        names: subject alternative names in OpenSSL's notation that the certificate must carry exactly;
            empty for a client.
        renew_before_days: days before its end at which a certificate is renewed.
        revoked: serial numbers that may not be used any more.
    """
    if certificate is None or key is None:
        return "missing"
    if authority is None:
        return "the authority is new"
    if public_bytes(certificate.public_key()) != public_bytes(key.public_key()):
        return "the key doesn't belong to the certificate"
    if not is_signed_by(certificate, authority):
        return "not signed by this authority"
    if common_name(certificate) != name:
        return "made for %r" % common_name(certificate)
    if not has_usage(certificate, usage):
        return "not a certificate for a %s" % usage
    if usage == "server" and extension_names(certificate) != set(names):
        return "its names are %s" % ", ".join(sorted(extension_names(certificate)))
    if certificate.serial_number in revoked:
        return "revoked"
    if not_before(certificate) > now:
        return "not valid before %s" % not_before(certificate).isoformat()
    if not_after(certificate) - now < datetime.timedelta(days=renew_before_days):
        return "ends %s" % not_after(certificate).isoformat()
    return ""


def crl_reason(
    crls: t.Sequence["x509.CertificateRevocationList"],
    trusted: t.Sequence["x509.Certificate"],
    *,
    revoked: t.AbstractSet[int],
    now: datetime.datetime,
    renew_before_days: int,
) -> str:
    """Return why the revocation lists have to be made anew, or an empty string.

    Every trusted authority must have its own list: without one, everybody is refused.
    """
    if not crls:
        return "missing"
    if not trusted:
        return "the authority is new"
    for authority in trusted:
        own = crl_of(authority, crls)
        if own is None:
            return "not signed by this authority" if len(trusted) == 1 else "%s has none" % common_name(authority)
        listed = {entry.serial_number for entry in own}
        if listed != set(revoked):
            return "lists %d certificates, %d are revoked" % (len(listed), len(revoked))
        until = next_update(own)
        if until is None or until - now < datetime.timedelta(days=renew_before_days):
            return "ends %s" % (until.isoformat() if until else "never stated")
    if len(crls) != len(trusted):
        return "%d lists for %d authorities" % (len(crls), len(trusted))
    return ""


def crl_of(
    authority: "x509.Certificate", crls: t.Sequence["x509.CertificateRevocationList"]
) -> t.Optional["x509.CertificateRevocationList"]:
    """Return the list that the authority signed, None where there is none."""
    for crl in crls:
        if crl.issuer == authority.subject and crl.is_signature_valid(t.cast(t.Any, authority.public_key())):
            return crl
    return None


def revocations(
    issued: t.Collection["x509.Certificate"],
    crls: t.Iterable["x509.CertificateRevocationList"],
    *,
    clients: t.Collection[str],
    serials: t.Collection[int],
    now: datetime.datetime,
) -> t.List[t.Dict[str, t.Any]]:
    """Return what the revocation lists must hold: every certificate still in its time that a revoked client ever had.

    A date that the present lists give is kept; a new one is ``now``. Times are ASN.1, ``YYYYMMDDHHMMSSZ``.
    """
    ended = {certificate.serial_number for certificate in issued if not_after(certificate) <= now}
    wanted = {
        certificate.serial_number
        for certificate in issued
        if not_after(certificate) > now and common_name(certificate) in clients and has_usage(certificate, "client")
    } | (set(serials) - ended)
    dates: t.Dict[int, datetime.datetime] = {}
    for entry in (entry for crl in crls for entry in crl):
        date = getattr(entry, "revocation_date_utc", None) or entry.revocation_date
        dates[entry.serial_number] = date
    return [
        {"serial_number": serial, "revocation_date": dates.get(serial, now).strftime(ASN1_TIME)}
        for serial in sorted(wanted)
    ]


def api_key_state(directory: str, now: datetime.datetime) -> t.Dict[str, t.Any]:
    """Return a client's API key as ``{reason, digests}``, digests as the lines of ``api_key.sha256``; never the key.

    A client that manage_clients keeps may lack the key: it was handed over.

    Raises:
        Damaged: the key or the list of digests isn't in its form.
    """
    content = read_bytes(os.path.join(directory, "api_key"))
    try:
        keys = _pki_records.read_keys(directory)
        kept = _pki_records.read_record(directory) is not None
    except _pki_records.Malformed as exc:
        raise Damaged(str(exc)) from exc
    digests = _pki_records.format_keys(keys).splitlines()
    if content is None:
        handed_over = kept and _pki_records.valid_keys(keys, now)
        return {"reason": "" if handed_over else "missing", "digests": digests}
    key = content.decode("utf-8", "replace").strip()
    if not API_KEY.fullmatch(key):
        raise Damaged("%s/api_key is not 'sk-' and 64 lower-case hexadecimal digits" % directory)
    digest = hashlib.sha256(key.encode("ascii")).hexdigest()
    listed = digest in [key.digest for key in keys]
    return {"reason": "" if listed else UNLISTED, "digests": digests}


def open_permissions(directory: str) -> t.List[t.Dict[str, str]]:
    """Return every path under the directory that somebody else may use, with the mode it should have."""
    found: t.List[t.Dict[str, str]] = []

    def check(path: str, mode: str) -> None:
        if stat.S_IMODE(os.lstat(path).st_mode) & 0o077:
            found.append({"path": path, "mode": mode})

    for parent, _directories, files in os.walk(directory):
        check(parent, "0700")
        for name in files:
            check(os.path.join(parent, name), "0600")
    return found


def check_request(request: Request) -> t.List[_finding.Finding]:
    """Return the findings about what was asked, before any file is read."""
    findings: t.List[_finding.Finding] = []
    names: t.List[t.Tuple[str, str]] = [("llm_pki_clients", name) for name in request.clients]
    names += [("llm_pki_revoked_clients", name) for name in request.revoked_clients]
    for variable, name in names:
        if not CLIENT_NAME.fullmatch(name):
            findings.append(
                _finding.finding(
                    "pki.client_name",
                    False,
                    expected="at most 63 of a-z 0-9 . _ -, beginning and ending with a letter or digit",
                    found=name,
                    detail="The name is in %s." % variable,
                    remedy="Rename the client in %s." % variable,
                )
            )
    for name in sorted({name for name in request.clients if request.clients.count(name) > 1}):
        findings.append(
            _finding.finding(
                "pki.client_name",
                False,
                expected="every client once",
                found="%s, %d times" % (name, request.clients.count(name)),
                detail="llm_pki_clients and llm_pki_validate_client name it.",
                remedy="Leave one of them in llm_pki_clients.",
            )
        )
    for name in sorted(set(request.clients) & set(request.revoked_clients)):
        findings.append(
            _finding.finding(
                "pki.revoked_client",
                False,
                expected="a client is either served or revoked",
                found="%s is in llm_pki_clients and in llm_pki_revoked_clients" % name,
                remedy="Take it out of llm_pki_clients; to replace one lost certificate only, put its serial number "
                "into llm_pki_revoked_serials instead.",
            )
        )
    for serial in request.revoked_serials:
        try:
            parse_serial(serial)
        except ValueError:
            findings.append(
                _finding.finding(
                    "pki.revoked_serial",
                    False,
                    expected="up to 40 hexadecimal digits",
                    found=serial,
                    detail="The serial number is in llm_pki_revoked_serials.",
                    remedy="Copy it from `openssl x509 -noout -serial -in client.crt`.",
                )
            )
    for variable, days, before_variable, before in (
        ("llm_pki_server_days", request.server_days, "llm_pki_renew_before_days", request.renew_before_days),
        ("llm_pki_client_days", request.client_days, "llm_pki_renew_before_days", request.renew_before_days),
        ("llm_pki_crl_days", request.crl_days, "llm_pki_crl_renew_before_days", request.crl_renew_before_days),
    ):
        if not 0 <= before < days:
            findings.append(
                _finding.finding(
                    "pki.lifetime_days",
                    False,
                    expected="%s above %s, which is 0 or more" % (variable, before_variable),
                    found="%s is %d, %s is %d" % (variable, days, before_variable, before),
                    detail="Otherwise every run would renew it.",
                    remedy="Raise %s or lower %s." % (variable, before_variable),
                )
            )
    if request.server_name is not None and not 1 <= len(request.server_name) <= 64:
        findings.append(
            _finding.finding(
                "pki.server_name",
                False,
                expected="1 to 64 characters, the most a common name holds",
                found=request.server_name,
                remedy="Give the host a shorter inventory name.",
            )
        )
    return findings


def check_authority(request: Request) -> t.Tuple[Authority, t.List[_finding.Finding]]:
    """Read the authority and return it with the findings that stop, or warn of its end."""
    directory = request.directory
    rotate = (
        "To begin with a new authority, move %s away and run the play again: every server and client gets a new "
        "certificate, and clients must fetch theirs and the new ca.crt." % directory
    )
    findings: t.List[_finding.Finding] = []
    passphrase = request.passphrase
    try:
        trusted = read_certificates(os.path.join(directory, "ca.crt"))
        certificate = trusted[0] if trusted else None
        if passphrase is None:
            stored = read_bytes(os.path.join(directory, "ca.passphrase"))
            passphrase = stored.decode("utf-8").strip() if stored else None
        has_key = os.path.exists(os.path.join(directory, "ca.key"))
        if has_key and passphrase is None:
            raise Damaged("%s/ca.key is encrypted and %s/ca.passphrase is gone" % (directory, directory))
        key = read_key(os.path.join(directory, "ca.key"), passphrase)
    except Damaged as exc:
        findings.append(
            _finding.finding(
                "pki.authority_readable",
                False,
                expected="ca.crt, and ca.key that opens with llm_pki_ca_passphrase (or ca.passphrase)",
                found=str(exc),
                detail="llm_pki_dir is %s." % directory,
                remedy="Restore the files or the passphrase from your backup. %s" % rotate,
            )
        )
        return Authority(None, None), findings
    if certificate is None:
        if key is not None and os.path.isdir(os.path.join(directory, "issued")):
            findings.append(
                _finding.finding(
                    "pki.authority_readable",
                    False,
                    expected="ca.crt beside ca.key",
                    found="ca.key without ca.crt, and certificates were issued",
                    detail="llm_pki_dir is %s." % directory,
                    remedy="Restore ca.crt from your backup or from a host's /etc/gpufleet/proxy/tls. %s" % rotate,
                )
            )
        return Authority(None, None), findings
    if key is None or public_bytes(key.public_key()) != public_bytes(certificate.public_key()):
        findings.append(
            _finding.finding(
                "pki.authority_pair",
                False,
                expected="the key of ca.crt in ca.key",
                found="no ca.key" if key is None else "ca.key holds another key",
                detail="llm_pki_dir is %s." % directory,
                remedy="If playbooks/rotate_authority.yml was cut off, run it again with the same step; else restore "
                "ca.key from your backup. %s" % rotate,
            )
        )
    end = not_after(certificate)
    if end <= request.now:
        findings.append(
            _finding.finding(
                "pki.authority_valid",
                False,
                expected="an authority that is still valid",
                found="notAfter %s" % end.isoformat(),
                detail="The authority in llm_pki_dir %s has expired; it is never replaced silently." % directory,
                remedy=rotate,
            )
        )
    elif end - request.now < datetime.timedelta(days=request.renew_before_days * 3):
        findings.append(
            _finding.finding(
                "pki.authority_ends_soon",
                False,
                severity="warning",
                expected="more than %d days left" % (request.renew_before_days * 3),
                found="notAfter %s" % end.isoformat(),
                detail="The authority is in llm_pki_dir %s." % directory,
                remedy="Let another one follow while both are trusted: playbooks/rotate_authority.yml.",
            )
        )
    return Authority(certificate, key, tuple(trusted[1:])), findings


def _pair_reason(request: Request, authority: Authority, path: str, stem: str, **wanted: t.Any) -> t.Tuple[str, bool]:
    """Return why a pair is due, and whether that is damage that somebody should hear of."""
    try:
        certificate = read_certificate(os.path.join(path, stem + ".crt"))
        key = read_key(os.path.join(path, stem + ".key"))
    except Damaged as exc:
        return str(exc), True
    reason = leaf_reason(
        certificate,
        key,
        authority.certificate,
        now=request.now,
        renew_before_days=request.renew_before_days,
        **wanted,
    )
    return reason, reason == "the key doesn't belong to the certificate"


def read_issued(directory: str) -> t.Tuple[t.List["x509.Certificate"], t.List[str]]:
    """Return every certificate that was ever issued and the paths that hold none."""
    issued: t.List["x509.Certificate"] = []
    damaged: t.List[str] = []
    folder = os.path.join(directory, "issued")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.startswith("."):
            continue  # a writer's, or what is left of one that was killed
        path = os.path.join(folder, name)
        try:
            certificate = read_certificate(path)
        except Damaged:
            certificate = None
        if certificate is None:
            damaged.append(path)
        else:
            issued.append(certificate)
    return issued, damaged


class Inspection:
    """Gathers the report of one directory, part by part."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.findings = check_request(request)
        self.reasons: t.List[str] = []
        self.due: t.Dict[str, t.Any] = {
            "authority": False,
            "server": False,
            "clients": [],
            "api_keys": [],
            "crl": False,
            "permissions": [],
        }
        self.report: t.Dict[str, t.Any] = {
            "findings": self.findings,
            "due": self.due,
            "reasons": self.reasons,
            "revoked": [],
            "authority_not_after": None,
            "authority_name": "",
            "ends": [],
            "server_alternative_names": subject_alternative_names(request.server_names),
        }
        self.authority = Authority(None, None)
        self.crls: t.List["x509.CertificateRevocationList"] = []
        self.records: t.Dict[str, _pki_records.Record] = {}
        self.revoked: t.Set[int] = set()

    def stopped(self) -> bool:
        return bool(_finding.refusals(self.findings))

    def look_at_authority(self) -> None:
        self.authority, findings = check_authority(self.request)
        self.findings.extend(findings)
        certificate = self.authority.certificate
        if certificate is not None:
            self.report["authority_not_after"] = not_after(certificate).isoformat()
            self.report["authority_name"] = common_name(certificate)
        elif not self.stopped():
            self.due["authority"] = True
            self.reasons.append("certificate authority: missing")

    def look_at_records(self) -> None:
        try:
            self.records = _pki_records.read_records(self.request.directory)
        except _pki_records.Malformed as exc:
            self.findings.append(
                _finding.finding(
                    "pki.client_record",
                    False,
                    expected="what playbooks/manage_clients.yml wrote",
                    found=str(exc),
                    remedy="Restore the file from your backup, or correct it.",
                )
            )
        for name in sorted(set(self.request.clients) & set(_pki_records.revoked_names(self.records))):
            self.findings.append(
                _finding.finding(
                    "pki.revoked_client",
                    False,
                    severity="warning",
                    expected="a client is either served or revoked",
                    found="%s is in llm_pki_clients, and playbooks/manage_clients.yml revoked it" % name,
                    detail="It stays revoked.",
                    remedy="Take it out of llm_pki_clients, or issue it again with llm_pki_client_reinstate.",
                )
            )

    def served(self) -> t.List[str]:
        """Return who must have a certificate: the inventory's clients, then those that only the directory knows."""
        revoked = set(_pki_records.revoked_names(self.records)) | set(self.request.revoked_clients)
        names = [*self.request.clients, *(name for name in sorted(self.records) if name not in self.request.clients)]
        return [name for name in names if name not in revoked]

    def look_at_revocations(self) -> None:
        request = self.request
        issued, damaged = read_issued(request.directory)
        try:
            self.crls = read_crls(os.path.join(request.directory, "crl.pem"))
        except Damaged as exc:
            self.reasons.append("revocation list: %s" % exc)
        self.report["revoked"] = revocations(
            issued,
            self.crls,
            clients=set(request.revoked_clients) | set(_pki_records.revoked_names(self.records)),
            serials={parse_serial(serial) for serial in request.revoked_serials}
            | _pki_records.revoked_serials(self.records, request.now),
            now=request.now,
        )
        self.revoked = {entry["serial_number"] for entry in self.report["revoked"]}
        known = {common_name(certificate) for certificate in issued}
        for name in request.revoked_clients:
            if name not in known:
                self.findings.append(
                    _finding.finding(
                        "pki.revoked_client_known",
                        False,
                        severity="warning",
                        expected="a client that once had a certificate of this authority",
                        found=name,
                        detail="llm_pki_revoked_clients names it, %s/issued has nothing for it." % request.directory,
                        remedy="Check the spelling.",
                    )
                )
        for path in damaged:
            self.findings.append(
                _finding.finding(
                    "pki.issued_readable",
                    False,
                    expected="a PEM certificate",
                    found=path,
                    detail="The list of issued certificates is what a revocation by name goes by.",
                    remedy="Restore the file from your backup, or remove it if no such certificate is in use.",
                )
            )

    def note_end(self, kind: str, name: str, end: t.Optional[datetime.datetime]) -> None:
        """Note when something ends, with the days that are left."""
        if end is not None:
            left = round((end - self.request.now).total_seconds() / 86400, 1)
            self.report["ends"].append({"kind": kind, "name": name, "not_after": end.isoformat(), "days_left": left})

    def look_at_ends(self) -> None:
        """Note the ends of what is in place, the one that comes first before the others."""
        for authority in self.authority.trusted():
            self.note_end("authority", common_name(authority), not_after(authority))
            crl = crl_of(authority, self.crls)
            self.note_end("revocation_list", common_name(authority), next_update(crl) if crl is not None else None)
        pairs = [("client", name) for name in self.served()]
        if self.request.server_name is not None:
            pairs.append(("server", self.request.server_name))
        for usage, name in pairs:
            try:
                found = read_certificate(os.path.join(self.request.directory, usage + "s", name, usage + ".crt"))
            except Damaged:
                continue  # look_at_pair says so
            self.note_end(usage, name, not_after(found) if found is not None else None)
        self.report["ends"].sort(key=lambda entry: entry["days_left"])

    def look_at_pair(self, usage: str, name: str, names: t.Sequence[str]) -> bool:
        """Return whether the pair is due."""
        path = os.path.join(self.request.directory, usage + "s", name)
        reason, damaged = _pair_reason(
            self.request, self.authority, path, usage, name=name, usage=usage, names=names, revoked=self.revoked
        )
        if reason:
            self.reasons.append("%s %s: %s" % (usage, name, reason))
        if damaged:
            self.findings.append(
                _finding.finding(
                    "pki.pair_intact",
                    False,
                    severity="warning",
                    expected="a key and a certificate that belong together",
                    found="%s %s: %s" % (usage, name, reason),
                    detail="llm_pki_dir is %s; a new pair is made." % self.request.directory,
                    remedy="Find out what wrote there; hand the new pair to whom it belongs.",
                )
            )
        return bool(reason)

    def look_at_api_key(self, name: str) -> None:
        try:
            state = api_key_state(os.path.join(self.request.directory, "clients", name), self.request.now)
        except Damaged as exc:
            self.findings.append(
                _finding.finding(
                    "pki.api_key_form",
                    False,
                    expected="'sk-' and 64 lower-case hexadecimal digits, and one SHA-256 digest a line",
                    found=str(exc),
                    remedy="Restore the file, or remove api_key so that a new key is made for the client.",
                )
            )
            return
        if state["reason"]:
            self.due["api_keys"].append(
                {"name": name, "new": state["reason"] == "missing", "digests": state["digests"]}
            )
            self.reasons.append("API key of %s: %s" % (name, state["reason"]))

    def look_at_crl(self) -> None:
        reason = crl_reason(
            self.crls,
            self.authority.trusted(),
            revoked=self.revoked,
            now=self.request.now,
            renew_before_days=self.request.crl_renew_before_days,
        )
        if reason:
            self.due["crl"] = True
            self.reasons.append("revocation list: %s" % reason)

    def look_at_permissions(self) -> None:
        if os.path.isdir(self.request.directory):
            self.due["permissions"] = open_permissions(self.request.directory)
            self.reasons.extend(
                "%(path)s: open to others, should be %(mode)s" % entry for entry in self.due["permissions"]
            )


def inspect(request: Request) -> t.Dict[str, t.Any]:
    """Read the directory and return what is due and what stops.

    Returns:
        ``findings``: records of checks that did not hold;
        ``due``: ``authority`` (bool), ``server`` (bool), ``clients`` (names that need a pair), ``api_keys`` (names
        that need a key or whose digest isn't listed, with the digests to keep), ``crl`` (bool), ``permissions``
        (paths and modes);
        ``reasons``: one line for each thing that is due;
        ``revoked``: the entries that the revocation list must hold;
        ``ends``: ``{kind, name, not_after, days_left}`` of all that is in place, the first to end first;
        ``authority_not_after``: end of the authority, ISO 8601, or None; ``authority_name``: its common name.
    """
    inspection = Inspection(request)
    if not inspection.stopped():
        inspection.look_at_authority()
    if inspection.stopped():
        return inspection.report
    inspection.look_at_records()
    if inspection.stopped():
        return inspection.report
    inspection.look_at_revocations()
    if request.server_name is not None:
        names = inspection.report["server_alternative_names"]
        inspection.due["server"] = inspection.look_at_pair("server", request.server_name, names)
    for name in inspection.served():
        if inspection.look_at_pair("client", name, ()):
            inspection.due["clients"].append(name)
        inspection.look_at_api_key(name)
    inspection.look_at_crl()
    inspection.look_at_permissions()
    inspection.look_at_ends()
    return inspection.report
