# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What releases of vLLM print of their memory. The 0.32.0 log is one of this project's own starts; the figures of the
others are those of public logs, each in the wording of its release."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _startup_log as log

HERE = Path(__file__).parent
CPU = (HERE / "logs/vllm-0.32.0-cpu.log").read_text(encoding="utf-8")

# Qwen2.5-1.5B on a T4, the first engine.
V0_T4 = """\
INFO 05-30 16:22:23 llm_engine.py:234] Initializing a V0 LLM engine (v0.7.3) with config: model='m', dtype=torch.half
INFO 05-30 16:22:23 cuda.py:227] Using XFormers backend.
INFO 05-30 16:23:22 model_runner.py:1115] Loading model weights took 2.8875 GB
INFO 05-30 16:23:28 worker.py:267] Memory profiling takes 5.07 seconds
INFO 05-30 16:23:28 worker.py:267] the current vLLM instance can use total_gpu_memory (14.56GiB) x \
gpu_memory_utilization (0.50) = 7.28GiB
INFO 05-30 16:23:28 worker.py:267] model weights take 2.89GiB; non_torch_memory takes 0.01GiB; PyTorch activation \
peak memory takes 2.02GiB; the rest of the memory reserved for KV Cache is 2.36GiB.
INFO 05-30 16:23:28 executor_base.py:110] # CUDA blocks: 5519, # CPU blocks: 9362
INFO 05-30 16:23:28 executor_base.py:115] Maximum concurrency for 32768 tokens per request: 2.69x
INFO 05-30 16:24:18 model_runner.py:1562] Graph capturing finished in 43 secs, took 0.17 GiB
"""

# llava-v1.6-mistral-7b on an H100.
V010_LLAVA = """\
INFO 09-23 18:12:10 [__init__.py:1815] vLLM API server version 0.10.2
(EngineCore_DP0 pid=3021) INFO 09-23 18:12:12 [core.py:76] Initializing a V1 LLM engine (v0.10.2) with config: model='m'
(EngineCore_DP0 pid=3021) INFO 09-23 18:12:14 [cuda.py:362] Using Flash Attention backend on V1 engine.
(EngineCore_DP0 pid=3021) INFO 09-23 18:12:21 [gpu_model_runner.py:2392] Model loading took 14.0786 GiB and 5.1 seconds
(EngineCore_DP0 pid=3021) INFO 09-23 18:12:34 [gpu_worker.py:298] Available KV cache memory: 55.15 GiB
(EngineCore_DP0 pid=3021) INFO 09-23 18:12:34 [kv_cache_utils.py:864] GPU KV cache size: 451,744 tokens
(EngineCore_DP0 pid=3021) INFO 09-23 18:12:34 [kv_cache_utils.py:868] Maximum concurrency for 4,096 tokens per \
request: 110.29x
(EngineCore_DP0 pid=3021) INFO 09-23 18:12:39 [gpu_model_runner.py:3118] Graph capturing finished in 5 secs, took \
0.67 GiB
(EngineCore_DP0 pid=3021) INFO 09-23 18:12:39 [gpu_worker.py:391] Free memory on device (78.66/79.19 GiB) on startup. \
Desired GPU memory utilization is (0.9, 71.27 GiB). Actual usage is 14.08 GiB for weight, 1.97 GiB for peak \
activation, 0.07 GiB for non-torch memory, and 0.67 GiB for CUDAGraph memory. Replace gpu_memory_utilization config \
with `--kv-cache-memory=58333988249` to fit into requested memory, or `--kv-cache-memory=66273897472` to fully \
utilize gpu memory. Current kv cache memory in use is 59212694937 bytes.
"""

# What only a start with VLLM_LOGGING_LEVEL=DEBUG tells, on an L20.
V013_DEBUG = """\
(EngineCore_DP0 pid=9577) DEBUG 02-03 04:41:31 [v1/worker/gpu_worker.py:387] Initial free memory: 47.03 GiB; \
Requested memory: 0.90 (util), 42.64 GiB
(EngineCore_DP0 pid=9577) DEBUG 02-03 04:41:31 [v1/worker/gpu_worker.py:399] Memory profiling takes 24.71 seconds. \
Total non KV cache memory: 16.70GiB; torch peak memory increase: 1.40GiB; non-torch forward increase memory: 0.03GiB; \
weights memory: 15.27GiB.
(EngineCore_DP0 pid=9577) INFO 02-03 04:41:31 [v1/worker/gpu_worker.py:400] Available KV cache memory: 25.94 GiB
(EngineCore_DP0 pid=9577) INFO 02-03 04:41:31 [v1/core/kv_cache_utils.py:1286] GPU KV cache size: 188,864 tokens
(EngineCore_DP0 pid=9577) INFO 02-03 04:41:31 [v1/core/kv_cache_utils.py:1291] Maximum concurrency for 16,384 tokens \
per request: 11.53x
(APIServer pid=9504) DEBUG 02-03 04:44:02 [v1/metrics/loggers.py:246] Engine 000: vllm cache_config_info with \
initialization after num_gpu_blocks is: 11804
"""

# DeepSeek on two GPUs, the estimate of the graphs switched off.
V023_OFF = """\
(Worker_TP0 pid=79) INFO 07-05 08:55:49 [gpu_model_runner.py:6654] Estimated CUDA graph memory: 0.30 GiB total
(Worker_TP0 pid=79) INFO 07-05 08:55:49 [gpu_worker.py:466] Available KV cache memory: 20.36 GiB
(Worker_TP1 pid=80) INFO 07-05 08:55:49 [gpu_worker.py:466] Available KV cache memory: 20.35 GiB
(Worker_TP0 pid=79) WARNING 07-05 08:55:49 [gpu_worker.py:498] CUDA graph memory profiling is disabled \
(VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0). Without it, CUDA graph memory is not accounted for.
(EngineCore pid=58) INFO 07-05 08:55:49 [kv_cache_utils.py:1733] GPU KV cache size: 3,076,565 tokens
(EngineCore pid=58) INFO 07-05 08:55:49 [kv_cache_utils.py:1734] Maximum concurrency for 1,048,576 tokens per \
request: 2.93x
"""

# Weights and non-torch memory in one number; a hybrid's block size. Numbers of a 112 GiB unified memory.
V028 = """\
(EngineCore pid=492078) INFO 08-23 09:39:10 [interface.py:620] Setting attention block size to 640 tokens to ensure \
that attention page size is >= mamba page size.
(EngineCore pid=492078) INFO 08-23 09:39:12 [cuda.py:507] Using FLASHINFER attention backend out of potential \
backends: ['FLASHINFER', 'TRITON_ATTN'].
(EngineCore pid=492078) INFO 08-23 09:39:20 [gpu_model_runner.py:5187] Model loading took 54.41 GiB memory and 91.2 s
(EngineCore pid=492078) INFO 08-23 09:39:41 [gpu_model_runner.py:6806] Estimated CUDA graph memory: 1.94 GiB total
(EngineCore pid=492078) INFO 08-23 09:39:41 [gpu_worker.py:563] Available KV cache memory: 50.29 GiB
(EngineCore pid=492078) INFO 08-23 09:39:41 [gpu_worker.py:578] CUDA graph memory profiling is enabled (default since \
v0.21.0). The current --gpu-memory-utilization=0.9200 is equivalent to --gpu-memory-utilization=0.9038 without CUDA \
graph memory profiling.
(EngineCore pid=492078) INFO 08-23 09:39:41 [kv_cache_utils.py:2235] GPU KV cache size: 820,013 tokens
(EngineCore pid=492078) INFO 08-23 09:39:41 [kv_cache_utils.py:2236] Maximum concurrency for 786,432 tokens per \
request: 1.04x
(EngineCore pid=492078) INFO 08-23 09:40:11 [gpu_model_runner.py:6913] Graph capturing finished in 26 secs, took 0.94 \
GiB
(EngineCore pid=492078) INFO 08-23 09:40:11 [gpu_worker.py:726] CUDA graph pool memory: 0.94 GiB (actual), 1.94 GiB \
(estimated), difference: 1.01 GiB (107.2%).
(EngineCore pid=492078) INFO 08-23 09:40:11 [gpu_worker.py:789] Free memory on device (112.26/119.63 GiB) on startup. \
Desired GPU memory utilization is (0.92, 110.06 GiB). Actual usage is 55.99 GiB for consumed memory (weights + \
non-torch), 3.78 GiB for peak activation, and 0.94 GiB for CUDAGraph memory. Replace gpu_memory_utilization config \
with `--kv-cache-memory=52830620611` (49.2 GiB) to fit into requested memory, or `--kv-cache-memory=55188796928` \
(51.4 GiB) to fully utilize gpu memory. Current kv cache memory in use is 50.29 GiB.
"""

# The KV cache given in bytes: nothing is profiled.
PINNED = """\
(EngineCore pid=860990) INFO 08-23 22:37:30 [gpu_model_runner.py:5187] Model loading took 54.41 GiB memory and 90.1 s
(EngineCore pid=860990) INFO 08-23 22:37:34 [gpu_worker.py:491] Initial free memory 111.7 GiB, reserved 37.11 GiB \
memory for KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling. This does not respect \
the gpu_memory_utilization config.
(EngineCore pid=860990) INFO 08-23 22:37:35 [kv_cache_utils.py:2235] GPU KV cache size: 605,104 tokens, Maximum \
concurrency for 262,144 tokens per request: 2.31x
"""

REFUSED = """\
(EngineCore_DP0 pid=7) INFO 11-06 10:51:48 [gpu_worker.py:349] Available KV cache memory: 1.56 GiB
(EngineCore_DP0 pid=7) ERROR 11-06 10:51:49 [core.py:708] ValueError: To serve at least one request with the model's \
max seq len (65536), (4.76 GiB KV cache is needed, which is larger than the available KV cache memory (1.56 GiB). \
Based on the available memory, the estimated maximum model length is 15984.
"""


def gib(value):
    return round(value * log.GIB)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            V0_T4,
            {
                "vllm_version": "0.7.3",
                "weights_bytes": gib(2.89),
                "activation_bytes": gib(2.02),
                "non_torch_bytes": gib(0.01),
                "graphs_bytes": gib(0.17),
                "available_kv_bytes": gib(2.36),
                "num_blocks": 5519,
                "max_concurrency": 2.69,
                "max_model_len": 32768,
                "total_bytes": gib(14.56),
                "requested_bytes": gib(7.28),
                "gpu_memory_utilization": 0.5,
                "attention_backend": "XFormers",
                "kv_tokens": None,
                "ranks": 1,
            },
        ),
        (
            V010_LLAVA,
            {
                "vllm_version": "0.10.2",
                "weights_bytes": gib(14.08),
                "activation_bytes": gib(1.97),
                "non_torch_bytes": gib(0.07),
                "graphs_bytes": gib(0.67),
                "available_kv_bytes": 59212694937,
                "kv_bytes_exact": True,
                "kv_tokens": 451744,
                "max_concurrency": 110.29,
                "free_bytes": gib(78.66),
                "total_bytes": gib(79.19),
                "requested_bytes": gib(71.27),
                "attention_backend": "Flash Attention",
                "graphs_estimate_bytes": None,
            },
        ),
        (
            V013_DEBUG,
            {
                "weights_bytes": gib(15.27),
                "activation_bytes": gib(1.40),
                "non_torch_bytes": gib(0.03),
                "available_kv_bytes": gib(25.94),
                "num_blocks": 11804,
                "kv_tokens": 188864,
                "free_bytes": gib(47.03),
                "requested_bytes": gib(42.64),
            },
        ),
        (
            V023_OFF,
            {
                "graphs_estimate_bytes": gib(0.30),
                "graphs_in_budget": False,
                "available_kv_bytes": gib(20.35),
                "kv_tokens": 3076565,
                "ranks": 2,
                "weights_bytes": None,
                "activation_bytes": None,
            },
        ),
        (
            V028,
            {
                "weights_bytes": gib(54.41),
                "non_torch_bytes": gib(55.99 - 54.41),
                "activation_bytes": gib(3.78 - 1.94),
                "graphs_bytes": gib(0.94),
                "graphs_estimate_bytes": gib(1.94),
                "graphs_in_budget": True,
                "available_kv_bytes": gib(50.29),
                "block_size": 640,
                "attention_backend": "FLASHINFER",
                "kv_tokens": 820013,
                "gpu_memory_utilization": 0.92,
            },
        ),
        (
            PINNED,
            {
                "kv_bytes_given": True,
                "available_kv_bytes": gib(37.11),
                "free_bytes": gib(111.7),
                "weights_bytes": gib(54.41),
                "activation_bytes": None,
                "kv_tokens": 605104,
                "max_concurrency": 2.31,
            },
        ),
        (
            CPU,
            {
                "vllm_version": "0.32.0",
                "kv_cache_layout": "LBHNC",
                "kv_bytes_given": True,
                "available_kv_bytes": log.GIB,
                "total_bytes": gib(22.34),
                "kv_tokens": 23296,
                "max_concurrency": 11.38,
                "max_model_len": 2048,
                "weights_bytes": None,
                "ranks": 1,
                "refusal": "",
            },
        ),
    ],
    ids=["0.7 T4", "0.10.2 llava", "0.13 debug", "0.23 off", "0.28", "pinned", "0.32.0 cpu"],
)
def test_wordings(text, expected):
    found = log.parse_startup_log(text)
    assert {name: found[name] for name in expected} == expected


def test_the_parts_make_the_whole():
    """What the engine had, less what it used, is what it says it has left: the parts were read for what they are."""
    for text, slack in ((V0_T4, 0.02), (V010_LLAVA, 0.03)):
        r = log.parse_startup_log(text)
        left = r["requested_bytes"] - r["weights_bytes"] - r["activation_bytes"] - r["non_torch_bytes"]
        assert abs(left - r["available_kv_bytes"]) < slack * log.GIB
    r = log.parse_startup_log(V028)
    used = r["weights_bytes"] + r["non_torch_bytes"] + r["activation_bytes"] + r["graphs_estimate_bytes"]
    assert abs(r["requested_bytes"] - used - r["available_kv_bytes"]) < 0.02 * log.GIB


def test_the_engine_s_own_refusal():
    found = log.parse_startup_log(REFUSED)
    assert found["refusal"].startswith("To serve at least one request with the model's max seq len (65536)")
    assert "15984" in found["refusal"]
    assert found["available_kv_bytes"] == gib(1.56)


def test_the_last_start_counts():
    found = log.parse_startup_log(CPU + CPU.replace("23,296 tokens", "46,592 tokens").replace("(1.0/", "(2.0/"))
    assert found["kv_tokens"] == 46592
    assert found["available_kv_bytes"] == 2 * log.GIB
    assert log.parse_startup_log(V010_LLAVA + "\n" + REFUSED)["kv_tokens"] == 451744


def test_colours_and_nothing_at_all():
    coloured = "\n".join("\x1b[1;36m(EngineCore pid=1)\x1b[0;0m " + line for line in V010_LLAVA.splitlines())
    assert log.parse_startup_log(coloured)["kv_tokens"] == 451744
    empty = log.parse_startup_log("")
    assert all(value in (None, False, "", 1, log.PRECISION_BYTES) for value in empty.values())
    chance = random.Random(7)
    for _number in range(300):
        broken = list(V028 + CPU)
        for _cut in range(40):
            broken[chance.randrange(len(broken))] = chance.choice("0,.GiB():\x00-9é\n")
        assert set(log.parse_startup_log("".join(broken))) == set(empty)
        log.parse_arguments("".join(broken))


def test_arguments():
    found = log.parse_arguments(CPU)
    assert found["max_model_len"] == 2048 and found["enforce_eager"] is True and found["dtype"] == "float32"
    odd = "non-default args: {'model': '/m', 'compilation_config': CompilationConfig(level=3), 'max_num_seqs': 64}"
    assert log.parse_arguments(odd) == {"model": "/m", "max_num_seqs": 64}
    assert log.parse_arguments("non-default args: {broken") == {}


def test_every_line_that_counts_passes_the_journal_s_filter():
    pattern = re.compile(log.JOURNAL_PATTERN)
    for text in (V0_T4, V010_LLAVA, V013_DEBUG, V023_OFF, V028, PINNED, REFUSED, CPU):
        kept = "\n".join(line for line in text.splitlines() if pattern.search(line))
        assert log.parse_startup_log(kept) == log.parse_startup_log(text)
    assert not pattern.search(
        "(APIServer pid=1) INFO 08-17 02:59:34 [loggers.py:310] Engine 000: Avg prompt throughput: 5.7 tokens/s, Avg "
        "generation throughput: 1.5 tokens/s, Running: 1 reqs, Waiting: 0 reqs, GPU KV cache usage: 1.0%, Prefix cache "
        "hit rate: 0.0%"
    )


METRICS = """\
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",cache_dtype="auto",engine="0",gpu_memory_utilization="0.92",\
kv_cache_layout="None",kv_cache_max_concurrency="1024.0",kv_cache_memory_bytes="1073741824",\
kv_cache_size_tokens="2097152",num_gpu_blocks="16384",sliding_window="None"} 1.0
"""


def test_metrics():
    assert log.parse_cache_info(METRICS) == {
        "block_size": 128,
        "num_blocks": 16384,
        "kv_tokens": 2097152,
        "max_concurrency": 1024.0,
        "kv_bytes_asked": 1073741824,
        "gpu_memory_utilization": 0.92,
        "kv_cache_dtype": "auto",
    }
    assert log.parse_cache_info("") == {}
    assert log.parse_cache_info('vllm:cache_config_info{block_size="x"} 1.0') == {}
