# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planned against measured: an engine's own metrics on its socket, and what its start said, read once."""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_proof as proving
from ansible_collections.gpufleet.llm.plugins.module_utils import _receipt

PLANNED = {"mode": "pin", "kv_tokens": 23296, "num_blocks": 182, "kv_tokens_interval": [23296, 23296]}
METRICS = 'vllm:cache_config_info{{block_size="128",kv_cache_size_tokens="{}",num_gpu_blocks="{}"}} 1.0\n'


def one_answer(path, body):
    """Answer one request on a unix socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve():
        connection, _address = server.accept()
        with connection:
            connection.recv(65536)
            head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            connection.sendall((head % len(body) + body).encode())
        server.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def host(tmp_path):
    """Directories of a host with one instance, whose plan is placed."""
    for name in ("etc/smollm2-a", "run/smollm2-a", "calibration/instances"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/smollm2-a/plan.json").write_text(json.dumps({"planned": PLANNED}), encoding="utf-8")

    def read(body=None, invocation="abc"):
        thread = one_answer(tmp_path / "run/smollm2-a/engine.sock", body) if body is not None else None
        found = proving.read_memory(
            ["smollm2-a"],
            {"smollm2-a": invocation},
            plan_dir=str(tmp_path / "etc"),
            calibration_dir=str(tmp_path / "calibration"),
            runtime_dir=str(tmp_path / "run"),
        )
        if thread:
            thread.join(10)
            os.unlink(tmp_path / "run/smollm2-a/engine.sock")
        return found

    read.path = tmp_path
    return read


def judged(memory):
    (found,) = proving.decide_memory(memory)
    return found


def test_what_was_planned_is_what_is_there(host):
    memory = host(METRICS.format(23296, 182))
    found = judged(memory)
    assert found["ok"] and found["found"] == found["expected"] == "23,296 tokens in 182 blocks"
    assert not memory["smollm2-a"]["start_read"]
    (row,) = _receipt.memory_rows(memory)
    assert row == ("KV cache", "smollm2-a, 23,296 tokens planned, 23,296 measured")


@pytest.mark.parametrize(("tokens", "blocks"), [(23168, 181), (23296, 181), (23168, 182)])
def test_another_number_is_said(host, tokens, blocks):
    found = judged(host(METRICS.format(tokens, blocks)))
    assert (found["ok"], found["severity"]) == (False, "warning")
    assert "{:,} tokens in {} blocks".format(tokens, blocks) == found["found"]


def test_an_engine_that_doesn_t_say(host):
    for memory in (host(), host("")):
        found = judged(memory)
        assert not found["ok"] and found["found"] == "an engine that doesn't say"


def test_an_estimate_is_an_interval(host):
    memory = host(METRICS.format(23000, 180))
    memory["smollm2-a"]["planned"] = dict(PLANNED, mode="estimate", kv_tokens_interval=[22000, 24000])
    assert judged(memory)["ok"]
    memory["smollm2-a"]["planned"]["kv_tokens_interval"] = [23100, 24000]
    assert not judged(memory)["ok"]


def test_nothing_planned_is_nothing_to_compare(host):
    (host.path / "etc/smollm2-a/plan.json").write_text('{"state": "off"}', encoding="utf-8")
    found = judged(host())
    assert (found["ok"], found["found"]) == (True, "off: nothing to compare")


def test_a_start_is_read_once(host):
    record = dict.fromkeys(proving.MEASURED, None)
    record.update(weights_bytes=5, num_blocks=1)
    path = proving.start_path(str(host.path / "calibration"), "smollm2-a")
    _receipt.write_text(path, proving.start_text("abc", record, "x.json"))
    memory = host(METRICS.format(23296, 182))["smollm2-a"]
    assert memory["start_read"] and memory["measured"]["weights_bytes"] == 5
    assert memory["measured"]["num_blocks"] == 182  # what the engine says now counts before what the log said
    # Another start of the unit hasn't been read.
    memory = host(invocation="def")["smollm2-a"]
    assert not memory["start_read"] and memory["measured"] == {}
    assert not host(invocation="")["smollm2-a"]["start_read"]
    for text in ("{", "[]"):
        _receipt.write_text(path, text)
        assert not host()["smollm2-a"]["start_read"]
