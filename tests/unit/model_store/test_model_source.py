# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's headers read from wherever its source is, and what is kept of them."""

from __future__ import annotations

import gzip
import os

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_source as source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def files(server, helpers):
    """A model that the server has, below /files/tiny."""
    made = helpers.tiny_model()
    server.files.update({"tiny/" + path: data for path, data in made.items()})
    return made


def model(server, files, helpers, **changes):
    told = {"name": "tiny", "source": server.url + "/files/tiny", "manifest": helpers.sums(files)}
    return dict(told, **changes)


def test_a_servers_headers_are_read_once_and_kept(server, files, helpers, tmp_path):
    options = source.Options(cache_dir=str(tmp_path / "cache"))
    first = source.read_source(model(server, files, helpers), options)
    assert first.config["architectures"] == ["LlamaForCausalLM"]
    assert [one["name"] for one in first.tensors] == ["w"]
    asked = len(server.log)
    assert source.read_source(model(server, files, helpers), options) == first
    assert len(server.log) == asked


@pytest.mark.parametrize(
    "damage",
    [b"", b"no gzip", gzip.compress(b"{half", mtime=0), gzip.compress(b'{"key": "another"}', mtime=0)],
    ids=["empty", "no gzip", "half an object", "of another source"],
)
def test_what_was_kept_and_is_damaged_is_read_again(server, files, helpers, tmp_path, damage):
    options = source.Options(cache_dir=str(tmp_path))
    first = source.read_source(model(server, files, helpers), options)
    (kept,) = (tmp_path / "headers").iterdir()
    kept.write_bytes(damage)
    assert source.read_source(model(server, files, helpers), options) == first
    assert gzip.decompress(kept.read_bytes()).startswith(b'{"key": ')


def test_a_cache_that_cannot_be_written_stops_nothing_and_leaves_nothing(server, files, helpers, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    options = source.Options(cache_dir=str(tmp_path))
    assert source.read_source(model(server, files, helpers), options).tensors
    assert list((tmp_path / "headers").iterdir()) == []


def test_the_manifest_may_be_a_file(server, files, helpers, tmp_path):
    sums = tmp_path / "SHA256SUMS"
    sums.write_text("".join("%s  %s\n" % (sha256, path) for path, sha256 in helpers.sums(files).items()))
    found = source.read_source(model(server, files, helpers, manifest=None, manifest_file=str(sums)))
    assert [one["name"] for one in found.tensors] == ["w"]
    gone = source.read_source(model(server, files, helpers, manifest=None, manifest_file=str(tmp_path / "absent")))
    assert "absent" in gone


def test_a_hubs_newest_commit_is_asked_for_where_none_is_named(server, helpers):
    server.add_repository("org/tiny", COMMIT, helpers.tiny_model())
    options = source.Options(hf_endpoint=server.url, allow_http=True)
    found = source.read_source({"name": "tiny", "source": "huggingface:org/tiny", "revision": COMMIT}, options)
    assert [one["name"] for one in found.tensors] == ["w"]
    none = source.read_source({"name": "none", "source": "huggingface:org/none"}, options)
    assert none.startswith("model.hub: found ") and "org/none at commit (newest)" in none


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("", "source is '', expected file:/"),
        ("somewhere", "source is 'somewhere', expected file:/"),
        ("http://models.example/tiny", "is plain HTTP: nobody vouches for what arrives"),
        ("/no/such/directory", "found no such file, expected config.json"),
    ],
)
def test_why_a_source_was_not_read(told, said):
    found = source.read_source({"name": "x", "source": told})
    assert isinstance(found, str)
    assert said in found


def test_a_directory_is_read_without_a_server(tmp_path, helpers):
    helpers.write_model(tmp_path, helpers.tiny_model())
    assert source.read_source({"source": str(tmp_path)}).config["seed"] == "one"
    assert source.read_source({"source": "file:%s" % tmp_path}).config["seed"] == "one"
