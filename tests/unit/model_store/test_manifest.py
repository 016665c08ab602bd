# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements, manifests and content: what is refused before anything is fetched."""

from __future__ import annotations

import json
import pickle
import zipfile

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_content as content
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_manifest as manifest

SHA = "a" * 64
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def judge(model, **options):
    options.setdefault("allow_http", False)
    options.setdefault("hf_endpoint", "https://huggingface.co")
    return manifest.check_models([model], **options)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "m", "source": "file:/srv/m"},
        {"name": "smollm2.1-x", "source": "https://host/base/", "manifest": {"config.json": SHA}},
        {"name": "m", "source": "huggingface:org/repo", "revision": COMMIT},
    ],
)
def test_good_statements_pass(model):
    assert judge(model) == []


@pytest.mark.parametrize(
    ("model", "check", "word"),
    [
        ({"name": "m", "source": "ftp://host/x"}, "model.source", "huggingface:organisation/repository"),
        ({"name": "m", "source": "file:relative/dir"}, "model.source", "absolute"),
        ({"name": "m"}, "model.source", "nothing"),
        ({"name": "m", "source": "https://host/base"}, "model.manifest", "sha256"),
        ({"name": "m", "source": "https://me:secret@host/b", "manifest": {"a": SHA}}, "model.source", "without a user"),
        ({"name": "m", "source": "http://host/base", "manifest": {"a": SHA}}, "model.source_tls", "allow_http"),
        ({"name": "m", "source": "huggingface:org/repo", "revision": "main"}, "model.revision", "40 lower-case hex"),
        ({"name": "m", "source": "huggingface:org/repo"}, "model.revision", "nothing"),
        ({"name": "m", "source": "huggingface:repo", "revision": COMMIT}, "model.source", "organisation"),
        ({"name": "../m", "source": "file:/srv/m"}, "model.name", "../m"),
        ({"name": "M", "source": "file:/srv/m"}, "model.name", "a-z"),
    ],
)
def test_bad_statements_are_refused(model, check, word):
    found = judge(model)
    assert [f["check"] for f in found] == [check]
    text = json.dumps(found)
    assert word in text
    assert found[0]["remedy"]
    assert "secret" not in text


def test_every_refusal_at_once_and_a_name_twice():
    models = [
        {"name": "a", "source": "file:/x"},
        {"name": "a", "source": "file:/y"},
        {"name": "b", "source": "nonsense"},
        "text",
    ]
    found = manifest.check_models(models, allow_http=False, hf_endpoint="https://h")
    assert [f["check"] for f in found] == ["model.name_twice", "model.source", "model.statement"]


def test_hub_over_http_only_on_this_machine():
    model = {"name": "m", "source": "huggingface:org/repo", "revision": COMMIT}
    assert judge(model, hf_endpoint="http://mirror", allow_http=True)[0]["check"] == "model.hf_endpoint_tls"
    assert judge(model, hf_endpoint="http://127.0.0.1:1", allow_http=False)[0]["check"] == "model.hf_endpoint_tls"
    assert judge(model, hf_endpoint="http://127.0.0.1:1", allow_http=True) == []
    assert judge(model, hf_endpoint="mirror")[0]["check"] == "model.hf_endpoint"


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../b", "a//b", "./a", "", "a\nb", ".gpufleet-manifest.json"]
)
def test_paths_that_leave_the_directory(path):
    with pytest.raises(manifest.ModelError) as caught:
        manifest.manifest_entries("m", {path: SHA})
    assert caught.value.findings[0]["check"] == "model.manifest_path"


def test_manifest_values():
    entries = manifest.manifest_entries("m", {"b": SHA.upper(), "a": {"sha256": SHA, "size": 3}})
    assert [(e.path, e.size, e.sha256) for e in entries] == [("a", 3, SHA), ("b", None, SHA)]
    with pytest.raises(manifest.ModelError) as caught:
        manifest.manifest_entries("m", {"a": "abc", "b": {"size": 3}})
    assert len(caught.value.findings) == 2


def test_sha256sum_format():
    assert manifest.parse_sha256sums("%s  ./a b\n%s *c/d\n" % (SHA, SHA), "f") == {"a b": SHA, "c/d": SHA}
    with pytest.raises(manifest.ModelError, match=r"model\.manifest_file"):
        manifest.parse_sha256sums("nonsense\n", "f")
    with pytest.raises(manifest.ModelError):
        manifest.parse_sha256sums("%s  a\n%s  a\n" % (SHA, "b" * 64), "f")


def test_version_id_is_of_the_content_alone():
    entries = manifest.manifest_entries("m", {"b": SHA, "a": "b" * 64})
    text = "%s  a\n%s  b\n" % ("b" * 64, SHA)
    import hashlib

    assert manifest.manifest_text(entries) == text
    assert manifest.version_id(reversed(entries)) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_listing_wants_config_json_but_not_of_gguf():
    found = manifest.check_listing({"name": "m"}, ["model.safetensors"], allow_pickle=False, where="file:/srv/m")
    assert found[0]["check"] == "model.config_json"
    assert "file:/srv/m" in found[0]["detail"]
    assert manifest.check_listing({"name": "m", "engine": "llama_cpp"}, ["m.gguf"], allow_pickle=False, where="x") == []


@pytest.mark.parametrize("path", ["pytorch_model.bin", "x/model.pt", "a.ckpt", "b.pkl", "consolidated.00.pth"])
def test_pickles_by_name(path):
    found = manifest.check_listing({"name": "m"}, ["config.json", path], allow_pickle=False, where="x")
    assert [f["check"] for f in found] == ["model.pickle"]
    assert manifest.check_listing({"name": "m"}, ["config.json", path], allow_pickle=True, where="x") == []


def test_python_files_are_said():
    found = manifest.check_listing({"name": "m"}, ["config.json", "modeling_x.py"], allow_pickle=False, where="x")
    assert [(f["check"], f["severity"]) for f in found] == [("model.remote_code", "warning")]


def test_selection():
    assert manifest.selected("onnx/m.bin", [], ["*.pt"])
    assert not manifest.selected("onnx/m.bin", [], ["onnx/*"])
    assert not manifest.selected("a.txt", ["*.json"], [])


@pytest.mark.parametrize(
    ("needed", "available", "refused"), [(0, 0, False), (10, 15, False), (10, 14, True), (11, 15, True)]
)
def test_disk(needed, available, refused):
    found = manifest.check_disk("/store", needed, 5, available, "model_store_dir")
    assert bool(found) is refused
    if found:
        text = json.dumps(found)
        assert all(word in text for word in ("/store", "model_store_dir", "available %d" % available))


def check(tmp_path, name, data, **options):
    path = tmp_path / name
    path.write_bytes(data)
    return [f["check"] for f in content.check_content("m", {name: str(path)}, allow_pickle=False, **options)]


def test_pickle_by_content(tmp_path):
    for protocol in (2, 3, 4, 5):
        assert check(tmp_path, "w.bin", pickle.dumps({"a": 1}, protocol)) == ["model.pickle"]
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    assert check(tmp_path, "w.bin", (tmp_path / "z").read_bytes()) == ["model.pickle"]
    assert check(tmp_path, "vocab.bin", b"\x00\x01plain") == []


def test_safetensors_that_begins_like_a_pickle_is_not_one(tmp_path):
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode().ljust(0x280)
    data = len(header).to_bytes(8, "little") + header + b"x"
    assert data[:2] == b"\x80\x02"
    assert check(tmp_path, "m.safetensors", data) == []


def test_broken_files(tmp_path, helpers):
    whole = helpers.safetensors("x", 4096)
    assert check(tmp_path, "m.safetensors", whole) == []
    assert check(tmp_path, "m.safetensors", whole[:-1]) == ["model.safetensors"]
    assert check(tmp_path, "m.safetensors", b"abc") == ["model.safetensors"]
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 1\n" % SHA.encode()
    assert check(tmp_path, "m.safetensors", pointer) == ["model.lfs_pointer"]
    assert check(tmp_path, "config.json", b"[]") == ["model.config_json"]
    assert check(tmp_path, "config.json", b'{"auto_map": {"AutoModel": "x.Y"}}') == ["model.auto_map"]


def test_missing_shards(tmp_path):
    index = json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode()
    name = "model.safetensors.index.json"
    assert check(tmp_path, name, index, present=["m-1.safetensors", name]) == ["model.shards"]
    assert check(tmp_path, name, index, present=["m-1.safetensors", "m-2.safetensors"]) == []
