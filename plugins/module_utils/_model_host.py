# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""A model's store on a host: versions, the link, the staging folder, and the record of what was verified.

Layout, below ``<store>/<name>/``::

    versions/<version id>/…                         the files, 0644, folders 0755
    versions/<version id>/.gpufleet-manifest.json   the record: what was hashed, and the stat it had then
    current -> versions/<version id>                replaced by rename
    .staging/<sha256>.partial, .staging/<sha256>    on their way in, 0700
    .lock                                           flock: one change at a time

A file counts as verified while its size, mtime (ns) and inode are those it had when all of it was hashed.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import stat
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _file_lock
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._model_content import check_content
from ansible_collections.gpufleet.llm.plugins.module_utils._model_fetch import git_sha1_file, sha256_file
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import (
    FileEntry,
    manifest_sha256,
    refuse,
    version_id,
)

RECORD = ".gpufleet-manifest.json"
SCHEMA = 1
FILE_MODE = 0o644
DIR_MODE = 0o755

Record = t.Dict[str, t.Any]


def stat_record(path: str) -> t.Dict[str, int]:
    """Return what a file's verification is bound to: size (bytes), mtime_ns, inode."""
    status = os.lstat(path)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}


def same_stat(path: str, recorded: t.Mapping[str, t.Any]) -> bool:
    """Whether a path is a regular file that still has the stat it was verified with."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns, status.st_ino) == (
        recorded.get("size"),
        recorded.get("mtime_ns"),
        recorded.get("inode"),
    )


def write_json(path: str, data: t.Any, mode: int = FILE_MODE) -> None:
    """Write a JSON file by rename, flushed to the disk. Processes that write the same path at once don't meet."""
    temporary = "%s.%d.new" % (path, os.getpid())
    try:
        with open(temporary, "w", encoding="utf-8") as handle:
            json.dump(data, handle, sort_keys=True)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, mode)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read_json(path: str) -> t.Dict[str, t.Any]:
    """Return a JSON object, or an empty one where the file is absent or broken."""
    try:
        with open(path, encoding="utf-8") as handle:
            raw = json.load(handle)
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def sync_directory(path: str) -> None:
    """Flush a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: str) -> int:
    """Return the bytes available to us at a path, or at its nearest ancestor that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


class ModelStore:
    """One model's store on this machine."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        self.name = name
        self.home = os.path.join(directory, name)
        self.versions = os.path.join(self.home, "versions")
        self.staging = os.path.join(self.home, ".staging")
        self.link = os.path.join(self.home, "current")
        self._lock: t.Optional[t.IO[str]] = None

    # --- reading -----------------------------------------------------------------------------------------------

    def current_id(self) -> t.Optional[str]:
        """Return the version id that the link names, or None."""
        try:
            target = os.readlink(self.link)
        except OSError:
            return None
        return os.path.basename(target) or None

    def path(self, identity: str) -> str:
        """Return a version's directory."""
        return os.path.join(self.versions, identity)

    def record(self, identity: t.Optional[str]) -> Record:
        """Return a version's record, or an empty one."""
        if not identity:
            return {}
        record = read_json(os.path.join(self.path(identity), RECORD))
        return record if record.get("schema") == SCHEMA and isinstance(record.get("files"), dict) else {}

    def version_ids(self) -> t.List[str]:
        """Return the versions on the disk, oldest switch first."""
        try:
            names = [name for name in os.listdir(self.versions) if not name.startswith(".")]
        except OSError:
            return []
        return sorted(names, key=lambda name: (float(self.record(name).get("switched_at") or 0.0), name))

    def drift(self, identity: str, entries: t.Sequence[FileEntry]) -> t.Dict[str, t.List[str]]:
        """Compare a version's directory with the wanted files without reading their content.

        Returns:
            ``{bad: [...], modes: [...], extra: [...]}``: files that are absent or can't be trusted by their record,
            paths whose owner or mode is wrong, and files that nobody asked for.
        """
        root, recorded = self.path(identity), self.record(identity).get("files", {})
        wanted = {entry.path: entry for entry in entries}
        bad, modes, extra = [], [], []
        for path, entry in sorted(wanted.items()):
            real, known = os.path.join(root, path), recorded.get(path, {})
            if known.get("sha256") != entry.sha256 or known.get("suspect") or not same_stat(real, known):
                bad.append(path)
        owner = os.geteuid()
        for folder, folders, files in os.walk(root):
            for name in folders + files:
                real = os.path.join(folder, name)
                path = os.path.relpath(real, root)
                status = os.lstat(real)
                if name in files or stat.S_ISLNK(status.st_mode):
                    if path == RECORD:
                        continue
                    if path not in wanted:
                        extra.append(path)
                        continue
                right = DIR_MODE if stat.S_ISDIR(status.st_mode) else FILE_MODE
                if stat.S_IMODE(status.st_mode) != right or status.st_uid != owner:
                    modes.append(path)
        return {"bad": bad, "modes": sorted(modes), "extra": sorted(extra)}

    def rehash(self, identity: str, paths: t.Optional[t.Iterable[str]] = None) -> t.List[t.Dict[str, str]]:
        """Read files of a version again and return those that aren't what was verified: path, expected, got."""
        root, recorded = self.path(identity), self.record(identity).get("files", {})
        broken = []
        for path in sorted(recorded if paths is None else paths):
            expected = recorded.get(path, {}).get("sha256", "")
            real = os.path.join(root, path)
            try:
                status = os.lstat(real)
                got = sha256_file(real) if stat.S_ISREG(status.st_mode) else "not a regular file"
            except OSError as exc:
                got = exc.strerror or "unreadable"
            if got != expected:
                broken.append({"path": path, "expected": expected, "got": got})
        return broken

    def mark(self, identity: str, broken: t.Collection[str], judged: t.Collection[str]) -> None:
        """Write into the record what reading found: a wrong file is a suspect, a right one has its stat of now."""
        record = self.record(identity)
        if not record:
            return
        for path in judged:
            known = record["files"][path]
            known.pop("suspect", None)
            if path in broken:
                known["suspect"] = True
            else:
                known.update(stat_record(os.path.join(self.path(identity), path)))
        if len(judged) == len(record["files"]):
            record["verified_at"] = time.time()
        write_json(os.path.join(self.path(identity), RECORD), record)

    def reusable(self, sha256: str, avoid: str = "") -> t.Optional[str]:
        """Return a verified file of any version with this content, or None. ``avoid``: a path not to return."""
        for identity in reversed(self.version_ids()):
            for path, known in self.record(identity).get("files", {}).items():
                real = os.path.join(self.path(identity), path)
                if known.get("sha256") != sha256 or known.get("suspect") or real == avoid:
                    continue
                if same_stat(real, known):
                    return real
        return None

    def staged(self) -> t.Dict[str, int]:
        """Return what lies in staging: ``{key: bytes}``; a whole, sealed file has its bytes too."""
        found: t.Dict[str, int] = {}
        try:
            names = os.listdir(self.staging)
        except OSError:
            return found
        for name in names:
            key = name[: -len(".partial")] if name.endswith(".partial") else name
            if not key.endswith(".json"):
                found[key] = max(found.get(key, 0), os.lstat(os.path.join(self.staging, name)).st_size)
        return found

    def sealed(self, key: str) -> t.Optional[str]:
        """Return the path of a staged file that was hashed and not touched since, or None."""
        known = read_json(os.path.join(self.staging, "sealed.json")).get(key)
        if not isinstance(known, dict):
            return None
        path = os.path.join(self.staging, str(known.get("sha256")))
        return path if same_stat(path, known) else None

    # --- changing ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, timeout_seconds: float = 60.0) -> t.Iterator[None]:
        """Hold the model's lock; the kernel drops it if we are killed.

        Raises:
            ModelError: somebody else holds it for longer than ``timeout_seconds``.
        """
        os.makedirs(self.home, DIR_MODE, exist_ok=True)
        path = os.path.join(self.home, ".lock")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_file_lock.locked(path, timeout_seconds))
            except _file_lock.Held as held:
                raise refuse(
                    "model.locked",
                    expected="nobody else changes model %s" % self.name,
                    found="process %s holds %s" % (held.holder, path),
                    detail="Waited %d s." % timeout_seconds,
                    remedy="Wait for the other run, then run again.",
                ) from None
            yield

    def prepare_staging(self) -> None:
        """Make the staging folder, for root alone."""
        os.makedirs(self.home, DIR_MODE, exist_ok=True)
        os.makedirs(self.staging, 0o700, exist_ok=True)
        os.chmod(self.staging, 0o700)

    def seal(self, entry: FileEntry) -> t.Dict[str, t.Any]:
        """Hash a staged partial file; put it under its final key if it is right, remove it if it isn't.

        Returns:
            ``{path, ok, sha256, expected, got, size}``.
        """
        done = self.sealed(entry.key)
        if done:
            known = read_json(os.path.join(self.staging, "sealed.json"))[entry.key]
            return {"path": entry.path, "ok": True, "sha256": known["sha256"], "size": known["size"]}
        partial = os.path.join(self.staging, entry.key + ".partial")
        source = partial if os.path.exists(partial) else os.path.join(self.staging, entry.key)
        if not os.path.exists(source):
            return {"path": entry.path, "ok": False, "expected": entry.key, "got": "nothing", "sha256": None, "size": 0}
        sha256 = sha256_file(source)
        got = sha256 if entry.sha256 else "git-%s" % git_sha1_file(source)
        size = os.path.getsize(source)
        if got != entry.key:
            os.unlink(source)
            return {"path": entry.path, "ok": False, "expected": entry.key, "got": got, "sha256": sha256, "size": size}
        descriptor = os.open(source, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.chmod(source, FILE_MODE)
        final = os.path.join(self.staging, sha256)
        os.rename(source, final)
        book = read_json(os.path.join(self.staging, "sealed.json"))
        book[entry.key] = book[sha256] = dict(stat_record(final), sha256=sha256)
        write_json(os.path.join(self.staging, "sealed.json"), book, 0o600)
        return {"path": entry.path, "ok": True, "sha256": sha256, "size": size}

    def _source_of(self, entry: FileEntry, target: str) -> t.Optional[str]:
        """Return a file on this host with the entry's content, hashed now or when it was sealed; else None."""
        sealed = self.sealed(entry.key)
        if sealed:
            return sealed
        reused = self.reusable(str(entry.sha256), avoid=target)
        return reused if reused and sha256_file(reused) == entry.sha256 else None

    def commit(
        self,
        entries: t.Sequence[FileEntry],
        *,
        source: str,
        revision: t.Optional[str],
        keep_versions: int,
        allow_pickle: bool,
        reference_globs: t.Sequence[str] = (),
    ) -> t.Dict[str, t.Any]:
        """Put a version in place and switch the link to it. Call it under the lock.

        Every file is hashed before the link is switched: when it is sealed, when it is taken over from another
        version, or, for what is already in the version's directory, now.

        Returns:
            ``{missing, findings, changed, pruned, repaired, version_id}``. With anything in ``missing`` (paths whose
            bytes aren't here) or a refusal in ``findings``, what is served was left alone.
        """
        identity = version_id(entries)
        target, building = self.path(identity), os.path.join(self.versions, ".new-%s" % identity)
        exists = os.path.isdir(target)
        is_current = self.current_id() == identity
        drift = self.drift(identity, entries) if exists else {"bad": [], "modes": [], "extra": []}
        missing: t.List[str] = []
        place: t.Dict[str, str] = {}
        for entry in entries:
            real = os.path.join(target, entry.path)
            if exists and entry.path not in drift["bad"] and is_current:
                continue  # verified by its record, and it is what is served
            if exists and os.path.isfile(real) and not os.path.islink(real) and sha256_file(real) == entry.sha256:
                continue
            found = self._source_of(entry, real)
            if found is None:
                missing.append(entry.path)
            else:
                place[entry.path] = found
        result: t.Dict[str, t.Any] = {
            "version_id": identity,
            "missing": missing,
            "findings": [],
            "changed": False,
            "pruned": [],
            "repaired": [],
        }
        if missing:
            return result
        files = {entry.path: place.get(entry.path, os.path.join(target, entry.path)) for entry in entries}
        findings = check_content(self.name, files, allow_pickle=allow_pickle)
        result["findings"] = findings
        if any(not f["ok"] and f["severity"] == "error" for f in findings):
            return result
        os.makedirs(self.versions, DIR_MODE, exist_ok=True)
        os.chmod(self.home, DIR_MODE)
        os.chmod(self.versions, DIR_MODE)
        root = target if exists else building
        if not exists and os.path.isdir(building):
            shutil.rmtree(building)
        os.makedirs(root, DIR_MODE, exist_ok=True)
        for path, origin in sorted(place.items()):
            _link(origin, os.path.join(root, path))
        for path in drift["extra"]:
            os.unlink(os.path.join(root, path))
        _set_modes(root)
        self._write_record(root, entries, source, revision)
        _sync_tree(root)
        if not exists:
            os.rename(building, target)
        sync_directory(self.versions)
        if not is_current:
            switching = os.path.join(self.home, ".current.new")
            if os.path.lexists(switching):
                os.unlink(switching)
            os.symlink(os.path.join("versions", identity), switching)
            os.rename(switching, self.link)
            sync_directory(self.home)
        result["repaired"] = sorted(place) if exists else []
        result["changed"] = bool(place or not is_current or drift["modes"] or drift["extra"])
        if os.path.isdir(self.staging):
            shutil.rmtree(self.staging)
        result["pruned"] = self.prune(keep_versions, reference_globs)
        return result

    def _write_record(
        self,
        root: str,
        entries: t.Sequence[FileEntry],
        source: str,
        revision: t.Optional[str],
    ) -> None:
        now = time.time()
        files: t.Dict[str, t.Any] = {}
        for entry in sorted(entries, key=lambda e: e.path):
            files[entry.path] = dict(stat_record(os.path.join(root, entry.path)), sha256=entry.sha256)
        write_json(
            os.path.join(root, RECORD),
            {
                "schema": SCHEMA,
                "name": self.name,
                "version_id": version_id(entries),
                "manifest_sha256": manifest_sha256(entries),
                "source": source,
                "revision": revision,
                "bytes_total": sum(known["size"] for known in files.values()),
                "verified_at": now,
                "switched_at": now,
                "files": files,
            },
        )

    def prune(self, keep_versions: int, reference_globs: t.Sequence[str] = ()) -> t.List[str]:
        """Remove old versions, never the current one nor one that is in use; return what was removed."""
        current = self.current_id()
        old = [identity for identity in self.version_ids() if identity != current]
        surplus = old[: max(0, len(old) - keep_versions)]
        removed = []
        for identity in surplus:
            if self.in_use(identity, reference_globs):
                continue
            shutil.rmtree(self.path(identity))
            removed.append(identity)
        with contextlib.suppress(OSError):
            for name in os.listdir(self.versions):
                if name.startswith(".new-"):
                    shutil.rmtree(os.path.join(self.versions, name))
        return removed

    def prunable(self, keep_versions: int, reference_globs: t.Sequence[str] = ()) -> t.List[str]:
        """Return the versions that prune() would remove now."""
        current = self.current_id()
        old = [identity for identity in self.version_ids() if identity != current]
        return [i for i in old[: max(0, len(old) - keep_versions)] if not self.in_use(i, reference_globs)]

    def in_use(self, identity: str, reference_globs: t.Sequence[str] = ()) -> bool:
        """Whether a configuration file names a version's directory, or a process has one of its files open."""
        needle = os.path.join(self.name, "versions", identity)
        for pattern in reference_globs:
            for path in glob.glob(pattern):
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    with open(path, encoding="utf-8") as handle:
                        if needle in handle.read(1024 * 1024):
                            return True
        for folder in glob.glob("/proc/[0-9]*"):
            with contextlib.suppress(OSError):
                for descriptor in os.listdir(folder + "/fd"):
                    with contextlib.suppress(OSError):
                        if needle in os.readlink("%s/fd/%s" % (folder, descriptor)):
                            return True
            for name in ("cmdline", "maps"):
                with contextlib.suppress(OSError):
                    with open("%s/%s" % (folder, name), "rb") as raw:
                        if needle.encode() in raw.read():
                            return True
        return False


def _link(origin: str, destination: str) -> None:
    """Put a file under another name of the same disk, replacing by rename; copy where it can't be linked."""
    os.makedirs(os.path.dirname(destination), DIR_MODE, exist_ok=True)
    temporary = destination + ".gpufleet-new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.link(origin, temporary)
    os.rename(temporary, destination)
    if os.path.lexists(temporary):  # rename(2) does nothing when both names are the same file already
        os.unlink(temporary)


def _set_modes(root: str) -> None:
    owner, group = os.geteuid(), os.getegid()
    for folder, _folders, files in os.walk(root):
        for path, mode in [(folder, DIR_MODE)] + [(os.path.join(folder, name), FILE_MODE) for name in files]:
            status = os.lstat(path)
            if status.st_uid != owner or status.st_gid != group:
                os.chown(path, owner, group, follow_symlinks=False)
            if stat.S_IMODE(status.st_mode) != mode:
                os.chmod(path, mode)


def _sync_tree(root: str) -> None:
    for folder, _folders, _files in os.walk(root):
        sync_directory(folder)


def disk_needed(store: ModelStore, entries: t.Sequence[FileEntry]) -> int:
    """Return the bytes that must still be written for these files: not those staged, not those another version has."""
    staged, needed, seen = store.staged(), 0, set()
    identity = version_id(entries) if all(entry.sha256 for entry in entries) else None
    in_place = set()
    if identity and os.path.isdir(store.path(identity)):
        bad = set(store.drift(identity, entries)["bad"])
        in_place = {entry.path for entry in entries if entry.path not in bad}
    for entry in entries:
        if entry.path in in_place or entry.key in seen:
            continue
        seen.add(entry.key)
        if entry.sha256 and store.reusable(entry.sha256):
            continue
        needed += max(0, (entry.size or 0) - staged.get(entry.key, 0))
    return needed


def corrupt_findings(name: str, identity: str, broken: t.Sequence[t.Mapping[str, str]]) -> t.List[Finding]:
    """Return one refusal for each file that changed on the disk since it was verified."""
    return [
        finding(
            "model.file_changed",
            False,
            expected="sha256 %s" % item["expected"],
            found=item["got"],
            detail="Model %s, version %s, file %s isn't what was placed." % (name, identity, item["path"]),
            remedy="Run the role again: it fetches this file alone. If it comes back, look at the disk and the memory.",
        )
        for item in broken
    ]
