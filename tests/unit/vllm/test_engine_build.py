# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive's key, its inputs, and the parts of a build that need no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_archive as archiving
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_build as building
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_pip as pips
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_python as pythons
from engine_wheels import make_wheels

LOCK = "numpy==1.0 \\\n    --hash=sha256:%s\ntorch==2.0+cpu \\\n    --hash=sha256:%s\n" % ("a" * 64, "b" * 64)
PYTHON = {"build": "3.11.2 (main, x)", "soabi": "cpython-311", "machine": "x86_64"}
SHIMS = [{"name": "vllm", "version": "1.0+cpu"}]


def test_a_comment_does_not_change_the_key_and_a_hash_does():
    key = building.engine_key(LOCK, PYTHON, SHIMS)
    assert building.engine_key("# resolved today\n\n" + LOCK, PYTHON, SHIMS) == key
    assert building.engine_key(LOCK.replace("b" * 64, "c" * 64), PYTHON, SHIMS) != key


@pytest.mark.parametrize("change", [{"build": "3.11.3"}, {"machine": "aarch64"}, {"soabi": "x"}])
def test_another_interpreter_is_another_engine(change):
    assert building.engine_key(LOCK, dict(PYTHON, **change), SHIMS) != building.engine_key(LOCK, PYTHON, SHIMS)


def test_other_shims_are_another_engine():
    assert building.engine_key(LOCK, PYTHON, []) != building.engine_key(LOCK, PYTHON, SHIMS)


def test_the_names_of_a_lock_file_are_counted():
    assert pips.locked_names(LOCK) == ["numpy", "torch"]


@pytest.mark.parametrize(
    "text", ["", "numpy>=1.0 --hash=sha256:%s\n" % ("a" * 64), LOCK + "requests==2.0\n", LOCK + "-e .\n"]
)
def test_a_lock_file_with_anything_loose_is_refused(text):
    with pytest.raises(pythons.EngineError, match="Remedy"):
        pips.check_lock(text, "x.txt")


def test_addresses_go_to_pip_by_environment_only(monkeypatch):
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    env = pips.pip_environment(["/wheels"], "https://u:secret@index/simple", ["https://more/simple"])
    assert env["PIP_INDEX_URL"] == "https://u:secret@index/simple"
    assert env["PIP_FIND_LINKS"] == "/wheels"
    assert "PIP_TARGET" not in env and "PYTHONPATH" not in env
    assert not any("secret" in part for part in pips.pip_command("python3", "/tree", "lock.txt"))


def test_without_inputs_the_operators_own_pip_configuration_stays(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://ours/simple")
    env = pips.pip_environment([], None, [])
    assert env["PIP_INDEX_URL"] == "https://ours/simple"
    assert "PIP_NO_INDEX" not in env


def test_an_empty_index_takes_none_at_all():
    assert pips.pip_environment(["/wheels"], "", [])["PIP_NO_INDEX"] == "1"


def test_a_password_in_an_address_is_not_logged():
    for user in ("user:secret", "user:sec@ret", "token"):
        text = "Looking in indexes: https://%s@index.example/simple" % user
        assert pips.redact_urls(text) == "Looking in indexes: https://****@index.example/simple"


@pytest.mark.parametrize(
    ("path", "is_dir", "gone"),
    [
        ("numpy/tests", True, True),
        ("torch/lib/libc10.so", False, False),
        ("torch/lib/libx.a", False, True),
        ("torch/_C.pyi", False, True),
        ("vllm/tests", True, False),
        ("vllm/__pycache__", True, True),
        ("vllm/model.py", False, False),
    ],
)
def test_only_what_no_engine_opens_is_stripped(path, is_dir, gone):
    assert building.strippable(path, is_dir) is gone


def test_a_shim_is_a_distribution_with_a_version(tmp_path):
    building.add_shim(str(tmp_path), "vllm", "1.0+cpu")
    code = "import importlib.metadata as m; print(m.version('vllm'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1.0+cpu"


def test_an_interpreter_of_another_version_is_refused_by_name():
    with pytest.raises(pythons.EngineError) as refusal:
        pythons.probe_python("2.6", sys.executable)
    assert "vllm_engine_python" in str(refusal.value)
    assert "Remedy" in str(refusal.value)


@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="needs the platform's own Python")
def test_a_copied_interpreter_uses_nothing_of_where_it_came_from(tmp_path):
    short = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    python = pythons.probe_python(short, "/usr/bin/python3")
    tree = str(tmp_path / "tree")
    os.makedirs(tree)
    pythons.copy_interpreter(python, tree, headers=False)
    site = pythons.check_relocated(tree, "/usr/bin/python3")
    assert site.startswith(tree)
    moved = str(tmp_path / "moved")
    os.rename(tree, moved)
    code = "import sys, json, ssl, ctypes, sqlite3; print(json.dumps(sys.path))"
    done = subprocess.run([moved + "/bin/python3", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert "/usr/lib" not in done.stdout


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")
def test_the_same_tree_packs_to_the_same_bytes(tmp_path):
    digests = []
    for name in ("one", "two"):
        tree = tmp_path / name
        (tree / "bin").mkdir(parents=True)
        for entry in ("b", "a") if name == "one" else ("a", "b"):
            (tree / "bin" / entry).write_text(entry)
        (tree / "bin" / "link").symlink_to("a")
        os.utime(tree / "bin" / "a", (1, 1 if name == "one" else 99))
        digests.append(archiving.pack_tree(str(tree), str(tmp_path / (name + ".tar.zst")), lambda _m: None)["sha256"])
    assert digests[0] == digests[1]


def test_further_directories_are_searched_last(tmp_path):
    for base in ("b", "a"):
        (tmp_path / base).mkdir()
        os.symlink(sys.executable, tmp_path / base / "python9.9")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "python9.9").write_text("not executable")
    found = pythons.candidate_pythons("9.9", [str(tmp_path / "*")])
    assert found == [str(tmp_path / "a" / "python9.9"), str(tmp_path / "b" / "python9.9")]
    short = "%d.%d" % sys.version_info[:2]
    assert pythons.candidate_pythons(short, ["/nowhere/*"]) == pythons.candidate_pythons(short)


def test_an_archive_that_was_cut_is_built_again(tmp_path):
    archive, description = archiving.archive_paths(str(tmp_path), "1-abc")
    os.makedirs(os.path.dirname(archive))
    with open(archive, "wb") as handle:
        handle.write(b"12345")
    with open(description, "w", encoding="utf-8") as handle:
        handle.write('{"key": "k", "size_bytes": 6}')
    assert archiving.read_archive(str(tmp_path), "1-abc", "k") is None
    with open(description, "w", encoding="utf-8") as handle:
        handle.write('{"key": "k", "size_bytes": 5}')
    assert archiving.read_archive(str(tmp_path), "1-abc", "k") is not None
    assert archiving.read_archive(str(tmp_path), "1-abc", "other") is None


@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="needs the platform's own Python")
def test_byte_code_names_neither_the_build_nor_a_time(tmp_path):
    tree = tmp_path / "build-directory"
    package = tree / "lib" / "package"
    package.mkdir(parents=True)
    (tree / "bin").mkdir()
    (tree / "bin" / "python3").symlink_to("/usr/bin/python3")
    (package / "__init__.py").write_text("def f():\n    return 1\n")
    subprocess.run(["/usr/bin/python3", "-m", "compileall", "-q", str(package)], check=True)
    building.compile_tree(str(tree))
    compiled = next((package / "__pycache__").iterdir()).read_bytes()
    assert b"build-directory" not in compiled
    assert compiled[4:8] == b"\x01\x00\x00\x00", "expected byte code by hash that is never checked"


@pytest.fixture
def recipe(tmp_path):
    short = "%d.%d" % sys.version_info[:2]
    lock = make_wheels(tmp_path / "wheels")
    return building.Recipe("1.0", lock, pythons.probe_python(short, sys.executable), [{"name": "vllm", "version": "1"}])


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")
def test_an_archive_is_built_once_and_what_an_interrupted_build_left_is_gone(tmp_path, recipe):
    cache = str(tmp_path / "cache")
    archive = archiving.archive_paths(cache, recipe.identity)[0]
    os.makedirs(os.path.join(os.path.dirname(archive), recipe.identity + ".building", "tree", "bin"))
    env = pips.pip_environment([str(tmp_path / "wheels")], "", [])
    said = []
    record = archiving.build(cache, recipe, env, said.append)
    assert os.stat(archive).st_size == record["size_bytes"]
    assert (record["key"], record["vllm"]) == (recipe.key, "1")
    assert "max-model-len" in record["arguments"]
    assert not any(name.endswith((".building", ".partial")) for name in os.listdir(os.path.dirname(archive)))
    said.clear()
    assert archiving.build(cache, recipe, env, said.append) == record
    assert said == []


def test_too_little_disk_on_the_control_node_is_refused(tmp_path, recipe, monkeypatch):
    monkeypatch.setattr(building, "BUILD_BYTES", 1 << 60)
    with pytest.raises(pythons.EngineError, match=r"expected at least .*Remedy"):
        archiving.build(str(tmp_path / "cache"), recipe, {}, lambda _m: None)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "No such file"),
        ("exit 3", r"\(exit 3\)"),
        ('echo \'{"short": "2.7", "version": "2.7.1"}\'', r"is Python 2\.7\.1"),
    ],
)
def test_an_interpreter_that_cannot_be_used_is_refused_with_what_it_said(tmp_path, script, says):
    python = tmp_path / "python"
    if script:
        python.write_text("#!/bin/sh\n%s\n" % script)
        python.chmod(0o755)
    with pytest.raises(pythons.EngineError, match=says) as refusal:
        pythons.probe_python("3.11", str(python), (), "this host")
    assert "on this host" in str(refusal.value)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo libpython missing >&2; exit 127", "does not start when it is moved: libpython missing"),
        ('echo \'{"path": ["/usr/lib/python3"], "libpython": [], "purelib": "/usr/lib/python3"}\'', "still uses"),
    ],
)
def test_an_interpreter_that_leans_on_where_it_came_from_is_refused(tmp_path, script, says):
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text("#!/bin/sh\n%s\n" % script)
    python.chmod(0o755)
    with pytest.raises(pythons.EngineError, match=says):
        pythons.check_relocated(str(tmp_path), "/usr/bin/python3")


def test_an_engine_that_does_not_import_is_refused_with_its_last_lines(tmp_path):
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text("#!/bin/sh\necho libnuma.so.1: not found\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(pythons.EngineError, match=r"Importing .*exit 1.*libnuma\.so\.1"):
        pythons.run_in_tree(str(tmp_path), ["-c", ""], "Importing the engine", 10)
