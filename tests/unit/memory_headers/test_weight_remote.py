# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers over HTTP and from a hub: a few kilobytes of a model come, from servers that misbehave too."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys

import pytest
import weight_files as make
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_hub
from ansible_collections.gpufleet.llm.plugins.module_utils import _weight_remote as remote
from ansible_collections.gpufleet.llm.plugins.module_utils._model_fetch import Fetcher
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import FileEntry, ModelError
from ansible_collections.gpufleet.llm.plugins.module_utils._weight_headers import HEAD_BYTES, read_config, read_weights
from support import ROOT

_SPEC = importlib.util.spec_from_file_location("hub_server", ROOT / "tests/servers/hub_server.py")
hub_server = importlib.util.module_from_spec(_SPEC)
sys.modules.setdefault("hub_server", hub_server)
_SPEC.loader.exec_module(hub_server)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_thisIsNotARealTokenAtAll"


@pytest.fixture
def server():
    with hub_server.HubServer() as running:
        yield running


@pytest.fixture
def model(tmp_path):
    """The files of a model in two shards, 6 MB, as bytes by name."""
    tensors = make.llama(4, 256, 512, 4, 2, 4000)
    make.write_shards(tmp_path, tensors, 2)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def entries(files, sizes=True):
    return [FileEntry(n, len(d) if sizes else None, hashlib.sha256(d).hexdigest()) for n, d in sorted(files.items())]


def over_http(server, files, listed, **options):
    server.files = {"m/" + name: data for name, data in files.items()}
    fetcher = Fetcher(allow_http=True, attempts=3, backoff_seconds=0.01, sleep=lambda _seconds: None, **options)
    return remote.http_files(server.url + "/files/m", listed, fetcher)


def weights_of(files):
    return sum(len(d) - 8 - int.from_bytes(d[:8], "little") for n, d in files.items() if n.endswith(".safetensors"))


@pytest.mark.parametrize("listing", ["with sizes", "without sizes", "none"])
def test_only_headers_come(server, model, listing):
    listed = None if listing == "none" else entries(model, listing == "with sizes")
    files = over_http(server, model, listed)
    found = read_weights(files, remote.read_some_at_a_time)
    assert found.total_bytes == weights_of(model) > 6_000_000
    assert found.warnings == []
    shards = sorted(name for name in model if name.endswith(".safetensors"))
    assert all(len(server.gets(name)) == 1 and server.sent(name) == HEAD_BYTES for name in shards)
    assert files.fetcher.received < 2 * HEAD_BYTES + 10_000
    assert read_config(files)["architectures"] == ["LlamaForCausalLM"]


def test_a_long_header_takes_a_second_range(server):
    made, data_bytes = make.entries({"t%05d" % number: ("U8", (1000,)) for number in range(2000)})
    head, _size = make.framed(made, data_bytes)
    model = {"model.safetensors": head + b"\0" * data_bytes}
    found = read_weights(over_http(server, model, None))
    assert len(found.tensors) == 2000
    (second,) = [seen for seen in server.gets("model.safetensors") if not seen.range.startswith("bytes=0-")]
    assert second.range == "bytes=%d-%d" % (HEAD_BYTES, len(head) - 1)
    assert server.sent("model.safetensors") == len(head)


def test_faults_that_pass_are_waited_for(server, model):
    name = "model-00001-of-00002.safetensors"
    for fault in (hub_server.Fault("status", times=2, code=503), hub_server.Fault("cut", times=2, after=100)):
        server.faults["m/" + name] = fault
        assert read_weights(over_http(server, model, entries(model))).total_bytes == weights_of(model)


def test_a_server_that_ignores_ranges_sends_no_more_than_is_read(server, model):
    name = "model-00001-of-00002.safetensors"
    server.faults["m/" + name] = hub_server.Fault("ignore_range")
    files = over_http(server, model, entries(model))
    assert read_weights(files).total_bytes == weights_of(model)
    assert files.fetcher.received < 3 * HEAD_BYTES


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (hub_server.Fault("status", code=500), "weights.remote"),
        (hub_server.Fault("status", code=403), "weights.remote"),
        (hub_server.Fault("status", code=404), "weights.missing"),
        (hub_server.Fault("cut", after=100), "weights.remote"),
        (hub_server.Fault("length_larger", by=4096), "weights.remote_size"),
    ],
)
def test_faults_that_stay_are_refused(server, model, fault, check):
    name = "model-00001-of-00002.safetensors"
    files = over_http(server, model, entries(model))
    server.faults["m/" + name] = fault
    if fault.kind == "length_larger":
        server.files["m/" + name] += b"x"
    with pytest.raises(ModelError) as caught:
        read_weights(files)
    assert caught.value.findings[0]["check"] == check


def test_small_files_are_checked_against_their_hash(server, model):
    files = over_http(server, model, entries(model))
    index = json.loads(model["model.safetensors.index.json"])
    server.files["m/model.safetensors.index.json"] = json.dumps(index, indent=0).encode()[: len(json.dumps(index))]
    with pytest.raises(ModelError) as caught:
        read_weights(files)
    assert caught.value.findings[0]["check"] in ("weights.checksum", "weights.remote_size")
    server.files["m/config.json"] = model["config.json"].replace(b"Llama", b"Lhama")
    with pytest.raises(ModelError) as caught:
        read_config(files)
    assert caught.value.findings[0]["check"] == "weights.checksum"


@pytest.mark.parametrize("redirect", [True, False])
def test_from_a_hub(server, model, redirect):
    server.token, server.storage_redirect = TOKEN, redirect
    server.add_repository("org/model", COMMIT, dict(model, **{".gitattributes": b"*"}))
    hub = _model_hub.Hub(_model_hub.hub_library(), server.url, TOKEN)
    files = remote.hub_files(hub, "org/model", COMMIT, Fetcher(allow_http=True))
    assert read_weights(files, remote.read_some_at_a_time).total_bytes == weights_of(model)
    assert read_config(files)["architectures"] == ["LlamaForCausalLM"]
    assert sum(seen.sent for seen in server.log if seen.method == "GET") < 2 * HEAD_BYTES + 20_000
    assert all(TOKEN not in seen.path for seen in server.log)
    assert all(seen.authorization == "" for seen in server.log if seen.path.startswith("/storage/"))
    assert files.where == "huggingface:org/model at " + COMMIT


def test_a_hub_that_refuses(server, model):
    server.token = TOKEN
    server.add_repository("org/model", COMMIT, model)
    hub = _model_hub.Hub(_model_hub.hub_library(), server.url, None)
    with pytest.raises(ModelError) as caught:
        remote.hub_files(hub, "org/model", COMMIT, Fetcher(allow_http=True))
    assert caught.value.findings[0]["check"] == "model.hub"
