# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models whose weights are holes, GPUs as they are read, and starts as an engine logs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "memory_headers"))

import weight_files as make
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import READ

GIB = 1 << 30
VERSION = READ[-1]
EIGHT = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
SEVENTY = dict(EIGHT, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64)
H100 = {
    "index": 0,
    "name": "NVIDIA H100 80GB HBM3",
    "compute_capability": "9.0",
    "memory_mib": {"total": 81559, "free": 81000, "used": 8, "reserved": 551},
    "processes": [],
}
START = """\
INFO [api_server.py:1] vLLM API server version {version}
INFO [api_utils.py:286] non-default args: {arguments}
(EngineCore pid=2) INFO [core.py:133] Initializing a V1 LLM engine (v{version}) with config: model='{model}'
(EngineCore pid=2) INFO [model_runner.py:425] Model loading took {weights:.2f} GiB memory and 5.420225 seconds
(EngineCore pid=2) INFO [gpu_worker.py:760] Available KV cache memory: 56.21 GiB
(EngineCore pid=2) INFO [kv_cache_utils.py:2327] GPU KV cache size: 460,496 tokens, Maximum concurrency for 131,072 \
tokens per request: 3.51x
(EngineCore pid=2) INFO [gpu_worker.py:1034] Free memory on device (78.84/79.25 GiB) on startup. Desired GPU memory \
utilization is (0.92, 72.91 GiB). Actual usage is {consumed:.2f} GiB for consumed memory (weights + non-torch), 1.44 \
GiB for peak activation, and 0.61 GiB for CUDAGraph memory.
"""


def write_model(directory, config=None):
    """Write config.json and one file of weights that is a hole; return their directory."""
    config = config or EIGHT
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = make.llama(
        config["num_hidden_layers"],
        config["hidden_size"],
        config["intermediate_size"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["vocab_size"],
    )
    make.write_sparse(directory / "model.safetensors", tensors)
    return directory


def start_of(model, weights=15.5, **arguments):
    """Return the log of a start of that directory with those arguments besides."""
    told = dict(arguments, model_tag=str(model), model=str(model))
    return START.format(version=VERSION, model=model, arguments=told, weights=weights, consumed=weights + 0.26)


def entry(**others):
    """Return an inventory's model."""
    return dict({"name": "eight", "slot": "a", "engine": "vllm", "port": 8443, "context_length": 8192}, **others)
