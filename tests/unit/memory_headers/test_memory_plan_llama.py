# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of llama.cpp; the figures were printed by llama-server's dry run (make accuracy-llama compares many more)."""

from __future__ import annotations

import importlib.util

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _gguf_header as header
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_llama as plan
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_llama_dry as dry
from support import ROOT

_SPEC = importlib.util.spec_from_file_location("gguf_models", ROOT / "tests/accuracy/gguf_models.py")
gguf_models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(gguf_models)

MIB, GIB = 1 << 20, 1 << 30
NO_GPU = {"count": 0}
DRY = """\
0.00 I llama_context:        CPU  output buffer size =     0.19 MiB
0.00 I llama_kv_cache: size =   90.00 MiB (  4096 cells,  30 layers,  1/1 seqs), K (f16):   45.00 MiB, V (f16): 45.00
0.00 I sched_reserve: RPC0[127.0.0.1:18990] compute buffer size =    15.26 MiB
0.00 I sched_reserve:        CPU compute buffer size =    17.51 MiB
0.00 I breakdown: | memory breakdown [MiB]     | total    free    self   model   context   compute
0.00 I breakdown: |   - RPC0 (127.0.0.1:18990) | 24105 = 24105 + ( 141 =    68 +      57 +      15) + \
       -141 |
0.00 I breakdown: |   - Host                   |                   102 =    51 +      33 +      17  |
0.01 I common_params_fit_impl: projected to use 141 MiB of device memory vs. 24105 MiB of free device memory
0.02 I llama_kv_cache: size =   11.00 MiB (  4096 cells,  30 layers,  1/1 seqs), what comes later isn't the dry run
"""


@pytest.fixture
def model(tmp_path):
    def made(name):
        path = tmp_path / (name + ".gguf")
        gguf_models.write(path, name)
        return header.read_gguf(str(path))

    return made


@pytest.mark.parametrize(
    ("name", "want", "mib"),
    [
        ("llama", {"ctx_size": 4096}, 8.0),
        ("qwen3", {"ctx_size": 8192, "parallel": 2}, 128.0),
        ("gemma2", {"ctx_size": 16384, "ubatch_size": 256}, 121.5),
        ("gemma2", {"ctx_size": 16384, "parallel": 2, "swa_full": True}, 192.0),
        ("gemma3", {"ctx_size": 8192, "parallel": 4, "kv_unified": True}, 41.0),
        ("deepseek2", {"ctx_size": 4096, "parallel": 2}, 13.5),
        ("llama-tied", {"ctx_size": 2048, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}, 4.78125),
    ],
)
def test_the_cache(model, name, want, mib):
    assert plan.plan_llama(model(name), NO_GPU, {}, want)["kv"]["available"] == mib * MIB


def test_layers_on_a_gpu(model):
    tied = model("llama-tied")
    gpu = {"count": 1, "total_bytes": 24 * GIB, "name": "RTX 4090"}
    none, some, every = (
        plan.plan_llama(tied, gpu, {}, {"ctx_size": 4096, "n_gpu_layers": count}) for count in (0, 3, None)
    )
    assert none["per_gpu"]["weights"] == 0 and none["host"]["weights"] == tied.weights.total_bytes
    assert every["llama_args"]["n-gpu-layers"] == tied.layers + 1 and every["fits"]
    embedding = next(t.nbytes for t in tied.weights.tensors if t.name == "token_embd.weight")
    # The device has a copy of the embedding that the output shares, and the host keeps its own.
    assert every["host"]["weights"] == embedding
    assert every["per_gpu"]["weights"] == tied.weights.total_bytes
    assert some["per_gpu"]["kv"] == every["per_gpu"]["kv"] * 2 // 6
    two = plan.plan_llama(tied, dict(gpu, count=2), {}, {"ctx_size": 4096})
    assert two["per_gpu"]["weights"] < every["per_gpu"]["weights"]


def test_what_does_not_fit(model):
    small = {"count": 1, "total_bytes": 2 * GIB, "free_bytes": 1900 * MIB}
    made = plan.plan_llama(model("qwen3"), small, {}, {"ctx_size": 40960, "n_gpu_layers": 99})
    assert not made["fits"] and "quantise the cache" in made["errors"][0]
    made = plan.plan_llama(model("qwen3"), small, {}, {"ctx_size": 40960})
    assert made["llama_args"]["n-gpu-layers"] < 5 and made["warnings"]
    found = plan.largest_context(model("qwen3"), NO_GPU, {}, {"parallel": 2}, host_bytes=4 * GIB)
    assert plan.plan_llama(model("qwen3"), NO_GPU, {}, {"parallel": 2, "ctx_size": found}, host_bytes=4 * GIB)["fits"]
    more = {"parallel": 2, "ctx_size": found + 512}
    assert found > 0
    assert found >= 2 * 40960 or not plan.plan_llama(model("qwen3"), NO_GPU, {}, more, host_bytes=4 * GIB)["fits"]
    assert not plan.plan_llama(model("llama"), NO_GPU, {}, {"ctx_size": 4096, "concurrent_users": 3})["fits"]


def test_what_is_not_known_is_not_guessed(model):
    llama = model("llama")
    for odd in (
        plan.plan_llama(llama._replace(architecture="rwkv9"), NO_GPU, {}, {}),
        plan.plan_llama(model("gemma3")._replace(sliding_window=None), NO_GPU, {}, {}),
        plan.plan_llama(llama, NO_GPU, {}, {"cache_type_k": "q3_k"}),
        plan.plan_llama(llama, NO_GPU, {}, {"max_model_len": 5}),
        plan.plan_llama(llama, NO_GPU, {}, {"cache_type_v": "q8_0", "flash_attn": False}),
        plan.plan_llama(llama._replace(context_length=None), NO_GPU, {}, {}),
    ):
        assert odd["confidence"] == "unsupported" and not odd["fits"] and "no estimate made" in odd["errors"][0]


def test_the_compute_buffer(model):
    found = dry.parse_dry_run(DRY)
    assert found.kv == [(90.0, 4096, 30)]
    assert found.breakdown_mib == {"RPC0": (68, 57, 15), "Host": (51, 33, 17)}
    compute = dry.compute_of(found, 512)
    assert compute.ubatch_size == 512 and round(compute.host / MIB, 2) == 17.51 and round(compute.gpu / MIB, 2) == 15.26
    made = plan.plan_llama(model("llama"), NO_GPU, {}, {"ctx_size": 4096}, compute=compute)
    assert made["confidence"] == "exact" and made["host"]["compute"] == compute.host
    made = plan.plan_llama(model("llama"), NO_GPU, {}, {"ctx_size": 4096, "ubatch_size": 256}, compute=compute)
    assert made["host"]["compute"] == compute.host // 2 and made["confidence"] == "estimated"
    made = plan.plan_llama(model("llama"), NO_GPU, {}, {"ctx_size": 4096})
    assert "not measured" in made["sources"]["activation"]
    assert dry.parse_dry_run("error loading model: key not found\n").error
    assert dry.compute_of(dry.parse_dry_run(""), 512) is None
