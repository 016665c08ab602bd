# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub through the real huggingface_hub library, against a server that speaks the hub's endpoints."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_fetch as fetch
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_hub as hub
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_thisIsNotARealTokenAtAll"


@pytest.fixture
def repository(server, helpers):
    files = helpers.tiny_model()
    files[".gitattributes"] = b"* text\n"
    server.add_repository("org/tiny", COMMIT, files)
    return files


def make(server, token=None):
    return hub.Hub(hub.hub_library(), server.url, token)


def test_library_is_there():
    assert hub.hub_library() is not None


def test_resolve(server, repository):
    entries = make(server).resolve("org/tiny", COMMIT)
    assert [e.path for e in entries] == ["config.json", "model.safetensors", "tokenizer.json"]
    by_path = {e.path: e for e in entries}
    assert by_path["model.safetensors"].sha256 == hashlib.sha256(repository["model.safetensors"]).hexdigest()
    assert by_path["config.json"].sha256 is None
    assert len(by_path["config.json"].git_sha1) == 40


def test_every_file_is_fetched_and_checked(server, repository, tmp_path, helpers):
    server.faults["model.safetensors"] = helpers.Fault("cut", times=1, after=1_000_000)
    client = make(server)
    for entry in client.resolve("org/tiny", COMMIT):
        url, headers = client.location("org/tiny", COMMIT, entry.path)
        partial = str(tmp_path / entry.key)
        sha256 = fetch.fetch_verified(fetch.Fetcher(allow_http=True), entry, url, partial, headers=headers)
        assert sha256 == hashlib.sha256(repository[entry.path]).hexdigest()
    assert server.sent("model.safetensors") == len(repository["model.safetensors"])


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_wrong_byte_of_git_and_of_lfs_files(server, repository, tmp_path, helpers, path):
    server.faults[path] = helpers.Fault("wrong_byte")
    client = make(server)
    entry = {e.path: e for e in client.resolve("org/tiny", COMMIT)}[path]
    url, headers = client.location("org/tiny", COMMIT, path)
    with pytest.raises(ModelError) as caught:
        fetch.fetch_verified(fetch.Fetcher(allow_http=True), entry, url, str(tmp_path / "p"), headers=headers)
    assert caught.value.findings[0]["check"] == "model.checksum"


def test_token_is_needed_and_sent_to_the_endpoint_alone(server, repository, tmp_path):
    server.token = TOKEN
    with pytest.raises(ModelError) as caught:
        make(server).resolve("org/tiny", COMMIT)
    assert "model_store_hf_token" in caught.value.findings[0]["remedy"]
    client = make(server, TOKEN)
    entry = {e.path: e for e in client.resolve("org/tiny", COMMIT)}["model.safetensors"]
    url, headers = client.location("org/tiny", COMMIT, entry.path)
    assert headers == {}
    fetch.fetch_verified(fetch.Fetcher(allow_http=True), entry, url, str(tmp_path / "p"), headers=headers)
    storage = [seen for seen in server.log if seen.path.startswith("/storage/")]
    assert storage
    assert all(seen.authorization == "" for seen in storage)
    _url, headers = client.location("org/tiny", COMMIT, "config.json")
    assert headers == {"Authorization": "Bearer " + TOKEN}


def test_no_token_of_the_environment_is_sent(server, repository, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    make(server).resolve("org/tiny", COMMIT)
    assert all(seen.authorization == "" for seen in server.log)


def test_wrong_token_is_not_repeated(server, repository):
    server.token = "another"
    with pytest.raises(ModelError) as caught:
        make(server, TOKEN).resolve("org/tiny", COMMIT)
    assert TOKEN not in json.dumps(caught.value.findings)


@pytest.mark.parametrize(("name", "commit"), [("org/none", COMMIT), ("org/tiny", "f" * 40)])
def test_unknown_repository_or_commit(server, repository, name, commit):
    with pytest.raises(ModelError) as caught:
        make(server).resolve(name, commit)
    found = caught.value.findings[0]
    assert name in found["expected"]
    assert "404" in found["detail"]


def test_hub_that_is_down(server):
    url = server.url
    server.stop()
    with pytest.raises(ModelError) as caught:
        hub.Hub(hub.hub_library(), url).resolve("org/tiny", COMMIT)
    assert "model_store_hf_endpoint" in caught.value.findings[0]["remedy"]


class Item:
    """What the library says of a file."""

    def __init__(self, path):
        self.path, self.size, self.blob_id, self.lfs = path, 1, "0" * 40, None


class Library:
    """The library's surface, as an endpoint that lies would have it answer."""

    def __init__(self, commit=COMMIT, paths=("config.json",), location="https://storage.example/x"):
        real = hub.hub_library()
        self.errors, self.hf_api = real.errors, self
        self.RepoFile = Item
        self.commit, self.paths, self.place = commit, paths, location

    def HfApi(self, **_arguments):
        return self

    def repo_info(self, *_arguments, **_more):
        return type("Info", (), {"sha": self.commit})

    def list_repo_tree(self, *_arguments, **_more):
        return [Item(path) for path in self.paths] + [object()]

    def hf_hub_url(self, repository, path, revision, endpoint):
        return "%s/%s/%s" % (endpoint, repository, path)

    def get_hf_file_metadata(self, *_arguments, **_more):
        if isinstance(self.place, Exception):
            raise self.place
        return type("Metadata", (), {"commit_hash": self.commit, "location": self.place})


def lied(ask, **lies):
    with pytest.raises(ModelError) as caught:
        ask(hub.Hub(Library(**lies), "https://hub.example"))
    return caught.value.findings[0]


def test_an_endpoint_that_answers_for_another_commit_is_refused():
    for ask in (lambda h: h.resolve("o/m", COMMIT), lambda h: h.location("o/m", COMMIT, "config.json")):
        found = lied(ask, commit="f" * 40)
        assert (found["check"], found["found"]) == ("model.hub_commit", "commit " + "f" * 40)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b"])
def test_a_path_out_of_the_models_directory_is_refused(path):
    found = lied(lambda h: h.resolve("o/m", COMMIT), paths=["config.json", path])
    assert (found["check"], found["found"]) == ("model.manifest_path", path)


def test_hidden_files_and_directories_are_left_out():
    client = hub.Hub(Library(paths=["b.json", ".git/x", "a.json", "d/.x"]), "https://hub.example")
    assert [entry.path for entry in client.resolve("o/m", COMMIT)] == ["a.json", "b.json"]


def test_a_location_without_tls_behind_one_with_it_is_refused():
    found = lied(lambda h: h.location("o/m", COMMIT, "w.bin"), location="http://storage.example/w.bin?signature=s")
    assert (found["check"], found["found"]) == ("model.redirect_tls", "http://storage.example")


def test_a_location_that_cannot_be_had_is_said_without_the_token():
    with pytest.raises(ModelError) as caught:
        hub.Hub(Library(location=OSError("refused %s" % TOKEN)), "https://hub.example", TOKEN).location(
            "o/m", COMMIT, "w.bin"
        )
    assert caught.value.findings[0]["found"] == "OSError: refused ********"


def test_a_host_without_the_library_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert hub.hub_library() is None
    assert "huggingface_hub" in hub.HUB_IMPORT_ERROR
