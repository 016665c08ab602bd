# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What an engine measured when it started: the start is found in the journal, read, and judged."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._calibration import TERMS
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner
from ansible_collections.gpufleet.llm.plugins.module_utils._startup_log import (
    GIB,
    JOURNAL_PATTERN,
    Record,
    parse_cache_info,
    parse_startup_log,
)

LINES_LIMIT = 4000
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
