# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A good endpoint passes; every fault an endpoint can have fails exactly the findings that are about it."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import ssl
import threading
import time
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _endpoint_client, _endpoint_probe
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import Endpoint, Identity
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner
from unit.validate.mock_endpoint import API_KEY, NAME, PIECES, Pki, Start

FORBIDDEN = ["GET /metrics", "POST /invocations", "GET /v1/../metrics"]
SETTINGS = _endpoint_probe.Settings(
    vantage="control",
    connect_seconds=3,
    request_seconds=5,
    first_token_limit_seconds=0,
    prompt="Hello",
    completion_tokens=2,
    stream_tokens=PIECES,
    request_extra={"temperature": 0},
    forbidden=FORBIDDEN,
)


def probe(endpoint: Endpoint, pki: Pki, foreign: Identity | None = None, **changes: t.Any) -> tuple[t.Any, t.Any]:
    made = foreign or _endpoint_client.make_foreign_identity(LocalRunner(), "gpu-validate", API_KEY)
    return _endpoint_probe.probe_endpoint(endpoint, pki.ca, pki.client, made, SETTINGS._replace(**changes))


def failed(findings: t.Any) -> list[str]:
    return [f["check"].replace("control.smollm2.", "") for f in findings if not f["ok"]]


ALL = [
    "connect",
    "models_list",
    "completion",
    "stream_incremental",
    "stream_end",
    "time_to_first_token_seconds",
    "refused_no_certificate",
    "refused_foreign_certificate",
    "refused_no_key",
    "refused_wrong_key",
    "forbidden_paths",
]


def test_a_good_endpoint_passes_every_check(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start()
    findings, timings = probe(endpoint, pki)
    assert failed(findings) == []
    assert [f["check"].replace("control.smollm2.", "") for f in findings] == ALL
    assert 0.01 < timings["time_to_first_token_seconds"] < timings["stream_total_seconds"] < 5


def test_a_proxy_that_answers_401_itself_passes_too(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start(verify=ssl.CERT_OPTIONAL)
    findings, _timings = probe(endpoint, pki)
    assert failed(findings) == []
    (found,) = [f for f in findings if f["check"].endswith("refused_no_certificate")]
    assert found["found"] == "status 401, application/json"


FAULTS: list[tuple[str, dict[str, t.Any], list[str]]] = [
    (
        "answers without a certificate",
        {"verify": ssl.CERT_OPTIONAL, "needs_certificate": False},
        ["refused_no_certificate"],
    ),
    ("needs no key", {"needs_key": False}, ["refused_no_key", "refused_wrong_key"]),
    ("takes any key", {"accepts_any_key": True}, ["refused_wrong_key"]),
    ("refuses in plain text", {"refusal_body": "<html>"}, ["refused_no_key", "refused_wrong_key"]),
    ("serves another model", {"model": "other"}, ["models_list"]),
    ("computes nothing", {"completion_text": ""}, ["completion"]),
    ("completion dies", {"completion_status": 500}, ["completion"]),
    ("buffers the stream", {"buffers": True}, ["stream_incremental"]),
    ("too few pieces", {"pieces": 2}, ["stream_incremental"]),
    ("cut stream", {"sends_done": False}, ["stream_end"]),
    ("error in the stream", {"stream_error": True}, ["stream_end"]),
    ("no token", {"pieces": 0}, ["stream_incremental", "time_to_first_token_seconds"]),
    ("metrics open", {"open_paths": {"/metrics"}}, ["forbidden_paths"]),
    ("invocations open", {"open_paths": {"/invocations"}}, ["forbidden_paths"]),
    ("dot dot open", {"open_paths": {"/v1/../metrics"}}, ["forbidden_paths"]),
]


@pytest.mark.parametrize(("changes", "expected"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_fault_fails_its_findings_and_no_other(
    start: Start, pki: Pki, changes: dict[str, t.Any], expected: list[str]
) -> None:
    endpoint, _behaviour = start(**changes)
    findings, _timings = probe(endpoint, pki)
    assert failed(findings) == expected
    assert all(f["remedy"] for f in findings if not f["ok"])


def test_a_server_that_trusts_a_foreign_certificate_is_found(start: Start, pki: Pki) -> None:
    foreign = _endpoint_client.make_foreign_identity(LocalRunner(), "gpu-validate", API_KEY)
    assert foreign is not None
    endpoint, _behaviour = start(also_trusts=foreign.certificate)
    findings, _timings = probe(endpoint, pki, foreign)
    assert failed(findings) == ["refused_foreign_certificate"]


def test_a_stream_too_short_to_tell_is_asked_for_again_longer(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start(buffers_up_to=PIECES, pieces=64)
    findings, timings = probe(endpoint, pki)
    assert failed(findings) == []
    (found,) = [f for f in findings if f["check"].endswith("stream_incremental")]
    assert found["found"].startswith("%d pieces in " % (4 * PIECES))
    assert timings["stream_total_seconds"] < 1
    endpoint, _behaviour = start(buffers_up_to=16 * PIECES, pieces=64)
    findings, _timings = probe(endpoint, pki)
    assert failed(findings) == ["stream_incremental"]


def test_without_a_foreign_certificate_the_finding_fails_instead_of_passing(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start()
    findings, _timings = _endpoint_probe.probe_endpoint(endpoint, pki.ca, pki.client, None, SETTINGS)
    assert failed(findings) == ["refused_foreign_certificate"]


def test_a_server_of_another_ca_is_not_spoken_to(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start()
    foreign = _endpoint_client.make_foreign_identity(LocalRunner(), "gpu-validate", API_KEY)
    assert foreign is not None
    other = Pki(foreign.certificate, pki.server, pki.client)
    findings, _timings = probe(endpoint, other)
    assert failed(findings) == ["connect"]
    assert "server_certificate" in findings[0]["found"]


def test_a_server_of_another_name_is_not_spoken_to(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start()
    findings, _timings = probe(endpoint._replace(server_name="llm2"), pki)
    assert failed(findings) == ["connect"]


def test_nobody_there(pki: Pki) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    findings, _timings = probe(Endpoint("smollm2", "127.0.0.1", port, NAME), pki, connect_seconds=0.5)
    assert failed(findings) == ["connect"]
    assert "connect" in findings[0]["found"]


def test_connecting_is_tried_again_until_the_time_is_up() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    late = socket.socket()
    late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def listen() -> None:
        late.bind(address)
        late.listen(1)

    timer = threading.Timer(0.5, listen)
    timer.start()
    _endpoint_client.connect(address, 5).close()
    timer.join()
    late.close()


def test_a_server_that_is_not_tls_fails(pki: Pki) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _peer = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        findings, _timings = probe(Endpoint("smollm2", "127.0.0.1", server.getsockname()[1], NAME), pki)
        thread.join()
    assert failed(findings) == ["connect"]


def test_a_hanging_engine_ends_by_the_deadline(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start(hangs=True)
    started = time.monotonic()
    findings, _timings = probe(endpoint, pki, request_seconds=0.3)
    assert time.monotonic() - started < 4
    assert {"completion", "stream_incremental", "stream_end"} <= set(failed(findings))
    assert "timeout" in json.dumps(findings)


def test_the_time_to_the_first_token_has_a_limit(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start()
    findings, _timings = probe(endpoint, pki, first_token_limit_seconds=0.001)
    assert failed(findings) == ["time_to_first_token_seconds"]


def test_no_secret_is_in_a_finding_even_if_the_server_echoes_it(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start(echoes_key=True)
    findings, _timings = probe(endpoint, pki)
    assert failed(findings) == ["completion"]
    text = json.dumps(findings)
    assert API_KEY not in text
    assert _endpoint_probe.REDACTED in text
    assert pki.client.key.splitlines()[1] not in text


def test_no_identity_is_one_finding(start: Start, pki: Pki) -> None:
    endpoint, _behaviour = start()
    findings, _timings = _endpoint_probe.probe_endpoint(endpoint, "", Identity(), None, SETTINGS)
    assert failed(findings) == ["identity"]


def test_a_secret_is_never_a_file_with_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(_endpoint_client.tempfile, "tempdir", str(tmp_path))
    with _endpoint_client.secret_file("secret") as path:
        assert pathlib.Path(path).read_text() == "secret"
        assert path.startswith("/proc/self/fd/")
        assert list(tmp_path.iterdir()) == []
    assert not os.path.exists(path)


def test_without_memory_files_the_secret_is_0600_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with _endpoint_client.secret_file("secret") as path:
        assert pathlib.Path(path).read_text() == "secret"
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert not os.path.exists(path)


@pytest.mark.parametrize("with_openssl", [True, False])
def test_the_foreign_certificate_has_the_clients_subject_and_leaves_no_file(
    with_openssl: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Without:
        def run(self, argv: t.Sequence[str]) -> tuple[int, str, str]:
            return 127, "", "no openssl"

        def read(self, path: str) -> str | None:
            return None

    if not with_openssl:
        pytest.importorskip("cryptography")
    # A directory of its own: other tests use the machine's at the same time.
    monkeypatch.setattr(_endpoint_client.tempfile, "tempdir", str(tmp_path))
    made = _endpoint_client.make_foreign_identity(LocalRunner() if with_openssl else Without(), "gpu-validate", "k")
    assert made is not None
    assert "BEGIN CERTIFICATE" in made.certificate and "PRIVATE KEY" in made.key
    der = ssl.PEM_cert_to_DER_cert(made.certificate)
    assert der.count(b"gpu-validate") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("times", "arrivals"), [([], 0), ([1.0], 1), ([1.0, 1.0001, 1.0002], 1), ([1.0, 1.01, 1.0101, 1.02], 3)]
)
def test_arrivals(times: list[float], arrivals: int) -> None:
    assert _endpoint_probe.count_arrivals(times) == arrivals


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b'{"choices": [1]}', b'{"choices": []}', b'{"choices": [{"delta": null}]}']
)
def test_odd_events_carry_no_text(data: bytes) -> None:
    assert _endpoint_client.read_event(data)[0] == ""
