# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cases of the proxy that are about time: streams, limits, slow callers, an engine that fails meanwhile."""

from __future__ import annotations

import concurrent.futures
import socket
import ssl
import time
import typing as t

from proxy_client import Answer, Endpoint, exchange


def ask(endpoint: Endpoint, prompt: str, headers: t.Sequence[str] = (), **more: t.Any) -> Answer:
    """Ask for a completion; the prompt tells tests/servers/mock_engine.py what to do."""
    asked = {"model": "{model}", "prompt": prompt, "max_tokens": 4, **more}
    case = {"method": "POST", "path": "/v1/completions", "json": asked, "headers": headers}
    answer = endpoint.send(case)
    for _attempt in range(20):
        if answer.code != "rate_limit_exceeded" or prompt == "status 429":
            break
        time.sleep(float(answer.headers["retry-after"]))
        answer = endpoint.send(case)
    return answer


def stream(endpoint: Endpoint, tokens: int = 25) -> str:
    """A stream comes token by token, the first one early."""
    answer = ask(endpoint, "Once upon a time", max_tokens=tokens, stream=True, ignore_eos=True)
    times = [when for when, data in answer.arrivals if b"data: {" in data]
    if answer.status != 200 or b"[DONE]" not in answer.body:
        return "status %d, ends with %r" % (answer.status, answer.body[-60:])
    if len(times) < tokens // 2:
        return "%d tokens came in %d pieces" % (tokens, len(times))
    if times[0] > 0.5 * times[-1]:
        return "first token after %.3f s, last after %.3f s" % (times[0], times[-1])
    return ""


def comments(endpoint: Endpoint) -> str:
    """Comments that keep a silent stream alive come when the engine sends them."""
    endpoint.variable("GPUFLEET_MOCK")
    answer = ask(endpoint, "comments", stream=True)
    alive = [when for when, data in answer.arrivals if b": keep-alive" in data]
    data = [when for when, data in answer.arrivals if b"data: {" in data]
    if answer.status != 200 or len(alive) < 3 or not data:
        return "status %d, %d comments, %d events" % (answer.status, len(alive), len(data))
    return "" if alive[0] < 0.5 * data[0] else "first comment after %.3f s, data after %.3f s" % (alive[0], data[0])


def guessing(endpoint: Endpoint) -> str:
    """Guessing keys is limited, and a good client of the same address isn't."""
    wrong = {"path": "/v1/models", "key": "wrong"}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(endpoint.send, [wrong] * 60))
    statuses = [answer.status for answer in answers]
    limited = [answer for answer in answers if answer.status == 429]
    if set(statuses) - {401, 429} or not limited:
        return "60 guesses got %s" % {status: statuses.count(status) for status in set(statuses)}
    if limited[0].code != "rate_limit_exceeded" or limited[0].headers.get("retry-after") != "1":
        return "429 without its code or Retry-After: %s %r" % (limited[0].code, limited[0].headers.get("retry-after"))
    good = [endpoint.send({"path": "/v1/models"}).status for _number in range(5)]
    return "" if good == [200] * 5 else "the good client got %s meanwhile" % good


def guessing_tokens(endpoint: Endpoint) -> str:
    """Guessing tokens is limited too, and a caller with a good token isn't."""
    wrong = {"path": "/v1/models", "authorization": "Bearer " + endpoint.token({"sign": "foreign"})}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(endpoint.send, [wrong] * 60))
    statuses = [answer.status for answer in answers]
    if set(statuses) - {401, 429} or 429 not in statuses or 401 not in statuses:
        return "60 guesses got %s" % {status: statuses.count(status) for status in set(statuses)}
    good = [endpoint.send({"path": "/v1/models", "token": {}}).status for _number in range(5)]
    return "" if good == [200] * 5 else "the good token got %s meanwhile" % good


def keep_alive(endpoint: Endpoint) -> str:
    """A connection carries several requests, each judged on its own."""
    with endpoint.connect() as connection:
        kinds = ("own", "wrong", "own")
        case = {"path": "/v1/models", "connection": "keep-alive"}
        got = [exchange(connection, endpoint.request(dict(case, key=kind))).status for kind in kinds]
    return "" if got in ([200, 401, 200], [200, 429, 200]) else "got %s" % got


def no_resumption(endpoint: Endpoint) -> str:
    """No session is resumed: a resumed one would outlive the revocation of its certificate."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=endpoint.variable("GPUFLEET_CA"))
        context.maximum_version = context.minimum_version = version
        context.load_cert_chain(*(endpoint.pair("own") or ("", "")))
        session = None
        for _attempt in range(2):
            with socket.create_connection((endpoint.host, endpoint.port), 10) as raw:
                with context.wrap_socket(raw, server_hostname=endpoint.host, session=session) as tls:
                    exchange(tls, endpoint.request({"path": "/v1/models"}))
                    if tls.session_reused:
                        return "a session of %s was resumed" % version.name
                    session = tls.session
    return ""


def fallback_metric(endpoint: Endpoint) -> str:
    """What the fallback answered is counted apart, by client and model."""
    endpoint.variable("GPUFLEET_FALLBACK")
    case = {"listener": "admin", "certificate": "admin", "key": "none", "path": "/metrics"}

    def counted() -> float:
        lines = endpoint.send(case).body.decode().splitlines()
        wanted = [line for line in lines if 'fallback="true"' in line and 'status="200"' in line]
        return sum(float(line.split(" ")[1]) for line in wanted if line.startswith("llm_proxy_requests_total"))

    before = counted()
    ask(endpoint, "status 503 of mock-a")
    ask(endpoint, "Hello")
    time.sleep(0.2)
    return "" if counted() == before + 1 else "it went from %s to %s" % (before, counted())


def fallback_answers(endpoint: Endpoint) -> str:
    """A refusal of the engine goes to the fallback, marked; never where the caller forbids it."""
    endpoint.variable("GPUFLEET_FALLBACK")
    marked = ask(endpoint, "status 503 of mock-a")
    if (marked.status, marked.headers.get("x-fallback")) != (200, "true"):
        return "got %d, X-Fallback %r" % (marked.status, marked.headers.get("x-fallback"))
    for values in (["no"], ["No"], ["false"], ["0"], ["never"], ["no "], ["yes", "no"], ["no", "yes"], ["yes, no"]):
        refused = ask(endpoint, "status 503 of mock-a", ["X-Allow-Fallback: " + value for value in values])
        if refused.status != 503 or "x-fallback" in refused.headers or refused.code != "model_unavailable":
            return "with %r: %d %s, X-Fallback %r" % (
                values,
                refused.status,
                refused.code,
                refused.headers.get("x-fallback"),
            )
    usual = ask(endpoint, "Hello")
    return "" if usual.status == 200 and "x-fallback" not in usual.headers else "the engine's own answer is marked"


def never_twice(endpoint: Endpoint) -> str:
    """A completion that the engine took on and lost is not asked for again."""
    endpoint.variable("GPUFLEET_MOCK")
    began = time.monotonic()
    answer = ask(endpoint, "die")
    if answer.status != 503 or "x-fallback" in answer.headers or time.monotonic() - began > 3:
        return "got %d after %.1f s, X-Fallback %r" % (
            answer.status,
            time.monotonic() - began,
            answer.headers.get("x-fallback"),
        )
    cut = ask(endpoint, "die later", stream=True, max_tokens=8)
    if cut.status != 200 or cut.body.endswith(b"0\r\n\r\n"):
        return "a stream whose engine died ended as if it was whole: %r" % cut.body[-80:]
    return ""


def engine_errors(endpoint: Endpoint) -> str:
    """What the engine says about a request passes; what it says about itself or to the proxy doesn't."""
    endpoint.variable("GPUFLEET_MOCK")
    own = ["X-Allow-Fallback: no"]
    for status, wanted in ((400, 400), (404, 404), (422, 422), (401, 503), (403, 503), (500, 500), (502, 503)):
        got = ask(endpoint, "status %d" % status, own)
        if got.status != wanted:
            return "%d of the engine came as %d" % (status, got.status)
        if "secret of the engine" in got.body.decode("latin-1") and wanted >= 500:
            return "what the engine said of itself came through: %r" % got.body[:100]
    redirect = ask(endpoint, "status 302", own)
    if redirect.status != 500 or "location" in redirect.headers:
        return "a redirection of the engine came as %d" % redirect.status
    limited = ask(endpoint, "status 429", own)
    if limited.status != 429 or not limited.headers.get("retry-after"):
        return "429 of the engine came as %d, Retry-After %r" % (limited.status, limited.headers.get("retry-after"))
    return ""


def concurrency(endpoint: Endpoint) -> str:
    """A client has its share of requests at once; what is above is told to come later."""
    endpoint.variable("GPUFLEET_MOCK")
    endpoint.variable("GPUFLEET_OTHER_CERT")
    asked = {"model": "{model}", "prompt": "Once", "max_tokens": 40, "stream": True}
    case = {
        "method": "POST",
        "path": "/v1/completions",
        "json": asked,
        "certificate": "other",
        "key": "other",
    }
    time.sleep(2)
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(endpoint.send, [case] * 5))
    statuses = sorted(answer.status for answer in answers)
    limited = [answer for answer in answers if answer.status == 429]
    if statuses != [200, 200, 429, 429, 429]:
        return "5 streams at once of a client with 2 got %s" % statuses
    waits = {answer.headers.get("retry-after") for answer in limited}
    return "" if waits == {"5"} else "Retry-After is %s" % waits


def slow_body(endpoint: Endpoint) -> str:
    """A body that never ends costs the engine nothing, and is ended after 10 s."""
    request = endpoint.request({"method": "POST", "path": "/v1/completions", "body_bytes": 1000})
    with endpoint.connect() as connection:
        began = time.monotonic()
        connection.sendall(request)
        connection.settimeout(20)
        try:
            while connection.recv(65536):
                pass
        except OSError as exc:
            if isinstance(exc, TimeoutError):
                return "it was still open after 20 s"
        waited = time.monotonic() - began
    return "" if 8 < waited < 14 else "it was ended after %.1f s" % waited


TIMED: t.Dict[str, t.Callable[[Endpoint], str]] = {
    "stream comes token by token": stream,
    "comments of a silent stream": comments,
    "keep-alive connection": keep_alive,
    "no session is resumed": no_resumption,
    "errors of the engine": engine_errors,
    "fallback answers, marked": fallback_answers,
    "metric of the fallback": fallback_metric,
    "nothing runs twice": never_twice,
    "requests at once": concurrency,
    "body that never ends": slow_body,
    "guessing keys": guessing,
    "guessing tokens": guessing_tokens,
}
