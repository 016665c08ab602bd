# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What the memory plans of a host come to: findings, each refusal with what would make it fit. Pure."""

from __future__ import annotations

import math
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_errors import gib
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import GIB

Record = t.Mapping[str, t.Any]


def said(plan: Record) -> str:
    """Return a plan in one sentence: tokens of cache, and how many requests of which length at once."""
    kv = plan["kv"]
    return "%s tokens of KV cache (%s), %.2f requests of %s tokens at once" % (
        "{:,}".format(kv["tokens_reported"]),
        gib(plan["per_gpu"]["kv"]),
        kv["max_concurrency"],
        "{:,}".format(plan["vllm_args"]["max-model-len"]),
    )


def changes(plan: Record, all_of_them: bool = True) -> str:
    """Return what would make it fit, in order, each with the bytes that it frees; or what fits by itself alone."""
    return "; ".join(
        "%s (frees %s, %s)" % (one["change"], gib(one["frees_bytes"]), "fits" if one["fits"] else "not enough alone")
        for one in plan.get("suggestions") or ()
        if one["fits"] or all_of_them
    )


def _cpu_remedy(plan: Record, users: int) -> str:
    """Return how large a CPU's cache has to be for that many requests at once."""
    kv = plan["kv"]
    needed = (kv["blocks_per_request"] * users + 1) * kv["bytes_per_block"]
    return "Set gpufleet_cpu_kv_cache_gib to %d or more" % math.ceil(needed / GIB)


def _unknown(one: Record, check: str) -> Finding:
    """Return what is said of a model that the planner doesn't know: never nothing."""
    refused = one["mode"] == "pin"
    return finding(
        check,
        False,
        severity="error" if refused else "warning",
        expected="a model and flags that the planner knows",
        found=one["why"],
        detail="memory_plan of %s is %s." % (one["model"], one["mode"]),
        remedy="Set memory_plan: estimate in this model's entry of gpufleet_models to have the engine size its own "
        "cache at the first start, or off to have nothing planned; or take out the flag that is named."
        if refused
        else "The engine sizes its own cache; look at what it says when it starts.",
    )


def _unread(one: Record, check: str) -> Finding:
    return finding(
        check,
        False,
        severity="warning",
        expected="a model and GPUs that can be read before anything is downloaded",
        found=one["why"],
        detail="%s is planned on the host once both are there." % one["name"],
        remedy="Declare the host's GPUs in gpufleet_gpus (name, count, memory_gib of one as CUDA says it), or make the "
        "source reachable from the control node.",
    )


def of_instance(one: Record, accelerator: str) -> t.Iterator[Finding]:
    """Yield what there is to say of one instance."""
    check = "memory.plan.%s" % one["name"]
    if one["state"] == "off":
        yield finding(check, True, severity="info", expected="a plan or off", found="off: nothing was planned")
    elif one["state"] == "wrong":
        yield finding(
            check,
            False,
            expected="flags and GPUs that can be",
            found=one["why"],
            remedy="Correct the entry of %s in gpufleet_models." % one["model"],
        )
    elif one["state"] == "unsupported":
        yield _unknown(one, check)
    elif one["state"] == "unread":
        yield _unread(one, check)
    elif not one["contradictions"]:
        yield _planned(one, check, accelerator)
    for text in one["contradictions"]:
        yield finding(
            "memory.contradiction.%s" % one["name"],
            False,
            expected="memory flags within the plan",
            found=text,
            detail="engine_config of %s in gpufleet_models." % one["model"],
            remedy="Lower it to the plan's number, or leave it out: the plan sets it. memory_plan: off takes it as it "
            "is.",
        )


def _planned(one: Record, check: str, accelerator: str) -> Finding:
    plan = one["plan"]
    if plan["fits"]:
        return finding(check, True, expected="room for the model and one request", found=said(plan))
    remedy = changes(plan, accelerator != "cpu")
    per_gpu = plan["per_gpu"]
    if accelerator != "cpu" and (per_gpu["free"] or per_gpu["budget"]) < per_gpu["budget"]:
        share = int(100 * per_gpu["free"] / per_gpu["total"]) / 100
        remedy = "Stop what else uses the GPU, or set gpu-memory-utilization to %.2f at most" % share
    if accelerator == "cpu":
        remedy = "; ".join(text for text in (_cpu_remedy(plan, one["users"]), remedy) if text)
    # What serves with the plan that was made for it isn't stopped by a later look: it is told.
    severity = "warning" if one["kept"] else "error"
    return finding(
        check,
        False,
        severity=severity,
        expected="room for the model and what is asked of it",
        found="; ".join(plan["errors"]),
        detail="%s on %d x %s, vLLM %s, %s."
        % (one["name"], plan["gpu"]["count"], plan["gpu"]["name"] or "?", plan["engine"]["version"], one["mode"]),
        remedy=remedy or "Give it a larger GPU.",
    )


def findings_of(planned: Record, accelerator: str) -> t.List[Finding]:
    """Return all findings of a host's plans.

    Args:
        planned: what :func:`_deployment_plan.plan_host` returned.
        accelerator: the host's.
    """
    made: t.List[Finding] = []
    for one in planned["instances"]:
        made.extend(of_instance(one, accelerator))
    for text in planned["placement"]["errors"]:
        made.append(
            finding(
                "memory.placement",
                False,
                expected="instances that can share the host, one started after the other",
                found=text,
                detail="Keys gpus and engine_config of gpufleet_models.",
                remedy="Take a model out, or serve a smaller one."
                if accelerator == "cpu"
                else "Place one of them on other GPUs (gpus), lower gpu-memory-utilization, or take a model out.",
            )
        )
    return made
