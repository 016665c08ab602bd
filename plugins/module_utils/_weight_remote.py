# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""A model's files on a server or a hub, read in ranges: a plan can be made before a byte of weights is downloaded."""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import typing as t
import urllib.error

from ansible_collections.gpufleet.llm.plugins.module_utils._model_fetch import (
    CONTENT_RANGE_RE,
    RETRIABLE,
    RETRY_AFTER_LIMIT,
    Fetcher,
    without_query,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._model_hub import Hub
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import FileEntry, file_url
from ansible_collections.gpufleet.llm.plugins.module_utils._weight_headers import (
    HEAD_BYTES,
    HEADER_LIMIT_BYTES,
    read_file,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._weight_record import Files, Tensor, refuse, shown

WORKERS = 8
#: A server that doesn't do ranges sends everything before the range too; no more than this of it is thrown away.
SKIP_LIMIT_BYTES = HEADER_LIMIT_BYTES

Locate = t.Callable[[str], t.Tuple[str, t.Mapping[str, str]]]
Range = t.Tuple[bytes, int]


class _Short(Exception):
    """An answer that ended before what it announced."""


def read_range(fetcher: Fetcher, url: str, start: int, length: int, headers: t.Mapping[str, str]) -> t.Optional[Range]:
    """Return up to ``length`` bytes of a file from ``start``, and the file's size in bytes; None where it isn't there.

    Tries again as often as the fetcher is told to.

    Raises:
        ModelError: the server refused, kept failing, or answers with another range.
    """
    last, pause = "", fetcher.backoff_seconds
    for attempt in range(fetcher.attempts):
        if attempt:
            fetcher.sleep(pause)
            pause *= 2
        try:
            return _once(fetcher, url, start, length, headers)
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code in (404, 410):
                return None
            if exc.code not in RETRIABLE:
                raise refuse(
                    "remote",
                    expected="the file",
                    found="HTTP status %d (%s)" % (exc.code, exc.reason),
                    where=without_query(url),
                    remedy="401 and 403: give a token that may read it. 416: the file is shorter than its header says.",
                ) from None
            last = "HTTP status %d" % exc.code
            wait = exc.headers.get("Retry-After") if exc.headers else None
            if wait and wait.isdigit():
                pause = min(float(wait), RETRY_AFTER_LIMIT)
        except (urllib.error.URLError, OSError, http.client.HTTPException, _Short) as exc:
            last = str(getattr(exc, "reason", exc)) or type(exc).__name__
    raise refuse(
        "remote",
        expected="%d bytes from %d" % (length, start),
        found=last,
        where=without_query(url),
        detail="%d attempts failed." % fetcher.attempts,
        remedy="Check the way to the server from here, then run again.",
    )


def _once(fetcher: Fetcher, url: str, start: int, length: int, headers: t.Mapping[str, str]) -> Range:
    wanted = dict(headers, Range="bytes=%d-%d" % (start, start + length - 1))
    with fetcher.open(url, wanted) as answer:
        announced = answer.headers.get("Content-Length") or ""
        skip, total = 0, None
        if answer.status == 206:
            match = CONTENT_RANGE_RE.match(answer.headers.get("Content-Range") or "")
            if not match or int(match.group(1)) != start or match.group(3) == "*":
                raise refuse(
                    "remote_range",
                    expected="bytes from %d of a file of stated size" % start,
                    found=shown(answer.headers.get("Content-Range")),
                    where=without_query(url),
                    remedy="The server doesn't do ranges as HTTP says: use another, or fetch the model first.",
                )
            total = int(match.group(3))
        else:
            skip = start
            total = int(announced) if announced.isdigit() else None
        if total is None or skip > SKIP_LIMIT_BYTES:
            raise refuse(
                "remote_range",
                expected="a server that answers ranges, or says how long a file is",
                found="status %d without that" % answer.status,
                where=without_query(url),
                remedy="Serve the files by a server that does ranges, or fetch the model first.",
            )
        if skip:
            answer.read(skip)
        data = answer.read(length)
        fetcher.received += skip + len(data)
        if len(data) < min(length, max(0, total - start)):
            raise _Short("%d of %d bytes came" % (len(data), min(length, total - start)))
        return data, total


class RemoteFiles:
    """The files of a model behind URLs.

    Args:
        where: what to call the source in a refusal; no secret in it.
        entries: the files, as the manifest or the hub lists them; None where nothing lists them.
        locate: returns a file's URL now, and the headers to send.
        fetcher: how often and how patiently to ask.
    """

    def __init__(
        self, where: str, entries: t.Optional[t.Sequence[FileEntry]], locate: Locate, fetcher: Fetcher
    ) -> None:
        self.where = where
        self.entries = None if entries is None else {entry.path: entry for entry in entries}
        self.locate = locate
        self.fetcher = fetcher
        self._sizes: t.Dict[str, t.Optional[int]] = {}
        self._heads: t.Dict[str, bytes] = {}

    def names(self) -> t.Optional[t.List[str]]:
        """Return the paths of all files, None where nothing lists them."""
        return None if self.entries is None else sorted(self.entries)

    def _range(self, name: str, start: int, length: int) -> t.Optional[Range]:
        url, headers = self.locate(name)
        return read_range(self.fetcher, url, start, length, headers)

    def size(self, name: str) -> t.Optional[int]:
        """Return a file's size in bytes as the listing says, else as the server does; None where it isn't there."""
        if self.entries is not None:
            entry = self.entries.get(name)
            if entry is None:
                return None
            if entry.size is not None:
                return entry.size
        if name not in self._sizes:
            head = self._range(name, 0, HEAD_BYTES)
            self._sizes[name] = None if head is None else head[1]
            if head is not None:
                self._heads[name] = head[0]
        return self._sizes[name]

    def read(self, name: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; a small file that is read whole is checked against its hash.

        Raises:
            ModelError: it isn't there, the server fails, or it isn't the file that the listing names.
        """
        size = self.size(name) or 0
        known = self._heads.pop(name, None)
        if known is not None and start == 0 and min(length, size) <= len(known):
            data = known[:length]
        else:
            found = self._range(name, start, length) if length else (b"", size)
            if found is None:
                raise refuse("missing", expected="the file", found="no such file", where=self._named(name))
            data, total = found
            if total != size:
                raise refuse(
                    "remote_size",
                    expected="%d bytes" % size,
                    found="the server has %d" % total,
                    where=self._named(name),
                    remedy="The server holds another file than the listing says: correct one of them.",
                )
        if start == 0 and len(data) == size:
            self._check(name, data)
        return data

    def _named(self, name: str) -> str:
        return "%s of %s" % (shown(name, 120), self.where)

    def _check(self, name: str, data: bytes) -> None:
        entry = (self.entries or {}).get(name)
        if entry is None:
            return
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        sha256 = hashlib.sha256(data).hexdigest()
        right = sha256 == entry.sha256 if entry.sha256 else git == entry.git_sha1 if entry.git_sha1 else True
        if not right:
            raise refuse(
                "checksum",
                expected=entry.key,
                found=sha256 if entry.sha256 else git,
                where=self._named(name),
                remedy="If the source is right, correct the manifest; else don't use this source.",
            )


def http_files(base: str, entries: t.Optional[t.Sequence[FileEntry]], fetcher: Fetcher) -> RemoteFiles:
    """Return the files below a base URL; ``entries`` are those of the manifest."""
    return RemoteFiles(base, entries, lambda name: (file_url(base, name), {}), fetcher)


def hub_files(hub: Hub, repository: str, revision: str, fetcher: Fetcher) -> RemoteFiles:
    """Return the files of a commit of a hub's repository.

    Raises:
        ModelError: the hub refused, isn't there, or answered for another commit.
    """
    return RemoteFiles(
        "huggingface:%s at %s" % (repository, revision),
        hub.resolve(repository, revision),
        lambda name: hub.location(repository, revision, name),
        fetcher,
    )


def read_some_at_a_time(files: Files, names: t.Sequence[str]) -> t.List[t.List[Tensor]]:
    """Read the headers of several files, eight at a time: what takes long is the way there."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda name: read_file(files, name), names))
