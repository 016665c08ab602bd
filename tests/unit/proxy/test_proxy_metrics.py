# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import pathlib
import socket
import threading
import typing as t

import pytest

PROGRAM = pathlib.Path(__file__).parents[3] / "roles/llm_proxy/files/llm_proxy_metrics.py"
specification = importlib.util.spec_from_file_location("llm_proxy_metrics", PROGRAM)
assert specification and specification.loader
metrics: t.Any = importlib.util.module_from_spec(specification)
specification.loader.exec_module(metrics)


def record(**changes: t.Any) -> bytes:
    """A line as log_format of nginx.conf.j2 writes it, as far as the sums need it."""
    line = {
        "model": "tiny",
        "client": "demo",
        "route": "/v1/completions",
        "status": 200,
        "fallback": False,
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "end_of_stream": True,
        "first_byte_seconds": 0.02,
    }
    return json.dumps({**line, **changes}).encode()


def sums(*lines: bytes) -> str:
    counted = metrics.Sums()
    for line in lines:
        counted.take(line)
    return str(counted.render())


def test_requests_and_tokens_are_added_up_by_client() -> None:
    text = sums(record(), record(), record(client="other", status=429, prompt_tokens=None, completion_tokens=None))
    labels = 'client="demo",fallback="false",model="tiny",route="/v1/completions",status="200"'
    assert "llm_proxy_requests_total{%s} 2" % labels in text
    assert 'llm_proxy_prompt_tokens_total{client="demo",model="tiny"} 6' in text
    assert 'llm_proxy_completion_tokens_total{client="demo",model="tiny"} 8' in text
    assert 'status="429"} 1' in text
    assert 'prompt_tokens_total{client="other"' not in text


def test_answers_of_the_fallback_and_cut_streams_are_told_apart() -> None:
    text = sums(record(fallback=True), record(end_of_stream=False), record(end_of_stream=False, status=503))
    assert 'fallback="true",model="tiny",route="/v1/completions",status="200"} 1' in text
    assert 'llm_proxy_cut_total{client="demo",model="tiny"} 1' in text


def test_the_histogram_is_cumulative() -> None:
    times = (0.005, 0.02, 0.02, 200.0, None)
    text = sums(*(record(first_byte_seconds=seconds) for seconds in times))
    stem = 'llm_proxy_time_to_first_byte_seconds_bucket{fallback="false",model="tiny",le='
    assert stem + '"0.01"} 1' in text
    assert stem + '"0.025"} 3' in text
    assert stem + '"120.0"} 3' in text
    assert stem + '"+Inf"} 4' in text
    assert 'seconds_count{fallback="false",model="tiny"} 4' in text


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b"\xff", record(status="x"), record(first_byte_seconds="-")])
def test_a_line_that_is_no_record_is_counted_and_harms_nothing(line: bytes) -> None:
    assert "llm_proxy_log_lines_refused_total 1" in sums(line)


def test_a_rotated_log_is_read_to_its_end(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = metrics.Log(str(path))
    assert list(log.lines()) == []
    with path.open("a") as handle:
        handle.write("one\ntwo\nhal")
        handle.flush()
        assert list(log.lines()) == [b"one", b"two"]
        os.rename(path, tmp_path / "access.log.1")
        path.write_text("three\n")
        handle.write("f\n")
        handle.flush()
        assert list(log.lines()) == [b"half", b"three"]
    path.write_text("")
    assert list(log.lines()) == []


def test_a_log_that_comes_later_is_read(tmp_path: pathlib.Path) -> None:
    log = metrics.Log(str(tmp_path / "access.log"))
    assert list(log.lines()) == []
    (tmp_path / "access.log").write_text("one\n")
    assert list(log.lines()) == [b"one"]


def test_it_answers_on_its_socket(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"")
    server = metrics.Server(str(tmp_path / "m.sock"), metrics.Log(str(path)), metrics.Sums())
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        path.write_bytes(record() + b"\n")
        for target, status in (("/metrics", 200), ("/", 404)):
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(tmp_path / "m.sock"))
            connection.request("GET", target)
            answer = connection.getresponse()
            body = answer.read().decode()
            assert answer.status == status
            assert ("llm_proxy_requests_total{" in body) is (status == 200)
            connection.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
