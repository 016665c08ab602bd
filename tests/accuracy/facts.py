# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One record of a public start-up log as what the planner is asked, and what the log leaves open."""

from __future__ import annotations

import re
import typing as t

import configs

GIB = 1 << 30
Record = t.Mapping[str, t.Any]

#: GiB that the driver says a GPU has, where a record doesn't; from public logs of such GPUs.
TOTALS: t.Tuple[t.Tuple[str, float], ...] = (
    (r"h200", 139.81),
    (r"h100|h800", 79.19),
    (r"h20\b", 95.09),
    (r"a100.*40|40.*a100", 39.39),
    (r"a100|a800", 79.15),
    (r"mi300", 191.98),
    (r"rtx pro 6000", 95.01),
    (r"l40s|l40", 44.40),
    (r"\bl4\b", 22.49),
    (r"\bt4\b", 14.56),
    (r"a10\b|a10g", 22.07),
    (r"5090", 31.36),
    (r"4090", 23.57),
    (r"3090", 23.58),
    (r"gb10|spark", 119.64),
)

#: Releases that stand for a span of releases with the same rules.
SPANS: t.Dict[str, t.Tuple[str, ...]] = {
    "0.1x": ("0.11.0", "0.13.0", "0.14.0", "0.15.1", "0.17.1", "0.19.1"),
    "0.2x": ("0.24.0", "0.21.0", "0.20.0", "0.26.0", "0.28.0", "0.29.0"),
    "0.3x": ("0.31.0", "0.30.0", "0.32.0"),
    "unknown": ("0.19.1", "0.11.0", "0.24.0", "0.28.0", "0.32.0"),
}

#: Tokens of the longest request where neither log nor geometry say; no number that is compared depends on it.
UNSAID_LENGTH = 32768

COPIED = (
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "kv_cache_dtype",
    "gpu_memory_utilization",
    "enforce_eager",
    "block_size",
)


class Case(t.NamedTuple):
    """What is asked."""

    record: Record
    key: t.Optional[str]  # of the model's geometry
    config: t.Optional[t.Dict[str, t.Any]]
    want: t.Dict[str, t.Any]
    gpu: t.Dict[str, t.Any]
    versions: t.Tuple[str, ...]  # the log's, or those that it may be
    generation: t.Optional[str]
    total_is_stated: bool
    open_flags: t.Tuple[t.Dict[str, t.Any], ...]  # settings that the log doesn't tell, after the defaults


def versions_of(text: str) -> t.Tuple[str, ...]:
    """Return the releases that a record may be of."""
    text = str(text)
    if text in SPANS:
        return SPANS[text]
    found = re.findall(r"\d+\.\d+(?:\.\d+)?", text)
    if re.fullmatch(r"v?\d+\.\d+\.\d+.*", text) and found:
        return (found[0],)
    if re.match(r"^v?\d+\.\d+\.x", text):
        return (found[0] + ".2",)
    if found:
        return tuple(dict.fromkeys(version if version.count(".") == 2 else version + ".2" for version in found[::-1]))
    return SPANS["unknown"]


def total_of(record: Record) -> t.Tuple[t.Optional[float], bool]:
    """Return GiB of one GPU, and whether the record says so."""
    total = record.get("gpu_total_gib")
    if isinstance(total, (int, float)) and total > 0:
        return float(total), True
    name = str(record.get("gpu") or "").lower()
    for pattern, size in TOTALS:
        if re.search(pattern, name):
            return size, False
    match = re.search(r"(\d+(?:\.\d+)?)\s*(gib|gb|mib)", name)
    if match:
        size = float(match.group(1))
        return (size / 1024 if match.group(2) == "mib" else size), False
    return None, False


def quantisation(record: Record) -> t.Optional[t.Dict[str, t.Any]]:
    """Return the quantization_config that the record's words stand for; None: the model isn't quantised beforehand."""
    method = str(record.get("quantization") or "").lower()
    words = ("%s %s" % (record.get("id"), record.get("model"))).lower()
    eight = any(word in words for word in ("fp8", "w8a8", "int8", "w8a16"))
    if method in ("awq", "gptq", "awq_marlin", "gptq_marlin", "w4a16"):
        return {"quant_method": "awq", "bits": 4, "group_size": 128}
    if method == "compressed-tensors":
        weights = {"num_bits": 8} if eight else {"num_bits": 4, "group_size": 128}
        return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    if method == "mxfp4":
        return {"quant_method": "mxfp4"}
    if method in ("nvfp4", "modelopt_fp4"):
        return {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    if method == "fp8" and "fp8" in str(record.get("model", "")).lower():
        return {"quant_method": "fp8", "weight_block_size": [128, 128]}
    if method and method not in ("fp8", "none", "null"):
        # What isn't known is said to the planner as it is, and not taken for 16 bits.
        return {"quant_method": method}
    return None


def same_method(stored: t.Mapping[str, t.Any], own: t.Any) -> bool:
    """Whether a checkpoint's own quantization_config is what a record's words stand for; it says more than they do."""
    if not isinstance(own, dict):
        return False
    methods = [str(one.get("quant_method", "")).lower().split("-")[0].split("_")[0] for one in (stored, own)]
    return methods[0] == methods[1]


def case_of(record: Record, models: t.Mapping[str, t.Any]) -> Case:
    """Return what the planner is asked for one record."""
    key = configs.find(record.get("config"), models) or configs.find(record.get("model"), models)
    config = configs.config_json(key, models[key]) if key else None
    want = {name: record[name] for name in COPIED if record.get(name) is not None}
    for flag, name in (("tp", "tensor_parallel_size"), ("pp", "pipeline_parallel_size"), ("dp", "data_parallel_size")):
        if record.get(flag):
            want[name] = int(record[flag])
    for name in ("dtype", "enable_expert_parallel"):
        if record.get(name) is not None:
            want[name] = record[name]
    if record.get("prefix_caching") is not None:
        want["enable_prefix_caching"] = bool(record["prefix_caching"])
    gpu_name = str(record.get("gpu") or "")
    if re.search(r"\bcpu\b", gpu_name.lower()):
        want["accelerator"] = "cpu"
    if config is not None:
        stored = quantisation(record)
        if stored:
            if not same_method(stored, config.get("quantization_config")):
                config["quantization_config"] = stored
        elif record.get("quantization") == "fp8" and not config.get("quantization_config"):
            want["quantization"] = "fp8"
        elif not record.get("quantization") and config.get("quantization_config") and record.get("config"):
            config.pop("quantization_config")
        if not want.get("max_model_len") and not config.get("max_position_embeddings"):
            want["max_model_len"] = UNSAID_LENGTH
    total, stated = total_of(record)
    count = max(
        int(record.get("gpu_count") or 1), want.get("tensor_parallel_size", 1) * want.get("pipeline_parallel_size", 1)
    )
    if record.get("gpu_count"):
        count = int(record["gpu_count"])
    gpu: t.Dict[str, t.Any] = {"total_bytes": int((total or 80.0) * GIB), "count": count, "name": gpu_name}
    free = record.get("gpu_free_at_start_gib")
    reported = record.get("reported") or {}
    free = reported.get("free_gib", free)
    if isinstance(free, (int, float)):
        gpu["free_bytes"] = int(free * GIB)
    return Case(
        record=record,
        key=key,
        config=config,
        want=want,
        gpu=gpu,
        versions=versions_of(record.get("vllm", "unknown")),
        generation=record.get("engine_generation"),
        total_is_stated=stated,
        open_flags=_open(record, want),
    )


def _open(record: Record, want: t.Mapping[str, t.Any]) -> t.Tuple[t.Dict[str, t.Any], ...]:
    """Return what the log leaves open and a start may have been given, beginning with nothing."""
    batches: t.List[t.Dict[str, t.Any]] = [{}]
    if "max_num_batched_tokens" not in want:
        batches += [{"max_num_batched_tokens": size} for size in (2048, 4096, 8192, 16384)]
    caching: t.List[t.Dict[str, t.Any]] = [{}]
    if "enable_prefix_caching" not in want:
        caching += [{"enable_prefix_caching": True}, {"enable_prefix_caching": False}]
    return tuple(dict(one, **two) for two in caching for one in batches)
