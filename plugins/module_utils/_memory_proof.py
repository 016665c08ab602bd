# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Planned against measured: what a running engine says of its KV cache, and what its start said of the rest."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._calibration import TERMS
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import Connection, Failure
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._receipt import read_text
from ansible_collections.gpufleet.llm.plugins.module_utils._startup_log import parse_cache_info

Record = t.Dict[str, t.Any]

#: Below the directory of the calibrations: which start of an instance was read, and what it said.
STARTS = "instances"
#: What is kept of a start.
MEASURED = (*TERMS, "available_kv_bytes", "kv_tokens", "num_blocks", "block_size", "max_concurrency", "vllm_version")
METRICS_LIMIT_SECONDS = 10.0


def start_path(directory: str, instance: str) -> str:
    """Return where it is kept what an instance's start said."""
    return os.path.join(directory, STARTS, instance + ".json")


def kept_of(record: t.Mapping[str, t.Any]) -> Record:
    """Return what is kept of what a start measured."""
    return {name: record.get(name) for name in MEASURED}


def start_text(invocation: str, record: t.Mapping[str, t.Any], calibration: t.Optional[str]) -> str:
    """Return what is kept of a start: systemd's id of it, what it measured, and the calibration's file."""
    kept = {"invocation": invocation, "measured": kept_of(record), "calibration": calibration}
    return json.dumps(kept, indent=2, sort_keys=True) + "\n"


def _json_of(path: str) -> Record:
    try:
        made = json.loads(read_text(path) or "")
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


def ask_metrics(socket: str, seconds: float = METRICS_LIMIT_SECONDS) -> str:
    """Return a running engine's metrics, empty where nobody answers."""
    try:
        with Connection.open_unix(socket, seconds) as connection:
            answer = connection.ask("GET", "/metrics", seconds=seconds)
            return answer.text if answer.status == 200 else ""
    except Failure:
        return ""


def read_memory(
    instances: t.Sequence[str],
    invocations: t.Mapping[str, str],
    *,
    plan_dir: str,
    calibration_dir: str,
    runtime_dir: str = "/run/gpufleet",
) -> t.Dict[str, Record]:
    """Return by instance ``{planned, state, measured, start_read}``.

    Args:
        instances: their names.
        invocations: by instance, systemd's id of the running start.
        plan_dir: with ``INSTANCE/plan.json`` below it.
        calibration_dir: where starts that were read are kept.
        runtime_dir: with ``INSTANCE/engine.sock`` below it.
    """
    found: t.Dict[str, Record] = {}
    for name in instances:
        document = _json_of(os.path.join(plan_dir, name, "plan.json"))
        start = _json_of(start_path(calibration_dir, name))
        read = bool(start) and start.get("invocation") == (invocations.get(name) or None)
        measured: Record = dict(start.get("measured") or {}) if read else {}
        exact = parse_cache_info(ask_metrics(os.path.join(runtime_dir, name, "engine.sock")))
        measured.update({key: value for key, value in exact.items() if key in MEASURED})
        found[name] = {
            "planned": document.get("planned"),
            "state": document.get("state") or ("planned" if document.get("planned") else "unplanned"),
            "measured": measured,
            "start_read": read,
        }
    return found


def _shown(tokens: t.Any, blocks: t.Any) -> str:
    known = "%s tokens" % "{:,}".format(tokens) if isinstance(tokens, int) else "tokens not said"
    return "%s in %s blocks" % (known, blocks if blocks is not None else "an unknown number of")


def decide_memory(memory: t.Mapping[str, t.Mapping[str, t.Any]]) -> t.Iterator[Finding]:
    """Yield whether each engine has the KV cache that was planned for it.

    A difference doesn't stop: the engine serves. But the plan was wrong, and whoever relies on it has to know.
    """
    for name, one in sorted(memory.items()):
        planned, measured = one["planned"], one["measured"]
        check = "host.memory.%s" % name
        if not planned:
            yield finding(
                check, True, severity="info", expected="a plan", found="%s: nothing to compare" % one["state"]
            )
            continue
        blocks, tokens = measured.get("num_blocks"), measured.get("kv_tokens")
        if blocks is None and tokens is None:
            yield finding(
                check,
                False,
                severity="warning",
                expected=_shown(planned["kv_tokens"], planned["num_blocks"]),
                found="an engine that doesn't say",
                detail="/metrics of %s." % name,
                remedy="See whether it serves; another release may word its metrics otherwise.",
            )
            continue
        if planned["mode"] == "pin":
            same = blocks in (None, planned["num_blocks"]) and tokens in (None, planned["kv_tokens"])
            expected = _shown(planned["kv_tokens"], planned["num_blocks"])
        else:
            low, high = planned["kv_tokens_interval"]
            same = tokens is None or low <= tokens <= high
            expected = "between {:,} and {:,} tokens".format(low, high)
        yield finding(
            check,
            same,
            severity="warning",
            expected=expected,
            found=_shown(tokens, blocks),
            detail="plan.json of %s against /metrics of the running engine." % name,
            remedy="Run the vllm role again if flags were changed by hand; else the plan is wrong for this model: set "
            "memory_plan: estimate for it, and report it with plan.json and the engine's journal.",
        )
