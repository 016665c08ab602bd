# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The control node's side of the model store: source directories, remembered hashes, downloaded files."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._model_fetch import sha256_file
from ansible_collections.gpufleet.llm.plugins.module_utils._model_host import (
    read_json,
    same_stat,
    stat_record,
    write_json,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import (
    FileEntry,
    entry_from,
    path_problem,
    refuse,
    selected,
)


def scan_directory(
    name: str, directory: str, include: t.Sequence[str] = (), exclude: t.Sequence[str] = ()
) -> t.Dict[str, str]:
    """List a source directory: ``{path in the model: file to read}``.

    Names that start with a dot are left out. A symbolic link to a file is followed where it stays inside the directory,
    or leads into the ``blobs`` folder of the hub cache that the directory is a snapshot of; any other is refused.

    Raises:
        ModelError: no such directory, an unsafe link, something that is neither file nor directory.
    """
    variable = "gpufleet_models[name=%s].source" % name
    if not os.path.isdir(directory):
        raise refuse(
            "model.source_directory",
            expected="a directory on the control node",
            found="%s: %s" % (directory, "a file" if os.path.exists(directory) else "no such directory"),
            detail="Read from %s." % variable,
            remedy="Put the model's files there, or correct %s." % variable,
        )
    top = os.path.realpath(directory)
    allowed = [top]
    if os.path.basename(os.path.dirname(top)) == "snapshots":
        allowed.append(os.path.join(os.path.dirname(os.path.dirname(top)), "blobs"))
    found: t.Dict[str, str] = {}
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for entry in folders + sorted(files):
            if entry.startswith("."):
                continue
            real = os.path.join(folder, entry)
            path = os.path.relpath(real, top)
            if not selected(path, include, exclude) and entry not in folders:
                continue
            problem = path_problem(path)
            linked = os.path.islink(real)
            if linked:
                target = os.path.realpath(real)
                if not any(target.startswith(root + os.sep) for root in allowed):
                    problem = "it links to %s, outside the directory" % target
                elif os.path.isdir(target):
                    problem = "it links to a directory"
                elif not os.path.exists(target):
                    problem = "it links to nothing"
                real = target
            elif entry in folders:
                continue
            if not problem and not stat.S_ISREG(os.stat(real).st_mode):
                problem = "it is neither a file nor a directory"
            if problem:
                raise refuse(
                    "model.source_file",
                    expected="plain files, or links to files inside the directory",
                    found=os.path.join(directory, path),
                    detail="Model %s: %s." % (name, problem),
                    remedy="Put the file itself there, or leave it out with .exclude.",
                )
            found[path] = real
    return found


class ControlCache:
    """What the control node remembers between runs. All of it can be removed at any time.

    ``hashes/`` holds the sha256 of source files with the stat they had, ``hub/`` the files of hub commits, ``blobs/``
    the downloaded and verified files by sha256, ``staging/`` the cut downloads.
    """

    def __init__(self, directory: str, read_only: bool = False) -> None:
        self.directory = directory
        self.read_only = read_only
        self.blobs = os.path.join(directory, "blobs")
        self.staging = os.path.join(directory, "staging")

    def prepare(self) -> None:
        """Make the folders, for this user alone: a model may be private."""
        for path in (self.directory, self.blobs, self.staging):
            os.makedirs(path, 0o700, exist_ok=True)

    def hash_files(
        self, files: t.Mapping[str, str], key: str, say: t.Callable[[str, int], None] = lambda path, size: None
    ) -> t.List[FileEntry]:
        """Return entries with the sha256 of source files; only those whose stat changed are read.

        Args:
            files: path in the model -> path here.
            key: what to remember them under, the source directory.
            say: called with path and size (bytes) before a file is read.
        """
        book_path = os.path.join(self.directory, "hashes", "%s.json" % hashlib.sha256(key.encode()).hexdigest()[:32])
        book = read_json(book_path)
        fresh: t.Dict[str, t.Any] = {}
        for path, real in sorted(files.items()):
            known = book.get(path, {})
            if not same_stat(real, known):
                say(path, os.path.getsize(real))
                known = dict(stat_record(real), sha256=sha256_file(real))
            fresh[path] = known
        if fresh != book and not self.read_only:
            os.makedirs(os.path.dirname(book_path), 0o700, exist_ok=True)
            write_json(book_path, fresh, 0o600)
        return [FileEntry(path, known["size"], known["sha256"]) for path, known in sorted(fresh.items())]

    def _hub_path(self, endpoint: str, repository: str, revision: str) -> str:
        key = hashlib.sha256(("%s %s" % (endpoint, repository)).encode()).hexdigest()[:32]
        return os.path.join(self.directory, "hub", key, "%s.json" % revision)

    def hub_commit(self, endpoint: str, repository: str, revision: str) -> t.Optional[t.List[FileEntry]]:
        """Return the remembered files of a hub commit (a commit never changes), or None."""
        raw = read_json(self._hub_path(endpoint, repository, revision)).get("files")
        return [entry_from(item) for item in raw] if isinstance(raw, list) else None

    def remember_hub_commit(
        self, endpoint: str, repository: str, revision: str, entries: t.Sequence[FileEntry]
    ) -> None:
        """Remember the files of a hub commit, sizes and hashes as far as they are known."""
        if self.read_only:
            return
        path = self._hub_path(endpoint, repository, revision)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        write_json(path, {"files": [entry.as_dict() for entry in entries]}, 0o600)

    def blob(self, sha256: t.Optional[str]) -> t.Optional[str]:
        """Return the path of a downloaded file that still has the stat it was verified with, or None."""
        if not sha256:
            return None
        path = os.path.join(self.blobs, sha256)
        return path if same_stat(path, read_json(path + ".json")) else None

    def partial(self, entry: FileEntry) -> str:
        """Return where a download is collected."""
        return os.path.join(self.staging, entry.key + ".partial")

    def partial_bytes(self, entry: FileEntry) -> int:
        """Return how much of a download is there. Another host's worker may move it to its place at any moment."""
        try:
            return os.path.getsize(self.partial(entry))
        except FileNotFoundError:
            return 0

    def keep(self, entry: FileEntry, sha256: str) -> str:
        """Move a verified download to its place and return the path."""
        path = os.path.join(self.blobs, sha256)
        os.rename(self.partial(entry), path)
        write_json(path + ".json", stat_record(path), 0o600)
        return path

    @contextlib.contextmanager
    def locked(self, entry: FileEntry) -> t.Iterator[None]:
        """Hold a file's download lock: of many hosts' workers one fetches, the others wait and then find it."""
        with open(os.path.join(self.staging, entry.key + ".lock"), "w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
