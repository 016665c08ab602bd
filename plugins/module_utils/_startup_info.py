# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What an engine measured when it started, and the calibration made of it that the next plan uses.

One file for each (model, GPUs, engine, flags): the measured terms depend on those four and on nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner
from ansible_collections.gpufleet.llm.plugins.module_utils._startup_log import (
    GIB,
    JOURNAL_PATTERN,
    PRECISION_BYTES,
    Record,
    parse_cache_info,
    parse_startup_log,
)

SCHEMA = 1
CALIBRATION_DIR = "/var/lib/gpufleet/calibration"
LINES_LIMIT = 4000
#: What a person sees of a measured term.
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
UNIT_PROPERTIES = ("LoadState", "ActiveState", "SubState", "InvocationID", "NRestarts")
INSTANCE_RE = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$")


def read_unit(runner: Runner, unit: str) -> t.Dict[str, str]:
    """Return what systemd says of a unit, by property; empty where there is no systemd."""
    status, out, _err = runner.run(["systemctl", "show", "--property", ",".join(UNIT_PROPERTIES), "--", unit])
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line) if status == 0 else {}


def journal(runner: Runner, *selection: str) -> str:
    """Return the lines of a journal that tell of memory, oldest first, at most :data:`LINES_LIMIT`."""
    argv = ["journalctl", "--no-pager", "--quiet", "--output=cat", "--all", "--lines=%d" % LINES_LIMIT]
    status, out, err = runner.run(argv + ["--grep=%s" % JOURNAL_PATTERN, *selection])
    if status != 0 and "pattern matching" in err:
        _status, out, _err = runner.run(argv + list(selection))
    return out


def read_startup(runner: Runner, unit: str) -> t.Tuple[str, t.Dict[str, str]]:
    """Return the log of a unit's current start (else of its last one in this boot), and what systemd says of it."""
    properties = read_unit(runner, unit)
    text = ""
    if properties.get("InvocationID"):
        text = journal(runner, "_SYSTEMD_INVOCATION_ID=%s" % properties["InvocationID"])
    record = parse_startup_log(text)
    if record["available_kv_bytes"] is None and record["kv_tokens"] is None:
        # What a crash loop says may be of the invocation before, and what was rotated away isn't there at all.
        older = journal(runner, "--boot", "--unit=%s" % unit)
        if parse_startup_log(older)["available_kv_bytes"] is not None or not text:
            text = older
    return text, properties


def measure(text: str, metrics: str = "") -> Record:
    """Return what a start measured: the log's terms, and of the KV cache what the running engine says exactly."""
    record = parse_startup_log(text)
    exact = parse_cache_info(metrics)
    for name in ("block_size", "num_blocks", "kv_tokens", "kv_cache_layout"):
        if exact.get(name) is not None:
            record[name] = exact[name]
    record["kv_cache_dtype"] = exact.get("kv_cache_dtype")
    if record["gpu_memory_utilization"] is None:
        record["gpu_memory_utilization"] = exact.get("gpu_memory_utilization")
    if exact.get("kv_bytes_asked") and record["kv_bytes_given"]:
        record["available_kv_bytes"], record["kv_bytes_exact"] = exact["kv_bytes_asked"], True
    if exact.get("max_concurrency") is not None and record["max_concurrency"] is None:
        record["max_concurrency"] = round(exact["max_concurrency"], 2)
    return record


def decide(record: Record, unit: str, properties: t.Mapping[str, str]) -> t.List[Finding]:
    """Return whether a start could be read, and whether it was one."""
    if record["refusal"]:
        return [
            finding(
                "startup.%s.memory" % unit,
                False,
                expected="an engine that starts",
                found=record["refusal"],
                detail="The engine's own words, from the journal of %s." % unit,
                remedy="Plan the model for this host (module gpufleet.llm.memory_plan) and use the flags it gives.",
            )
        ]
    known = record["kv_tokens"] is not None or record["available_kv_bytes"] is not None
    return [
        finding(
            "startup.%s.log" % unit,
            known,
            severity="warning",
            expected="the lines in which the engine says its memory",
            found="%s KV tokens" % record["kv_tokens"] if known else "none of them",
            detail="%s is %s, %s." % (unit, properties.get("LoadState") or "unknown", properties.get("ActiveState")),
            remedy="Start the engine and run this when it serves; if it does, its journal was rotated away, or this "
            "release of vLLM words it otherwise.",
        )
    ]


# -- the calibration ---------------------------------------------------------------------------------------------------


def model_identity(runner: Runner, path: str) -> t.Dict[str, t.Any]:
    """Return ``{name, sha256}`` of a model's directory: what the store says its files are, else its config.json."""
    name = os.path.basename(path.rstrip("/"))
    parts = path.split("/")
    if "versions" in parts[1:]:
        name = parts[parts.index("versions") - 1]
    digest = None
    try:
        digest = json.loads(runner.read(os.path.join(path, ".gpufleet-manifest.json")) or "{}").get("manifest_sha256")
    except (ValueError, AttributeError):
        digest = None
    if digest is None:
        config = runner.read(os.path.join(path, "config.json"))
        digest = hashlib.sha256(config.encode("utf-8")).hexdigest() if config is not None else None
    return {"name": name, "sha256": digest}


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
    flags = {name: arguments[name] for name in FLAGS if name in arguments}
    return {
        "schema": SCHEMA,
        "key": {
            "model": dict(model),
            "gpu": dict(gpu),
            "engine": {"name": "vllm", "version": record["vllm_version"]},
            "flags": json.loads(json.dumps(flags, sort_keys=True, default=str)),
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


def render(calibration: t.Mapping[str, t.Any]) -> str:
    """Return a calibration's text."""
    return json.dumps(calibration, indent=2, sort_keys=True) + "\n"


def parse_calibration(text: t.Optional[str]) -> t.Optional[t.Dict[str, t.Any]]:
    """Return a calibration from its file's text, None when it isn't one."""
    try:
        made = json.loads(text or "")
    except ValueError:
        return None
    return made if isinstance(made, dict) and made.get("schema") == SCHEMA and "terms" in made else None


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
            if type(before) is int and type(value) is int and name.endswith("_bytes"):
                if abs(before - value) > 2 * PRECISION_BYTES:
                    return False
            elif part == "terms" or name in ("kv_bytes_given", "block_size", "kv_cache_layout", "attention_backend"):
                if before != value:
                    return False
            elif name == "kv_tokens" and new["kv"]["kv_bytes_given"] and before != value:
                return False
    return True


def summary(record: Record) -> t.List[str]:
    """Return what was measured as lines for a person."""
    rows = []
    for name in (*TERMS, "available_kv_bytes", "total_bytes"):
        value = record[name]
        rows.append(
            "%-22s %s" % (name[:-6].replace("_", " "), "not said" if value is None else "%.2f GiB" % (value / GIB))
        )
    rows.append("%-22s %s" % ("KV tokens", record["kv_tokens"] if record["kv_tokens"] is not None else "not said"))
    rows.append("%-22s %s" % ("blocks", "%s of %s tokens" % (record["num_blocks"], record["block_size"])))
    return rows
