# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host builds its engine itself: once for real from wheels that are made here, else with the making stood in for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llm.plugins.action import engine_install as action
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_build as building
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_host as host
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_install as installing
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_pip as pips
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_python as pythons
from ansible_collections.gpufleet.llm.plugins.modules import engine_install
from engine_wheels import make_wheels

ROOT = Path(__file__).parents[3]
SHORT = "%d.%d" % sys.version_info[:2]
SECRET = "hunter2-in-the-index"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheelhouse") / "wheels"
    return directory, make_wheels(directory)


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the module as Ansible does; return its result."""
    monkeypatch.setattr(engine_install._host_state, "read_packages", lambda _runner, names: dict.fromkeys(names, "1"))
    umask = os.umask(0o077)

    def run(**arguments):
        with patch_module_args(arguments), pytest.raises(SystemExit):
            engine_install.main()
        return json.loads(capsys.readouterr().out)

    yield run
    os.umask(umask)


@pytest.fixture
def arguments(tmp_path, wheels):
    directory, lock = wheels
    return {
        "root": str(tmp_path / "engines"),
        "version": "1.0",
        "lock_file": "tiny.txt",
        "lock": lock,
        "python_version": SHORT,
        "python": sys.executable,
        "distributions": [{"name": "vllm", "version": "1.0+tiny"}],
        "find_links": [str(directory)],
        "index_url": "",
        "references": [str(tmp_path / "units" / "*.conf")],
        "disk_bytes": 1 << 20,
    }


@pytest.fixture
def quick(monkeypatch):
    """Stand in for the making of a tree; the list tells what it was made with."""
    made = []

    def make_tree(work, recipe, pip, _progress):
        assert os.listdir(work) == ["tmp"]
        made.append((recipe, pip))
        tree = os.path.join(work, "tree")
        os.makedirs(tree)
        building.write_json(os.path.join(tree, building.ARGUMENTS_NAME), {"arguments": ["dtype"]})
        return {}

    monkeypatch.setattr(building, "make_tree", make_tree)
    return made


def names(root):
    return sorted(name for name in os.listdir(root) if name != host.LOCK_NAME)


@pytest.fixture(scope="module")
def built(tmp_path_factory, wheels):
    """A tree that was really built: interpreter copied, wheels installed by pip, tried, compiled."""
    directory, lock = wheels
    root = str(tmp_path_factory.mktemp("built") / "engines")
    python = pythons.probe_python(SHORT, sys.executable, (), installing.THIS_HOST)
    recipe = building.Recipe("1.0", lock, python, [{"name": "vllm", "version": "1.0+tiny"}])
    with host.locked(root) as descriptor:
        installing.install(root, recipe, pips.pip_environment([str(directory)], "", []), descriptor)
    return root, recipe


def test_a_host_builds_the_tree_that_the_control_node_would(built):
    root, recipe = built
    assert names(root) == [recipe.identity], "no log, no directory of the build"
    tree = os.path.join(root, recipe.identity)
    assert host.verified(tree, recipe.key)
    with open(os.path.join(tree, building.MANIFEST_NAME), encoding="utf-8") as handle:
        manifest = json.load(handle)
    assert (manifest["key"], manifest["vllm"], manifest["torch"]) == (recipe.key, "1.0+tiny", "2.0+cpu")
    assert installing.known_arguments(tree) == ["dtype", "help", "max-model-len"]
    code = "import sys, vllm; print(vllm.__file__); print(sys.prefix)"
    done = subprocess.run([tree + "/bin/python3", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert all(line.startswith(tree) for line in done.stdout.split())
    assert sorted(os.listdir(tree + "/bin")) == sorted(["python", "python3", "python" + SHORT]), (
        "no script of the build"
    )
    found = {name for _directory, below, files in os.walk(tree) for name in below + files}
    assert "torch" in found and not found & {"_C.pyi", "test_it.py"}


def test_what_was_built_is_switched_to_and_a_second_run_changes_nothing(built, call, arguments):
    root, recipe = built
    arguments["root"] = root
    first = call(**arguments)
    assert (first["changed"], first["path"]) == (True, os.path.join(root, recipe.identity))
    assert first["current"] == recipe.identity
    before = os.stat(first["path"]).st_mtime_ns
    again = call(**arguments)
    assert (again["changed"], again["pruned"], again.get("must_build")) == (False, [], None)
    assert os.stat(first["path"]).st_mtime_ns == before
    assert call(**arguments, _ansible_check_mode=True)["changed"] is False


def test_nothing_is_built_before_it_was_said(call, arguments, quick):
    answer = call(**arguments)
    assert (answer["changed"], answer["must_build"], answer["current"]) == (True, True, None)
    assert quick == []
    answer = call(**arguments, build=True)
    assert (answer["changed"], answer["current"]) == (True, answer["engine_id"])
    assert len(quick) == 1


def test_the_tree_before_is_kept_and_the_one_before_that_goes(call, arguments, quick):
    made = []
    for number in range(3):
        arguments["distributions"] = [{"name": "vllm", "version": "1.%d" % number}]
        made.append(call(**arguments, build=True))
    assert made[2]["previous"] == made[1]["engine_id"]
    assert made[2]["pruned"] == [made[0]["engine_id"]]
    assert names(arguments["root"]) == sorted(["current", "previous", made[1]["engine_id"], made[2]["engine_id"]])


def test_check_mode_says_it_and_leaves_nothing(call, arguments, quick):
    answer = call(**arguments, _ansible_check_mode=True)
    assert (answer["changed"], answer["must_build"]) == (True, False)
    assert not os.path.exists(arguments["root"])


def test_a_directory_that_others_serve_from_is_readable_whatever_the_habit_of_the_host_is(call, arguments, quick):
    answer = call(**arguments, build=True)
    assert os.stat(answer["path"]).st_mode & 0o777 == 0o755


def test_what_an_interrupted_build_left_is_removed_and_it_is_built_again(call, arguments, quick):
    identity = call(**arguments)["engine_id"]
    half = Path(arguments["root"], identity + host.UNPACKING, "tree")
    half.mkdir(parents=True)
    Path(arguments["root"], identity).mkdir()
    Path(arguments["root"], identity, "engine.json").write_text("{}")
    answer = call(**arguments, build=True)
    assert answer["changed"]
    assert names(arguments["root"]) == sorted([identity, "current"])
    assert host.verified(answer["path"], quick[0][0].key)


def test_a_build_that_fails_leaves_what_was_there(call, arguments, quick, monkeypatch):
    first = call(**arguments, build=True)

    def fails(work, _recipe, pip, _progress):
        os.makedirs(os.path.join(work, "tree", "half"))
        Path(pip.log).write_text("why")
        raise pythons.EngineError("no. Remedy: x")

    monkeypatch.setattr(building, "make_tree", fails)
    arguments["distributions"] = []
    answer = call(**arguments, build=True)
    assert answer["failed"]
    assert "Remedy" in answer["msg"]
    assert host.link_target(os.path.join(arguments["root"], "current")) == first["engine_id"]
    logs = [name for name in names(arguments["root"]) if name.endswith(".log")]
    assert names(arguments["root"]) == sorted(["current", first["engine_id"], *logs])
    assert len(logs) == 1
    assert host.trees(arguments["root"]) == [first["engine_id"]]


def test_a_wheel_with_another_hash_is_refused_and_nothing_appears(call, arguments):
    arguments["lock"] = arguments["lock"].replace("--hash=sha256:", "--hash=sha256:%s" % ("0" * 8))
    arguments["lock"] = "".join(
        line[: line.index("sha256:") + 71] + "\n" if "sha256:" in line else line
        for line in arguments["lock"].splitlines(keepends=True)
    )
    answer = call(**arguments, build=True)
    assert answer["failed"]
    assert "DO NOT MATCH THE HASHES" in answer["msg"]
    assert "Remedy" in answer["msg"] and "on this host" in answer["msg"]
    assert host.trees(arguments["root"]) == []
    assert host.leftovers(arguments["root"]) == []


def test_a_lock_file_without_hashes_is_refused_even_in_check_mode(call, arguments, quick):
    arguments["lock"] = "torch==1.0\n"
    assert "without pin or hash" in call(**arguments, _ansible_check_mode=True)["msg"]
    assert quick == []


def test_a_configuration_key_that_the_engine_does_not_know_is_refused_before_the_switch(
    call, arguments, quick, tmp_path
):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    instance = {"name": "m-a", "model": "m", "model_link": str(model), "config": {"dtype": "float32"}}
    first = call(**arguments, instances=[instance], build=True)
    assert first["models"] == {"m": str(model)}
    arguments["distributions"] = []
    bad = dict(instance, config={"dtype": "float32", "max-num-seq": 1})
    answer = call(**arguments, instances=[bad], build=True)
    assert answer["failed"]
    assert "max-num-seq in m-a" in answer["msg"] and "Nothing that serves was changed" in answer["msg"]
    assert host.link_target(os.path.join(arguments["root"], "current")) == first["engine_id"]
    # Once it is corrected nothing is built again.
    answer = call(**arguments, instances=[instance])
    assert (answer["changed"], answer["previous"], len(quick)) == (True, first["engine_id"], 2)


def test_a_missing_package_is_named_and_nothing_is_built(call, arguments, quick, monkeypatch):
    monkeypatch.setattr(
        engine_install._host_state,
        "read_packages",
        lambda _runner, wanted: {name: "1" if name == "libx" else None for name in wanted},
    )
    answer = call(**arguments, packages=["libx", "python3-pip"], build=True)
    assert (answer["missing_packages"], answer["changed"], quick) == (["python3-pip"], False, [])
    assert call(**arguments, packages=["python3-pip"], _ansible_check_mode=True)["changed"] is True


def test_an_interpreter_may_come_with_a_missing_package_and_only_then(call, arguments, quick, monkeypatch):
    arguments.update(python=None, python_version="2.6")
    answer = call(**arguments)
    assert "expected a Python 2.6 interpreter on this host" in answer["msg"]
    monkeypatch.setattr(engine_install._host_state, "read_packages", lambda _runner, wanted: dict.fromkeys(wanted))
    answer = call(**arguments, packages=["python2.6"], _ansible_check_mode=True)
    assert (answer["changed"], "engine_id" in answer) == (True, False)
    assert answer["path"].endswith("/1.0-unbuilt")


@pytest.mark.parametrize("check_mode", [False, True])
def test_too_little_disk_is_refused(call, arguments, quick, check_mode):
    arguments["disk_bytes"] = 1 << 60
    answer = call(**arguments, build=not check_mode, _ansible_check_mode=check_mode)
    assert "for the engine's wheels and tree" in answer["msg"] and "Remedy" in answer["msg"]
    assert quick == []


def test_an_engine_of_unknown_size_takes_what_any_build_takes():
    assert installing.needed_bytes(0) == building.BUILD_BYTES
    assert installing.needed_bytes(3) == 6


def test_pip_fails_with_a_remedy_and_the_password_of_the_index_is_nowhere(call, arguments, monkeypatch):
    monkeypatch.setenv("PIP_RETRIES", "0")
    seen = []
    real = subprocess.Popen
    monkeypatch.setattr(pips.subprocess, "Popen", lambda argv, **more: seen.append(argv) or real(argv, **more))
    url = "http://reader:%s@127.0.0.1:9/simple" % SECRET
    arguments.update(index_url=url, extra_index_urls=[url + "2"], find_links=[])
    answer = call(**arguments, build=True)
    assert answer["failed"]
    assert "Remedy" in answer["msg"] and "vllm_engine_index_url" in answer["msg"]
    assert SECRET not in json.dumps(answer)
    assert seen and SECRET not in json.dumps(seen)
    logs = list(Path(arguments["root"]).glob("*.log"))
    assert len(logs) == 1
    assert "127.0.0.1" in logs[0].read_text() and SECRET not in logs[0].read_text()


def test_everything_that_pip_writes_goes_with_the_build(call, arguments, quick):
    call(**arguments, build=True)
    env = quick[0][1].env
    assert env["PIP_NO_CACHE_DIR"] == "1"
    assert env["PIP_NO_INDEX"] == "1"
    assert env["TMPDIR"].startswith(arguments["root"])


def test_a_password_in_a_wheel_directory_is_refused_without_repeating_it(call, arguments, quick):
    arguments["find_links"] = ["https://reader:%s@wheels.example/x" % SECRET]
    answer = call(**arguments)
    assert "https://****@wheels.example/x" in answer["msg"] and "Remedy" in answer["msg"]


def test_an_interpreter_without_pip_is_refused(tmp_path):
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho No module named pip\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(pythons.EngineError, match=r"without a pip .*No module named pip.*Remedy"):
        pips.check_pip(pips.Pip(str(python), {}, "", installing.THIS_HOST))


KILLED = """
import subprocess, sys, time
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_host as host
with host.locked(sys.argv[1]) as descriptor:
    subprocess.Popen(["sleep", "2"], pass_fds=(descriptor,), stdout=subprocess.DEVNULL)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_build_whose_run_was_killed_is_waited_for_as_long_as_its_pip_writes(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT / "collections"
    )
    assert holder.stdout.readline() == "held\n"
    began = time.monotonic()
    holder.kill()
    holder.wait()
    with pytest.raises(host.EngineTreeError), host.locked(str(tmp_path), 0.2):
        pytest.fail("pip still writes")
    with host.locked(str(tmp_path), 30):
        assert time.monotonic() - began > 1


class Task:
    check_mode = False
    diff = False
    async_val = 0
    environment = ()

    def __init__(self, args):
        self.args = args


@pytest.fixture
def act(monkeypatch):
    """Run the action against a host that answers as told; return the result and the modules' arguments."""

    def run(args, answers):
        sent = []
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = Task(args)
        monkeypatch.setattr(action.ActionBase, "run", lambda *_args, **_more: {})
        monkeypatch.setattr(
            plugin,
            "_execute_module",
            lambda module_name, module_args, task_vars: sent.append(module_args) or answers.pop(0),
        )
        return plugin.run(None, {"inventory_hostname": "h"}), sent

    return run


def test_the_lock_file_is_read_on_the_control_node_and_a_build_is_asked_for_once(act, tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("torch==1.0 --hash=sha256:0\n")
    asks = {"changed": True, "must_build": True, "engine_id": "1.0-x", "path": "/e/1.0-x"}
    result, sent = act({"lock_file": str(lock), "build": True}, [asks, {"changed": True, "path": "/e/1.0-x"}])
    assert result == {"changed": True, "path": "/e/1.0-x"}
    assert [one.get("build") for one in sent] == [None, True]
    assert sent[0]["lock"] == lock.read_text()
    result, sent = act({"lock_file": str(lock)}, [{"changed": False}])
    assert (result, len(sent)) == ({"changed": False}, 1)


def test_a_missing_lock_file_and_a_password_in_a_wheel_directory_never_reach_the_host(act, tmp_path):
    with pytest.raises(AnsibleActionFail, match="Remedy"):
        act({"lock_file": str(tmp_path / "none")}, [])
    links = "https://reader:%s@wheels.example" % SECRET
    for value in (links, [links]):
        with pytest.raises(AnsibleActionFail, match=r"\*\*\*\*@wheels") as refusal:
            act({"lock_file": str(tmp_path / "none"), "find_links": value}, [])
        assert SECRET not in str(refusal.value)
