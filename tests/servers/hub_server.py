# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file server and model hub that misbehaves on request. Standard library only; threads; loopback; any free port.

Plain files are below ``/files/``. The hub's endpoints are at the root, so that ``HF_ENDPOINT`` can be the server's URL.

Faults, by file path, one at a time (``Fault``):

``cut``           close the connection after ``after`` bytes of each answer, ``times`` times
``wrong_byte``    serve the right number of bytes with one of them flipped
``length_larger`` announce ``by`` bytes more than there are
``length_smaller`` announce ``by`` bytes less, and send no more than that
``ignore_range``  answer 200 with everything to a Range request
``status``        answer ``code``, ``times`` times

Run by itself it serves a directory, for a limited time:
``hub_server.py --root DIR --state-file FILE [--lifetime-seconds N] [--fault PATH=KIND[:key=value…]]…``
The state file is JSON: ``{"port": …, "pid": …}``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import threading
import typing as t
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".gguf", ".bin")


class Fault:
    """What to do wrong with a file. ``times``: how often; -1 always."""

    def __init__(self, kind: str, times: int = -1, after: int = 0, by: int = 10, code: int = 503) -> None:
        self.kind, self.times, self.after, self.by, self.code = kind, times, after, by, code

    def take(self) -> bool:
        """Whether the fault strikes now; counts down."""
        if self.times == 0:
            return False
        if self.times > 0:
            self.times -= 1
        return True


class Seen(t.NamedTuple):
    """One request as the server saw it."""

    method: str
    path: str
    range: str
    if_range: str
    authorization: str
    status: int
    sent: int


class Repository:
    """A commit of a hub repository."""

    def __init__(self, repo_id: str, revision: str, files: t.Dict[str, bytes]) -> None:
        self.repo_id, self.revision, self.files = repo_id, revision, files

    def tree(self) -> t.List[t.Dict[str, t.Any]]:
        """Return what the tree endpoint answers: git ids for small files, LFS sha256 for weights."""
        listed: t.List[t.Dict[str, t.Any]] = []
        for path, data in sorted(self.files.items()):
            item: t.Dict[str, t.Any] = {"type": "file", "path": path, "size": len(data), "oid": git_blob(data)}
            if path.endswith(LFS_SUFFIXES):
                item["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            listed.append(item)
        return listed


def git_blob(data: bytes) -> str:
    """Return the git blob id of bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class _Busy:
    """Counts the requests that are being answered: a client may have its answer before the log has the entry."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.count = 0

    def __enter__(self) -> None:
        with self.changed:
            self.count += 1

    def __exit__(self, *_exc: object) -> None:
        with self.changed:
            self.count -= 1
            self.changed.notify_all()

    def settle(self, timeout_seconds: float = 2.0) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.count == 0, timeout_seconds)


class HubServer:
    """The server. Use it as a context manager; ``url`` is then its base URL.

    Args:
        files: path -> bytes, served below ``/files/``.
        token: with one, the hub's endpoints answer 401 to anybody who doesn't bear it.
    """

    def __init__(
        self, files: t.Optional[t.Dict[str, bytes]] = None, token: str = "", delay_seconds: float = 0.0
    ) -> None:
        self.files = dict(files or {})
        self.token = token
        self.delay_seconds = delay_seconds
        self.faults: t.Dict[str, Fault] = {}
        self.repositories: t.Dict[str, Repository] = {}
        self.log: t.List[Seen] = []
        self.storage_redirect = True
        self.busy = _Busy()
        self._httpd: t.Optional[ThreadingHTTPServer] = None

    def add_repository(self, repo_id: str, revision: str, files: t.Dict[str, bytes]) -> None:
        self.repositories[repo_id] = Repository(repo_id, revision, dict(files))

    def __enter__(self) -> HubServer:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> None:
        owner = self

        class Handler(_Handler):
            server_state = owner

        self._httpd = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._httpd.daemon_threads = True
        threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        if self._httpd:
            self._httpd.shutdown()
            self._httpd.server_close()
            self._httpd = None

    @property
    def port(self) -> int:
        assert self._httpd is not None
        return int(self._httpd.server_address[1])

    @property
    def url(self) -> str:
        return "http://127.0.0.1:%d" % self.port

    def sent(self, path: str) -> int:
        """Return how many body bytes went out for a file."""
        self.busy.settle()
        return sum(seen.sent for seen in self.log if seen.path.endswith("/" + path) and seen.method == "GET")

    def gets(self, path: str) -> t.List[Seen]:
        """Return the GET requests for a file."""
        self.busy.settle()
        return [seen for seen in self.log if seen.path.endswith("/" + path) and seen.method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: HubServer

    def log_message(self, format: str, *args: t.Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        with self.server_state.busy:
            self._route()

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/files/"):
            name = path[len("/files/") :]
            self._send(name, self.server_state.files.get(name))
            return
        if path.startswith("/storage/"):
            repo_id, name = path[len("/storage/") :].split("//", 1)
            repository = self.server_state.repositories.get(repo_id)
            self._send(name, repository.files.get(name) if repository else None)
            return
        self._hub(path)

    def _hub(self, path: str) -> None:
        state = self.server_state
        if state.token and self.headers.get("Authorization") != "Bearer %s" % state.token:
            self._json(401, {"error": "Invalid credentials"}, {"X-Error-Message": "Invalid credentials"})
            return
        match = re.match(r"^/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)$", path)
        if match:
            repository = state.repositories.get(match.group(1))
            if not repository:
                self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif match.group(3) != repository.revision:
                self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            elif match.group(2) == "tree":
                self._json(200, repository.tree())
            else:
                siblings = [{"rfilename": name} for name in sorted(repository.files)]
                about = {"_id": "0" * 24, "id": repository.repo_id, "modelId": repository.repo_id}
                self._json(200, dict(about, sha=repository.revision, siblings=siblings, tags=[], private=False))
            return
        match = re.match(r"^/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path)
        repository = state.repositories.get(match.group(1)) if match else None
        if not match or not repository or match.group(2) != repository.revision:
            self._json(404, {"error": "not found"}, {"X-Error-Code": "RevisionNotFound"})
            return
        name = match.group(3)
        data = repository.files.get(name)
        if data is None:
            self._json(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
            return
        extra = {"X-Repo-Commit": repository.revision}
        if name.endswith(LFS_SUFFIXES) and state.storage_redirect:
            extra["X-Linked-Etag"] = '"%s"' % hashlib.sha256(data).hexdigest()
            extra["X-Linked-Size"] = str(len(data))
            # Another host name for the same server: credentials must not follow.
            extra["Location"] = "http://localhost:%d/storage/%s//%s?signature=s3cr3t" % (
                state.port,
                repository.repo_id,
                name,
            )
            self._reply(302, extra, b"")
            return
        self._send(name, data, dict(extra, ETag='"%s"' % git_blob(data)))

    def _send(self, name: str, data: t.Optional[bytes], extra: t.Optional[t.Dict[str, str]] = None) -> None:
        if data is None:
            self._reply(404, {}, b"no such file\n")
            return
        fault = self.server_state.faults.get(name)
        struck = fault is not None and (fault.kind != "cut" or self.command == "GET") and fault.take()
        kind = fault.kind if fault and struck else ""
        headers = dict(extra or {})
        headers.setdefault("ETag", '"%s"' % hashlib.sha256(data).hexdigest()[:32])
        headers["Accept-Ranges"] = "bytes"
        if kind == "status" and fault:
            self._reply(fault.code, {"Retry-After": "0"} if fault.code == 429 else {}, b"later\n")
            return
        if kind == "wrong_byte":
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        status, start = 200, 0
        end = len(data)
        match = re.match(r"^bytes=(\d+)-(\d*)$", self.headers.get("Range") or "")
        if_range = self.headers.get("If-Range")
        if match and kind != "ignore_range" and if_range in (None, headers["ETag"]):
            start = int(match.group(1))
            if start >= len(data):
                self._reply(416, {"Content-Range": "bytes */%d" % len(data)}, b"")
                return
            status = 206
            end = min(end, int(match.group(2)) + 1) if match.group(2) else end
            headers["Content-Range"] = "bytes %d-%d/%d" % (start, end - 1, len(data))
        body = data[start:end]
        announced = len(body)
        if kind == "length_larger" and fault:
            announced += fault.by
            if status == 206:
                headers["Content-Range"] = "bytes %d-%d/%d" % (start, start + announced - 1, start + announced)
        if kind == "length_smaller" and fault:
            announced -= fault.by
            body = body[:announced]
        cut = kind == "cut" and fault is not None
        if cut and fault:
            body = body[: fault.after]
        self._reply(status, headers, body, announced, close=cut or kind.startswith("length"))

    def _json(self, status: int, data: t.Any, headers: t.Optional[t.Dict[str, str]] = None) -> None:
        self._reply(status, dict(headers or {}, **{"Content-Type": "application/json"}), json.dumps(data).encode())

    def _reply(
        self,
        status: int,
        headers: t.Dict[str, str],
        body: bytes,
        announced: t.Optional[int] = None,
        close: bool = False,
    ) -> None:
        sent = 0
        try:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body) if announced is None else announced))
            if close:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if self.command != "HEAD":
                for begin in range(0, len(body), 65536):
                    piece = body[begin : begin + 65536]
                    self.wfile.write(piece)
                    sent += len(piece)
                    if self.server_state.delay_seconds:
                        threading.Event().wait(self.server_state.delay_seconds)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        self.server_state.log.append(
            Seen(
                self.command,
                unquote(urlsplit(self.path).path),
                self.headers.get("Range") or "",
                self.headers.get("If-Range") or "",
                self.headers.get("Authorization") or "",
                status,
                sent,
            )
        )


class _DirectoryFiles(t.Dict[str, bytes]):
    """Files of a directory, read when they are asked for."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = os.path.realpath(root)

    def get(self, key: str, default: t.Any = None) -> t.Any:
        path = os.path.realpath(os.path.join(self.root, key))
        if not path.startswith(self.root + os.sep) or not os.path.isfile(path):
            return default
        with open(path, "rb") as handle:
            return handle.read()


def parse_fault(text: str) -> t.Tuple[str, Fault]:
    """Read ``PATH=KIND[:key=number…]``."""
    path, _, rest = text.partition("=")
    kind, *options = rest.split(":")
    return path, Fault(kind, **{key: int(value) for key, value in (option.split("=") for option in options)})


def main() -> None:
    """Serve a directory until the time is over or the process ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--state-file", required=True)
    parser.add_argument("--lifetime-seconds", type=float, default=1800.0)
    parser.add_argument("--fault", action="append", default=[])
    options = parser.parse_args()
    server = HubServer()
    server.files = _DirectoryFiles(options.root)
    server.faults = dict(parse_fault(text) for text in options.fault)
    server.start()
    temporary = options.state_file + ".new"
    with open(temporary, "w", encoding="utf-8") as handle:
        json.dump({"port": server.port, "pid": os.getpid()}, handle)
    os.rename(temporary, options.state_file)
    threading.Event().wait(options.lifetime_seconds)


if __name__ == "__main__":
    main()
