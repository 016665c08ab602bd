# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import threading
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _proxy_probe as probe

STAT = "%d (nginx: (odd) x) S %d 7 7 0 -1 4194624 0 0 0 0 0 0 0 0 20 0 1 0 %d 1000 1 2"


def make_proc(root: t.Any, workers: dict[int, tuple[int, int, str]], uptime: float) -> None:
    (root / "uptime").write_text("%.2f 1.0\n" % uptime)
    (root / "self").mkdir()
    for pid, (parent, ticks, title) in workers.items():
        (root / str(pid)).mkdir()
        (root / str(pid) / "stat").write_text(STAT % (pid, parent, ticks))
        (root / str(pid) / "cmdline").write_bytes(title.encode() + b"\0")


def test_workers_are_the_masters_children_with_their_age(tmp_path: t.Any) -> None:
    second = os.sysconf("SC_CLK_TCK")
    make_proc(
        tmp_path,
        {
            11: (10, 100 * second, "nginx: worker process is shutting down"),
            12: (10, 190 * second, "nginx: worker process"),
            13: (99, 1, "nginx: worker process"),
            14: (10, 1, "nginx: cache manager process"),
        },
        200.0,
    )
    found = sorted(probe.read_workers(10, str(tmp_path)))
    assert [(w.pid, w.leaving) for w in found] == [(11, True), (12, False)]
    assert [w.age_seconds for w in found] == [pytest.approx(100), pytest.approx(10)]


@pytest.mark.parametrize(
    ("ages", "changed_ago", "owed"),
    [
        ([(10.0, False)], 20.0, False),
        ([(30.0, False)], 20.0, True),
        ([(30.0, True), (10.0, False)], 20.0, False),
        ([(30.0, False), (10.0, False)], 20.0, True),
        ([(10.0, True)], 20.0, True),
        ([], 20.0, True),
    ],
)
def test_reload_is_owed_while_an_older_worker_serves(
    ages: list[tuple[float, bool]], changed_ago: float, owed: bool
) -> None:
    workers = [probe.Worker(n, age, leaving) for n, (age, leaving) in enumerate(ages)]
    assert probe.reload_owed(workers, 1000.0 - changed_ago, 1000.0) is owed


def test_newest_change_looks_into_trees_and_at_files(tmp_path: t.Any) -> None:
    tree = tmp_path / "tree" / "deep"
    tree.mkdir(parents=True)
    for path, when in ((tree / "a", 100), (tree / "b", 300), (tmp_path / "c", 200)):
        path.write_text("")
        os.utime(path, (when, when))
    assert probe.newest_change([str(tmp_path / "tree"), str(tmp_path / "c")]) == (300.0, str(tree / "b"))
    assert probe.newest_change([str(tmp_path / "c"), str(tmp_path / "absent")]) == (200.0, str(tmp_path / "c"))


def test_nobody_listening_is_a_finding(tmp_path: t.Any) -> None:
    found = probe.check_port("127.0.0.1", 1, str(tmp_path / "absent.crt"), 0.2)
    assert not found["ok"]
    assert "absent.crt" in found["found"]


def test_a_worker_that_ends_while_it_is_read_is_left_out(tmp_path: t.Any) -> None:
    make_proc(tmp_path, {11: (10, 0, "nginx: worker process"), 12: (10, 0, "nginx: worker process")}, 5.0)
    (tmp_path / "12/cmdline").unlink()
    (tmp_path / "13").mkdir()
    (tmp_path / "13/stat").write_text("13 (half")
    assert [worker.pid for worker in probe.read_workers(10, str(tmp_path))] == [11]


def test_a_file_that_goes_while_the_tree_is_read_does_not_count(tmp_path: t.Any, monkeypatch: t.Any) -> None:
    (tmp_path / "a").write_text("")
    os.utime(tmp_path / "a", (100, 100))
    real = os.walk
    monkeypatch.setattr(os, "walk", lambda path: [*real(path), (str(tmp_path), [], ["gone"])])
    assert probe.newest_change([str(tmp_path)]) == (100.0, str(tmp_path / "a"))


class Port:
    """A port that answers in TLS what a test says."""

    def __init__(self, directory: t.Any) -> None:
        self.certificates = {}
        for name in ("own", "other"):
            subprocess.run(
                [
                    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                    *("-subj", "/CN=" + name, "-keyout", str(directory / (name + ".key"))),
                    *("-out", str(directory / (name + ".crt"))),
                ],
                check=True,
                capture_output=True,
            )
        self.directory = directory

    def check(self, answer: bytes, shows: str = "own") -> dict[str, t.Any]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / (shows + ".crt"), self.directory / (shows + ".key"))
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                plain, _address = server.accept()
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as tls:
                    tls.recv(4096)
                    tls.sendall(answer)
                    tls.unwrap()

            thread = threading.Thread(target=serve)
            thread.start()
            found = probe.check_port("127.0.0.1", server.getsockname()[1], str(self.directory / "own.crt"), 5.0)
            thread.join()
        return found


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Port:
    return Port(tmp_path_factory.mktemp("port"))


REFUSED = b'HTTP/1.1 401 Unauthorized\r\n\r\n{"error": {"code": "%s"}}'


def test_the_proxy_is_known_by_its_certificate_and_its_refusal(port: Port) -> None:
    found = port.check(REFUSED % b"client_certificate")
    assert (found["ok"], found["found"]) == (True, "401 client_certificate, from that certificate")


@pytest.mark.parametrize(
    ("answer", "shows", "said"),
    [
        (REFUSED % b"client_certificate", "other", "401 client_certificate, from another server certificate"),
        (REFUSED % b"invalid_api_key", "own", "401 invalid_api_key, from that certificate"),
        (
            REFUSED.replace(b"401", b"200") % b"client_certificate",
            "own",
            "200 client_certificate, from that certificate",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "own", "an answer that isn't the proxy's: b'HTTP/1.1 200 OK'"),
        (b"SSH-2.0-x", "own", "an answer that isn't the proxy's: b'SSH-2.0-x'"),
        (b"", "own", "an answer that isn't the proxy's: b''"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70000, "own", "an answer that isn't the proxy's: b'HTTP/1.1 200 OK'"),
    ],
)
def test_whatever_else_answers_is_a_finding(port: Port, answer: bytes, shows: str, said: str) -> None:
    found = port.check(answer, shows)
    assert (found["ok"], found["found"]) == (False, said)
    assert "journalctl -u llm-proxy.service" in found["remedy"]
