# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking an engine for a token over a real unix socket, and going back to the files with which it served."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import threading
import time

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_unit as engine

KEY = "sk-" + "0f" * 32


class Engine(http.server.BaseHTTPRequestHandler):
    """A stand-in with vLLM's answers; the class attributes say how it misbehaves."""

    open_to_all = False
    answer = {"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}}
    status = 200

    def address_string(self):
        return "unix"

    def log_message(self, *_args):
        pass

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def allowed(self):
        return self.open_to_all or self.headers.get("Authorization") == "Bearer " + KEY

    def do_GET(self):
        self.reply(200 if self.allowed() else 401, {})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(self.status if self.allowed() else 401, self.answer)


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(**attributes):
        path = str(tmp_path / "engine.sock")
        server = socketserver.ThreadingUnixStreamServer(path, type("Some", (Engine,), attributes))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return path

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_engine_that_refuses_the_keyless_and_gives_a_token_is_ready(serve):
    assert engine.probe(serve(), "m", KEY, 5) == ""


def test_an_engine_without_authentication_is_not_ready(serve):
    assert "authentication is off" in engine.probe(serve(open_to_all=True), "m", KEY, 5)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": [], "usage": {"completion_tokens": 1}},
        {"choices": [{"text": ""}], "usage": {"completion_tokens": 0}},
    ],
)
def test_an_answer_without_a_token_is_no_proof(serve, answer):
    assert "one-token completion" in engine.probe(serve(answer=answer), "m", KEY, 5)


def test_what_an_engine_says_comes_back_without_the_key(serve):
    reason = engine.probe(serve(status=500, answer={"error": "bad key " + KEY}), "m", KEY, 5)
    assert "500" in reason
    assert KEY not in reason


def test_a_wrong_key_is_not_ready(serve):
    assert "401" in engine.probe(serve(), "m", "sk-" + "1" * 64, 5)


def test_no_socket_is_not_ready(tmp_path):
    assert "no answer" in engine.probe(str(tmp_path / "none.sock"), "m", KEY, 1)


def test_secrets_are_taken_out_of_text():
    text = "api_key %s, Authorization: Bearer abcdef, other sk-abcdef0123456789" % KEY
    clean = engine.redact(text, KEY)
    assert KEY not in clean
    assert "abcdef" not in clean


@pytest.mark.parametrize(
    ("unit", "word"),
    [
        ({"LoadState": "not-found"}, "not-found"),
        ({"LoadState": "loaded", "ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"}, "78"),
        ({"LoadState": "loaded", "ActiveState": "inactive"}, "not running"),
        ({"LoadState": "loaded", "ActiveState": "activating", "NRestarts": "2"}, "died 2 times"),
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "1"}, ""),
        ({"LoadState": "loaded", "ActiveState": "activating", "NRestarts": "0"}, ""),
    ],
)
def test_waiting_ends_when_it_is_hopeless(unit, word):
    reason = engine.hopeless(unit, 1)
    assert (word in reason) if word else (reason == "")


@pytest.mark.parametrize(("now", "word"), [("3", ""), ("4", ""), ("5", "died 2 times"), ("0", "")])
def test_restarts_from_before_the_wait_say_nothing_about_it(now, word):
    unit = {"LoadState": "loaded", "ActiveState": "activating", "NRestarts": now}
    reason = engine.hopeless(unit, 1, restarts_before=3)
    assert (word in reason) if word else (reason == "")


def layout(tmp_path):
    system, config = tmp_path / "system", tmp_path / "config"
    (system / "vllm@m-a.service.d").mkdir(parents=True)
    (config / "m-a").mkdir(parents=True)
    (system / "vllm@.service").write_text("unit 1")
    (system / "vllm@m-a.service.d" / "10-instance.conf").write_text("tree 1")
    (config / "m-a" / "config.yaml").write_text("model: 1")
    secret = tmp_path / "m-a.api_key"
    secret.write_text("k1")
    return str(system), str(config), [str(secret)]


def test_a_change_of_any_file_or_of_the_key_makes_an_instance_stale(tmp_path):
    system, config, secrets = layout(tmp_path)
    files = engine.own_files("m-a", system, config)
    assert len(files) == 3
    before = engine.digest(files + secrets)
    for path in files + secrets:
        with open(path, encoding="utf-8") as handle:
            text = handle.read()
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text + " changed")
        assert engine.digest(files + secrets) != before
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text)
    assert engine.digest(files + secrets) == before


def test_a_change_that_does_not_serve_is_undone_in_full(tmp_path):
    system, config, secrets = layout(tmp_path)
    good = str(tmp_path / "good" / "m-a")
    os.makedirs(os.path.dirname(good))
    files = engine.own_files("m-a", system, config)
    engine.keep(good, files, secrets, "invocation")
    served = engine.digest(files)
    with open(files[-1], "w", encoding="utf-8") as handle:
        handle.write("model: 2")
    extra = os.path.join(system, "vllm@m-a.service.d", "20-new.conf")
    with open(extra, "w", encoding="utf-8") as handle:
        handle.write("new")
    changed = engine.put_back(good, engine.own_files("m-a", system, config))
    assert sorted(changed) == sorted([files[-1], extra])
    assert engine.digest(engine.own_files("m-a", system, config)) == served
    assert engine.put_back(good, engine.own_files("m-a", system, config)) == []


def test_the_kept_files_hold_no_secret(tmp_path):
    system, config, secrets = layout(tmp_path)
    good = str(tmp_path / "good" / "m-a")
    os.makedirs(os.path.dirname(good))
    engine.keep(good, engine.own_files("m-a", system, config), secrets, "i")
    assert os.stat(good).st_mode & 0o077 == 0
    for name in os.listdir(good):
        with open(os.path.join(good, name), encoding="utf-8") as handle:
            assert "k1" not in handle.read()


def test_with_nothing_kept_nothing_is_put_back_or_removed(tmp_path):
    system, config, _secrets = layout(tmp_path)
    files = engine.own_files("m-a", system, config)
    assert engine.put_back(str(tmp_path / "none"), files) == []
    assert all(os.path.exists(path) for path in files)


def running(state="active", after=1.0, **more):
    began = str(int((time.monotonic() + after) * 1e6))
    return {
        "ActiveState": state,
        "NeedDaemonReload": "no",
        "ExecMainStartTimestampMonotonic": began,
        "Job": "0",
        **more,
    }


def test_a_start_with_the_same_files_is_waited_for_and_not_repeated(tmp_path):
    directory = str(tmp_path / "known-good" / "m-a")
    assert not engine.on_its_way(directory, running(), "d1")
    engine.note_start(directory, "d1")
    assert engine.on_its_way(directory, running(), "d1")
    assert engine.on_its_way(directory, running("activating"), "d1")
    assert engine.on_its_way(directory, running("deactivating", after=-60, Job="77"), "d1")
    assert os.listdir(tmp_path / "known-good") == ["m-a.pending.json"]


@pytest.mark.parametrize(
    ("unit", "digest"),
    [
        (running(), "d2"),  # the files changed since
        (running(after=-60), "d1"),  # it runs since before the start was asked for: the restart never came
        (running(NeedDaemonReload="yes"), "d1"),
        (running("deactivating"), "d1"),  # somebody stopped it; no job will start it again
        (running("failed"), "d1"),
        (running("inactive"), "d1"),
        ({}, "d1"),
    ],
)
def test_what_is_no_start_on_its_way(tmp_path, unit, digest):
    engine.note_start(str(tmp_path / "m-a"), "d1")
    assert not engine.on_its_way(str(tmp_path / "m-a"), unit, digest)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": "d1", "boot_id": "another", "monotonic_seconds": 1}'])
def test_a_note_that_is_broken_or_of_another_boot_says_nothing(tmp_path, text):
    (tmp_path / ("m-a" + engine.PENDING)).write_text(text)
    assert not engine.on_its_way(str(tmp_path / "m-a"), running(), "d1")


def test_instances_that_the_inventory_no_longer_names(tmp_path):
    for name in ("vllm@m-a.service.d", "vllm@m-b.service.d", "nginx.service.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "vllm@.service").write_text("")
    assert engine.unlisted(str(tmp_path), ["m-b", "n-a"]) == ["m-a"]
    assert engine.unlisted(str(tmp_path / "nowhere"), []) == []


class Answers:
    """A Runner that answers one thing."""

    def __init__(self, *answer):
        self.answer = answer
        self.asked = []

    def run(self, argv):
        self.asked.append(list(argv))
        return self.answer


def test_a_unit_is_read_by_systemds_own_names_or_the_failure_is_said():
    runner = Answers(0, "LoadState=loaded\nActiveState=active\nnoise\nEnvironment=A=1\n", "")
    assert engine.read_unit(runner, "vllm@a.service") == {
        "LoadState": "loaded",
        "ActiveState": "active",
        "Environment": "A=1",
    }
    with pytest.raises(OSError, match="exited with 1: Failed to connect to bus"):
        engine.read_unit(Answers(1, "", "Failed to connect to bus\n"), "vllm@a.service")


def test_the_journal_comes_without_the_key():
    runner = Answers(0, "start\nkey is secret-key-1\nAuthorization: Bearer abc\n", "")
    assert engine.journal(runner, "vllm@a.service", "secret-key-1", 2) == ["key is ****", "Authorization: Bearer ****"]
    assert runner.asked[0][-3:] == ["2", "-u", "vllm@a.service"]


def test_a_record_that_is_damaged_is_none_and_a_kept_file_that_is_gone_is_put_back(tmp_path):
    kept = tmp_path / "kept"
    served = tmp_path / "etc/unit.service"
    served.parent.mkdir()
    served.write_text("served")
    engine.keep(str(kept), [str(served), str(tmp_path / "absent")], [], "abc")
    served.unlink()
    assert engine.put_back(str(kept), [str(served)]) == [str(served)]
    assert served.read_text() == "served"
    (kept / engine.RECORD).write_text("{half")
    assert engine.read_record(str(kept)) == {}
    assert engine.put_back(str(kept), [str(served)]) == []


def test_a_kernel_that_does_not_say_its_boot_has_none(monkeypatch):
    def refused(*_args, **_more):
        raise PermissionError

    monkeypatch.setattr("builtins.open", refused)
    assert engine.boot_id() == ""
