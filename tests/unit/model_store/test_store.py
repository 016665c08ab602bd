# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store on a host: commit, drift, repair, prune, lock. And the control node's cache."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import stat
import threading
import time

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_control as control
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_host as host
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import FileEntry, ModelError, version_id


def entries_of(files):
    return [FileEntry(p, len(d), hashlib.sha256(d).hexdigest()) for p, d in sorted(files.items())]


@pytest.fixture
def place(tmp_path):
    """Return a function that stages a model's files (all, or those named) and commits them."""
    store = host.ModelStore(str(tmp_path / "store"), "m")

    def placing(files, only=None, keep_versions=2, reference_globs=()):
        entries = entries_of(files)
        store.prepare_staging()
        for entry in entries:
            if only is None or entry.path in only:
                with open(os.path.join(store.staging, entry.key + ".partial"), "wb") as handle:
                    handle.write(files[entry.path])
                assert store.seal(entry)["ok"]
        with store.locked():
            return store.commit(
                entries,
                source="file:/x",
                revision=None,
                keep_versions=keep_versions,
                allow_pickle=False,
                reference_globs=reference_globs,
            )

    placing.store = store
    return placing


def test_commit(place, helpers):
    files = dict(helpers.tiny_model(), **{"sub/dir/vocab.txt": b"a\n"})
    answer = place(files)
    store = place.store
    identity = version_id(entries_of(files))
    assert (answer["version_id"], answer["changed"], answer["missing"]) == (identity, True, [])
    assert os.readlink(store.link) == "versions/" + identity
    for path, data in files.items():
        real = os.path.join(store.link, path)
        with open(real, "rb") as handle:
            assert handle.read() == data
        assert stat.S_IMODE(os.stat(real).st_mode) == 0o644
    assert stat.S_IMODE(os.stat(store.link + "/sub/dir").st_mode) == 0o755
    assert not os.path.exists(store.staging)
    assert store.drift(identity, entries_of(files)) == {"bad": [], "modes": [], "extra": []}
    assert place(files, only=[])["changed"] is False


def test_seal_removes_what_hashes_wrong(place):
    store = place.store
    store.prepare_staging()
    entry = FileEntry("a", 1, hashlib.sha256(b"a").hexdigest())
    partial = os.path.join(store.staging, entry.key + ".partial")
    with open(partial, "wb") as handle:
        handle.write(b"b")
    answer = store.seal(entry)
    assert answer["ok"] is False
    assert answer["got"] == hashlib.sha256(b"b").hexdigest()
    assert not os.path.exists(partial)


def test_sealed_file_that_changed_is_not_trusted(place):
    store = place.store
    store.prepare_staging()
    entry = FileEntry("a", 1, hashlib.sha256(b"a").hexdigest())
    with open(os.path.join(store.staging, entry.key + ".partial"), "wb") as handle:
        handle.write(b"a")
    assert store.seal(entry)["ok"]
    with open(os.path.join(store.staging, entry.key), "wb") as handle:
        handle.write(b"b")
    assert store.sealed(entry.key) is None
    assert store.seal(entry)["ok"] is False


def test_missing_bytes_leave_the_current_version(place, helpers):
    first = helpers.tiny_model("one")
    place(first)
    before = os.readlink(place.store.link)
    answer = place(helpers.tiny_model("two"), only=["config.json"])
    assert answer["missing"] == ["model.safetensors"]
    assert answer["changed"] is False
    assert os.readlink(place.store.link) == before


def test_pickle_inside_is_refused_at_the_last_moment(place, helpers):
    place(helpers.tiny_model())
    before = os.readlink(place.store.link)
    answer = place(dict(helpers.tiny_model("two"), **{"weights.bin": b"\x80\x04K\x01."}))
    assert [f["check"] for f in answer["findings"]] == ["model.pickle"]
    assert os.readlink(place.store.link) == before


def test_same_content_is_not_needed_twice(place, helpers):
    first = helpers.tiny_model()
    place(first)
    second = dict(first, **{"config.json": b'{"other": 1}'})
    answer = place(second, only=["config.json"])
    assert answer["changed"] and answer["missing"] == []
    old, new = (os.path.join(place.store.path(i), "model.safetensors") for i in place.store.version_ids())
    assert os.stat(old).st_ino == os.stat(new).st_ino


def test_rotten_file_of_an_old_version_is_not_taken_over(place, helpers):
    first = helpers.tiny_model()
    place(first)
    flip(os.path.join(place.store.link, "model.safetensors"))
    answer = place(dict(first, **{"config.json": b'{"other": 1}'}), only=["config.json"])
    assert answer["missing"] == ["model.safetensors"]


def flip(path, keep_times=True):
    """Flip one bit in the middle of a file, as a disk would: without a new modification time."""
    status = os.stat(path)
    with open(path, "r+b") as handle:
        handle.seek(status.st_size // 2)
        byte = handle.read(1)[0]
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte ^ 1]))
    if keep_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_bit_rot_is_found_marked_and_repaired_alone(place, helpers):
    files = helpers.tiny_model()
    entries = entries_of(files)
    identity = place(files)["version_id"]
    store = place.store
    config = os.stat(os.path.join(store.link, "config.json")).st_ino
    flip(os.path.join(store.link, "model.safetensors"))
    assert store.drift(identity, entries)["bad"] == []  # nothing to see without reading
    broken = store.rehash(identity)
    assert [item["path"] for item in broken] == ["model.safetensors"]
    store.mark(identity, {"model.safetensors"}, list(files))
    assert store.drift(identity, entries)["bad"] == ["model.safetensors"]
    answer = place(files, only=["model.safetensors"])
    assert answer["repaired"] == ["model.safetensors"]
    assert store.rehash(identity) == []
    assert os.stat(os.path.join(store.link, "config.json")).st_ino == config


@pytest.mark.parametrize("harm", ["touch", "delete", "link", "mode", "extra"])
def test_drift(place, helpers, harm, tmp_path):
    files = helpers.tiny_model()
    entries = entries_of(files)
    identity = place(files)["version_id"]
    path = os.path.join(place.store.link, "config.json")
    if harm == "touch":
        os.utime(path, (1, 1))
    if harm in ("delete", "link"):
        os.unlink(path)
    if harm == "link":
        os.symlink("/etc/passwd", path)
    if harm == "mode":
        os.chmod(path, 0o666)
    if harm == "extra":
        with open(os.path.join(place.store.link, "added.py"), "w") as handle:
            handle.write("x")
    drift = place.store.drift(identity, entries)
    kind = {"mode": "modes", "extra": "extra"}.get(harm, "bad")
    assert drift[kind] == (["added.py"] if harm == "extra" else ["config.json"])
    answer = place(files, only=["config.json"] if harm in ("delete", "link") else [])
    assert answer["missing"] == []
    assert place.store.drift(identity, entries) == {"bad": [], "modes": [], "extra": []}
    assert answer["changed"] is (harm != "touch")


def test_prune_keeps_n_and_never_the_current(place, helpers):
    identities = [place(helpers.tiny_model(str(n)), keep_versions=2)["version_id"] for n in range(4)]
    assert place.store.version_ids() == identities[1:]
    back = place(helpers.tiny_model("1"), only=[], keep_versions=0)  # back to the oldest: nothing is sent
    assert back["changed"]
    assert place.store.version_ids() == [identities[1]]
    assert place.store.current_id() == identities[1]


def test_prune_keeps_what_a_configuration_names_or_a_process_has_open(place, helpers, tmp_path):
    first = place(helpers.tiny_model("1"))["version_id"]
    conf = tmp_path / "conf.yaml"
    conf.write_text("model: %s\n" % place.store.path(first))
    globs = [str(tmp_path / "*.yaml")]
    second = place(helpers.tiny_model("2"), keep_versions=0, reference_globs=globs)["version_id"]
    with open(os.path.join(place.store.path(second), "config.json"), "rb"):
        third = place(helpers.tiny_model("3"), keep_versions=0, reference_globs=globs)["version_id"]
        assert set(place.store.version_ids()) == {first, second, third}
    conf.unlink()
    assert set(place.store.prune(0, globs)) == {first, second}


def test_leftovers_of_a_killed_commit_are_cleared(place, helpers):
    files = helpers.tiny_model()
    building = os.path.join(place.store.versions, ".new-%s" % version_id(entries_of(files)))
    os.makedirs(building + "/junk")
    os.makedirs(os.path.join(place.store.versions, ".new-other"))
    os.symlink("versions/nothing", os.path.join(place.store.home, ".current.new"))
    assert place(files)["changed"]
    assert sorted(os.listdir(place.store.versions)) == [version_id(entries_of(files))]
    assert not os.path.exists(place.store.link + "/junk")


def test_lock_is_refused_with_the_holder(place, helpers):
    os.makedirs(place.store.home)
    with open(os.path.join(place.store.home, ".lock"), "w") as handle:
        handle.write("4242\n")
        handle.flush()
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ModelError) as caught:
            with place.store.locked(timeout_seconds=0.1):
                pass
    assert "4242" in caught.value.findings[0]["found"]


def test_disk_needed_counts_what_is_there_already(place, helpers):
    files = helpers.tiny_model()
    entries = entries_of(files)
    total = sum(e.size for e in entries)
    assert host.disk_needed(place.store, entries) == total
    place.store.prepare_staging()
    weights = next(e for e in entries if e.path == "model.safetensors")
    with open(os.path.join(place.store.staging, weights.key + ".partial"), "wb") as handle:
        handle.write(files[weights.path][:1000])
    assert host.disk_needed(place.store, entries) == total - 1000
    place(files)
    assert host.disk_needed(place.store, entries) == 0
    other = entries_of(dict(files, **{"config.json": b"{}"}))
    assert host.disk_needed(place.store, other) == 2


def test_free_bytes_of_a_path_that_is_not_there_yet(tmp_path):
    assert host.free_bytes(str(tmp_path / "a" / "b")) == host.free_bytes(str(tmp_path))


# --- the control node ---------------------------------------------------------------------------------------------


def test_scan_follows_safe_links_only(tmp_path, helpers):
    source = helpers.write_model(tmp_path / "src", helpers.tiny_model())
    (source / ".git").mkdir()
    (source / ".git" / "HEAD").write_text("x")
    (source / "alias.json").symlink_to("config.json")
    found = control.scan_directory("m", str(source))
    assert sorted(found) == ["alias.json", "config.json", "model.safetensors", "tokenizer.json"]
    (source / "evil.json").symlink_to("/etc/passwd")
    with pytest.raises(ModelError) as caught:
        control.scan_directory("m", str(source))
    assert "/etc/passwd" in caught.value.findings[0]["detail"]
    assert sorted(control.scan_directory("m", str(source), exclude=["evil*", "alias*"]))[0] == "config.json"


@pytest.mark.parametrize("kind", ["directory link", "dangling", "fifo"])
def test_scan_refuses_odd_files(tmp_path, helpers, kind):
    source = helpers.write_model(tmp_path / "src", helpers.tiny_model())
    if kind == "directory link":
        (source / "real").mkdir()
        (source / "odd").symlink_to("real")
    if kind == "dangling":
        (source / "odd").symlink_to("none")
    if kind == "fifo":
        os.mkfifo(source / "odd")
    with pytest.raises(ModelError):
        control.scan_directory("m", str(source))


def test_scan_of_a_hub_cache_snapshot(tmp_path):
    blobs, snapshot = tmp_path / "repo" / "blobs", tmp_path / "repo" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "1").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    assert control.scan_directory("m", str(snapshot)) == {"config.json": str(blobs / "1")}


def test_scan_of_nothing(tmp_path):
    with pytest.raises(ModelError) as caught:
        control.scan_directory("m", str(tmp_path / "none"))
    assert "gpufleet_models[name=m].source" in caught.value.findings[0]["detail"]


def test_hashes_are_remembered_by_stat(tmp_path, helpers):
    source = helpers.write_model(tmp_path / "src", helpers.tiny_model())
    cache = control.ControlCache(str(tmp_path / "cache"))
    files = control.scan_directory("m", str(source))
    read = []
    first = cache.hash_files(files, str(source), lambda path, size: read.append(path))
    assert sorted(read) == sorted(files)
    read.clear()
    assert cache.hash_files(files, str(source), lambda path, size: read.append(path)) == first
    assert read == []
    (source / "config.json").write_text('{"b": 1}')
    cache.hash_files(files, str(source), lambda path, size: read.append(path))
    assert read == ["config.json"]


def test_workers_of_many_hosts_remember_the_same_directory_at_once(tmp_path, helpers):
    """Ansible forks a worker for each host, and they all hash the same source in step."""
    source = helpers.write_model(tmp_path / "src", helpers.tiny_model())
    files = control.scan_directory("m", str(source))
    together = multiprocessing.get_context("fork").Barrier(4)

    def work(number):
        cache = control.ControlCache(str(tmp_path / "cache"))
        for _round in range(25):
            together.wait(20)
            os.utime(source / "config.json", ns=(0, time.time_ns() + number))  # so that there is something to write
            cache.hash_files(files, str(source))

    workers = [multiprocessing.get_context("fork").Process(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert [path.suffix for path in (tmp_path / "cache" / "hashes").iterdir()] == [".json"]


def test_a_write_that_fails_leaves_nothing_beside(tmp_path):
    (tmp_path / "record.json").mkdir()
    with pytest.raises(IsADirectoryError):
        host.write_json(str(tmp_path / "record.json"), {})
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_partial_bytes_of_what_another_worker_moved_away(tmp_path):
    cache = control.ControlCache(str(tmp_path / "cache"))
    cache.prepare()
    entry = FileEntry("a", 1, hashlib.sha256(b"a").hexdigest())
    assert cache.partial_bytes(entry) == 0
    with open(cache.partial(entry), "wb") as handle:
        handle.write(b"a")
    assert cache.partial_bytes(entry) == 1


def test_read_only_cache_writes_nothing(tmp_path, helpers):
    source = helpers.write_model(tmp_path / "src", helpers.tiny_model())
    cache = control.ControlCache(str(tmp_path / "cache"), read_only=True)
    cache.hash_files(control.scan_directory("m", str(source)), str(source))
    cache.remember_hub_commit("https://h", "o/r", "0" * 40, [])
    assert not (tmp_path / "cache").exists()


def test_blob_that_was_touched_is_not_trusted(tmp_path):
    cache = control.ControlCache(str(tmp_path / "cache"))
    cache.prepare()
    entry = FileEntry("a", 1, hashlib.sha256(b"a").hexdigest())
    with open(cache.partial(entry), "wb") as handle:
        handle.write(b"a")
    path = cache.keep(entry, entry.sha256)
    assert cache.blob(entry.sha256) == path
    with open(path, "wb") as handle:
        handle.write(b"b")
    assert cache.blob(entry.sha256) is None


def test_download_lock_lets_one_in(tmp_path):
    cache = control.ControlCache(str(tmp_path / "cache"))
    cache.prepare()
    entry, order, inside = FileEntry("a", 1, "a" * 64), [], threading.Event()

    def second():
        inside.wait(2)
        with cache.locked(entry):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with cache.locked(entry):
        inside.set()
        thread.join(0.1)
        order.append("first")
    thread.join(2)
    assert order == ["first", "second"]
