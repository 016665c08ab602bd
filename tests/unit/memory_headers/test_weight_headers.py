# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of weights: what good ones say, and that nothing a stranger can write is more than a clear refusal."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys

import pytest
import weight_files as make
from ansible_collections.gpufleet.llm.plugins.module_utils import _weight_headers as headers
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError
from ansible_collections.gpufleet.llm.plugins.module_utils._weight_files import LocalFiles
from support import ROOT

ONE = {"a": ("BF16", (2, 3)), "b": ("F32", (4,)), "empty": ("F16", (0, 7)), "scalar": ("I64", ())}


class Memory:
    """Files in memory; a file may claim another size than it has."""

    where = "memory"

    def __init__(self, files, sizes=None):
        self.files, self.sizes = files, sizes or {}
        self.read_bytes = 0

    def names(self):
        return sorted(self.files)

    def size(self, name):
        return self.sizes.get(name, len(self.files[name])) if name in self.files else None

    def read(self, name, start, length):
        found = self.files[name][start : start + length]
        self.read_bytes += len(found)
        return found


def one_file(header, data_bytes):
    head, size = make.framed(header, data_bytes)
    return Memory({"model.safetensors": head}, {"model.safetensors": size})


def refused(files):
    """Return the check that refused."""
    with pytest.raises(ModelError) as caught:
        headers.read_weights(files)
    (found,) = caught.value.findings
    assert found["remedy"] and found["found"] and not found["ok"]
    assert "memory" in found["detail"] or "tmp" in found["detail"]
    return found["check"]


# -- what good ones say ------------------------------------------------------------------------------------------------


def test_one_file():
    made, data_bytes = make.entries(ONE)
    found = headers.read_weights(one_file(dict(made, __metadata__={"format": "pt"}), data_bytes))
    assert found.total_bytes == data_bytes == 12 + 16 + 0 + 8
    assert found.warnings == []
    assert {tensor.name: (tensor.dtype, tensor.shape, tensor.nbytes) for tensor in found.tensors} == {
        "a": ("BF16", (2, 3), 12),
        "b": ("F32", (4,), 16),
        "empty": ("F16", (0, 7), 0),
        "scalar": ("I64", (), 8),
    }
    assert {tensor.file for tensor in found.tensors} == {"model.safetensors"}
    assert json.loads(json.dumps(found.as_dict()))["tensors"][0]["shape"] == [2, 3]


def test_padding_and_packed_types():
    made, data_bytes = make.entries({"a": ("F4", (3, 2)), "b": ("F8_E4M3", (5,))})
    text = json.dumps(made).encode()
    found = headers.read_weights(one_file(text + b" " * 7, data_bytes))
    assert found.total_bytes == 3 + 5


def test_only_the_header_is_read():
    tensors = make.llama(2, 64, 128, 4, 2, 1000)
    made, data_bytes = make.entries(tensors)
    files = one_file(made, data_bytes)
    assert headers.read_weights(files).total_bytes == data_bytes
    assert files.read_bytes < headers.HEAD_BYTES


def test_a_header_longer_than_the_first_read():
    made, data_bytes = make.entries({"t%05d" % number: ("U8", (1,)) for number in range(2000)})
    files = one_file(made, data_bytes)
    assert len(files.files["model.safetensors"]) > headers.HEAD_BYTES
    assert len(headers.read_weights(files).tensors) == 2000


def test_shards_and_their_index(tmp_path):
    tensors = make.llama(4, 64, 128, 4, 2, 1000)
    total = make.write_shards(tmp_path, tensors, 3)
    make.write_sparse(tmp_path / "consolidated.safetensors", {"tok_embeddings.weight": ("BF16", (1000, 64))})
    make.write_sparse(tmp_path / "extra.safetensors", {"x": ("U8", (3,))})
    found = headers.read_weights(LocalFiles(str(tmp_path)))
    assert found.total_bytes == total
    assert len(found.tensors) == len(tensors)
    assert len({tensor.file for tensor in found.tensors}) == 3
    assert found.warnings == ["the index names no tensor of 'extra.safetensors'; they aren't counted"]


def test_an_index_that_counts_otherwise_is_said(tmp_path):
    total = make.write_shards(tmp_path, make.llama(2, 64, 128, 4, 2, 1000), 2)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["metadata"]["total_size"] = float(total + 2)
    del index["weight_map"]["model.norm.weight"]
    path.write_text(json.dumps(index))
    found = headers.read_weights(LocalFiles(str(tmp_path)))
    assert found.total_bytes == total
    assert found.warnings == [
        "the index doesn't name 'model.norm.weight', which the files hold; they are counted",
        "the index states %d bytes in all, the headers %d; the headers count" % (total + 2, total),
    ]


def test_files_without_an_index(tmp_path):
    make.write_sparse(tmp_path / "model-a.safetensors", {"a": ("F32", (4,))})
    make.write_sparse(tmp_path / "model-b.safetensors", {"b": ("F32", (4,))})
    make.write_sparse(tmp_path / "consolidated.safetensors", {"a": ("F32", (4,))})
    make.write_sparse(tmp_path / "adapter_model.safetensors", {"lora": ("F32", (4,))})
    assert headers.read_weights(LocalFiles(str(tmp_path))).total_bytes == 32
    (tmp_path / "model-a.safetensors").unlink()
    (tmp_path / "model-b.safetensors").unlink()
    assert headers.read_weights(LocalFiles(str(tmp_path))).total_bytes == 16


def test_a_snapshot_of_links(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    make.write_sparse(blobs / "0123", {"a": ("F32", (4,))})
    (snapshot / "model.safetensors").symlink_to(blobs / "0123")
    assert headers.read_weights(LocalFiles(str(snapshot))).total_bytes == 16


# -- what is refused ---------------------------------------------------------------------------------------------------


def entry(**changes):
    made = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    made.update(changes)
    return made


@pytest.mark.parametrize(
    ("header", "data_bytes", "check"),
    [
        (b"", 0, "weights.header_json"),
        (b"[]", 0, "weights.header_json"),
        (b'{"a": ', 0, "weights.header_json"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}} x', 4, "weights.header_json"),
        (b'{"\xff": 1}', 0, "weights.header_json"),
        (b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', 4, "weights.header_json"),
        (b'{"a":' + b"[" * 100_000, 0, "weights.header_json"),
        (b'{"a":' * 100_000, 0, "weights.header_json"),
        (b'{"a": [' + b"[]," * 1_000_000 + b"0]}", 0, "weights.header_json"),
        (b'{"a": 1' + b"0" * 100_000 + b"}", 0, "weights.header_json"),
        (b'{"a": NaN}', 0, "weights.header_json"),
        (b'{"a": 1e999999}', 0, "weights.header_json"),
        (b'{"a": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}}', 16, "weights.header_json"),
        (b'{"a": 1, "a": 2}', 0, "weights.header_duplicate"),
        (b'{"a": {"dtype": "F32", "dtype": "F16", "shape": [4], "data_offsets": [0, 16]}}', 16, "weights.header_dup"),
        ({"a": 1}, 0, "weights.entry"),
        ({"a": None}, 0, "weights.entry"),
        ({"a": {"dtype": "F32", "shape": [4]}}, 16, "weights.entry"),
        ({"a": entry(more=1)}, 16, "weights.entry"),
        ({"a": entry(dtype="F33")}, 16, "weights.dtype"),
        ({"a": entry(dtype=["F32"])}, 16, "weights.dtype"),
        ({"a": entry(dtype="BF16")}, 16, "weights.tensor_size"),
        ({"a": entry(shape=[5])}, 16, "weights.tensor_size"),
        ({"a": entry(dtype="F4", shape=[3], data_offsets=[0, 1])}, 1, "weights.tensor_size"),
        ({"a": entry(shape=[-4])}, 16, "weights.shape"),
        ({"a": entry(shape=[True, 4])}, 16, "weights.shape"),
        ({"a": entry(shape=["4"])}, 16, "weights.shape"),
        ({"a": entry(shape=4)}, 16, "weights.shape"),
        ({"a": entry(shape=[1] * 17)}, 16, "weights.shape"),
        ({"a": entry(shape=[2**62, 2**62])}, 16, "weights.shape"),
        ({"a": entry(shape=[2**63])}, 16, "weights.shape"),
        ({"a": entry(data_offsets=[0])}, 16, "weights.offsets"),
        ({"a": entry(data_offsets=[-16, 0])}, 16, "weights.offsets"),
        ({"a": entry(data_offsets=[16, 0])}, 16, "weights.tensor_size"),
        ({"a": entry(data_offsets={"0": 16})}, 16, "weights.offsets"),
        ({"a": entry(data_offsets=[4, 20])}, 20, "weights.hole"),
        ({"a": entry(), "b": entry(data_offsets=[8, 24])}, 24, "weights.overlap"),
        ({"a": entry(), "b": entry()}, 16, "weights.overlap"),
        ({"a": entry(), "b": entry(data_offsets=[20, 36])}, 36, "weights.hole"),
        ({"a": entry()}, 15, "weights.truncated"),
        ({"a": entry()}, 17, "weights.trailing"),
        ({"a": entry(), "__metadata__": {"format": 1}}, 16, "weights.metadata"),
        ({"a": entry(), "__metadata__": []}, 16, "weights.metadata"),
    ],
)
def test_headers_that_are_refused(header, data_bytes, check):
    assert refused(one_file(header, data_bytes)).startswith(check)


@pytest.mark.parametrize(
    ("head", "size", "check"),
    [
        (b"", 0, "weights.truncated"),
        (b"\0\0\0", 3, "weights.truncated"),
        (struct.pack("<Q", 100) + b"{}", 10, "weights.truncated"),
        (struct.pack("<Q", 100) + b"{}", 1000, "weights.truncated"),
        (struct.pack("<Q", 2**63) + b"{}", 10, "weights.header_length"),
        (struct.pack("<Q", headers.HEADER_LIMIT_BYTES + 1) + b"{}", 2**40, "weights.header_length"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", 66, "weights.pointer"),
    ],
)
def test_frames_that_are_refused(head, size, check):
    assert refused(Memory({"model.safetensors": head}, {"model.safetensors": size})) == check


def model(**changes):
    """Return a model of two files and an index."""
    files, weight_map = {}, {}
    for letter in "ab":
        made, data_bytes = make.entries({letter: ("F32", (4,))})
        head, _size = make.framed(made, data_bytes)
        files["%s.safetensors" % letter] = head + b"\0" * data_bytes
        weight_map[letter] = "%s.safetensors" % letter
    weight_map.update(changes)
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return files


@pytest.mark.parametrize(
    ("path", "check"),
    [
        ("../../etc/shadow.safetensors", "weights.index_path"),
        ("/etc/shadow.safetensors", "weights.index_path"),
        ("sub/../../a.safetensors", "weights.index_path"),
        ("a\0.safetensors", "weights.index_path"),
        ("..\\a.safetensors", "weights.index_path"),
        ("pytorch_model.bin", "weights.index_path"),
        ("", "weights.index_path"),
        (7, "weights.index_path"),
        (["a.safetensors"], "weights.index_path"),
        ("c.safetensors", "weights.shard_missing"),
        ("sub/c.safetensors", "weights.shard_missing"),
        ("a.safetensors", "weights.index_tensor"),
    ],
)
def test_what_an_index_may_not_name(path, check):
    assert refused(Memory(model(c=path))) == check


@pytest.mark.parametrize(
    ("index", "check"),
    [
        (b"{}", "weights.index"),
        (b'{"weight_map": {}}', "weights.index"),
        (b'{"weight_map": []}', "weights.index"),
        (b"[]", "weights.index"),
        (b"{", "weights.index_json"),
        (b"", "weights.index_json"),
        (b'{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}', "weights.index_duplicate"),
        (b" " * (headers.INDEX_LIMIT_BYTES + 1), "weights.index_length"),
    ],
)
def test_indexes_that_are_refused(index, check):
    assert refused(Memory(dict(model(), **{"model.safetensors.index.json": index}))) == check


def test_a_tensor_in_two_files():
    files = model()
    files["b.safetensors"] = files["a.safetensors"]
    del files["model.safetensors.index.json"]
    assert refused(Memory(files)) == "weights.duplicate"


def test_no_weights_at_all(tmp_path):
    assert refused(Memory({"config.json": b"{}", "pytorch_model.bin": b""})) == "weights.none"
    assert refused(LocalFiles(str(tmp_path / "nowhere"))) == "weights.directory"
    (tmp_path / "model.safetensors").mkdir()
    assert refused(LocalFiles(str(tmp_path))) == "weights.missing"
    os.rmdir(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "model.safetensors")
    assert refused(LocalFiles(str(tmp_path))) == "weights.missing"


def test_config(tmp_path):
    (tmp_path / "config.json").write_text('{"rope_theta": 1e6, "rms_norm_eps": 1e-05, "a": [1, 2.5]}')
    assert headers.read_config(LocalFiles(str(tmp_path)))["rope_theta"] == 1e6
    for text in ("[]", "{", '{"a": 1, "a": 2}', '{"a": NaN}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError):
            headers.read_config(LocalFiles(str(tmp_path)))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError):
        headers.read_config(LocalFiles(str(tmp_path)))


# -- what nobody thought of --------------------------------------------------------------------------------------------

TOKENS = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\u0000", b"\\", b"-1", b"1e9", b"null", b"true", b"NaN", b"\xff"]
TOKENS += [b"9" * 30, b'"F32"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b"18446744073709551616", b"0.5", b" "]


def mutated(chance, good):
    """Return a file's bytes with something wrong in it, and the size it claims."""
    data = bytearray(good)
    for _round in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) or 1)
        way = chance.randrange(7)
        if way == 0 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            data[at:at] = chance.choice(TOKENS)
        elif way == 2:
            del data[at : at + chance.randint(1, 40)]
        elif way == 3:
            data = data[:at]
        elif way == 4:
            data[at : at + 8] = bytes(chance.randrange(256) for _number in range(8))
        elif way == 5:
            data[at:at] = data[at : at + chance.randint(1, 80)]
        else:
            data[0:8] = struct.pack("<Q", chance.choice([0, 1, len(data) - 8, len(data), 2**40, 2**64 - 1]) % 2**64)
    return bytes(data), max(0, len(data) + chance.choice([0, 0, 0, 0, -1, 1, 1000]))


VALUES = [None, True, 0, -1, 1, 7, 2**31, 2**62, 2**63, 2**64, 1.5, "", "F32", "BF16", "F4", "\u0000", [], [0], {}]
VALUES += [[4], [0, 16], [16, 0], [2**62, 2**62], [1] * 17, {"dtype": "F32"}, {"a": "b"}, "x" * 1000]


def spoiled(chance, value):
    """Return a header's object with a value or a name in it replaced, removed or added."""
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.15:
        return chance.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, way = chance.choice(list(keys)), chance.randrange(8)
    changed = dict(value) if isinstance(value, dict) else list(value)
    if way == 0:
        del changed[key]
    elif way == 1 and isinstance(value, dict):
        changed[chance.choice(["a", "dtype", "", "__metadata__", "\ud800"])] = value[key]
    elif way == 2 and isinstance(value[key], int):
        changed[key] = value[key] + chance.choice([-4, -1, 1, 2, 4])
    else:
        changed[key] = spoiled(chance, value[key])
    return changed


def test_ten_thousand_headers_that_are_wrong():
    chance = random.Random(20261125)
    objects = []
    for tensors in (ONE, make.llama(1, 8, 16, 2, 1, 32), {}, {"a": ("F4", (8, 8))}):
        made, data_bytes = make.entries(tensors)
        objects.append((dict(made, __metadata__={"format": "pt"}), data_bytes))
    good = [make.framed(made, data_bytes)[0] + b"\0" * data_bytes for made, data_bytes in objects]
    outcomes, longest = {}, 0
    for number in range(10_000):
        if number % 2:
            data, size = mutated(chance, chance.choice(good))
        else:
            made, data_bytes = chance.choice(objects)
            data, size = make.framed(spoiled(chance, made), data_bytes)
        try:
            found = headers.read_weights(Memory({"model.safetensors": data}, {"model.safetensors": size}))
        except ModelError as exc:
            check = exc.findings[0]["check"]
            longest = max(longest, len(json.dumps(exc.findings, ensure_ascii=False).encode()))
        else:
            check = "read"
            assert 8 + found.total_bytes <= size
        outcomes[check] = outcomes.get(check, 0) + 1
    assert sum(outcomes.values()) == 10_000
    kinds = (
        "read header_json header_length truncated trailing hole overlap entry dtype shape offsets tensor_size metadata"
    )
    missed = [kind for kind in kinds.split() if not outcomes.get("weights." + kind, outcomes.get(kind))]
    assert not missed, outcomes


def test_two_thousand_indexes_that_are_wrong():
    chance = random.Random(4)
    files = model()
    good = files["model.safetensors.index.json"]
    outcomes = set()
    for _number in range(2_000):
        data, _size = mutated(chance, good)
        try:
            headers.read_weights(Memory(dict(files, **{"model.safetensors.index.json": data})))
            outcomes.add("read")
        except ModelError as exc:
            outcomes.add(exc.findings[0]["check"])
    assert {"weights.index_json", "weights.index", "weights.shard_missing", "weights.index_path"} <= outcomes


# -- size --------------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
import importlib, types
for name in ("ansible_collections", "ansible_collections.gpufleet", "ansible_collections.gpufleet.llm",
             "ansible_collections.gpufleet.llm.plugins", "ansible_collections.gpufleet.llm.plugins.module_utils"):
    module = types.ModuleType(name)
    module.__path__ = [{root!r} + "/plugins/module_utils"] if name.endswith("module_utils") else []
    sys.modules[name] = module
started = time.perf_counter()
from ansible_collections.gpufleet.llm.plugins.module_utils import _weight_headers, _weight_files
imported = time.perf_counter()
found = _weight_headers.read_weights(_weight_files.LocalFiles({model!r}))
ended = time.perf_counter()
print(len(found.tensors), found.total_bytes, imported - started, ended - imported,
      next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_seventy_billion_parameters_cost_little(tmp_path):
    tensors = make.llama(80, 8192, 28672, 64, 8, 128256)
    total = make.write_shards(tmp_path, tensors, 30)
    assert total == 141_107_412_992  # 70,553,706,496 parameters of 2 bytes
    script = SCRIPT.format(root=str(ROOT), model=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    count, found, _imported, seconds, rss_kib = done.stdout.split()
    assert (int(count), int(found)) == (723, total)
    assert float(seconds) < 0.3  # measured 0.01 s; a loaded machine gets room
    assert int(rss_kib) < 60 * 1024
    print("imports %s s, reading %s s, %s KiB" % (_imported, seconds, rss_kib))
