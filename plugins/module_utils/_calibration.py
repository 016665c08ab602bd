# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What a start measured, kept for the next plan of the same model, GPUs, engine and flags. Pure, but for two readers.

``vllm_startup_info`` writes one file for each of those four, for the measured terms depend on them and on nothing else.
``memory_plan`` and ``host_preflight`` read the directory and take the one that is theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner
from ansible_collections.gpufleet.llm.plugins.module_utils._startup_log import PRECISION_BYTES, Record

SCHEMA = 1
CALIBRATION_DIR = "/var/lib/gpufleet/calibration"
#: Files that are looked at in one directory, the newest first.
FILES_LIMIT = 256
FILE_LIMIT_BYTES = 64 * 1024
#: What a start measures, in bytes of one GPU; the planner takes them by these names.
TERMS = (
    "weights_bytes",
    "activation_bytes",
    "non_torch_bytes",
    "graphs_bytes",
    "graphs_estimate_bytes",
)
#: What of vLLM's arguments changes a measured term. max_model_len isn't among them: it changes the KV cache alone.
FLAGS = (
    "additional_config",
    "async_scheduling",
    "attention_backend",
    "block_size",
    "compilation_config",
    "cpu_offload_gb",
    "cudagraph_capture_sizes",
    "data_parallel_size",
    "dtype",
    "enable_chunked_prefill",
    "enable_expert_parallel",
    "enable_lora",
    "enable_prefix_caching",
    "enforce_eager",
    "hf_overrides",
    "kv_cache_dtype",
    "limit_mm_per_prompt",
    "max_lora_rank",
    "max_loras",
    "max_num_batched_tokens",
    "max_num_seqs",
    "mm_processor_kwargs",
    "optimization_level",
    "pipeline_parallel_size",
    "quantization",
    "speculative_config",
    "tensor_parallel_size",
)
#: The engine's defaults: its log leaves out what equals them, an inventory may say it.
DEFAULTS: t.Dict[str, t.Any] = {
    "cpu_offload_gb": 0,
    "data_parallel_size": 1,
    "dtype": "auto",
    "enable_expert_parallel": False,
    "enable_lora": False,
    "enforce_eager": False,
    "kv_cache_dtype": "auto",
    "pipeline_parallel_size": 1,
    "tensor_parallel_size": 1,
}
#: What the engine fills in by itself: a start that wasn't told them is the one that was told its own defaults.
FILLED = ("max_num_batched_tokens", "max_num_seqs")


# -- what it belongs to ------------------------------------------------------------------------------------------------


def config_sha256(config: t.Mapping[str, t.Any]) -> str:
    """Return the digest of a model's ``config.json``, whatever its white space and the order of its keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def flags_of(arguments: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return what of an engine's arguments changes a measured term, by names with underscores, defaults left out."""
    found: t.Dict[str, t.Any] = {}
    for key, value in arguments.items():
        name = str(key).lstrip("-").replace("-", "_")
        if name.startswith("no_") and name[3:] in FLAGS and value is True:
            name, value = name[3:], False
        if name in FLAGS and value is not None and (name not in DEFAULTS or value != DEFAULTS[name]):
            found[name] = value
    made: t.Dict[str, t.Any] = json.loads(json.dumps(found, sort_keys=True, default=str))
    return made


def model_identity(runner: Runner, path: str) -> t.Dict[str, t.Any]:
    """Return ``{name, sha256}`` of a model's directory; the digest is its config.json's, None where there is none."""
    name = os.path.basename(path.rstrip("/"))
    parts = path.split("/")
    if "versions" in parts[1:]:
        name = parts[parts.index("versions") - 1]
    try:
        config = json.loads(runner.read(os.path.join(path, "config.json")) or "")
    except ValueError:
        config = None
    return {"name": name, "sha256": config_sha256(config) if isinstance(config, dict) else None}


def gpu_identity(gpus: t.Sequence[t.Mapping[str, t.Any]], record: Record) -> t.Dict[str, t.Any]:
    """Return ``{name, memory_mib, count}`` of the GPUs of a host; name cpu where it has none."""
    if not gpus:
        return {"name": "cpu", "memory_mib": None, "count": 0}
    first = gpus[0]
    memory = first.get("memory_mib") or {}
    return {"name": first.get("name"), "memory_mib": memory.get("total"), "count": max(1, int(record["ranks"]))}


def calibration_of(
    record: Record,
    arguments: t.Mapping[str, t.Any],
    model: t.Mapping[str, t.Any],
    gpu: t.Mapping[str, t.Any],
) -> t.Dict[str, t.Any]:
    """Return the file's content: what the terms belong to, and the terms.

    ``terms`` are bytes per GPU, each None where this release or this kind of start doesn't say it. ``kv`` is what came
    of it. Both are rounded to what vLLM prints, see ``precision_bytes``.
    """
    return {
        "schema": SCHEMA,
        "key": {
            "model": dict(model),
            "gpu": dict(gpu),
            "engine": {"name": "vllm", "version": record["vllm_version"]},
            "flags": flags_of(arguments),
        },
        "terms": {name: record[name] for name in TERMS},
        "kv": {
            name: record[name]
            for name in (
                "available_kv_bytes",
                "kv_bytes_given",
                "kv_bytes_exact",
                "kv_tokens",
                "num_blocks",
                "block_size",
                "max_concurrency",
                "max_model_len",
                "kv_cache_layout",
                "attention_backend",
            )
        },
        "device": {
            name: record[name] for name in ("total_bytes", "free_bytes", "requested_bytes", "gpu_memory_utilization")
        },
        "graphs_in_budget": record["graphs_in_budget"],
        "precision_bytes": record["precision_bytes"],
    }


def calibration_name(key: t.Mapping[str, t.Any]) -> str:
    """Return the file's name for a calibration's key: the model, and a digest of all that the terms depend on."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    model = re.sub(r"[^a-z0-9.-]+", "-", str(key["model"]["name"]).lower()).strip("-.") or "model"
    return "%s-%s.json" % (model[:60], hashlib.sha256(text.encode("utf-8")).hexdigest()[:16])


# -- the file ----------------------------------------------------------------------------------------------------------


def render(calibration: t.Mapping[str, t.Any]) -> str:
    """Return a calibration's text."""
    return json.dumps(calibration, indent=2, sort_keys=True) + "\n"


def parse_calibration(text: t.Optional[str]) -> t.Optional[t.Dict[str, t.Any]]:
    """Return a calibration from its file's text, None when it isn't one."""
    try:
        made = json.loads(text or "")
    except ValueError:
        return None
    whole = isinstance(made, dict) and made.get("schema") == SCHEMA
    if not whole or not isinstance(made.get("terms"), dict) or not isinstance(made.get("key"), dict):
        return None
    return t.cast("t.Dict[str, t.Any]", made)


def _is_count(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_same(known: t.Optional[t.Mapping[str, t.Any]], new: t.Mapping[str, t.Any]) -> bool:
    """Tell whether two calibrations say the same: free memory apart, and bytes as far as vLLM prints them.

    A term that lies between two printed values comes out as one or the other from start to start.
    """
    if known is None or known.get("key") != new["key"] or known.get("graphs_in_budget") != new["graphs_in_budget"]:
        return False
    for part in ("terms", "kv"):
        old, fresh = known.get(part), new[part]
        if not isinstance(old, dict) or set(old) != set(fresh):
            return False
        for name, value in fresh.items():
            before = old[name]
            if _is_count(before) and _is_count(value) and name.endswith("_bytes"):
                if abs(before - value) > 2 * PRECISION_BYTES:
                    return False
            elif part == "terms" or name in ("kv_bytes_given", "block_size", "kv_cache_layout", "attention_backend"):
                if before != value:
                    return False
            elif name == "kv_tokens" and new["kv"]["kv_bytes_given"] and before != value:
                return False
    return True


def read_all(directory: str) -> t.List[t.Dict[str, t.Any]]:
    """Return the calibrations of a directory, the newest first; what isn't one is passed over."""
    entries = []
    try:
        with os.scandir(directory) as found:
            for entry in found:
                if entry.name.endswith(".json") and entry.is_file():
                    entries.append((entry.stat().st_mtime, entry.path))
    except OSError:
        return []
    made = []
    for _when, path in sorted(entries, reverse=True)[:FILES_LIMIT]:
        try:
            with open(path, encoding="utf-8") as handle:
                calibration = parse_calibration(handle.read(FILE_LIMIT_BYTES))
        except (OSError, UnicodeError):
            continue
        if calibration is not None:
            made.append(calibration)
    return made


# -- the one of a plan -------------------------------------------------------------------------------------------------


def _same_flags(kept: t.Mapping[str, t.Any], asked: t.Mapping[str, t.Any], filled: t.Mapping[str, t.Any]) -> bool:
    """Tell whether a start had the flags that are asked for: what one side left to the engine is its own default."""
    names = (set(kept) | set(asked)) - set(FILLED)
    if any(kept.get(name) != asked.get(name) for name in names):
        return False
    return all(kept.get(name, filled.get(name)) == asked.get(name, filled.get(name)) for name in FILLED)


def find(
    calibrations: t.Sequence[t.Mapping[str, t.Any]],
    *,
    config: t.Mapping[str, t.Any],
    gpu: t.Mapping[str, t.Any],
    version: str,
    arguments: t.Mapping[str, t.Any],
    filled: t.Mapping[str, t.Any],
) -> t.Optional[t.Dict[str, t.Any]]:
    """Return the terms of the newest start of the same model, GPUs, engine and flags, None where there was none.

    Args:
        calibrations: as :func:`read_all` returns them.
        config: the model's ``config.json``.
        gpu: ``{name, count}`` of the instance's GPUs, and ``memory_mib`` where it was read; name ``cpu`` on a CPU.
        version: the engine's.
        arguments: all that the engine will be told, as far as it changes memory.
        filled: what the engine takes for ``max_num_seqs`` and ``max_num_batched_tokens`` where nobody tells it.
    """
    digest, asked = config_sha256(config), flags_of(arguments)
    for calibration in calibrations:
        key = calibration["key"]
        device = key.get("gpu") or {}
        if (key.get("model") or {}).get("sha256") != digest or (key.get("engine") or {}).get("version") != version:
            continue
        if device.get("name") != gpu.get("name") or device.get("count") != gpu.get("count"):
            continue
        memory = gpu.get("memory_mib")
        if memory is not None and device.get("memory_mib") not in (None, memory):
            continue
        if _same_flags(key.get("flags") or {}, asked, filled):
            return {name: value for name, value in calibration["terms"].items() if name in TERMS and value is not None}
    return None
