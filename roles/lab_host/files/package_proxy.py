# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A caching forward proxy that reaches the package mirror and nothing else.

Who may fetch what is one JSON file per client address in the access directory: ``{"PREFIX": "UPSTREAM PREFIX"}``. A
client without a file gets 403, and so does an address outside the prefixes, CONNECT, and everything but GET and HEAD.
Files that never change under their name (``/pool/`` and ``/by-hash/``) are kept in the cache directory; the rest is
fetched each time. A cut download is never kept.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import pwd
import re
import shutil
import signal
import socketserver
import sys
import tempfile
import threading
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

CHUNK_BYTES = 256 * 1024
UPSTREAM_TIMEOUT_SECONDS = 60
CONCURRENT_FETCHES = 32
PASSED_TO_UPSTREAM = ("If-Modified-Since", "If-Range", "Range", "Cache-Control")
PASSED_TO_CLIENT = ("Content-Type", "Last-Modified", "ETag", "Content-Range", "Accept-Ranges", "Content-Length")
CACHEABLE = re.compile(r"/(pool|by-hash)/")
SAFE_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+:%@=-]*")


def upstream_url(url: str, access: t.Mapping[str, str]) -> t.Optional[str]:
    """Return where a requested URL is fetched from, or None when the client may not have it."""
    parts = urllib.parse.urlsplit(url)
    if parts.query or parts.fragment:
        return None
    segments = parts.path.split("/")[1:]
    if any(not SAFE_PATH.fullmatch(s) or "%2f" in s.lower() or "%2e" in s.lower() for s in segments):
        return None
    for prefix, upstream in access.items():
        if url.startswith(prefix):
            return upstream + url[len(prefix) :]
    return None


def cache_path(root: t.Optional[str], url: str) -> t.Optional[str]:
    """Return where a URL's content is kept, or None when it isn't kept."""
    parts = urllib.parse.urlsplit(url)
    if root is None or not CACHEABLE.search(parts.path):
        return None
    return os.path.join(root, parts.netloc.replace(":", "_"), parts.path.lstrip("/"))


def prune(root: str, limit_bytes: int) -> int:
    """Remove the files that were unused longest until the cache is within its limit; return the bytes removed."""
    kept: t.List[t.Tuple[float, int, str]] = []
    for directory, _names, files in os.walk(root):
        for name in files:
            path = os.path.join(directory, name)
            state = os.lstat(path)
            kept.append((state.st_mtime, state.st_size, path))
    total = sum(size for _mtime, size, _path in kept)
    removed = 0
    for _mtime, size, path in sorted(kept):
        if total - removed <= limit_bytes:
            break
        os.unlink(path)
        removed += size
    return removed


class ProxyServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The listening side, with what the handlers share."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, listen: t.Tuple[str, int], access_dir: str, cache_dir: str) -> None:
        self.access_dir = access_dir
        self.cache_dir: t.Optional[str] = cache_dir
        self.fetches = threading.BoundedSemaphore(CONCURRENT_FETCHES)
        super().__init__(listen, Handler)

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks its own name up, which is slow or fails where there's no DNS.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def access(self, client: str) -> t.Dict[str, str]:
        """Return what a client may fetch; nothing when it has no readable file."""
        try:
            with open(os.path.join(self.access_dir, client), encoding="utf-8") as handle:
                found = json.load(handle)
        except (OSError, ValueError):
            return {}
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


class Handler(http.server.BaseHTTPRequestHandler):
    """One client connection."""

    protocol_version = "HTTP/1.1"
    timeout = 120
    server: ProxyServer

    def do_GET(self) -> None:
        """Serve a file of the mirror from the cache or from upstream."""
        url = upstream_url(self.path, self.server.access(self.client_address[0]))
        if url is None:
            self.refuse()
            return
        kept = cache_path(self.server.cache_dir, url)
        if kept is not None and self.serve_kept(kept):
            return
        with self.server.fetches:
            self.serve_upstream(url, kept)

    do_HEAD = do_GET

    def log_request(self, code: t.Union[int, str] = "-", size: t.Union[int, str] = "-") -> None:
        """Say nothing of what went well: the log has no limit."""

    def refuse(self) -> None:
        """Answer 403."""
        self.send_error(403, "Only the package mirror can be reached from here")

    def __getattr__(self, name: str) -> t.Any:
        if name.startswith("do_"):  # CONNECT, POST, ...: the base class would answer 501
            self.close_connection = True
            return self.refuse
        raise AttributeError(name)

    def serve_kept(self, path: str) -> bool:
        """Send a kept file; return whether there was one."""
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command != "HEAD":
                shutil.copyfileobj(handle, self.wfile, CHUNK_BYTES)
        try:
            os.utime(path)
        except OSError:
            pass  # pruned meanwhile; it was sent whole
        return True

    def serve_upstream(self, url: str, kept: t.Optional[str]) -> None:
        """Fetch from the mirror, send on, and keep what's to be kept when it came whole."""
        request = urllib.request.Request(url, method=self.command)
        if kept is None:
            for name in PASSED_TO_UPSTREAM:
                if self.headers.get(name):
                    request.add_header(name, self.headers[name])
        try:
            answer: t.Any = urllib.request.urlopen(request, timeout=UPSTREAM_TIMEOUT_SECONDS)
        except urllib.error.HTTPError as exc:
            answer, kept = exc, None
        except (OSError, ValueError) as exc:
            self.send_error(502, "The package mirror can't be reached: %s" % exc)
            return
        with answer:
            self.send_response(answer.status)
            for name in PASSED_TO_CLIENT:
                if answer.headers.get(name) is not None:
                    self.send_header(name, answer.headers[name])
            length = answer.headers.get("Content-Length")
            if length is None and answer.status not in (204, 304):
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if self.command == "HEAD" or answer.status in (204, 304):
                return
            try:
                self.pass_on(answer, None if length is None else int(length), kept)
            except OSError as exc:
                self.log_error("cut: %s: %s", url, exc)
                self.close_connection = True

    def pass_on(self, answer: t.Any, length: t.Optional[int], kept: t.Optional[str]) -> None:
        """Copy the body to the client and, beside it, to the cache.

        The last piece is sent once the file is kept: who has a package whole may ask for it again at once.
        """
        if kept is None or length is None:
            copied, last = self.copy(answer, None)
        else:
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            number, partial = tempfile.mkstemp(dir=self.server.cache_dir, prefix=".partial-")
            try:
                with open(number, "wb") as handle:
                    copied, last = self.copy(answer, handle)
                if copied == length:
                    os.replace(partial, kept)
            finally:
                if os.path.exists(partial):
                    os.unlink(partial)
        self.wfile.write(last)
        if length is not None and copied != length:
            raise OSError("%d of %d bytes came" % (copied, length))

    def copy(self, answer: t.Any, beside: t.Optional[t.IO[bytes]]) -> t.Tuple[int, bytes]:
        """Copy a body in pieces, all but the last; return how many bytes came, and the last piece."""
        copied, last = 0, b""
        while True:
            piece = answer.read(CHUNK_BYTES)
            if not piece:
                return copied, last
            self.wfile.write(last)
            copied, last = copied + len(piece), piece
            if beside is not None:
                beside.write(piece)


def become(user: str, owned: str) -> None:
    """Give up root: own the cache, then run as the user."""
    if os.geteuid() != 0:
        return
    entry = pwd.getpwnam(user)
    os.chown(owned, entry.pw_uid, entry.pw_gid)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def end_with_parent(parent: int) -> None:
    """End this process once its parent has; PR_SET_PDEATHSIG doesn't outlive the change of user."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: t.Sequence[str]) -> int:
    """Listen until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT", help="port 0 picks a free one")
    parser.add_argument("--access-dir", required=True)
    parser.add_argument("--cache-dir", required=True)
    parser.add_argument("--cache-limit-mib", type=int, default=4096)
    parser.add_argument("--user", default="nobody", help="whom to run as when started by root")
    parser.add_argument("--end-with-parent", action="store_true", help="end when the process that started this does")
    parser.add_argument("--port-file", help="where to write the port listened on")
    options = parser.parse_args(argv)
    host, _colon, port = options.listen.rpartition(":")
    os.makedirs(options.cache_dir, exist_ok=True)
    server = ProxyServer((host, int(port)), options.access_dir, options.cache_dir)
    if options.port_file:
        with open(options.port_file + ".new", "w", encoding="ascii") as handle:
            handle.write("%d\n" % server.server_port)
        os.replace(options.port_file + ".new", options.port_file)
    parent = os.getppid()
    become(options.user, options.cache_dir)
    if os.access(options.cache_dir, os.W_OK | os.X_OK):
        prune(options.cache_dir, options.cache_limit_mib * 1024 * 1024)
    else:
        print("%s can't reach %s: nothing is kept" % (options.user, options.cache_dir), file=sys.stderr, flush=True)
        server.cache_dir = None
    if options.end_with_parent:
        threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
