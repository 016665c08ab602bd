# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package proxy against a mirror that also cuts its answers."""

from __future__ import annotations

import http.client
import http.server
import importlib.util
import json
import os
import pathlib
import threading
import time
import types
import typing as t

import pytest

FILES = pathlib.Path(__file__).resolve().parents[3] / "roles" / "lab_host" / "files"
BODY = b"x" * 1000


def load(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, FILES / (name + ".py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


proxy = load("package_proxy")


class Mirror(http.server.BaseHTTPRequestHandler):
    """Counts what it's asked for, and cuts what's named cut."""

    asked: t.ClassVar[t.List[str]] = []

    def do_GET(self) -> None:
        Mirror.asked.append(self.path)
        if "absent" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:10] if "cut" in self.path else BODY)

    def log_message(self, format: str, *args: t.Any) -> None:
        pass


@pytest.fixture(name="lab")
def fixture_lab(tmp_path: pathlib.Path) -> t.Iterator[t.Dict[str, t.Any]]:
    """A mirror and a proxy that lets this machine at it."""
    Mirror.asked = []
    mirror = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    base = "http://127.0.0.1:%d/debian/" % mirror.server_port
    (tmp_path / "access").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "access" / "127.0.0.1").write_text(json.dumps({"http://mirror.example/debian/": base}))
    server = proxy.ProxyServer(("127.0.0.1", 0), str(tmp_path / "access"), str(tmp_path / "cache"))
    for each in (mirror, server):
        threading.Thread(target=each.serve_forever, daemon=True).start()
    yield {"port": server.server_port, "tmp": tmp_path}
    for each in (server, mirror):
        each.shutdown()
        each.server_close()


def ask(lab: t.Dict[str, t.Any], target: str, method: str = "GET") -> t.Tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", lab["port"], timeout=10)
    try:
        connection.putrequest(method, target, skip_host=True)
        connection.putheader("Host", "mirror.example")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def kept(lab: t.Dict[str, t.Any]) -> t.List[str]:
    return [name for _dir, _names, files in os.walk(lab["tmp"] / "cache") for name in files]


def test_a_package_is_fetched_once(lab: t.Dict[str, t.Any]) -> None:
    url = "http://mirror.example/debian/pool/main/a/a_1%2b2.deb"
    assert ask(lab, url) == (200, BODY)
    assert ask(lab, url) == (200, BODY)
    assert Mirror.asked == ["/debian/pool/main/a/a_1%2b2.deb"]


def test_an_index_is_fetched_each_time(lab: t.Dict[str, t.Any]) -> None:
    for _each in range(2):
        assert ask(lab, "http://mirror.example/debian/dists/bookworm/InRelease") == (200, BODY)
    assert len(Mirror.asked) == 2
    assert kept(lab) == []


def test_a_cut_package_is_not_kept(lab: t.Dict[str, t.Any]) -> None:
    with pytest.raises(http.client.IncompleteRead):
        ask(lab, "http://mirror.example/debian/pool/cut.deb")
    deadline = time.monotonic() + 5
    while kept(lab) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kept(lab) == []


def test_what_the_mirror_lacks_is_not_kept(lab: t.Dict[str, t.Any]) -> None:
    assert ask(lab, "http://mirror.example/debian/pool/absent.deb")[0] == 404
    assert kept(lab) == []


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "http://elsewhere.example/debian/pool/a.deb"),
        ("GET", "http://mirror.example/private/a"),
        ("GET", "http://mirror.example/debian/../private/a"),
        ("GET", "http://mirror.example/debian/%2e%2e/private/a"),
        ("GET", "http://mirror.example/debian/..%2fprivate/a"),
        ("GET", "http://mirror.example@elsewhere.example/debian/a"),
        ("GET", "http://mirror.example/debian/a?to=elsewhere"),
        ("GET", "/debian/pool/a.deb"),
        ("GET", "/etc/passwd"),
        ("POST", "http://mirror.example/debian/pool/a.deb"),
        ("PUT", "http://mirror.example/debian/pool/a.deb"),
        ("CONNECT", "mirror.example:443"),
    ],
)
def test_everything_else_is_refused_and_never_fetched(lab: t.Dict[str, t.Any], method: str, target: str) -> None:
    assert ask(lab, target, method)[0] == 403
    assert Mirror.asked == []


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "not json"])
def test_a_client_without_access_gets_nothing(lab: t.Dict[str, t.Any], content: t.Optional[str]) -> None:
    path = lab["tmp"] / "access" / "127.0.0.1"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert ask(lab, "http://mirror.example/debian/pool/a.deb")[0] == 403
    assert Mirror.asked == []


def test_a_mirror_that_is_gone_is_said(lab: t.Dict[str, t.Any]) -> None:
    (lab["tmp"] / "access" / "127.0.0.1").write_text(json.dumps({"http://mirror.example/": "http://127.0.0.1:1/"}))
    status, body = ask(lab, "http://mirror.example/pool/a.deb")
    assert status == 502
    assert b"be reached" in body


def test_the_oldest_goes_first(tmp_path: pathlib.Path) -> None:
    for age, name in ((30, "old"), (20, "middle"), (10, "new")):
        (tmp_path / name).write_bytes(b"y" * 100)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert proxy.prune(str(tmp_path), 150) == 200
    assert os.listdir(tmp_path) == ["new"]
