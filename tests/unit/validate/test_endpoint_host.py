# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proved of a host: one good state, and what each single change does."""

from __future__ import annotations

import copy
import os
import pathlib
import socket
import threading
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _endpoint_host

UNITS = ["vllm@smollm2-a.service", "llm-proxy.service"]
RUNNING = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "InvocationID": "abc"}
STATE: dict[str, t.Any] = {
    "units": {unit: dict(RUNNING, Id=unit) for unit in UNITS},
    "sockets": [{"path": "/run/gpufleet/smollm2-a/engine.sock", "status": 401, "error": ""}],
    "secrets": [{"pattern": "/x/*", "path": "/x/key", "mode": 0o600, "uid": 0, "size": 67}],
    "analysed": ["vllm@smollm2-a.service"],
    "exposures": {"vllm@smollm2-a.service": 1.3},
    "listeners": [{"address": "0.0.0.0", "port": 8443, "unit": "llm-proxy.service", "process": "nginx", "pid": 1}],
}
LISTENER = {"address": "127.0.0.1", "port": 8000, "unit": "vllm@smollm2-a.service", "process": "vllm", "pid": 2}


def decide(state: dict[str, t.Any]) -> list[str]:
    findings = _endpoint_host.decide_state(
        state, units=UNITS, exposure_limits={"vllm@*.service": 1.6}, proxy_unit="llm-proxy.service", ports=[8443]
    )
    assert len(findings) == 6
    return [f["check"] for f in findings if not f["ok"]]


def test_a_good_state_passes() -> None:
    assert decide(STATE) == []


@pytest.mark.parametrize(
    ("path", "value", "check"),
    [
        (("units", UNITS[0], "ActiveState"), "activating", "host.unit.vllm@smollm2-a.service"),
        (("units", UNITS[1], "SubState"), "dead", "host.unit.llm-proxy.service"),
        (("units", UNITS[1]), {}, "host.unit.llm-proxy.service"),
        (("sockets", 0, "status"), 200, "host.engine_socket_refuses"),
        (("sockets", 0, "status"), None, "host.engine_socket_refuses"),
        (("secrets", 0, "mode"), 0o640, "host.secret_file"),
        (("secrets", 0, "uid"), 1000, "host.secret_file"),
        (("secrets", 0, "size"), 0, "host.secret_file"),
        (("secrets", 0, "path"), None, "host.secret_file"),
        (("exposures",), {"vllm@smollm2-a.service": 1.7}, "host.exposure.vllm@smollm2-a.service"),
        (("exposures",), {}, "host.exposure.vllm@smollm2-a.service"),
        (("listeners",), [*STATE["listeners"], LISTENER], "host.listeners"),
        (("listeners", 0, "port"), 80, "host.listeners"),
        (("listeners",), [], "host.listeners"),
    ],
)
def test_a_fault_fails_its_finding_and_no_other(path: tuple[t.Any, ...], value: t.Any, check: str) -> None:
    state = copy.deepcopy(STATE)
    place = state
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert decide(state) == [check]


def test_no_limit_analyses_nothing() -> None:
    state = dict(STATE, analysed=[], exposures={})
    findings = _endpoint_host.decide_state(
        state, units=UNITS, exposure_limits={}, proxy_unit="llm-proxy.service", ports=[8443]
    )
    assert not [f for f in findings if "exposure" in f["check"]]


def test_exposures_are_read_from_systemd_analyze() -> None:
    text = (
        "  NAME          DESCRIPTION   EXPOSURE\n\n"
        "\u2192 Overall exposure level for vllm@smollm2-a.service: 1.3 OK :-)\n"
        "\u2192 Overall exposure level for llm-proxy.service: 2.7 OK :-)\n"
    )
    assert _endpoint_host.parse_exposures(text) == {"vllm@smollm2-a.service": 1.3, "llm-proxy.service": 2.7}


def test_units_are_read_from_systemctl_show() -> None:
    text = "Id=a.service\nLoadState=loaded\nActiveState=active\n\nId=b.service\nLoadState=not-found\n"
    units = _endpoint_host.parse_units(text)
    assert units["a.service"]["ActiveState"] == "active"
    assert _endpoint_host.is_deployed(units, ["a.service", "b.service"])
    assert not _endpoint_host.is_deployed(units, ["b.service"])
    assert not _endpoint_host.is_deployed({}, ["a.service"])


def test_secrets_are_looked_at_and_a_pattern_without_match_is_said(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "a.api_key"
    secret.write_text("x")
    secret.chmod(0o644)
    found = _endpoint_host.read_secrets(["%s/*" % tmp_path, "%s/none/*" % tmp_path])
    assert [(f["path"], f["mode"]) for f in found] == [(str(secret), 0o644), (None, None)]


@pytest.mark.parametrize("status", [401, 200])
def test_a_socket_is_asked_without_a_key(tmp_path: pathlib.Path, status: int) -> None:
    path = str(tmp_path / "s")
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)

        def answer() -> None:
            connection, _peer = server.accept()
            asked.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        found = _endpoint_host.ask_socket(path, 2, 2)
        thread.join()
    assert found["status"] == status
    assert b"GET /v1/models" in asked[0] and b"uthorization" not in asked[0]


def test_a_socket_nobody_listens_on(tmp_path: pathlib.Path) -> None:
    found = _endpoint_host.ask_socket(os.path.join(str(tmp_path), "s"), 1, 1)
    assert found["status"] is None and "connect" in found["error"]


class Host:
    """A host whose commands answer from a table, and which has no processes."""

    def __init__(self, answers: dict[str, tuple[int, str, str]]) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def run(self, argv: t.Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(list(argv))
        return self.answers[argv[0]]

    def read(self, path: str) -> str | None:
        return None

    def names(self, path: str) -> list[str]:
        return []

    def link(self, path: str) -> str:
        return ""


def test_one_reading_of_a_host(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.key").write_text("secret")
    (tmp_path / "a.key").chmod(0o640)
    (tmp_path / "b.key").mkdir()
    shown = "Id=a.service\nActiveState=active\n\nno such thing\n\nId=b.service\nActiveState=failed\n"
    host = Host(
        {
            "systemctl": (0, shown, ""),
            "systemd-analyze": (1, "→ Overall exposure level for a.service: 1.3 OK 🙂\n", ""),
        }
    )
    state = _endpoint_host.read_state(
        t.cast("t.Any", host),
        units=["a.service", "b.service"],
        sockets=[str(tmp_path / "absent.sock")],
        secrets=[str(tmp_path / "*.key"), str(tmp_path / "none*")],
        exposure_limits={"a.*": 2.0},
        our_units=["*.service"],
        connect_seconds=0.2,
        request_seconds=0.2,
    )
    assert {unit: values["ActiveState"] for unit, values in state["units"].items()} == {
        "a.service": "active",
        "b.service": "failed",
    }
    assert (state["analysed"], state["exposures"], state["listeners"]) == (["a.service"], {"a.service": 1.3}, [])
    assert host.asked[0] == ["systemd-analyze", "--no-pager", "security", "a.service"]
    assert (state["sockets"][0]["status"], "No such file" in state["sockets"][0]["error"]) == (None, True)
    assert [(secret["path"] is None, secret["mode"]) for secret in state["secrets"]] == [(False, 0o640), (True, None)]
    host.answers["systemctl"] = (1, "", "Failed to connect to bus")
    assert _endpoint_host.read_units(t.cast("t.Any", host), ["a.service"]) == {}
    assert _endpoint_host.read_units(t.cast("t.Any", host), []) == {}
    assert _endpoint_host.is_deployed({"a.service": {"LoadState": "not-found"}}, ["a.service", "c.service"]) is False
