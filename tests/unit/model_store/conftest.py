# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny model, the misbehaving server, and a store, all in a temporary directory."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import struct
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).resolve().parents[2] / "servers" / "hub_server.py"
_SPEC = importlib.util.spec_from_file_location("hub_server", _PATH)
hub_server = importlib.util.module_from_spec(_SPEC)
sys.modules["hub_server"] = hub_server
_SPEC.loader.exec_module(hub_server)


def safetensors(seed, size=3 * 1024 * 1024):
    """Return a well-formed safetensors file with one tensor of ``size`` bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    block = hashlib.sha256(seed.encode()).digest()
    return struct.pack("<Q", len(header)) + header + block * (size // len(block))


def tiny_model(seed="one"):
    """Return a model's files: path -> bytes."""
    return {
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "seed": seed}).encode(),
        "tokenizer.json": b'{"version": "1.0"}',
        "model.safetensors": safetensors(seed),
    }


def write_model(folder, files):
    """Write a model's files into a directory and return it."""
    for path, data in files.items():
        target = Path(folder) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return Path(folder)


def sums(files):
    """Return a manifest of sha256."""
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


@pytest.fixture
def helpers():
    """The functions above, for tests that can't import a conftest by name."""

    class Helpers:
        pass

    for function in (safetensors, tiny_model, write_model, sums):
        setattr(Helpers, function.__name__, staticmethod(function))
    Helpers.Fault = hub_server.Fault
    return Helpers


@pytest.fixture
def server():
    """A running server without files."""
    with hub_server.HubServer() as running:
        yield running
