# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The relay that adds certificate and key, the load generator's run and its failures, and the report."""

from __future__ import annotations

import html.parser
import http.client
import json
import stat
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _throughput_bench as benching
from ansible_collections.gpufleet.llm.plugins.module_utils import _throughput_relay as relaying
from ansible_collections.gpufleet.llm.plugins.module_utils import _throughput_report as reporting

PAIRS = [(b"stand-in", b"key"), (b"Host: here", b"Host: there")]


@pytest.mark.parametrize(
    ("data", "sent", "kept"),
    [
        (b"Bearer stand-in\r\n", b"Bearer key\r\n", b""),
        (b"Host: here\r\nBearer stand-in", b"Host: there\r\nBearer key", b""),
        (b"Bearer stan", b"Bearer ", b"stan"),
        (b"x" * 10 + b"Host: h", b"x" * 10, b"Host: h"),
        (b"nothing", b"nothing", b""),
        (b"", b"", b""),
    ],
)
def test_what_is_replaced_may_come_in_pieces(data: bytes, sent: bytes, kept: bytes) -> None:
    assert relaying.replaced(data, PAIRS) == (sent, kept)


def test_the_relay_speaks_as_the_client(start: t.Any, pki: t.Any) -> None:
    endpoint, _behaviour = start()
    with relaying.Relay(endpoint, pki.ca, pki.client) as relay:
        host, port = relay.url.rsplit("/", 1)[-1].split(":")
        for key, status in ((relay.stand_in, 200), ("sk-other", 401)):
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request("GET", "/v1/models", headers={"Authorization": "Bearer " + key})
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == status, text
            connection.close()
    assert relay.errors == [] and relay.connections == 2


def test_a_session_ticket_that_comes_first_keeps_no_request_waiting(start: t.Any, pki: t.Any) -> None:
    """The server's tickets make the connection readable before the client has said anything."""
    endpoint, _behaviour = start()
    with relaying.Relay(endpoint, pki.ca, pki.client) as relay:
        connection = http.client.HTTPConnection("127.0.0.1", int(relay.url.rsplit(":", 1)[-1]), timeout=5)
        connection.connect()
        time.sleep(0.5)
        for _again in range(2):
            connection.request("GET", "/v1/models", headers={"Authorization": "Bearer " + relay.stand_in})
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
        connection.close()


def test_a_proxy_that_is_down_is_said(start: t.Any, pki: t.Any) -> None:
    endpoint, _behaviour = start()
    with relaying.Relay(endpoint._replace(port=1), pki.ca, pki.client, 0.5) as relay:
        connection = http.client.HTTPConnection("127.0.0.1", int(relay.url.rsplit(":", 1)[-1]), timeout=10)
        connection.request("GET", "/")
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse()
    assert "refused" in relay.errors[0].lower()


LOAD = benching.Load("smollm2", "/models/x", 2, 4, 64, 16, 5.0)
RESULT = {
    "completed": 4,
    "failed": 0,
    "duration": 2.0,
    "request_throughput": 2.0,
    "output_throughput": 32.0,
    "total_token_throughput": 160.0,
    **{"%s_%s_ms" % (one, two): 10.123 for one in benching.STATISTICS for two in benching.LATENCIES},
}


def generator(place: Path, body: str) -> str:
    """Return a stand-in for the engine's Python that has the load generator's arguments as $*."""
    path = place / "python3"
    path.write_text('#!/bin/sh\nfor last; do :; done\nwhile [ "$1" != --result-dir ]; do shift; done\n%s\n' % body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_result_is_read_and_no_secret_is_in_arguments_or_environment(tmp_path: Path) -> None:
    script = "env > %s; echo '%s' > $2/result.json" % (tmp_path / "env", json.dumps(RESULT))
    result = benching.run(generator(tmp_path, script), LOAD, "http://127.0.0.1:1", "sk-stand-in")
    level = benching.level_of(LOAD, result)
    assert (level["completed"], level["failed"], level["output_tokens_per_second"]) == (4, 0, 32.0)
    assert level["ttft_ms"] == {"mean": 10.12, "p50": 10.12, "p90": 10.12, "p99": 10.12}
    environment = (tmp_path / "env").read_text()
    assert "OPENAI_API_KEY=sk-stand-in" in environment and "PYTEST" not in environment
    assert "sk-stand-in" not in " ".join(benching.arguments("python3", LOAD, "http://x", "/d", 1))


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo 'ModuleNotFoundError: vllm'; exit 1", "exit status 1, no result: ModuleNotFoundError"),
        ("echo '{' > $2/result.json", "no result"),
        ("echo '[]' > $2/result.json", "the result is no mapping"),
        ("sleep 60 & sleep 60", "no end in 0.3 s"),
        ("echo key sk-stand-in; exit 2", r"key \(a stand-in\)"),
    ],
)
def test_a_generator_that_gives_nothing_is_an_error_and_is_gone(tmp_path: Path, script: str, text: str) -> None:
    began = time.monotonic()
    load = LOAD._replace(max_seconds=0.3 if "sleep" in script else 20.0)
    with pytest.raises(benching.BenchError, match=text):
        benching.run(generator(tmp_path, script), load, "http://127.0.0.1:1", "sk-stand-in")
    assert time.monotonic() - began < 10


def test_an_engine_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(benching.BenchError, match="No such file"):
        benching.run(str(tmp_path / "none"), LOAD, "http://127.0.0.1:1", "x")


def test_failed_requests_say_why_once() -> None:
    result = dict(RESULT, completed=1, failed=3, errors=["Too Many\nRequests", "Too Many\nRequests", "", None])
    assert benching.errors_of(result) == "Too Many Requests"
    assert benching.level_of(LOAD, {"completed": 1})["failed"] == 3
    assert benching.level_of(LOAD, {})["ttft_ms"]["p50"] is None


@pytest.mark.parametrize(
    ("watts", "mean", "reason"),
    [
        ([300.0, 310.0], 610.0, "mean of NVML"),
        ([], None, "no GPU"),
        ([300.0, None], None, "doesn't say"),
    ],
)
def test_power_is_measured_or_null_with_the_reason(
    watts: t.List[t.Optional[float]], mean: t.Optional[float], reason: str
) -> None:
    with benching.PowerMeter(lambda: watts, 0.01) as meter:
        time.sleep(0.05)
    record = meter.record()
    assert record["watts"] == mean and reason in record["reason"]


def level(concurrency: int, speed: float, watts: t.Optional[float]) -> t.Dict[str, t.Any]:
    made = benching.level_of(LOAD._replace(concurrency=concurrency), dict(RESULT, output_throughput=speed))
    return dict(made, power={"watts": watts, "samples": 1, "reason": "mean of NVML's readings"})


def test_a_million_tokens_cost_power_time_and_price() -> None:
    prices = reporting.Prices("EUR", per_kwh=0.25, host_per_hour=3.6, power_usage_effectiveness=1.2)
    cost = reporting.cost_of(level(8, 1000.0, 500.0), prices)
    hours = 1000000 / 1000.0 / 3600
    assert cost["energy"] == pytest.approx(0.5 * 1.2 * hours * 0.25)
    assert cost["host"] == pytest.approx(hours * 3.6)
    assert cost["total"] == pytest.approx(cost["energy"] + cost["host"])
    assert cost["total_all_tokens"] == pytest.approx(cost["total"] * 1000.0 / 160.0)
    assert cost["reasons"] == [] and cost["watts_source"] == "mean of NVML's readings"
    assert reporting.cost_of(level(8, 1000.0, 500.0), prices._replace(watts=1000.0))["energy"] == cost["energy"] * 2


@pytest.mark.parametrize(
    ("prices", "watts", "speed", "reasons"),
    [
        (reporting.Prices(), 500.0, 10.0, ["no price of a kWh", "no price of an hour"]),
        (reporting.Prices(per_kwh=0.2), None, 10.0, ["no power is known", "no price of an hour"]),
        (reporting.Prices(per_kwh=0.2, host_per_hour=1.0), 500.0, 0.0, ["no token came"]),
    ],
)
def test_what_is_not_known_has_no_price(
    prices: reporting.Prices, watts: t.Optional[float], speed: float, reasons: t.List[str]
) -> None:
    cost = reporting.cost_of(level(1, speed, watts), prices)
    assert cost["energy"] is cost["host"] is cost["total"] is cost["total_all_tokens"] is None
    assert [one for one, said in zip(reasons, cost["reasons"]) if one in said] == reasons


class Counter(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: t.List[str] = []
        self.outside: t.List[str] = []

    def handle_starttag(self, tag: str, attrs: t.List[t.Tuple[str, t.Optional[str]]]) -> None:
        self.tags.append(tag)
        self.outside += [str(value) for name, value in attrs if name in ("src", "href")]


def test_the_page_holds_all_of_it_and_nothing_from_elsewhere() -> None:
    levels = [level(8, 900.0, None), level(1, 200.0, None), level(2, 0.0, None)]
    report = reporting.report_of({"host": "llm1", "model": "<b>x</b>"}, levels, reporting.Prices(host_per_hour=1.0))
    assert [one["concurrency"] for one in report["levels"]] == [1, 2, 8]
    text = reporting.page(report)
    counted = Counter()
    counted.feed(text)
    assert counted.tags.count("svg") == 3 and counted.tags.count("circle") == 18
    assert counted.outside == [] and "<b>x" not in text and "http" not in text
    assert "No number: energy: no power is known" in text
    best = reporting.best(report)
    assert (best["concurrency"], best["output_tokens_per_second"]) == (8, 900.0)
    assert "no number: energy" in "\n".join(reporting.lines(report))
    json.dumps(report)


def test_a_sweep_of_nothing_is_still_a_page() -> None:
    nothing = dict(benching.level_of(LOAD, {}), power=None)
    report = reporting.report_of({}, [nothing], reporting.Prices())
    assert "Nothing was measured" in reporting.page(report)
    assert reporting.best(report)["output_tokens_per_second"] is None


@pytest.mark.parametrize(
    ("value", "ceiling"), [(0, 1), (0.3, 0.5), (1, 1), (1.2, 2), (23, 25), (260, 500), (999, 1000)]
)
def test_axes_end_at_round_numbers(value: float, ceiling: float) -> None:
    assert reporting.nice_ceiling(value) == pytest.approx(ceiling)
