# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What vLLM does with memory, by version. Data: a rule is a row here, and no other file asks for a version.

Each row says from which version on something differs from the row before. The first ones were read in the sources of
the releases named in :data:`READ`; where a change lies between two of them, it is dated to the later.
"""

from __future__ import annotations

import re
import typing as t

GIB = 1 << 30
MIB = 1 << 20

#: Releases whose source was read for the layout and budget rules.
READ: t.Tuple[str, ...] = (
    *("0.9.2", "0.10.2", "0.11.2", "0.13.0", "0.15.1", "0.16.0", "0.17.1", "0.18.0", "0.19.1", "0.20.0", "0.21.0"),
    *("0.22.0", "0.23.0", "0.24.0", "0.25.0", "0.26.0", "0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0"),
)

Rule = t.Dict[str, t.Any]

#: utilisation: default of gpu_memory_utilization.
#: graphs_in_budget: whether the estimate of the CUDA graphs is taken off before the KV cache gets the rest.
#: group_threshold: buckets of layers whose sizes differ by less than this factor are padded to the larger; 0: never.
#: tokens: how "KV cache size: N tokens" is counted. blocks: blocks * block size. groups: blocks // groups * the
#:   smallest block size. concurrency: int(maximum concurrency * max_model_len).
#: inflight_batches: batches whose tokens a sliding window holds on to: one, or as many as the engine runs at once.
#: check: what is compared with the memory there is. layers: the sum over the layers. groups: blocks over all groups.
#: null_block: whether one block is held back in that comparison.
#: hybrid_prefix_caching: whether prefix caching is on by default for models with recurrent layers.
#: chunked_groups: whether chunked local attention keeps its own groups by default.
#: mla_alignment: multiple, in tokens, of the block of a hybrid with latent attention.
#: mamba_all: whether prefix caching of some recurrent models keeps one state for each block.
#: mxfp4_padding: multiples to which the kernels pad an expert's inner and outer size.
#: mamba_checkpoints: forms of recurrent state that keep one more block while prefix caching aligns them.
#: sampler_k: bytes for each (sequence, vocabulary entry) of the sampler's dummy run.
#: graphs_*: estimate of the CUDA graphs in GiB: base + layer * layers + moe, for 51 capture sizes in two modes.
#: actual_*: the same for what the capture then takes.
#: non_torch_one, non_torch_many: GiB that isn't PyTorch's, on one GPU, and on each of two; non_torch_four: and more on
#:   each of four and up.
#: yarn_from_original: whether YaRN's factor is applied to the length before it rather than taken to be in
#:   max_position_embeddings. longrope_default: whether LongRoPE's short length is the default of max_model_len.
#: checkpoint_kv: whether a checkpoint's own type of cache is taken where the flag is auto. nvfp4_kv: or in 4 bits.
#: moe_wide: whether narrow experts' outputs are held beside their inputs in the profile run.
ROWS: t.Tuple[t.Tuple[str, Rule], ...] = (
    (
        "0.0.0",
        {
            "utilisation": 0.90,
            "graphs_in_budget": False,
            "group_threshold": 0.0,
            "tokens": "blocks",
            "inflight_batches": False,
            "check": "layers",
            "null_block": False,
            "hybrid_prefix_caching": False,
            "chunked_groups": False,
            "mla_alignment": 64,
            "mamba_all": False,
            "mamba_checkpoints": (),
            "mxfp4_padding": (1, 256),
            "sampler_k": 36.0,
            "graphs_base": 0.29,
            "graphs_layer": 0.0168,
            "graphs_moe": 0.30,
            "actual_base": 0.39,
            "actual_layer": 0.0151,
            "actual_moe": 0.51,
            "non_torch_one": 0.13,
            "non_torch_many": 0.50,
            "non_torch_four": 0.0,
            "moe_wide": False,
            "yarn_from_original": True,
            "longrope_default": False,
            "checkpoint_kv": False,
            "nvfp4_kv": False,
            "default_seqs_small": 256,
            "default_tokens_small": 2048,
            "default_tokens_160": 8192,
            "engine": "V0",
        },
    ),
    ("0.8.0", {"engine": "V1", "tokens": "groups", "sampler_k": 38.0}),
    ("0.10.0", {"non_torch_many": 0.55}),
    ("0.11.0", {"longrope_default": True}),
    ("0.13.0", {"group_threshold": 1.25}),
    ("0.14.0", {"chunked_groups": True}),
    ("0.15.0", {"check": "groups", "mamba_all": True, "non_torch_many": 1.0, "checkpoint_kv": True}),
    (
        "0.17.0",
        {"sampler_k": 14.5, "non_torch_one": 0.25, "non_torch_many": 2.07, "non_torch_four": 0.10, "moe_wide": True},
    ),
    ("0.18.0", {"group_threshold": 1.50, "mxfp4_padding": (128, 256)}),
    ("0.20.0", {"utilisation": 0.92, "graphs_in_budget": True}),
    ("0.21.0", {"tokens": "concurrency"}),
    ("0.22.0", {"nvfp4_kv": True}),
    (
        "0.26.0",
        {
            "inflight_batches": True,
            "hybrid_prefix_caching": True,
            "graphs_base": 0.20,
            "graphs_layer": 0.0085,
            "non_torch_one": 0.10,
            "moe_wide": False,
        },
    ),
    ("0.27.0", {"mla_alignment": 128}),
    ("0.28.0", {"default_tokens_160": 16384}),
    ("0.29.0", {"null_block": True, "mamba_checkpoints": ("mamba2",)}),
    ("0.30.0", {"mamba_all": False, "yarn_from_original": False}),
)

VERSION = re.compile(r"^v?(\d+)\.(\d+)(?:\.(\d+))?")


#: GiB that isn't PyTorch's on each of several GPUs, by the GPU's name, where it isn't what the rows say: without
#: NVLink there are other buffers. From start-up logs.
NON_TORCH_MANY: t.Tuple[t.Tuple[str, float], ...] = (
    (r"l40|\bl4\b|a10\b|rtx 40|rtx 30|\b4090|\b3090|\bt4\b", 0.25),
    (r"rtx pro 6000|rtx 50|\b5090", 1.70),
)

#: GiB that the kernels of MXFP4 experts take outside the budget while the engine warms up: gpt-oss-20b at a
#: utilisation of 0.95 on 80 GB dies there, on one GPU and on two; at 0.90 it serves.
MXFP4_WARM_UP = 1.50

#: Capture sizes that the graph constants stand for.
CAPTURES = 51


def capture_sizes(max_num_seqs: int) -> int:
    """Return how many batch sizes are captured as graphs: 1, 2, 4, multiples of 8 to 256, of 16 to 512.

    Source: ``vllm/config/vllm.py``; the largest is twice ``max_num_seqs``, at most 512.
    """
    largest = min(max_num_seqs * 2, 512)
    sizes = [1, 2, 4] + list(range(8, 256, 8)) + list(range(256, 513, 16))
    return max(1, sum(1 for size in sizes if size <= largest))


def version_tuple(version: str) -> t.Tuple[int, int, int]:
    """Return ``(major, minor, patch)``.

    Raises:
        ValueError: what was given doesn't start like a version.
    """
    match = VERSION.match(str(version).strip())
    if match is None:
        raise ValueError("engine version %r is no version; expected something like 0.11.2" % (version,))
    return int(match.group(1)), int(match.group(2)), int(match.group(3) or 0)


def rules_for(version: str, engine_generation: t.Optional[str] = None) -> Rule:
    """Return the rules of one vLLM release: those of the newest row that isn't newer.

    Args:
        version: vLLM's, as ``0.11.2``.
        engine_generation: ``V0`` or ``V1`` where one release had both; None: that release's default.
    """
    wanted = version_tuple(version)
    rules: Rule = {}
    for since, changes in ROWS:
        if version_tuple(since) <= wanted:
            rules.update(changes)
    if engine_generation == "V0":
        rules.update({"engine": "V0", "tokens": "blocks", "sampler_k": 36.0})
    elif engine_generation == "V1":
        rules["engine"] = "V1"
    newest = version_tuple(READ[-1])
    rules["version"] = "%d.%d.%d" % wanted
    rules["known"] = wanted[:2] <= newest[:2]
    return rules


def batch_defaults(
    rules: Rule, total_bytes: int, gpu_name: str, accelerator: str, world_size: int
) -> t.Tuple[int, int]:
    """Return ``(max_num_batched_tokens, max_num_seqs)`` that ``vllm serve`` takes when nobody says.

    Source: ``vllm/engine/arg_utils.py``, ``get_batch_defaults``. An A100 is left out of the large ones on purpose; the
    V0 engine had one pair for all.
    """
    if rules["engine"] == "V0":
        return 2048, 256
    if accelerator == "cpu":
        return 2048 * world_size, 128 * world_size
    if total_bytes >= 160 * GIB:
        return rules["default_tokens_160"], 1024
    if total_bytes >= 70 * GIB and "a100" not in gpu_name.lower():
        return 8192, 1024
    return rules["default_tokens_small"], rules["default_seqs_small"]


#: KV cache data types: bytes of one element. Others have layouts of their own and are refused.
KV_BYTES: t.Dict[str, int] = {
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "float32": 4,
    "float": 4,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
}

#: Latent attention with layouts of their own: bytes of one token in one layer.
MLA_PACKED: t.Dict[str, int] = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}

DTYPE_BYTES: t.Dict[str, int] = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}
