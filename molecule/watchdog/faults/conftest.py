# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that call all the while, and what the host's journal says about the same time."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import openai
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))

from site_client import Site

UNIT = "vllm@mock-a.service"
PAUSE_SECONDS = 0.1
WAIT_SECONDS = 30.0


@dataclass
class Call:
    """One request: when it began and ended, what came back."""

    began: float
    ended: float = 0.0
    status: int = 0
    fallback: bool = False
    error: str = ""


@dataclass
class Caller:
    """Asks for a token every tenth of a second, each in a thread of its own: one that hangs holds up no other."""

    site: Site
    headers: dict[str, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def __enter__(self) -> Caller:
        self.over = threading.Event()
        self.client = self.site.openai(60)
        self.threads: list[threading.Thread] = []
        self.loop = threading.Thread(target=self._go)
        self.loop.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self.over.set()
        self.loop.join()
        for thread in self.threads:
            thread.join()

    def _go(self) -> None:
        while not self.over.is_set() and len(self.calls) < 1000:
            self.threads.append(threading.Thread(target=self._ask))
            self.threads[-1].start()
            self.over.wait(PAUSE_SECONDS)

    def _ask(self) -> None:
        call = Call(time.time())
        self.calls.append(call)
        try:
            raw = self.client.completions.with_raw_response.create(
                model=self.site.model, prompt="Hello", max_tokens=1, extra_headers=self.headers
            )
            call.status, headers = raw.status_code, raw.headers
            call.fallback = headers.get("x-fallback") == "true"
        except openai.APIStatusError as exc:
            call.status, call.error = exc.status_code, str(exc)[:120]
        except (openai.OpenAIError, httpx2.HTTPError) as exc:
            call.error = repr(exc)
        call.ended = time.time()


class Host:
    """The host's side: engines, files, the watchdog's words."""

    def __init__(self, host) -> None:
        self.host = host
        self.name = host.backend.get_hostname()

    def run(self, command: str, *arguments: str) -> str:
        return self.host.check_output(command, *arguments)

    def invocation(self, unit: str = UNIT) -> str:
        return self.run("systemctl show --property=InvocationID --value %s", unit)

    def status(self) -> dict:
        return json.loads(self.run("cat /run/llm-watchdog/status.json"))["instances"]["mock-a"]

    def said(self, since: float) -> list[tuple[float, str]]:
        """Return (time, line) of what the watchdog and systemd said of the engine and the proxy."""
        text = self.run(
            "journalctl --no-pager -o json -u llm-watchdog -u llm-proxy -u %s --since=@%s", UNIT, "%.3f" % since
        )
        lines = [json.loads(line) for line in text.splitlines()]
        found = [(int(one["__REALTIME_TIMESTAMP"]) / 1e6, str(one["MESSAGE"])) for one in lines]
        return [one for one in found if one[0] >= since]

    def wait_for(self, text: str, since: float, seconds: float = WAIT_SECONDS) -> float:
        """Return when a line of the journal that matches came."""
        until = time.time() + seconds
        while time.time() < until:
            for at, line in self.said(since):
                if re.search(text, line):
                    return at
            time.sleep(0.3)
        pytest.fail("nobody said %r within %d s: %s" % (text, seconds, self.said(since)))

    def wait_until_serving(self, seconds: float = WAIT_SECONDS) -> None:
        until = time.time() + seconds
        while time.time() < until:
            status = self.status()
            if status["serving"] and not status["breaker_open"]:
                return
            time.sleep(0.5)
        pytest.fail("not serving within %d s: %s" % (seconds, self.status()))


@pytest.fixture
def box(host):
    """The host, its engine serving, the whole budget there."""
    one = Host(host)
    state = "/var/lib/gpufleet/watchdog/state.json"
    one.run("sh -c %s", "systemctl stop llm-watchdog; rm -f %s; systemctl start llm-watchdog" % state)
    one.wait_until_serving()
    return one


@pytest.fixture
def site(host):
    variables = host.ansible.get_variables()
    control = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "control"
    return Site(url=f"https://{variables['ansible_host']}:8443", model="mock", pki=control / "pki")


def pytest_collection_modifyitems(config, items):
    """Leave a test marked one_host out on every host but the Debian 12 one: it isn't reported there as passed."""
    left_out = [i for i in items if i.get_closest_marker("one_host") and "watch-bookworm" not in i.callspec.id]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
