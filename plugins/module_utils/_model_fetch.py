# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""A download that resumes, notices lies about the length, and never hands over a byte that wasn't hashed."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import typing as t
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import FileEntry, ModelError, refuse

BLOCK = 1024 * 1024
CONTENT_RANGE_RE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")
RETRIABLE = (408, 425, 429, 500, 502, 503, 504)
RETRY_AFTER_LIMIT = 60.0  # seconds

Progress = t.Callable[[int, t.Optional[int]], None]


def no_progress(_done: int, _total: t.Optional[int]) -> None:
    """The progress callback that says nothing. Arguments: bytes done, bytes in all."""


def sha256_file(path: str) -> str:
    """Return the sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def git_sha1_file(path: str) -> str:
    """Return the git blob id of a file: sha1 over ``blob <size>\\0`` and the content."""
    digest = hashlib.sha1(b"blob %d\0" % os.path.getsize(path), usedforsecurity=False)
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


class _SafeRedirect(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to http, and never with credentials to another host."""

    def __init__(self, allow_http: bool) -> None:
        self.allow_http = allow_http

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("https", "http") or (new.scheme == "http" and not self.allow_http):
            raise refuse(
                "model.redirect_tls",
                expected="a redirect to https://",
                found="a redirect to %s://%s" % (new.scheme, new.hostname),
                detail="Asked for %s." % without_query(req.full_url),
                remedy="Serve the files over https://.",
            )
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            following.headers.pop("Authorization", None)
            following.unredirected_hdrs.pop("Authorization", None)
        return following


def without_query(url: str) -> str:
    """Return a URL without its query: signed URLs carry credentials there."""
    return url.split("?", 1)[0]


class Fetcher:
    """Downloads single files over HTTP into a partial file, resuming what is there.

    Args:
        allow_http: accept redirects to plain HTTP.
        attempts: how many attempts may bring no new byte before it gives up.
        backoff_seconds: first pause; it doubles with each attempt that brought nothing.
        timeout_seconds: of a single socket operation.
    """

    def __init__(
        self,
        allow_http: bool = False,
        attempts: int = 5,
        backoff_seconds: float = 1.0,
        timeout_seconds: float = 60.0,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self.attempts = attempts
        self.backoff_seconds = backoff_seconds
        self.timeout_seconds = timeout_seconds
        self.sleep = sleep
        self.opener = urllib.request.build_opener(_SafeRedirect(allow_http))
        #: bytes that came over the wire, for tests and reports
        self.received = 0

    def _request(self, url: str, headers: t.Mapping[str, str], method: str = "GET") -> urllib.request.Request:
        everything = {"Accept-Encoding": "identity", "User-Agent": "gpufleet.llm"}
        everything.update(headers)
        return urllib.request.Request(url, headers=everything, method=method)

    def open(self, url: str, headers: t.Mapping[str, str]) -> t.Any:
        """Ask for a URL and return the answer, its body unread. Raises what urllib raises."""
        return self.opener.open(self._request(url, headers), timeout=self.timeout_seconds)

    def size(self, url: str, headers: t.Optional[t.Mapping[str, str]] = None) -> t.Optional[int]:
        """Return the length that the server claims for a file (HEAD), in bytes, or None where it doesn't say."""
        try:
            with self.opener.open(self._request(url, headers or {}, "HEAD"), timeout=self.timeout_seconds) as answer:
                claimed = answer.headers.get("Content-Length")
                return int(claimed) if claimed and claimed.isdigit() else None
        except (urllib.error.URLError, OSError, http.client.HTTPException):
            return None

    def fetch(
        self,
        url: str,
        partial: str,
        *,
        expected_size: t.Optional[int] = None,
        headers: t.Optional[t.Mapping[str, str]] = None,
        progress: Progress = no_progress,
        path: str = "",
    ) -> None:
        """Bring a file to ``partial``, resuming it.

        Ends when the server says that there is no more, which proves nothing: the caller hashes.

        Raises:
            ModelError: the server refused, kept failing, or lied about the length.
        """
        idle, last = 0, "nothing came"
        while True:
            before = os.path.getsize(partial) if os.path.exists(partial) else 0
            pause = self.backoff_seconds * (2**idle)
            try:
                if self._once(url, partial, expected_size, dict(headers or {}), progress, path):
                    return
                last = "the connection ended early"
            except urllib.error.HTTPError as exc:
                exc.close()
                if exc.code not in RETRIABLE:
                    raise refuse(
                        "model.download",
                        expected="the file",
                        found="HTTP status %d (%s)" % (exc.code, exc.reason),
                        detail="Asked for %s." % without_query(url),
                        remedy="401 and 403: give a token that may read it. 404: correct the source, "
                        "the revision or the manifest.",
                    ) from None
                last = "HTTP status %d" % exc.code
                wait = exc.headers.get("Retry-After") if exc.headers else None
                if wait and wait.isdigit():
                    pause = min(float(wait), RETRY_AFTER_LIMIT)
            except (urllib.error.URLError, OSError, http.client.HTTPException) as exc:
                last = str(getattr(exc, "reason", exc)) or type(exc).__name__
            after = os.path.getsize(partial) if os.path.exists(partial) else 0
            idle = 0 if after > before else idle + 1
            if idle >= self.attempts:
                detail = "%d attempts in a row brought nothing; %d bytes are kept and resumed next time." % (
                    idle,
                    after,
                )
                raise refuse(
                    "model.download",
                    expected="%s bytes" % (expected_size if expected_size is not None else "all the"),
                    found="%d bytes, then: %s" % (after, last),
                    detail="Asked for %s. %s" % (without_query(url), detail),
                    remedy="If the server says a length that isn't the file's, mend the server; else run again.",
                )
            if idle:
                self.sleep(pause)

    def _once(
        self,
        url: str,
        partial: str,
        expected_size: t.Optional[int],
        headers: t.Dict[str, str],
        progress: Progress,
        path: str,
    ) -> bool:
        """Make one request. Returns whether the file is whole as far as the server says."""
        start = os.path.getsize(partial) if os.path.exists(partial) else 0
        known = _read_notes(partial)
        if start and known.get("url") not in (None, without_query(url)):
            start = 0
        if expected_size is not None and start == expected_size:
            return True
        if expected_size is not None and start > expected_size:
            start = 0
        if start:
            headers["Range"] = "bytes=%d-" % start
            if known.get("etag"):
                headers["If-Range"] = known["etag"]
        try:
            answer = self.open(url, headers)
        except urllib.error.HTTPError as exc:
            if exc.code == 416 and start:
                # Nothing behind what we have: either it is whole, or the partial is of another file.
                whole = CONTENT_RANGE_RE.match((exc.headers.get("Content-Range") or "").replace("*/", "0-0/"))
                exc.close()
                if expected_size is None and whole and whole.group(3) == str(start):
                    return True
                _discard(partial)
                return False
            raise
        total: t.Optional[int]
        with answer:
            if answer.status == 206:
                match = CONTENT_RANGE_RE.match(answer.headers.get("Content-Range") or "")
                if not match or int(match.group(1)) != start:
                    _discard(partial)
                    return False
                total = int(match.group(3)) if match.group(3) != "*" else None
            else:
                start = 0  # the server ignored the Range, or the file changed: begin again
                length = answer.headers.get("Content-Length")
                total = int(length) if length and length.isdigit() else None
            if expected_size is not None and total is not None and total != expected_size:
                raise refuse(
                    "model.download_size",
                    expected="%d bytes" % expected_size,
                    found="the server announces %d bytes" % total,
                    detail="File %s from %s." % (path or "?", without_query(url)),
                    remedy="The server holds another file, or lies: correct the server or the manifest.",
                )
            self._write(answer, partial, start, url, expected_size if expected_size is not None else total, progress)
            done = os.path.getsize(partial)
            wanted = expected_size if expected_size is not None else total
        return done == wanted if wanted is not None else True

    def _write(
        self, answer: t.Any, partial: str, start: int, url: str, limit: t.Optional[int], progress: Progress
    ) -> None:
        etag = answer.headers.get("ETag")
        if etag and etag.startswith("W/"):
            etag = None
        with open(partial, "r+b" if start else "wb") as handle:
            handle.seek(start)
            handle.truncate()
            _write_notes(partial, {"url": without_query(url), "etag": etag})
            done = start
            while True:
                try:
                    block = answer.read(BLOCK)
                except http.client.IncompleteRead as exc:
                    block = exc.partial
                    handle.write(block)
                    self.received += len(block)
                    progress(done + len(block), limit)
                    return
                if not block:
                    return
                handle.write(block)
                done += len(block)
                self.received += len(block)
                progress(done, limit)
                if limit is not None and done > limit:
                    raise refuse(
                        "model.download_size",
                        expected="%d bytes" % limit,
                        found="more than that",
                        detail="From %s." % without_query(url),
                        remedy="Correct the server or the manifest.",
                    )


def _notes_path(partial: str) -> str:
    return partial + ".json"


def _read_notes(partial: str) -> t.Dict[str, t.Any]:
    try:
        with open(_notes_path(partial), encoding="utf-8") as handle:
            raw = json.load(handle)
        return raw if isinstance(raw, dict) else {}
    except (OSError, ValueError):
        return {}


def _write_notes(partial: str, notes: t.Mapping[str, t.Any]) -> None:
    with open(_notes_path(partial), "w", encoding="utf-8") as handle:
        json.dump(notes, handle)


def _discard(partial: str) -> None:
    for path in (partial, _notes_path(partial)):
        if os.path.exists(path):
            os.unlink(path)


def check_hash(entry: FileEntry, path: str, where: str) -> str:
    """Hash a whole file against its entry and return its sha256.

    Raises:
        ModelError: it isn't what the manifest or the hub says.
    """
    sha256 = sha256_file(path)
    size = os.path.getsize(path)
    right, expected, got = True, "", ""
    if entry.sha256:
        right, expected, got = sha256 == entry.sha256, "sha256 %s" % entry.sha256, "sha256 %s" % sha256
    elif entry.git_sha1:
        blob = git_sha1_file(path)
        right, expected, got = blob == entry.git_sha1, "git blob %s" % entry.git_sha1, "git blob %s" % blob
    if right and entry.size is not None and size != entry.size:
        right, expected, got = False, "%d bytes" % entry.size, "%d bytes" % size
    if not right:
        raise refuse(
            "model.checksum",
            expected=expected,
            found="%s (%d bytes)" % (got, size),
            detail="File %s from %s; nothing of it was put in place." % (entry.path, where),
            remedy="If the source is right, correct the manifest; else don't use this source.",
        )
    return sha256


def fetch_verified(
    fetcher: Fetcher,
    entry: FileEntry,
    url: str,
    partial: str,
    *,
    headers: t.Optional[t.Mapping[str, str]] = None,
    progress: Progress = no_progress,
) -> str:
    """Fetch a file, hash all of it, and return its sha256; ``partial`` then holds the right bytes.

    A wrong hash after a resume is tried once more from the first byte: the partial may have been of another file.
    """
    resumed = os.path.exists(partial) and os.path.getsize(partial) > 0
    while True:
        fetcher.fetch(url, partial, expected_size=entry.size, headers=headers, progress=progress, path=entry.path)
        try:
            sha256 = check_hash(entry, partial, without_query(url))
        except ModelError:
            _discard(partial)
            if not resumed:
                raise
            resumed = False
            continue
        notes = _notes_path(partial)
        if os.path.exists(notes):
            os.unlink(notes)
        return sha256
