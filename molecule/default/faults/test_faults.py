# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on a serving host: killed, stopped in the middle, misled by a bad inventory."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import httpx2
import openai
import pytest

ROOT = Path(__file__).resolve().parents[3]
UNIT = "vllm@smollm2-a.service"
BACK_WITHIN_SECONDS = 300
CACHE_DIR = os.environ.get("GPUFLEET_CACHE_DIR", "/var/cache/gpufleet")


def invocation(host) -> str:
    return host.check_output("systemctl show --property=InvocationID --value %s", UNIT)


def wait_until_served(site) -> float:
    began = time.monotonic()
    while time.monotonic() - began < BACK_WITHIN_SECONDS:
        if site.completes():
            return time.monotonic() - began
        time.sleep(1)
    pytest.fail(f"no token came in {BACK_WITHIN_SECONDS} s")


def play(*more: str) -> subprocess.CompletedProcess[str]:
    """Run the site again over the scenario's own inventory."""
    return subprocess.run(
        ["ansible-playbook", "-i", os.environ["MOLECULE_EPHEMERAL_DIRECTORY"] + "/inventory", "site.yml", *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_a_killed_engine_comes_back_by_itself(host, site):
    assert site.completes()
    before = invocation(host)
    host.check_output("systemctl kill --kill-whom=main --signal=SIGKILL %s", UNIT)
    assert not site.completes()
    seconds = wait_until_served(site)
    print(f"\nmeasured on {host.backend.get_hostname()}: killed engine answered again after {seconds:.1f} s")
    assert invocation(host) != before


@pytest.mark.one_host
def test_a_run_that_meets_an_engine_coming_back_waits_for_it(host, site):
    wait_until_served(site)
    for _death in range(2):
        before = invocation(host)
        host.check_output("systemctl kill --kill-whom=main --signal=SIGKILL %s", UNIT)
        until = time.monotonic() + 60
        while invocation(host) in (before, ""):
            assert time.monotonic() < until, "systemd didn't start it again within 60 s"
            time.sleep(0.5)
    assert int(host.check_output("systemctl show --property=NRestarts --value %s", UNIT)) >= 2
    assert not site.completes()
    run = play("--limit", host.backend.get_hostname())
    assert run.returncode == 0, run.stdout[-3000:]
    assert site.completes()


@pytest.mark.one_host
def test_a_stop_lets_a_running_stream_end_whole(host, site):
    wait_until_served(site)
    heard = {"chunks": 0, "tokens": 0, "finish": None, "error": None}
    first = threading.Event()

    def listen() -> None:
        try:
            stream = site.openai().completions.create(
                model=site.model, prompt="Once upon a time", max_tokens=200, temperature=0, stream=True,
                stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
            )  # fmt: skip
            for chunk in stream:
                heard["chunks"] += 1
                first.set()
                heard["tokens"] = chunk.usage.completion_tokens if chunk.usage else heard["tokens"]
                heard["finish"] = (chunk.choices and chunk.choices[0].finish_reason) or heard["finish"]
        except (openai.OpenAIError, httpx2.HTTPError) as exc:  # whatever cut the stream is what this test is about
            heard["error"] = repr(exc)

    listener = threading.Thread(target=listen)
    listener.start()
    assert first.wait(60)
    seen_at_stop = heard["chunks"]
    began = time.monotonic()
    host.check_output("systemctl stop %s", UNIT)
    stopped = time.monotonic() - began
    listener.join(60)
    host.check_output("systemctl start --no-block %s", UNIT)
    print(f"\nmeasured: stop asked after {seen_at_stop} of 200 chunks, unit down after {stopped:.1f} s, heard {heard}")
    assert heard["error"] is None
    assert heard["finish"] == "length"
    assert seen_at_stop < 100  # most of it was still to come
    assert heard["tokens"] == 200  # a chunk may carry more than one token: the engine's own count decides
    wait_until_served(site)


@pytest.mark.one_host
@pytest.mark.parametrize(
    ("fault", "variables", "said"),
    [
        ("two models on one port", {"port": 8443}, "port"),
        ("a release nobody knows", {"gpufleet_release": "1999.1.0"}, "gpufleet_release"),
        ("an option the engine doesn't know", {"engine_config": {"no_such_option": 1}}, "no-such-option"),
        ("an empty key", {"vllm_api_key": ""}, "vllm_api_key"),
    ],
)
def test_a_refused_run_leaves_the_host_serving(host, site, fault, variables, said):
    wait_until_served(site)
    before = invocation(host)
    model = {
        "name": "smollm2", "slot": "a", "engine": "vllm", "port": 8443, "context_length": 2048,
        "source": f"file:{CACHE_DIR}/models/smollm2-135m-instruct",
        "engine_config": {"dtype": "float32", "enforce_eager": True},
    }  # fmt: skip
    if "port" in variables:
        extra = {"gpufleet_models": [model, {**model, "name": "second"}]}
    elif "engine_config" in variables:
        extra = {"gpufleet_models": [{**model, "engine_config": {**model["engine_config"], "no_such_option": 1}}]}
    else:
        extra = variables
    done = play("--limit", host.backend.get_hostname(), "-e", json.dumps(extra))
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    assert said in output
    assert "emedy" in output, output[-3000:]
    assert invocation(host) == before
    assert site.completes()


@pytest.mark.one_host
def test_an_engine_that_cannot_start_is_taken_back(host, site):
    """A context no memory holds passes every check of the inputs; the engine itself ends over it."""
    files = "/etc/gpufleet/vllm/smollm2-a/config.yaml"
    before = host.check_output("sha256sum %s", files)
    model = {
        "name": "smollm2", "slot": "a", "engine": "vllm", "port": 8443, "context_length": 900000,
        "source": f"file:{CACHE_DIR}/models/smollm2-135m-instruct",
        "engine_config": {"dtype": "float32", "enforce_eager": True},
    }  # fmt: skip
    began = time.monotonic()
    extra = json.dumps({"gpufleet_models": [model]})
    done = play("--limit", host.backend.get_hostname(), "--tags", "vllm", "-e", extra)
    took = time.monotonic() - began
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    assert "emedy" in output, output[-3000:]
    assert host.check_output("sha256sum %s", files) == before
    waited = wait_until_served(site)
    print(f"\nmeasured: an engine that can't start: the play took {took:.0f} s, tokens came {waited:.0f} s later")


@pytest.mark.one_host
def test_a_model_that_moves_to_the_other_slot_leaves_nothing_behind(host, site):
    """Slot b starts beside a, the proxy is pointed at it, and only then a ends; not one request is lost."""
    model = {
        "name": "smollm2", "slot": "b", "engine": "vllm", "port": 8443, "context_length": 2048,
        "source": f"file:{CACHE_DIR}/models/smollm2-135m-instruct",
        "engine_config": {"dtype": "float32", "enforce_eager": True},
    }  # fmt: skip
    answers: list[bool] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set() and len(answers) < 2000:
            answers.append(site.completes())
            time.sleep(0.2)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        extra = json.dumps({"gpufleet_models": [model]})
        there = play("--limit", host.backend.get_hostname(), "-e", extra)
    finally:
        over.set()
        asker.join(60)
    print(f"\nmeasured: {len(answers)} requests while the model moved, {answers.count(False)} failed")
    assert there.returncode == 0, there.stdout + there.stderr
    assert host.run("systemctl is-active %s", UNIT).stdout.strip() == "inactive"
    assert host.run("systemctl is-enabled %s", UNIT).stdout.strip() == "disabled"
    left = host.check_output("find /etc /var/lib/gpufleet/known-good -name '*smollm2-a*'")
    assert left == ""
    assert answers.count(True) > 20
    assert answers.count(False) == 0
    back = play("--limit", host.backend.get_hostname())
    assert back.returncode == 0, back.stdout + back.stderr
    assert host.check_output("find /etc /var/lib/gpufleet/known-good -name '*smollm2-b*'") == ""
    assert site.completes()
