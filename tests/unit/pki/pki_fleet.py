# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A certificate directory in its time, for the tests of what writes there."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
import pathlib
import signal
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _pki,
    _pki_client_run,
    _pki_clients,
    _pki_files,
    _pki_make,
    _pki_records,
    _pki_sign,
)
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)


@dataclasses.dataclass
class Fleet:
    """A directory with an authority, a list and the client demo, as the role makes it for an inventory's client."""

    path: pathlib.Path

    def directory(self, now: datetime.datetime = NOW, **changes: t.Any) -> _pki_make.Directory:
        return _pki_make.Directory(str(self.path), now, **changes)

    def run(
        self, action: str, *names: str, now: datetime.datetime = NOW, check_mode: bool = False, **wanted: t.Any
    ) -> dict[str, t.Any]:
        changes = wanted.pop("directory", {})
        work = _pki_clients.Work(self.directory(now, **changes), client_days=90, renew_before_days=30)
        asked = _pki_clients.Wanted(action, now, **wanted)
        return _pki_client_run.run(work, asked, names, check_mode=check_mode, lock_timeout_seconds=0.2)

    def key(self, name: str) -> str:
        return (self.path / "clients" / name / "api_key").read_text().strip()

    def lines(self, name: str) -> list[str]:
        path = self.path / "clients" / name / "api_key.sha256"
        return path.read_text().splitlines() if path.exists() else []

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.path / "clients" / name / "client.crt").read_bytes())

    def revoked(self) -> set[int]:
        return {entry.serial_number for crl in _pki.read_crls(str(self.path / "crl.pem")) for entry in crl}

    def tree(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and path.name != _pki_files.LOCK
        }

    def status(self, now: datetime.datetime = NOW, clients: t.Sequence[str] = ("demo",)) -> dict[str, t.Any]:
        return _pki.inspect(_pki.Request(directory=str(self.path), now=now, clients=tuple(clients)))

    def check_pair(self, name: str) -> None:
        """The key is the certificate's, the key in the file is the first that is listed, nothing is half done."""
        folder = self.path / "clients" / name
        key = t.cast(ec.EllipticCurvePrivateKey, _pki.read_key(str(folder / "client.key")))
        assert key.public_key().public_numbers() == self.certificate(name).public_key().public_numbers()  # type: ignore
        assert self.lines(name)[0].split()[0] == digest(self.key(name))
        assert [path for path in self.path.rglob("*") if path.name.endswith(".next")] == []
        for path in self.path.rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def make(path: pathlib.Path) -> Fleet:
    fleet = Fleet(path)
    path.mkdir(mode=0o700)
    pair = _pki_sign.make_authority("CA", days=3650, passphrase="secret", now=NOW - 100 * DAY)
    _pki_files.write(str(path / "ca.key"), pair.key)
    _pki_files.write(str(path / "ca.crt"), pair.certificate)
    _pki_files.write(str(path / "ca.passphrase"), b"secret\n")
    fleet.run("issue", "demo", now=NOW - DAY, record=False)
    return fleet


STEPS = ("write", "move", "remove")


def killed_at(step: int, after: bool, work: t.Callable[[], t.Any]) -> bool:
    """Do the work in a child that SIGKILL ends at its step-th change of a file. Returns whether it was killed."""
    child = os.fork()
    if child == 0:
        left = [step]

        def cut(real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
            def changed(*given: t.Any) -> t.Any:
                left[0] -= 1
                if left[0] == 0 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                answer = real(*given)
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return answer

            return changed

        for name in STEPS:
            setattr(_pki_files, name, cut(getattr(_pki_files, name)))
        code = 7
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


def records(fleet: Fleet) -> dict[str, t.Any]:
    return _pki_records.read_records(str(fleet.path))
