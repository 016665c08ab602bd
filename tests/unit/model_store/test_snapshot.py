# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role through ansible-playbook, on this machine by the local connection: action plugin and module together."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_thisIsNotARealTokenAtAll"


class Answer:
    def __init__(self, done):
        self.rc, self.text = done.returncode, done.stdout + done.stderr
        recap = re.search(r"ok=(\d+) +changed=(\d+).*failed=(\d+) +skipped=(\d+)", self.text)
        self.ok, self.changed, self.failed, self.skipped = map(int, recap.groups()) if recap else (0, 0, 0, 0)


@pytest.fixture
def play(tmp_path):
    """Return a function that runs the role with variables and returns the answer."""
    (tmp_path / "play.yml").write_text(
        "---\n- name: Keep models\n  hosts: localhost\n  gather_facts: false\n"
        "  roles:\n    - gpufleet.llm.model_store\n"
    )

    def command(*arguments, **variables):
        variables.setdefault("model_store_dir", str(tmp_path / "store"))
        variables.setdefault("gpufleet_cache_dir", str(tmp_path / "cache"))
        variables.setdefault("model_store_disk_margin_mib", 1)
        variables.setdefault("ansible_python_interpreter", sys.executable)
        (tmp_path / "vars.json").write_text(json.dumps(variables))
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return [program, "-i", "localhost,", "-c", "local", "-e", "@vars.json", "play.yml", *arguments]

    environment = dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_NOCOLOR="1")
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / "collections")
    environment["ANSIBLE_PIPELINING"] = "True"
    environment["ANSIBLE_LOCAL_TEMP"] = str(tmp_path / "ansible")
    environment["ANSIBLE_REMOTE_TEMP"] = str(tmp_path / "remote")

    def playing(*arguments, **variables):
        done = subprocess.run(
            command(*arguments, **variables),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Answer(done)

    def starting(**variables):
        return subprocess.Popen(
            command(**variables),
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    playing.start = starting
    playing.store = tmp_path / "store"
    playing.cache = tmp_path / "cache"
    playing.tmp = tmp_path
    return playing


def tree(folder):
    return {str(p.relative_to(folder)): p.stat().st_ino for p in sorted(Path(folder).rglob("*"))}


def content(link):
    """Return what is served: path -> bytes."""
    top = Path(os.path.realpath(link))
    found = {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
    found.pop(".gpufleet-manifest.json", None)
    return found


def flip(path):
    status = os.stat(path)
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    with open(path, "r+b") as handle:
        handle.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def kill_family(running):
    """Kill -9 a process and its descendants: Ansible's workers have sessions of their own."""
    family = [running.pid]
    for pid in family:
        for listed in Path("/proc/%d/task" % pid).glob("*/children"):
            family.extend(int(child) for child in listed.read_text().split())
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    running.wait()


def test_file_source_from_check_mode_to_rollback(play, helpers, tmp_path):
    first, second = helpers.tiny_model("one"), helpers.tiny_model("two")
    source = helpers.write_model(tmp_path / "src", first)
    models = [{"name": "tiny", "source": "file:%s" % source, "slot": "a", "port": 8443}]
    link = play.store / "tiny" / "current"

    virgin = play("--check", "--diff", model_store_models=models)
    assert (virgin.rc, virgin.changed) == (0, 1), virgin.text
    assert "+version: " in virgin.text and "model.safetensors" in virgin.text
    assert not play.store.exists() and not play.cache.exists()

    made = play(model_store_models=models)
    assert (made.rc, made.changed) == (0, 1), made.text
    assert content(link) == first
    before = tree(play.store)

    again = play(model_store_models=models)
    assert (again.rc, again.changed, again.ok, again.skipped) == (0, 0, 2, 1), again.text
    assert tree(play.store) == before

    helpers.write_model(source, second)
    new = play("--diff", model_store_models=models)
    assert (new.rc, new.changed) == (0, 1), new.text
    assert "-version: " in new.text and "+version: " in new.text
    assert content(link) == second

    helpers.write_model(source, first)
    shutil.rmtree(play.cache)
    back = play("-v", model_store_models=models)
    assert content(link) == first
    assert "bytes_to_fetch: 0" in back.text  # it was kept: nothing travels


def test_all_refusals_come_at_once_and_touch_nothing(play, helpers, tmp_path):
    source = helpers.write_model(tmp_path / "src", {"model.safetensors": helpers.safetensors("x", 4096)})
    pickled = helpers.write_model(tmp_path / "old", dict(helpers.tiny_model(), **{"w.bin": b"\x80\x04K\x01."}))
    answer = play(
        model_store_models=[
            {"name": "a", "source": "file:%s" % source},
            {"name": "b", "source": "file:%s" % pickled},
            {"name": "c", "source": "file:/nowhere/at/all"},
        ]
    )
    assert answer.failed == 1
    for word in ("model.config_json", "model.pickle", "model.source_directory", "3 reasons", "/nowhere/at/all"):
        assert word in answer.text
    assert not play.store.exists()
    allowed = play(model_store_models=[{"name": "b", "source": "file:%s" % pickled}], model_store_allow_pickle=True)
    assert allowed.rc == 0, allowed.text
    left_out = [{"name": "d", "source": "file:%s" % pickled, "exclude": ["*.bin"]}]
    assert play(model_store_models=left_out).rc == 0
    assert "w.bin" not in content(play.store / "d" / "current")


def test_disk_too_small(play, helpers, tmp_path):
    source = helpers.write_model(tmp_path / "src", helpers.tiny_model())
    answer = play(model_store_models=[{"name": "a", "source": "file:%s" % source}], model_store_disk_margin_mib=10**9)
    assert answer.failed == 1
    for word in ("model.disk_space", str(play.store), "model_store_dir", "available"):
        assert word in answer.text
    assert not play.store.exists()


@pytest.mark.parametrize("where", ["control", "host"])
def test_manifest_source(play, helpers, server, where):
    files = helpers.tiny_model()
    server.files.update({"m/" + path: data for path, data in files.items()})
    server.faults["m/model.safetensors"] = helpers.Fault("cut", times=1, after=1_000_000)
    models = [{"name": "tiny", "source": server.url + "/files/m/", "manifest": helpers.sums(files)}]
    options = {"model_store_models": models, "model_store_fetch_on": where, "model_store_allow_http": True}
    refused = play(**dict(options, model_store_allow_http=False))
    assert "model.source_tls" in refused.text and not server.log
    made = play(**options)
    assert (made.rc, made.changed) == (0, 1), made.text
    link = play.store / "tiny" / "current"
    assert content(link) == files
    assert server.sent("model.safetensors") == len(files["model.safetensors"])

    server.log.clear()
    shutil.rmtree(play.cache, ignore_errors=True)
    assert play(**options).changed == 0
    assert server.log == []  # the manifest and the record are enough

    wrong = dict(helpers.sums(files), **{"tokenizer.json": "0" * 64})
    refused = play(**dict(options, model_store_models=[dict(models[0], manifest=wrong)]))
    assert refused.failed == 1
    for word in ("model.checksum", "tokenizer.json", "0" * 64, helpers.sums(files)["tokenizer.json"]):
        assert word in refused.text
    assert content(link) == files


def test_manifest_file(play, helpers, server, tmp_path):
    files = helpers.tiny_model()
    server.files.update({"m/" + path: data for path, data in files.items()})
    sums = tmp_path / "SHA256SUMS"
    sums.write_text("".join("%s  ./%s\n" % (value, path) for path, value in helpers.sums(files).items()))
    models = [{"name": "tiny", "source": server.url + "/files/m", "manifest_file": str(sums)}]
    assert play(model_store_models=models, model_store_allow_http=True).rc == 0
    assert content(play.store / "tiny" / "current") == files
    sums.unlink()
    refused = play(model_store_models=models, model_store_allow_http=True)
    assert "model.manifest_file" in refused.text


@pytest.mark.parametrize("where", ["control", "host"])
def test_hub_source_with_a_token(play, helpers, server, where):
    files = helpers.tiny_model()
    server.add_repository("org/tiny", COMMIT, files)
    server.token = TOKEN
    models = [{"name": "tiny", "source": "huggingface:org/tiny", "revision": COMMIT}]
    options = {
        "model_store_models": models,
        "model_store_fetch_on": where,
        "model_store_allow_http": True,
        "model_store_hf_endpoint": server.url,
    }
    refused = play("-vvv", **options)
    assert refused.failed == 1 and "model_store_hf_token" in refused.text
    branch = play(**dict(options, model_store_models=[dict(models[0], revision="main")]))
    assert "model.revision" in branch.text and "main" in branch.text
    said = play("--check", **dict(options, model_store_hf_token=TOKEN))
    assert (said.rc, said.changed) == (0, 1), said.text
    assert not play.store.exists()

    made = play("-vvv", "--diff", **dict(options, model_store_hf_token=TOKEN))
    assert (made.rc, made.changed) == (0, 1), made.text
    assert content(play.store / "tiny" / "current") == files
    assert TOKEN not in made.text
    (play.tmp / "vars.json").unlink()
    found = [p for p in play.tmp.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    assert found == []

    server.stop()
    shutil.rmtree(play.cache, ignore_errors=True)
    again = play(**dict(options, model_store_hf_token=TOKEN))
    assert (again.rc, again.changed) == (0, 0), again.text  # the host's record knows the commit


def test_bit_rot_is_named_then_that_file_alone_comes_again(play, helpers, server):
    files = helpers.tiny_model()
    server.files.update({"m/" + path: data for path, data in files.items()})
    models = [{"name": "tiny", "source": server.url + "/files/m/", "manifest": helpers.sums(files)}]
    options = {"model_store_models": models, "model_store_allow_http": True, "model_store_fetch_on": "host"}
    assert play(**options).rc == 0
    link = play.store / "tiny" / "current"
    assert play("--tags", "verify", **options).rc == 0
    flip(link / "model.safetensors")
    assert play(**options).changed == 0  # size, time and inode are the same: only reading finds it
    server.log.clear()
    verified = play("--tags", "verify", **options)
    assert verified.failed == 1
    for word in ("model.file_changed", "model.safetensors", helpers.sums(files)["model.safetensors"]):
        assert word in verified.text
    repaired = play(**options)
    assert (repaired.rc, repaired.changed) == (0, 1), repaired.text
    assert content(link) == files
    assert {seen.path for seen in server.log} == {"/files/m/model.safetensors"}
    assert play("--tags", "verify", **options).rc == 0

    flip(link / "tokenizer.json")
    always = play(**dict(options, model_store_verify="always"))
    assert (always.rc, always.changed) == (0, 1), always.text
    assert content(link) == files


def test_killed_in_the_middle_of_a_download_goes_on(play, helpers, server):
    files = helpers.tiny_model()
    server.files.update({"m/" + path: data for path, data in files.items()})
    server.delay_seconds = 0.1
    models = [{"name": "tiny", "source": server.url + "/files/m/", "manifest": helpers.sums(files)}]
    options = {"model_store_models": models, "model_store_allow_http": True}
    running = play.start(**options)
    key = hashlib.sha256(files["model.safetensors"]).hexdigest()
    partial = play.cache / "models" / "staging" / (key + ".partial")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (partial.exists() and partial.stat().st_size > 0):
        time.sleep(0.05)
    kill_family(running)
    had = partial.stat().st_size
    assert 0 < had < len(files["model.safetensors"])
    server.delay_seconds = 0
    server.log.clear()
    made = play(**options)
    assert made.rc == 0, made.text
    assert content(play.store / "tiny" / "current") == files
    assert server.gets("model.safetensors")[-1].range == "bytes=%d-" % had


def test_shipping_goes_on_where_it_was_cut(play, helpers, tmp_path):
    files = helpers.tiny_model()
    source = helpers.write_model(tmp_path / "src", files)
    key = hashlib.sha256(files["model.safetensors"]).hexdigest()
    staging = play.store / "tiny" / ".staging"
    staging.mkdir(parents=True)
    (staging / (key + ".partial")).write_bytes(files["model.safetensors"][:2_000_000])
    models = [{"name": "tiny", "source": "file:%s" % source}]
    made = play("-v", model_store_models=models)
    assert made.rc == 0, made.text
    assert content(play.store / "tiny" / "current") == files
    wanted = sum(map(len, files.values())) - 2_000_000
    assert "bytes_to_fetch: %d" % wanted in made.text
    assert "resume: model.safetensors" in made.text

    staging.mkdir()
    other = helpers.tiny_model("other")
    helpers.write_model(source, other)
    key = hashlib.sha256(other["model.safetensors"]).hexdigest()
    (staging / (key + ".partial")).write_bytes(b"garbage" * 1000)
    made = play(model_store_models=models)  # the hash finds it, and the file is sent again whole
    assert made.rc == 0, made.text
    assert content(play.store / "tiny" / "current") == other


def test_several_models_and_warnings(play, helpers, tmp_path):
    files = dict(helpers.tiny_model(), **{"modeling_x.py": b"print()\n"})
    source = helpers.write_model(tmp_path / "src", files)
    models = [{"name": n, "source": "file:%s" % source} for n in ("a", "b")]
    made = play(model_store_models=models)
    assert made.rc == 0 and "model.remote_code" in made.text, made.text
    assert content(play.store / "b" / "current") == files
    again = play("-vv", model_store_models=models)
    assert (again.ok, again.changed) == (2, 0)
