# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""A plan as a person reads it: what fits where, at which context, for how many users."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_errors import gib

Record = t.Mapping[str, t.Any]

COLUMNS = (
    "host",
    "GPUs",
    "fits",
    "weights",
    "KV cache",
    "tokens",
    "context asked",
    "requests at once",
    "longest context",
)


def row(name: str, plan: Record) -> t.Tuple[str, ...]:
    """Return one line of the table."""
    gpu = plan.get("gpu") or {}
    where = ("%s x %s" % (gpu.get("count", 1), gpu.get("name") or "?")) if gpu else "?"
    if plan["confidence"] == "unsupported":
        return (name, where, "unknown", "-", "-", "-", "-", "-", "-")
    kv, per_gpu = plan["kv"], plan["per_gpu"]
    return (
        name,
        where,
        "yes" if plan["fits"] else "NO",
        gib(per_gpu["weights"]),
        gib(per_gpu["kv"]),
        "{:,}".format(kv["tokens_reported"]),
        "{:,}".format(plan["vllm_args"]["max-model-len"]),
        "%.2f" % kv["max_concurrency"],
        "{:,}".format(kv["max_sustainable_context"]),
    )


def table(plans: t.Sequence[t.Tuple[str, Record]]) -> t.List[str]:
    """Return what fits on which host as lines of equal columns, and below it what there is to say of each.

    Args:
        plans: names of hosts with their plans; a plan may carry ``suggestions``.
    """
    rows = [COLUMNS] + [row(name, plan) for name, plan in plans]
    widths = [max(len(line[column]) for line in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in rows]
    for name, plan in plans:
        for text in plan["errors"]:
            lines.append("%s: refused: %s" % (name, text))
        for one in plan.get("suggestions") or []:
            said = "fits" if one["fits"] else "not enough by itself"
            lines.append("%s: could %s: frees %s on a GPU, %s" % (name, one["change"], gib(one["frees_bytes"]), said))
        for text in plan["warnings"]:
            lines.append("%s: note: %s" % (name, text))
    return lines


def parts(plan: Record) -> t.List[str]:
    """Return where the memory of one GPU goes, with the source of each number."""
    if plan["confidence"] == "unsupported":
        return list(plan["errors"])
    per_gpu, sources = plan["per_gpu"], plan["sources"]
    lines = []
    for name in ("total", "budget", "weights", "activation", "non_torch", "cuda_graphs", "kv", "margin", "headroom"):
        source = sources.get(name, "")
        lines.append("%-12s %12s  %s" % (name.replace("_", " "), gib(per_gpu[name]), source))
    return [line.rstrip() for line in lines]


FLEET = ("host", "instance", "GPUs", "fits", "weights", "KV cache", "tokens", "context", "requests at once", "longest")


def _fleet_row(host: str, one: Record) -> t.Tuple[str, ...]:
    """Return one line of the table of several hosts."""
    plan = one["plan"]
    if one["state"] != "planned" or not plan:
        said = {"off": "off", "wrong": "NO", "unread": "unknown"}.get(one["state"], "unknown")
        return (host, one["name"], "-", said, "-", "-", "-", "-", "-", "-")
    _name, where, fits, *rest = row(host, plan)
    return (host, one["name"], where, "NO" if one["contradictions"] else fits, *rest)


def _could(plan: t.Optional[Record]) -> t.List[str]:
    """Return what would make it fit, a line each, the smallest that does marked."""
    lines, first = [], True
    for one in (plan or {}).get("suggestions") or ():
        said = "not enough alone"
        if one["fits"]:
            said, first = "fits: the smallest change" if first else "fits", False
        lines.append("could: %s: frees %s on a GPU, %s" % (one["change"], gib(one["frees_bytes"]), said))
    return lines


def fleet(plans: t.Mapping[str, Record]) -> t.List[str]:
    """Return what fits on which hosts, and below it what there is to say, what is the same on several hosts once.

    Args:
        plans: by host, what :func:`_deployment_merge.deployment_plan` returned.
    """
    rows: t.List[t.Tuple[str, ...]] = [FLEET]
    said: t.Dict[t.Tuple[str, ...], t.List[str]] = {}
    for host, plan in plans.items():
        rows.extend(_fleet_row(host, one) for one in plan["instances"])
        for block in _blocks(plan):
            hosts = said.setdefault(block, [])
            if host not in hosts:
                hosts.append(host)
    widths = [max(len(line[column]) for line in rows) for column in range(len(FLEET))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in rows]
    for block, hosts in said.items():
        lines.append("%s: %s" % (", ".join(hosts), block[0]))
        lines.extend("    %s" % text for text in block[1:])
    return lines


def _blocks(plan: Record) -> t.Iterator[t.Tuple[str, ...]]:
    """Yield what there is to say of one host, each with the lines that belong below it."""
    suggested = {"memory.plan.%s" % one["name"]: _could(one["plan"]) for one in plan["instances"] if one["gpus"]}
    for found in plan["findings"]:
        if not found["ok"]:
            word = "refused" if found["severity"] == "error" else "warning"
            below = suggested.get(found["check"]) or ["could: %s" % found["remedy"]]
            yield ("%s: %s: %s" % (word, found["check"].split(".", 2)[-1], found["found"]), *below)
    for one in plan["instances"]:
        for text in (one["plan"] or {}).get("warnings") or ():
            yield ("note: %s: %s" % (one["name"], text),)
    changes = [
        "%s %s -> %s (%s%s)"
        % (name, made["from"] or "?", made["to"], made["action"], ", reboot" if made["reboot"] else "")
        for name, made in sorted(plan["components"].items())
        if made["action"] != "none"
    ]
    if changes:
        yield ("release %s: %s" % (plan["release"], ", ".join(changes)),)
