# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine's answers and counters are taken for."""

from __future__ import annotations

import asyncio
import json

import pytest
from llm_watchdog import engine

TOKEN = json.dumps({"usage": {"completion_tokens": 1}, "choices": [{"text": "x"}]}).encode()
VLLM = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 26.0
vllm:generation_tokens_total{engine="0",model_name="tiny"} 12.0
vllm:iteration_tokens_total_bucket{engine="0",le="8.0",model_name="tiny"} 10.0
vllm:iteration_tokens_total_count{engine="0",model_name="tiny"} 12.0
"""
LLAMA = b"""llamacpp:prompt_tokens_total 8
llamacpp:tokens_predicted_total 4
llamacpp:n_decode_total 5
llamacpp:requests_processing 1
"""


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def evidence(clock):
    return engine.Evidence(2.0, clock)


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, TOKEN, "token"),
        (200, b'{"usage": {"completion_tokens": 0}, "choices": [{"text": ""}]}', "wrong"),
        (200, b"hello", "wrong"),
        (500, TOKEN, "wrong"),
        (401, b"", "refused"),
        (404, b"", "refused"),
        (429, b"", "busy"),
        (503, b"", "busy"),
        (0, b"", "silent"),
    ],
)
def test_verdicts(status, body, verdict):
    assert engine.verdict(engine.Answer(status, body)) == verdict


@pytest.mark.parametrize(
    ("page", "found"),
    [(VLLM, (50.0, 3)), (LLAMA, (17.0, 1)), (b'{"leaked": "/metrics"}', None), (b"vllm:num_requests_running x", None)],
)
def test_counters_are_summed_over_engines(page, found):
    assert engine.counters(page) == found


def test_a_request_without_an_answer_is_pending_until_a_probe_is_answered(evidence, clock):
    began = evidence.ask("metrics")
    clock.now = 101.0
    evidence.answered("metrics", began, engine.Answer(0, b"", "refused"))
    assert evidence.pending_since() == 100.0
    began = evidence.ask("probe")
    assert evidence.pending_since() == 100.0
    clock.now = 101.5
    assert evidence.answered("probe", began, engine.Answer(200, TOKEN)) == "token"
    assert evidence.pending_since() is None
    assert (evidence.token_at, evidence.timely) == (101.5, 1)


def test_a_late_token_is_no_timely_one(evidence, clock):
    for seconds, timely in ((0.5, 1), (0.5, 2), (2.5, 0), (0.5, 1)):
        began = evidence.ask("probe")
        clock.now += seconds
        evidence.answered("probe", began, engine.Answer(200, TOKEN))
        assert evidence.timely == timely


def test_an_answer_to_a_process_that_is_gone_counts_for_nothing(evidence):
    began = evidence.ask("probe")
    evidence.forget()
    assert evidence.answered("probe", began, engine.Answer(200, TOKEN)) == ""
    assert evidence.token_at is None
    assert evidence.pending_since() is None


def test_wrong_answers_count_in_a_row(evidence):
    for status, wrong in ((500, 1), (500, 2), (503, 0), (500, 1)):
        evidence.answered("probe", evidence.ask("probe"), engine.Answer(status, b""))
        assert evidence.wrong == wrong


def test_counters_that_move_are_movement_and_running_is_counted_from_its_first_sight(evidence, clock):
    for now, page, moved, since in (
        (101.0, VLLM, None, 101.0),
        (102.0, VLLM, None, 101.0),
        (103.0, VLLM.replace(b"12.0\nvllm:it", b"13.0\nvllm:it"), 103.0, 101.0),
        (104.0, b"vllm:num_requests_running 0", 104.0, None),
    ):
        clock.now = now
        evidence.answered("metrics", evidence.ask("metrics"), engine.Answer(200, page))
        assert (evidence.moved_at, evidence.running_since, evidence.measured_at) == (moved, since, now)


def answer_of(tmp_path, reply):
    """Ask a server on a unix socket that reads a head, replies with these bytes and closes."""
    path, heads = str(tmp_path / "engine.sock"), []

    async def serve(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply)
        writer.close()

    async def both():
        async with await asyncio.start_unix_server(serve, path):
            return await engine.ask(path, "POST", "/v1/completions", "sk-secret", {"prompt": "a"})

    return asyncio.run(both()), heads


def test_an_answer_of_a_stated_length(tmp_path):
    answer, heads = answer_of(tmp_path, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    assert answer == engine.Answer(200, b"{}")
    assert b"Authorization: Bearer sk-secret\r\n" in heads[0]


def test_an_answer_that_ends_with_the_connection(tmp_path):
    assert answer_of(tmp_path, b"HTTP/1.0 503 Busy\r\n\r\nlater")[0] == engine.Answer(503, b"later")


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", b"hello\r\n\r\n", b"x" * 70000]
)
def test_what_is_no_answer_is_silence(tmp_path, reply):
    answer, _heads = answer_of(tmp_path, reply)
    assert answer.status == 0
    assert answer.error


def test_no_socket_is_silence(tmp_path):
    answer = asyncio.run(engine.ask(str(tmp_path / "none"), "GET", "/metrics", ""))
    assert answer.status == 0
    assert "No such file" in answer.error
