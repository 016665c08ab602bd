# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole program over a stand-in for systemctl and an engine without a model: it hangs, and comes back.

Nothing here needs root. The real systemd, proxy and timing are molecule/watchdog's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

SETTINGS = {"deadline": 0.5, "kill_after": 0.3, "restarts": 1}
#: `show` tells of the engine that the test keeps in a file; `kill` and `reload` are written down, a kill is done.
SYSTEMCTL = """#!{python}
import json, os, signal, sys
base = {base!r}
if sys.argv[1] == "show":
    unit = sys.argv[-1]
    state = json.load(open(base + "/unit.json"))
    active = state["active"] if unit.startswith("vllm") else "active"
    print("Id=%s\\nActiveState=%s\\nInvocationID=%s\\nControlGroup=/none\\nExecMainStartTimestampMonotonic=0"
          % (unit, active, state["invocation"]))
else:
    with open(base + "/commands", "a") as log:
        log.write(" ".join(sys.argv[1:]) + "\\n")
    if sys.argv[1] == "kill":
        os.kill(json.load(open(base + "/unit.json"))["pid"], signal.SIGKILL)
    if sys.argv[1] == "reload" and os.path.exists(base + "/reload-fails"):
        sys.exit("nginx: configuration file test failed")
"""


class Bench:
    """A directory with everything that the program touches."""

    def __init__(self, base, root):
        self.base, self.root = base, root
        self.engine = None
        for name in ("bin", "breakers", "state", "status/maintenance", "credentials"):
            (base / name).mkdir(parents=True)
        (base / "bin/systemctl").write_text(SYSTEMCTL.format(python=sys.executable, base=str(base)))
        (base / "bin/systemctl").chmod(0o755)
        (base / "credentials/m-a.api_key").write_text("sk-" + "7" * 40)
        instance = {"name": "m-a", "model": "mock", "unit": "vllm@m-a.service", "socket": str(base / "engine.sock"),
                    "credential": "m-a.api_key", "breaker": "m"}  # fmt: skip
        config = {
            "proxy_unit": "llm-proxy.service", "breakers_dir": str(base / "breakers"), "instances": [instance],
            "state_dir": str(base / "state"), "status_dir": str(base / "status"), "settings": SETTINGS,
            "runs_from": [],
        }  # fmt: skip
        (base / "watchdog.json").write_text(json.dumps(config))

    def start_engine(self, invocation):
        server = [sys.executable, str(self.root / "tests/servers/faulty_engine.py"), str(self.base / "engine.sock")]
        self.engine = subprocess.Popen(
            [*server, "--key-file", str(self.base / "credentials/m-a.api_key")], stdout=subprocess.PIPE
        )
        assert self.engine.stdout.readline() == b"ready\n"
        self.tell(invocation)

    def tell(self, invocation, active="active"):
        new = self.base / "unit.new"
        new.write_text(json.dumps({"active": active, "invocation": invocation, "pid": self.engine.pid}))
        new.rename(self.base / "unit.json")

    def watchdog(self):
        environment = {
            "PATH": "%s:%s" % (self.base / "bin", os.environ["PATH"]),
            "CREDENTIALS_DIRECTORY": str(self.base / "credentials"),
            "NOTIFY_SOCKET": str(self.base / "notify"),
        }
        return subprocess.Popen(
            [sys.executable, "-s", "-B", "-m", "llm_watchdog", str(self.base / "watchdog.json")],
            cwd=self.root / "roles/llm_watchdog/files",
            env=environment,
            stdout=open(self.base / "said", "a"),
        )

    def read(self, name):
        path = self.base / name
        return path.read_text() if path.exists() else ""

    def until(self, what, seconds=10.0):
        ends = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < ends, self.read("said") + self.read("commands")
            time.sleep(0.02)

    def status(self):
        return json.loads(self.read("status/status.json") or '{"instances": {}}')["instances"].get("m-a", {})


@pytest.fixture
def bench(tmp_path, root):
    one = Bench(tmp_path, root)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        one.channel = channel
        one.start_engine("one")
        yield one
    one.engine.kill()
    one.engine.wait()


@pytest.fixture
def watchdog(bench):
    process = bench.watchdog()
    bench.until(lambda: bench.status().get("serving"))
    yield process
    process.terminate()
    assert process.wait(10) == 0


def test_a_hang_is_taken_out_killed_and_put_back_and_the_budget_ends(bench, watchdog):
    assert b"READY=1" in bench.channel.recv(1000)
    assert b"WATCHDOG=1" in bench.channel.recv(1000)
    bench.engine.send_signal(signal.SIGSTOP)
    bench.until(lambda: bench.read("breakers/m.conf").endswith('\n"" down;\n'))
    bench.until(lambda: "kill --signal=SIGKILL -- vllm@m-a.service\n" in bench.read("commands"))
    assert bench.engine.wait(5) == -signal.SIGKILL
    bench.start_engine("two")
    bench.until(lambda: not bench.read("breakers/m.conf"))
    bench.until(lambda: bench.status().get("serving"))
    bench.until(lambda: bench.read("commands").count("reload -- llm-proxy.service\n") == 2)
    bench.engine.send_signal(signal.SIGSTOP)
    bench.until(lambda: bench.status().get("budget_exhausted"))
    bench.until(lambda: "llm_watchdog_breaker_open{instance=\"m-a\",model=\"mock\"} 1" in bench.read(
        "status/llm_watchdog.prom"))  # fmt: skip
    assert bench.read("commands").count("kill ") == 1
    assert "<1>m-a: 1 restarts within 900 s are used up" in bench.read("said")


def test_another_one_takes_up_what_it_remembered(bench):
    first = bench.watchdog()
    bench.until(lambda: bench.status().get("serving"))
    bench.engine.send_signal(signal.SIGSTOP)
    bench.until(lambda: "kill " in bench.read("commands"))
    first.kill()
    first.wait()
    bench.engine.wait(5)
    bench.start_engine("two")
    second = bench.watchdog()
    try:
        bench.until(lambda: "put back" in bench.read("said"))
        bench.engine.send_signal(signal.SIGSTOP)
        bench.until(lambda: bench.status().get("budget_exhausted"))
    finally:
        second.terminate()
        second.wait(10)
    assert bench.read("commands").count("kill ") == 1


def test_a_unit_that_is_stopped_on_purpose_is_left_alone(bench, watchdog):
    bench.tell("one", "deactivating")
    bench.engine.send_signal(signal.SIGSTOP)
    time.sleep(2)
    assert bench.status()["phase"] == "deactivating"
    assert bench.read("commands") == ""


def test_a_reload_that_fails_is_said_and_tried_again_and_holds_up_no_kill(bench, watchdog):
    (bench.base / "reload-fails").touch()
    bench.engine.send_signal(signal.SIGSTOP)
    bench.until(lambda: "kill " in bench.read("commands"))
    bench.until(lambda: "reload exited with 1: nginx: configuration file test failed" in bench.read("said"))
    (bench.base / "reload-fails").unlink()
    bench.until(lambda: bench.read("commands").count("reload ") >= 2)
    bench.until(lambda: "reloaded in" in bench.read("said"))


def test_a_refused_key_has_it_start_again_once(bench, watchdog):
    (bench.base / "credentials/m-a.api_key").write_text("sk-" + "8" * 40)
    assert watchdog.wait(10) == 0
    assert "401, the key was refused" in bench.read("said")
    assert json.loads(bench.read("state/state.json"))["rekeyed_at"] > 0


@pytest.mark.parametrize("content", ["", "{", "{}", '{"instances": [{}], "runs_from": []}', '{"runs_from": ["/none"]}'])
def test_a_configuration_that_says_nothing_is_refused_once(bench, content):
    (bench.base / "watchdog.json").write_text(content)
    assert bench.watchdog().wait(10) == 78
    assert "Remedy" in bench.read("said")
