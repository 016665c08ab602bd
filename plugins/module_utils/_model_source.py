# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""A model's configuration and headers from wherever it comes: a directory, a server, a hub. Never its weights.

What comes over a network is kept, where the source is named so that it can't change: a commit of a hub, a manifest.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import tempfile
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _weight_headers, _weight_remote
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import describe
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_model import Read
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_model import read as read_directory
from ansible_collections.gpufleet.llm.plugins.module_utils._model_fetch import Fetcher
from ansible_collections.gpufleet.llm.plugins.module_utils._model_hub import Hub, hub_library
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import (
    FileEntry,
    ModelError,
    Source,
    is_loopback,
    manifest_entries,
    parse_sha256sums,
    parse_source,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._weight_record import Files

HF_ENDPOINT = "https://huggingface.co"
ATTEMPTS = 3
TIMEOUT_SECONDS = 20.0
CACHE_LIMIT_BYTES = 64 * 1024 * 1024


class Options(t.NamedTuple):
    """How a source is reached."""

    cache_dir: str = ""  # on the machine that reads; empty keeps nothing
    hf_endpoint: str = HF_ENDPOINT
    hf_token: t.Optional[str] = None
    allow_http: bool = False


def _reason(exc: ModelError) -> str:
    return "; ".join(describe(one) for one in exc.findings)


def read_source(model: t.Mapping[str, t.Any], options: t.Optional[Options] = None) -> t.Union[Read, str]:
    """Return what a model's source says, or why it couldn't be read.

    Args:
        model: of an inventory: ``source``, and ``revision``, ``manifest`` or ``manifest_file`` where it has them.
        options: how it is reached.
    """
    options = options or Options()
    text = str(model.get("source") or "")
    source = parse_source(text) if ":" in text else parse_source("file:" + text) if text.startswith("/") else None
    if source is None:
        return "source is %r, expected file:/…, https://… or huggingface:organisation/repository" % text
    try:
        if source.scheme == "file":
            return read_directory(source.location)
        if source.scheme == "http" and not (options.allow_http or is_loopback(source.location)):
            return "%s is plain HTTP: nobody vouches for what arrives" % source.text
        return _read_remote(model, source, options)
    except ModelError as exc:
        return _reason(exc)
    except (OSError, ValueError, ImportError) as exc:
        return "%s: %s" % (source.text, exc)


def _entries(model: t.Mapping[str, t.Any]) -> t.Optional[t.List[FileEntry]]:
    """Return the files that the manifest of a server's model names, None where it has none."""
    name = str(model.get("name"))
    path = model.get("manifest_file")
    if path:
        with open(str(path), encoding="utf-8") as handle:
            return manifest_entries(name, parse_sha256sums(handle.read(), str(path)))
    manifest = model.get("manifest")
    return manifest_entries(name, manifest) if isinstance(manifest, dict) and manifest else None


def _read_remote(model: t.Mapping[str, t.Any], source: Source, options: Options) -> Read:
    fetcher = Fetcher(options.allow_http or is_loopback(source.location), ATTEMPTS, 0.5, TIMEOUT_SECONDS)
    if source.scheme == "huggingface":
        hub = Hub(hub_library(), options.hf_endpoint, options.hf_token)
        revision = str(model.get("revision") or "") or newest_commit(hub, source.location)
        key = "%s@%s" % (source.text, revision)

        def open_files() -> Files:
            return _weight_remote.hub_files(hub, source.location, revision, fetcher)

    else:
        entries = _entries(model)
        key = "" if entries is None else source.text + "".join(sorted("%s %s\n" % (e.path, e.sha256) for e in entries))

        def open_files() -> Files:
            return _weight_remote.http_files(source.location, entries, fetcher)

    kept = _read_kept(options.cache_dir, key)
    if kept is not None:
        return kept
    files = open_files()
    config = _weight_headers.read_config(files)
    weights = _weight_headers.read_weights(files, _weight_remote.read_some_at_a_time)
    tensors = [
        {"name": one.name, "dtype": one.dtype, "shape": list(one.shape), "nbytes": one.nbytes}
        for one in weights.tensors
    ]
    found = Read(config, tensors, list(weights.warnings))
    _keep(options.cache_dir, key, found)
    return found


def newest_commit(hub: Hub, repository: str) -> str:
    """Return the commit that a hub's repository is at now; for a look at a model that nobody deploys yet.

    Raises:
        ModelError: the hub refused or isn't there.
    """
    api = hub.library.HfApi(endpoint=hub.endpoint, token=hub.token or False)
    try:
        return str(api.repo_info(repository, timeout=30).sha)
    except hub.errors as exc:
        raise hub._refusal(exc, repository, "(newest)") from None


# -- what is kept ------------------------------------------------------------------------------------------------------


def _kept_path(cache_dir: str, key: str) -> str:
    return os.path.join(cache_dir, "headers", hashlib.sha256(key.encode("utf-8")).hexdigest()[:32] + ".json.gz")


def _read_kept(cache_dir: str, key: str) -> t.Optional[Read]:
    if not cache_dir or not key:
        return None
    try:
        with gzip.open(_kept_path(cache_dir, key), "rb") as handle:
            made = json.loads(handle.read(CACHE_LIMIT_BYTES).decode("utf-8"))
        if made["key"] != key:
            return None
        return Read(made["config"], made["tensors"], made["warnings"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _keep(cache_dir: str, key: str, found: Read) -> None:
    """Keep what was read; a cache that can't be written is no reason to stop."""
    if not cache_dir or not key:
        return
    path = _kept_path(cache_dir, key)
    data = json.dumps({"key": key, "config": found.config, "tensors": found.tensors, "warnings": found.warnings})
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".headers-")
        try:
            with os.fdopen(handle, "wb") as raw:
                raw.write(gzip.compress(data.encode("utf-8"), 6))
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
