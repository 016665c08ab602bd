# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GGUF headers through the library, bounded: what good ones say, and that damaged ones are refused."""

from __future__ import annotations

import importlib.util
import random
import struct
import time

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _gguf_header as header
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError
from support import ROOT

_SPEC = importlib.util.spec_from_file_location("gguf_models", ROOT / "tests/accuracy/gguf_models.py")
gguf_models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(gguf_models)


@pytest.mark.parametrize("name", sorted(gguf_models.MODELS))
def test_what_a_header_says(name, tmp_path):
    path = tmp_path / "m.gguf"
    weights = gguf_models.write(path, name)
    architecture, settings, tensors = gguf_models.MODELS[name]()
    found = header.read_gguf(str(path))
    assert found.architecture == architecture
    assert found.weights.total_bytes == weights
    assert {t.name: (t.dtype, t.shape) for t in found.weights.tensors} == tensors
    assert (found.layers, found.context_length) == (settings["block_count"], settings["context_length"])
    assert found.sliding_window == settings.get("attention.sliding_window")
    if name != "mamba":
        assert found.kv_heads == [settings["attention.head_count_kv"]] * found.layers
        assert found.key_length == settings.get("attention.key_length", found.embedding_length // found.heads[0])


def refused(path):
    with pytest.raises(ModelError) as caught:
        header.read_gguf(str(path))
    return caught.value.findings[0]


def test_a_large_vocabulary_is_stepped_over(tmp_path):
    import gguf

    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_embedding_length(64)
    writer.add_token_list(["token%d" % number for number in range(60_000)])
    writer.add_token_scores([0.5] * 60_000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    started = time.monotonic()
    found = header.read_gguf(str(path))
    assert time.monotonic() - started < 1.0  # the library by itself takes more than two seconds
    assert "tokenizer.ggml.tokens" not in found.fields and found.key_length == 64


def test_what_is_refused(tmp_path):
    path = tmp_path / "m.gguf"
    assert "No such file" in refused(tmp_path / "none.gguf")["found"] or refused(tmp_path / "none.gguf")["found"]
    path.write_bytes(b"")
    assert refused(path)["check"] == "weights.gguf"
    path.write_bytes(b"not a gguf file at all")
    assert refused(path)["check"] == "weights.gguf"
    for tensors, fields in ((2**63, 0), (0, 2**63), (2**40, 1)):
        path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, tensors, fields) + b"\0" * 64)
        assert refused(path)["check"] == "weights.gguf"
    huge = struct.pack("<Q1sIIQ", 1, b"a", 9, 4, 2**60) + b"\0" * 64
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + huge)
    assert "behind the file's end" in refused(path)["found"]
    gguf_models.write(path, "llama")
    whole = path.stat().st_size
    with open(path, "r+b") as handle:
        handle.truncate(whole - 100_000)
    assert refused(path)["check"] == "weights.gguf_truncated"


def test_a_part_of_a_split_model_alone(tmp_path):
    path = tmp_path / "m.gguf"
    architecture, settings, tensors = gguf_models.MODELS["llama"]()
    gguf_models.write_gguf(path, architecture, dict(settings, **{"split.count": 2, "split.no": 0}), tensors)
    with pytest.raises(ModelError) as caught:
        header.read_split([str(path)])
    assert caught.value.findings[0]["check"] == "weights.gguf_split"
    with pytest.raises(ModelError):
        header.read_split([str(path), str(path)])


def test_many_damaged_headers(tmp_path):
    path = tmp_path / "m.gguf"
    gguf_models.write(path, "llama")
    size = path.stat().st_size
    with open(path, "rb") as handle:
        head = handle.read(8192)
    chance = random.Random(11)
    outcomes = {}
    for _number in range(1500):
        data = bytearray(head)
        for _change in range(chance.randint(1, 4)):
            at = chance.randrange(min(len(data), 2400))
            way = chance.randrange(4)
            if way == 0:
                data[at] = chance.randrange(256)
            elif way == 1:
                data[at : at + 8] = struct.pack("<Q", chance.choice([0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1]))
            elif way == 2:
                del data[at : at + chance.randint(1, 30)]
            else:
                data[at:at] = bytes(chance.randrange(256) for _byte in range(chance.randint(1, 9)))
        with open(path, "r+b") as handle:
            handle.write(data[: chance.choice([len(data)] * 9 + [at])])
            handle.truncate(size)
        try:
            found = header.read_gguf(str(path))
            check = "read"
            assert found.weights.total_bytes <= size
        except ModelError as exc:
            check = exc.findings[0]["check"]
        outcomes[check] = outcomes.get(check, 0) + 1
        with open(path, "r+b") as handle:
            handle.write(head)
    assert sum(outcomes.values()) == 1500
    assert {"read", "weights.gguf", "weights.gguf_overlap"} <= set(outcomes), outcomes
