# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judges of the proxy's trials can fail: a cut stream isn't whole, a floor is a floor, every rule is found."""

from __future__ import annotations

import asyncio
import json
import typing as t

import proxy_check
import pytest
from bench import proxy_rules
from proxyrig import faults, overload, rendering, report
from proxyrig.caller import Answer, Caller, Connection

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: 7\r\n\r\n"


def token(number: int) -> bytes:
    event = b'data: {"choices": [{"text": "%d:%d "}]}\n\n' % (number, 10**9 + number)
    return b"%x\r\n%s\r\n" % (len(event), event)


def received(*pieces: bytes) -> Answer:
    """Return what a caller makes of these pieces, after which the connection ends."""

    async def read() -> Answer:
        connection = Connection()
        connection.done = asyncio.get_running_loop().create_future()
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(None)
        return connection.answer

    return asyncio.run(read())


def test_a_whole_stream_is_whole_however_it_is_cut_into_pieces() -> None:
    body = HEAD + token(0) + token(1) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    for size in (1, 7, 64, 4096):
        answer = received(*(body[at : at + size] for at in range(0, len(body), size)))
        assert answer.whole_stream(2) and not answer.error
        assert [number for number, _sent, _received in answer.tokens] == [0, 1]
        assert len(answer.events) == 2
        assert answer.header("x-request-id") == "7"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + token(0) + token(1),),
        (HEAD + token(0) + token(1), b"e\r\ndata: [DONE]\n\n\r\n"),
        (HEAD + token(0) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",),
        (HEAD + token(1) + token(0) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",),
        (HEAD + token(0) + token(1) + b"0\r\n\r\n",),
        (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}",),
        (b"",),
    ],
    ids=["cut", "no last chunk", "a token missing", "out of order", "no end of the stream", "refused", "nothing"],
)
def test_anything_less_is_not(pieces: t.Tuple[bytes, ...]) -> None:
    assert not received(*pieces).whole_stream(2)


def serve(answers: t.Sequence[bytes]) -> t.Tuple[Answer, int]:
    """Ask three times over one kept connection; a server answers in turn, and closes on an empty answer."""
    left, asked = list(answers), 0

    async def run() -> Answer:
        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            while True:
                try:
                    await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    break
                asked += 1
                answer = left.pop(0)
                if not answer:
                    break
                writer.write(answer)
            writer.close()

        server = await asyncio.start_server(one, "127.0.0.1", 0)
        caller = Caller(port=server.sockets[0].getsockname()[1], timeout=5)
        answer = Answer()
        async with server:
            for _number in range(len(answers) - answers.count(b"")):
                answer = await caller.get()
            caller.close()
        return answer

    return asyncio.run(run()), asked


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_a_kept_connection_that_is_closed_before_an_answer_is_tried_once_more_and_counted() -> None:
    answer, asked = serve([OK, b"", OK])
    assert (answer.status, answer.race, answer.retried, asked) == (200, True, True, 3)


def test_a_new_connection_that_is_closed_is_lost() -> None:
    answer, asked = serve([b"", OK])
    assert (answer.status, answer.race, asked) == (0, False, 1)


def test_an_answer_that_was_begun_is_never_tried_again() -> None:
    answer, asked = serve([OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{}"])
    assert (answer.race, asked) == (False, 2)
    assert answer.error


def test_a_refusal_counts_only_in_full() -> None:
    body = json.dumps({"error": {"code": "model_unavailable"}}).encode()
    head = b"HTTP/1.1 503 X\r\nRetry-After: 2\r\nX-Request-Id: 7"
    assert faults.refused([Answer(503, head, body)])
    assert not faults.refused([Answer(503, head, body), Answer(503, head.replace(b"Retry-After: 2", b"A: b"), body)])
    assert not faults.by_fallback([Answer(200, b"HTTP/1.1 200 OK")])
    assert overload.statuses([Answer(503, head), Answer(200)]) == "1 x 200, 1 x 503 (Retry-After 2)"


def test_floors_fail_and_none_at_all_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    floors = report.Floors()
    assert floors.end({}) == 1
    floors.at_most("lost", 0, 0)
    assert floors.end({}) == 0
    floors.at_most("lost", 1, 0)
    floors.at_least("made", float("nan"), 1)
    assert floors.end({}) == 1
    assert floors.failed[0]["found"] == 1 and len(floors.failed) == 2
    assert "FAILED" in capsys.readouterr().out


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [report.percentile(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [50, 99, 100, 100]
    assert report.percentile([3.0], 0.5) == 3.0
    assert report.percentile([], 0.5) != report.percentile([], 0.5)


def rendered() -> t.Dict[str, str]:
    model = {"name": "mock", "slot": "a", "engine": "vllm", "port": 8443, "authorization_include": ""}
    return rendering.files({"models": [model]}, rendering.UNREACHED)


def test_every_rule_whose_cost_is_measured_is_found_in_what_the_role_places() -> None:
    full = rendered()
    for rule in (
        *proxy_rules.REQUEST_RULES,
        proxy_rules.RESUMPTION,
        proxy_rules.REVOCATION,
        proxy_rules.CLIENT_CERTIFICATE,
    ):
        changed = [name for name, content in rendering.without(full, rule).items() if content != full[name]]
        assert changed, rule.name
    with pytest.raises(LookupError, match="no such rule"):
        rendering.without(full, rendering.Rule("no such rule", (("nginx.conf", "nowhere to be found", ""),)))


def test_the_table_says_of_every_fault_which_trial_does_it() -> None:
    elsewhere = [case for case in proxy_check.load() if case["group"] == "elsewhere"]
    assert {case["name"] for case in elsewhere if case["trial"] == "faults"} == set(faults.FAULTS)
    assert {case["trial"] for case in elsewhere} == {"faults", "zero_loss", "overload"}


@pytest.mark.parametrize("only", ["models", "dead"])
def test_what_was_not_run_is_not_held(
    only: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"URL": "https://127.0.0.1:1", "API_KEY": "x", "CA": "/nowhere"}.items():
        monkeypatch.setenv("GPUFLEET_" + name, value)
    monkeypatch.setattr("sys.argv", ["proxy_check.py", "--only", only])
    assert proxy_check.main() == 1
    assert "0 held" in capsys.readouterr().out
