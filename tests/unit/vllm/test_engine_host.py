# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engine trees on a host, with a small archive made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_archive as archiving
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_host as host

needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")

ROOT = Path(__file__).parents[3]


def make_archive(tmp_path, key, python="#!/bin/sh\nexit 0\n"):
    tree = tmp_path / ("tree-" + key)
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "python3").write_text(python)
    (tree / "bin" / "python3").chmod(0o755)
    (tree / host.MANIFEST_NAME).write_text(json.dumps({"key": key, "engine_id": "1-" + key}))
    archive = str(tmp_path / (key + ".tar.zst"))
    return archive, archiving.pack_tree(str(tree), archive, lambda _m: None)["sha256"]


@needs_zstd
def test_engines_lie_side_by_side_and_the_one_before_is_remembered(tmp_path):
    root = str(tmp_path / "engines")
    os.makedirs(root)
    for key in ("aaa", "bbb"):
        archive, sha256 = make_archive(tmp_path, key)
        host.unpack(root, "1-" + key, key, archive, sha256)
        assert host.verified(os.path.join(root, "1-" + key), key)
        assert host.switch(root, "1-" + key) is True
        assert host.switch(root, "1-" + key) is False
    assert host.trees(root) == ["1-aaa", "1-bbb"]
    assert host.link_target(os.path.join(root, "current")) == "1-bbb"
    assert host.link_target(os.path.join(root, "previous")) == "1-aaa"


@needs_zstd
def test_an_archive_with_a_wrong_byte_is_refused_and_nothing_appears(tmp_path):
    root = str(tmp_path / "engines")
    os.makedirs(root)
    archive, sha256 = make_archive(tmp_path, "aaa")
    with open(archive, "r+b") as handle:
        handle.seek(20)
        handle.write(b"\0")
    with pytest.raises(host.EngineTreeError, match="untouched"):
        host.unpack(root, "1-aaa", "aaa", archive, sha256)
    assert os.listdir(root) == []


@needs_zstd
def test_an_engine_that_does_not_import_here_never_gets_its_name(tmp_path):
    root = str(tmp_path / "engines")
    os.makedirs(root)
    archive, sha256 = make_archive(tmp_path, "aaa", "#!/bin/sh\necho libnuma.so.1: not found\nexit 1\n")
    with pytest.raises(host.EngineTreeError, match=r"libnuma\.so\.1"):
        host.unpack(root, "1-aaa", "aaa", archive, sha256)
    assert os.listdir(root) == []


@needs_zstd
def test_an_archive_of_another_engine_is_refused(tmp_path):
    root = str(tmp_path / "engines")
    os.makedirs(root)
    archive, sha256 = make_archive(tmp_path, "aaa")
    with pytest.raises(host.EngineTreeError, match="expected 1-bbb"):
        host.unpack(root, "1-bbb", "bbb", archive, sha256)
    assert os.listdir(root) == []


def test_a_tree_without_its_mark_is_not_taken_for_whole(tmp_path):
    assert host.verified(str(tmp_path), "k") is False
    (tmp_path / host.VERIFIED_NAME).write_text('{"key": "other"}')
    assert host.verified(str(tmp_path), "k") is False


def test_only_trees_that_nobody_names_are_pruned(tmp_path):
    unit = tmp_path / "vllm@x-a.service.d"
    unit.mkdir()
    (unit / "10.conf").write_text("ExecStart=/opt/gpufleet/engines/vllm/1-used/bin/python3\n")
    names = ["1-cur", "1-prev", "1-used", "1-old", "1-us"]
    used = host.referenced(names, [str(tmp_path / "vllm@*.service.d" / "*.conf")])
    assert used == {"1-used"}
    assert host.prunable(names, "1-cur", "1-prev", used) == ["1-old", "1-us"]


def test_what_an_interrupted_run_left_is_found(tmp_path):
    (tmp_path / "1-x.unpacking").mkdir()
    (tmp_path / host.INCOMING).mkdir()
    (tmp_path / host.INCOMING / "1-x.tar.zst.partial").write_text("half")
    (tmp_path / "1-good").mkdir()
    assert [os.path.basename(p) for p in host.leftovers(str(tmp_path))] == ["1-x.tar.zst.partial", "1-x.unpacking"]
    assert host.trees(str(tmp_path)) == ["1-good"]


def test_too_little_disk_is_refused_before_anything_is_sent(tmp_path):
    with pytest.raises(host.EngineTreeError) as refusal:
        host.check_space(str(tmp_path / "not" / "there"), 1 << 60)
    assert "MiB free" in str(refusal.value)
    assert "Remedy" in str(refusal.value)


def models(tmp_path):
    return [{"model": "m", "model_link": str(tmp_path / "m" / "current")}]


def test_a_model_is_resolved_to_its_version(tmp_path):
    version = tmp_path / "m" / "versions" / "v1"
    version.mkdir(parents=True)
    (version / "config.json").write_text("{}")
    (tmp_path / "m" / "current").symlink_to("versions/v1")
    assert host.read_models(models(tmp_path), False) == {"m": str(version)}


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_model_directory_without_config_is_refused_in_check_mode_too(tmp_path, check_mode):
    (tmp_path / "m" / "current").mkdir(parents=True)
    with pytest.raises(host.EngineTreeError, match=r"no config\.json in it"):
        host.read_models(models(tmp_path), check_mode)


def test_a_model_that_is_still_to_come_is_refused_only_in_a_real_run(tmp_path):
    assert host.read_models(models(tmp_path), True) == {"m": str(tmp_path / "m" / "current")}
    with pytest.raises(host.EngineTreeError, match="no such directory"):
        host.read_models(models(tmp_path), False)


HOLD = """
import sys, time
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_host as host
with host.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(root, seconds):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT / "collections",
    )
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_run_waits_for_the_first(tmp_path):
    holder = hold(tmp_path / "engines", 1)
    with host.locked(str(tmp_path / "engines"), 30):
        assert holder.wait(10) == 0


def test_a_second_run_gives_up_and_names_the_first(tmp_path):
    holder = hold(tmp_path, 30)
    try:
        with pytest.raises(host.EngineTreeError, match=r"process %d has been .*Nothing was changed" % holder.pid):
            with host.locked(str(tmp_path), 0.3):
                pytest.fail("it isn't ours")
    finally:
        holder.kill()
        holder.wait()
    with host.locked(str(tmp_path), 0.3):
        pass  # who was killed holds nothing


def test_the_lock_is_no_engine(tmp_path):
    with host.locked(str(tmp_path)):
        assert host.trees(str(tmp_path)) == host.leftovers(str(tmp_path)) == []


def test_a_reference_that_cannot_be_read_names_nothing(tmp_path):
    (tmp_path / "one.conf").write_text("ExecStart=/opt/engines/1-us/bin/x\n")
    (tmp_path / "two.conf").mkdir()
    assert host.referenced(["1-us", "1-no"], [str(tmp_path / "*.conf")]) == {"1-us"}
    assert host.trees(str(tmp_path / "absent")) == []


@pytest.mark.parametrize(
    ("sudo_uid", "remote_user", "owner"), [("1234", "root", 1234), (None, "daemon", 1), (None, "nobody-here", None)]
)
def test_the_directory_for_what_is_sent_belongs_to_the_sender(tmp_path, monkeypatch, sudo_uid, remote_user, owner):
    owned = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: owned.append((path, user, group)))
    monkeypatch.delenv("SUDO_UID", raising=False)
    if sudo_uid:
        monkeypatch.setenv("SUDO_UID", sudo_uid)
    incoming = host.prepare(str(tmp_path), remote_user)
    assert owned == [(incoming, os.geteuid() if owner is None else owner, -1)]
    assert os.stat(incoming).st_mode & 0o777 == 0o700


def test_an_archive_that_tar_cannot_read_leaves_no_tree(tmp_path):
    archive = tmp_path / "a.tar.zst"
    archive.write_bytes(b"no archive")
    with pytest.raises(host.EngineTreeError, match="tar could not unpack the engine"):
        host.unpack(str(tmp_path / "root"), "1-x", "x", str(archive), host.sha256_of(str(archive)))
    assert os.listdir(tmp_path / "root") == []


def test_a_host_without_zstd_says_which_package_to_install(tmp_path, monkeypatch):
    archive = tmp_path / "a.tar.zst"
    archive.write_bytes(b"")
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "zstd" else tool)
    with pytest.raises(host.EngineTreeError, match="Remedy: install the package zstd"):
        host.unpack(str(tmp_path), "1-x", "x", str(archive), host.sha256_of(str(archive)))
