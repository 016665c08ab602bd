# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""context_probe against a small engine behind mutual TLS that has a cache of so many tokens, and misbehaves."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _context_load as loading
from ansible_collections.gpufleet.llm.plugins.module_utils import _context_probe as probing
from ansible_collections.gpufleet.llm.plugins.module_utils import _context_search as searching

KEY = "sk-" + "7e57" * 12


class Engine:
    """A cache of tokens that requests share, and what is spoilt about it."""

    def __init__(self, cache: int = 3000, longest: int = 2048) -> None:
        self.cache = cache
        self.longest = longest
        self.free = cache
        self.turn = threading.Condition()
        self.spoil = ""
        self.limited = 0  # answers of 429 before it serves
        self.calls = 0
        self.dies_above = 10**9
        self.dead = False
        self.ready: t.Dict[int, int] = {}  # requests of that size that had all tokens but the last, so far

    def take(self, tokens: int) -> bool:
        """Wait for room; False: there will never be any."""
        with self.turn:
            if tokens > self.cache:
                return False
            self.turn.wait_for(lambda: self.free >= tokens, 10)
            self.free -= tokens
            return True

    def give(self, tokens: int) -> None:
        with self.turn:
            self.free += tokens
            self.turn.notify_all()

    def last_step(self, tokens: int, together: int) -> None:
        """Wait for the requests that have room beside this one: an engine gives all of them a token in one step."""
        room = max(1, min(together, self.cache // tokens))
        with self.turn:
            mine = self.ready[tokens] = self.ready.get(tokens, 0) + 1
            self.turn.notify_all()
            load, place = divmod(mine - 1, together)
            wanted = load * together + min(together, (place // room + 1) * room)
            self.turn.wait_for(lambda: self.ready[tokens] >= wanted, 2)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def log_message(self, *_args: t.Any) -> None:
        pass

    def reply(self, status: int, content: t.Any, **headers: str) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        known = {} if self.engine.spoil == "no length" else {"max_model_len": self.engine.longest}
        self.reply(200, {"data": [dict(known, id="smollm2")]})

    def do_POST(self) -> None:
        engine = self.engine
        with engine.turn:
            engine.calls += 1
            call = engine.calls
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, answer = len(asked["prompt"]), asked["max_tokens"]
        if self.headers["Authorization"] != "Bearer " + KEY:
            return self.reply(401, {"error": "no key %s" % self.headers["Authorization"]})
        if engine.limited or engine.spoil == "limits":
            engine.limited = max(0, engine.limited - 1)
            return self.reply(429, {"error": "slow down"}, Retry_After="1")
        if engine.dead or prompt + answer > engine.dies_above:
            engine.dead = True
            return self.reply(500, {"error": {"message": "EngineDeadError"}})
        if prompt + answer > engine.longest and engine.spoil != "truncates":
            return self.reply(400, {"error": {"message": "This model's maximum context length is %d" % engine.longest}})
        if prompt > 1 and engine.spoil == "500":
            return self.reply(500, {"error": "out of memory"})
        if prompt > 1 and engine.spoil == "hangs":
            time.sleep(1.5)
        need = prompt + answer
        if not engine.take(need):
            return self.reply(400, {"error": "prompt is too long"})
        try:
            self.stream(prompt, answer, call)
        finally:
            engine.give(need)
        return None

    def stream(self, prompt: int, answer: int, call: int) -> None:
        engine = self.engine
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        read = min(prompt, 700) if engine.spoil == "truncates" else prompt
        written = answer // 2 if engine.spoil == "ends early" and prompt > 1 else answer
        for number in range(written):
            time.sleep(0.01)
            if engine.spoil == "takes away" and number == 2 and call == 4:
                time.sleep(1.5)
            if number == written - 1 and prompt > 1 and engine.spoil != "takes away":
                engine.last_step(prompt + answer, 3)
            self.event({"choices": [{"text": "w", "finish_reason": None}]})
            if engine.spoil == "cuts" and prompt > 1 and number == 2:
                self.wfile.write(b"0\r\n\r\n")
                return
        usage: t.Any = {"prompt_tokens": read, "completion_tokens": written}
        if engine.spoil == "no usage" and prompt > 1:
            usage = None
        if engine.spoil == "lies" and prompt > 1:
            usage = {"prompt_tokens": prompt + 9, "completion_tokens": answer}
        if engine.spoil == "error event" and prompt > 1:
            self.event({"error": {"message": "EngineDeadError"}})
        self.event({"choices": [], "usage": usage})
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, content: t.Any) -> None:
        self.chunk(b"data: %s\n\n" % json.dumps(content).encode())

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, context: ssl.SSLContext, engine: Engine) -> None:
        super().__init__(("127.0.0.1", 0), type("Bound", (Handler,), {"engine": engine}))
        self.context = context

    def finish_request(self, request: t.Any, client_address: t.Any) -> None:
        """Shake hands in the request's own thread."""
        with self.context.wrap_socket(request, server_side=True) as tls:
            super().finish_request(tls, client_address)

    def handle_error(self, *_args: t.Any) -> None:
        """A client that went away is no news."""


@pytest.fixture
def serve(pki: t.Any) -> t.Iterator[t.Callable[[Engine], t.Dict[str, t.Any]]]:
    """A function that serves an engine and returns the arguments to probe it with."""
    servers: t.List[Server] = []

    def start(engine: Engine) -> t.Dict[str, t.Any]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.server)
        server = Server(context, engine)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        params = {name: spec.get("default") for name, spec in probing.ARGUMENT_SPEC.items()}
        params.update(
            model="smollm2",
            address="127.0.0.1",
            port=server.server_address[1],
            server_name="llm1",
            ca=pki.ca,
            client_certificate=pki.client.certificate,
            client_key=pki.client.key,
            client_api_key=KEY,
            concurrency=3,
            request_timeout_seconds=20.0,
        )
        return params

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def measured(params: t.Dict[str, t.Any], **changes: t.Any) -> t.Tuple[t.Dict[str, t.Any], t.List[str]]:
    said: t.List[str] = []
    return probing.probe(dict(params, **changes), said.append), said


def failed(result: t.Dict[str, t.Any]) -> t.List[str]:
    return [found["check"].rsplit(".", 1)[-1] for found in result["findings"] if not found["ok"]]


def test_a_plan_that_holds_costs_two_loads(serve: t.Any) -> None:
    result, said = measured(serve(Engine()), planned_tokens=992)
    made = result["measurement"]
    assert (made["served_tokens"], made["not_served_tokens"], made["complete"]) == (992, 1008, True)
    assert [level["reason"] for level in made["levels"]] == ["served", "queued"]
    assert made["levels"][1]["at_once"] == 2
    assert made["requests"] == 7 and len(said) == 2 and failed(result) == []


def test_without_a_plan_it_is_found_by_halving(serve: t.Any) -> None:
    result, _said = measured(serve(Engine()))
    made = result["measurement"]
    assert 1000 - 16 <= made["served_tokens"] <= 1000 < made["not_served_tokens"] <= 1016
    assert failed(result) == []


def test_the_longest_request_is_served_and_no_longer_one_is_asked_for(serve: t.Any) -> None:
    made = measured(serve(Engine(cache=9000)), planned_tokens=5000)[0]["measurement"]
    assert (made["served_tokens"], made["not_served_tokens"], len(made["levels"])) == (2048, None, 1)


def test_a_plan_that_promises_too_much_fails_and_says_both_numbers(serve: t.Any) -> None:
    result, _said = measured(serve(Engine()), planned_tokens=1200, engine_tokens=900)
    assert failed(result) == ["planned_tokens"]
    finding = next(found for found in result["findings"] if not found["ok"])
    assert finding["expected"] == 1200 and 984 <= finding["found"] <= 1000
    assert "ran at once, the others waited" in finding["detail"]


def test_a_plan_that_promises_too_little_is_a_warning(serve: t.Any) -> None:
    result, _said = measured(serve(Engine()), planned_tokens=500)
    assert failed(result) == ["plan_is_low"]
    assert {found["severity"] for found in result["findings"] if not found["ok"]} == {"warning"}


def test_requests_whose_cache_is_taken_away_are_not_served(serve: t.Any) -> None:
    engine = Engine(cache=10**6)
    engine.spoil = "takes away"
    made = measured(serve(engine), planned_tokens=1000, max_requests=24)[0]["measurement"]
    assert made["levels"][0]["reason"] == "stalled" and not made["levels"][0]["served"]


@pytest.mark.parametrize(
    ("spoil", "reason", "text"),
    [
        ("truncates", "truncated", "tokens of a prompt of"),
        ("ends early", "truncated", "tokens of an answer of"),
        ("lies", "usage", "usage says"),
        ("no usage", "usage", "says no usage"),
        ("500", "failed", "status 500"),
        ("cuts", "cut", "without [DONE]"),
        ("error event", "failed", "carries an error"),
    ],
)
def test_answers_that_are_not_whole_are_not_served(serve: t.Any, spoil: str, reason: str, text: str) -> None:
    engine = Engine(cache=10**6)
    engine.spoil = spoil
    result, _said = measured(serve(engine), planned_tokens=1000, max_requests=10)
    level = result["measurement"]["levels"][0]
    assert (level["served"], level["reason"]) == (False, reason)
    assert text in level["detail"]
    assert "planned_tokens" in failed(result)


def test_a_prompt_that_is_cut_counts_as_far_as_it_was_read(serve: t.Any) -> None:
    engine = Engine(cache=10**6)
    engine.spoil = "truncates"
    made = measured(serve(engine), longest_request_tokens=1400)[0]["measurement"]
    assert 700 < made["served_tokens"] < 760  # 700 of the prompt, and the answer


def test_a_server_that_hangs_is_given_up_in_time(serve: t.Any) -> None:
    engine = Engine()
    engine.spoil = "hangs"
    began = time.monotonic()
    result, _said = measured(serve(engine), planned_tokens=900, request_timeout_seconds=0.5, max_requests=8)
    assert time.monotonic() - began < 10
    assert result["measurement"]["levels"][0]["reason"] == "timeout"
    assert "measured" in failed(result)


def test_an_engine_that_dies_under_load_stops_it_and_says_at_what(serve: t.Any) -> None:
    engine = Engine(cache=10**6)
    engine.dies_above = 1500
    with pytest.raises(probing.ProbeError, match=r"2048 tokens: .*EngineDeadError.*not even one token") as caught:
        measured(serve(engine))
    assert [level["reason"] for level in caught.value.levels] == ["failed"]
    assert "memory plan" in str(caught.value)


def test_a_limit_is_waited_for(serve: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching.Search.__init__, "__defaults__", (lambda _seconds: None,))
    engine = Engine()
    params = serve(engine)
    search_load = loading.Loader.load
    engine.limited = 0

    def limited_once(self: loading.Loader, tokens: int, concurrency: int) -> loading.Level:
        if engine.calls == 1:
            engine.limited = 2
        return search_load(self, tokens, concurrency)

    monkeypatch.setattr(loading.Loader, "load", limited_once)
    result, said = measured(params, planned_tokens=992)
    assert result["measurement"]["served_tokens"] == 992
    assert "a limit answered" in said[0]


def test_a_limit_that_stays_is_an_error_that_names_it(serve: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching.Search.__init__, "__defaults__", (lambda _seconds: None,))
    engine = Engine()
    engine.spoil = "limits"
    with pytest.raises(probing.ProbeError, match=r"429.*llm_proxy_client_concurrent_requests"):
        measured(serve(engine))


def test_an_endpoint_that_is_down_is_an_error_without_a_load(serve: t.Any) -> None:
    params = serve(Engine())
    with pytest.raises(probing.ProbeError, match=r"connect.*systemctl status llm-proxy"):
        measured(params, port=1, connect_timeout_seconds=0.3)


def test_an_engine_that_is_dead_before_any_load_is_to_be_started(serve: t.Any) -> None:
    engine = Engine()
    engine.dead = True
    with pytest.raises(probing.ProbeError, match=r"one token: .*EngineDeadError.*systemctl status") as caught:
        measured(serve(engine))
    assert caught.value.levels == [] and engine.calls == 1


def test_a_refusal_says_why_and_holds_no_key(serve: t.Any) -> None:
    wrong = "sk-" + "0bad" * 12
    with pytest.raises(probing.ProbeError, match="status 401") as caught:
        measured(serve(Engine()), client_api_key=wrong)
    assert wrong not in str(caught.value)


def test_requests_are_bounded_and_what_is_known_is_said(serve: t.Any) -> None:
    engine = Engine()
    result, _said = measured(serve(engine), max_requests=11)
    made = result["measurement"]
    assert engine.calls <= 11 and made["requests"] <= 11
    assert not made["complete"] and "measured" in failed(result)
    assert made["served_tokens"] <= 1000 < made["not_served_tokens"]


def test_time_is_bounded(serve: t.Any) -> None:
    made = measured(serve(Engine()), max_seconds=0.01)[0]["measurement"]
    assert not made["complete"] and len(made["levels"]) <= 1


def test_it_begins_where_it_ended_before(serve: t.Any) -> None:
    made = measured(serve(Engine()), previous_tokens=990)[0]["measurement"]
    assert made["served_tokens"] == 990 and len(made["levels"]) == 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"concurrency": 0}, "concurrency: found 0"),
        ({"max_requests": 2}, "max_requests: found 2, expected 4"),
        ({"first_token_id": 9, "last_token_id": 9}, "first_token_id"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(serve: t.Any, changes: t.Dict[str, t.Any], text: str) -> None:
    with pytest.raises(probing.ProbeError, match=text):
        measured(serve(Engine()), **changes)


def test_an_engine_that_does_not_say_its_length_is_asked_about(serve: t.Any) -> None:
    engine = Engine()
    engine.spoil = "no length"
    with pytest.raises(probing.ProbeError, match="give longest_request_tokens"):
        measured(serve(engine))


def stream(begin: float, step: float, count: int, late: float = 0.0, after: int = 0) -> loading.One:
    """Return a request whose tokens come every ``step`` seconds, from number ``after`` on ``late`` seconds later."""
    arrivals = tuple(begin + step * number + (late if number >= after else 0.0) for number in range(count))
    return loading.One("ok", "", arrivals, arrivals[-1] + 0.001)


@pytest.mark.parametrize(
    ("other", "reason", "at_once"),
    [
        (stream(1.2, 0.1, 20), "served", 2),
        (stream(3.2, 0.1, 20), "queued", 1),
        (stream(1.2, 0.1, 20, late=2.5, after=8), "stalled", 1),
        # All it had comes at once when this side runs again.
        (loading.One("ok", "", (1.2, 1.3) + (2.95,) * 18, 2.96), "served", 2),
    ],
)
def test_when_tokens_arrive_says_what_ran_together(other: loading.One, reason: str, at_once: int) -> None:
    level = loading.judge(1000, [stream(1.0, 0.1, 20), other], 5.0)
    assert (level.reason, level.at_once) == (reason, at_once)


@pytest.mark.parametrize(
    ("tokens", "concurrency", "batch", "expected"),
    [(2048, 1, 2048, 17), (131072, 16, 8192, 272), (40, 1, 2048, 17), (20, 8, 2048, 10), (1, 1, 2048, 1)],
)
def test_answers_are_long_enough_to_overlap(tokens: int, concurrency: int, batch: int, expected: int) -> None:
    assert loading.answer_tokens(tokens, concurrency, batch) == expected
