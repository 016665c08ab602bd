# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The memory plans of all that a host serves, from an inventory's models. Pure, but for reading what is placed.

``gpu_preflight`` refuses by it before a byte is downloaded, the role ``vllm`` takes its memory flags from it, and
``plan_fleet`` prints it: one function, so that all three say the same.
"""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _calibration as calibrating
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_gpus as devices
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_plan
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_flags as flagging
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_hosts as placing
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_model as reading
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_errors import gib, unknown
from ansible_collections.gpufleet.llm.plugins.module_utils._preflight import ENGINE_OVERHEAD_BYTES

Record = t.Dict[str, t.Any]

SCHEMA = 1
PLAN_FILE = "plan.json"
MODES = ("pin", "estimate", "off")
ENGINE = "vllm"
#: Arguments that the plan gives the engine, unless the inventory has them.
ARGUMENTS = (
    "gpu-memory-utilization",
    "kv-cache-memory-bytes",
    "max-num-batched-tokens",
    "max-num-seqs",
)
CPU = "cpu"
KV_CACHE_BYTES = 1 << 30


class Host(t.NamedTuple):
    """What a host has."""

    accelerator: str
    gpus: t.Optional[t.Sequence[Record]]  # as _deployment_gpus makes them; None: nobody could read them
    why_no_gpus: str = ""
    kv_cache_bytes: int = KV_CACHE_BYTES  # of each engine, on a CPU
    memory_bytes: int = 0  # of a CPU host; 0: not known


class Asked(t.NamedTuple):
    """One instance that an inventory asks for, checked."""

    name: str
    model: str
    mode: str
    config: Record  # the engine's flags, by vLLM's names with dashes
    want: Record  # of them, what the planner takes
    unplanned: t.List[str]
    places: t.List[int]
    may_spread: bool  # nobody said which GPUs


def asked_of(model: t.Mapping[str, t.Any], accelerator: str, default_mode: str) -> Asked:
    """Return what an inventory's model asks for.

    Raises:
        ValueError: a value that can't be.
    """
    name = "%s-%s" % (model.get("name"), model.get("slot", "a"))
    mode = str(model.get("memory_plan") or default_mode)
    if mode not in MODES:
        raise ValueError("memory_plan is %r, expected %s" % (mode, ", ".join(MODES)))
    config = _engine_plan.engine_config(model, "", _engine_plan.ACCELERATOR_DEFAULTS.get(accelerator, {}), 0)
    for key in ("model", "served-model-name", "shutdown-timeout"):
        config.pop(key, None)
    want, unplanned = flagging.want_of_config(config)
    want["accelerator"] = accelerator
    users = model.get("concurrent_users")
    if users is not None:
        want["concurrent_users"] = users
    count = 1
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        size = want.get(key, 1)
        count *= size if isinstance(size, int) and 0 < size <= 4096 else 1
    places = model.get("gpus")
    places = list(range(count)) if places is None else places
    if not isinstance(places, list):
        raise ValueError("gpus is %r, expected a list of indices, as [0, 1]" % (places,))
    return Asked(name, str(model.get("name")), mode, config, want, unplanned, places, model.get("gpus") is None)


def _inputs(asked: Asked, found: reading.Read, gpu: Record, version: str, host: Host) -> Record:
    """Return all that a plan depends on but what was measured: as long as it is the same, a placed plan stays."""
    device = {name: gpu.get(name) for name in ("name", "count", "total_bytes")}
    if host.accelerator == CPU:
        device = {"name": CPU, "kv_cache_bytes": host.kv_cache_bytes}
    tensors = found.tensors
    return {
        "model_sha256": calibrating.config_sha256(found.config),
        "weights_bytes": None if tensors is None else sum(int(tensor["nbytes"]) for tensor in tensors),
        "device": device,
        "engine": version,
        "flags": dict(sorted(asked.want.items())),
        "mode": asked.mode,
    }


def planned_of(plan: t.Mapping[str, t.Any]) -> Record:
    """Return of a plan what a start can be held against, by the names of the module vllm_startup_info."""
    per_gpu, kv = plan["per_gpu"], plan["kv"]
    return {
        "confidence": plan["confidence"],
        "mode": plan["mode"],
        "weights_bytes": per_gpu["weights"],
        "activation_bytes": per_gpu["activation"],
        "non_torch_bytes": per_gpu["non_torch"],
        "graphs_bytes": per_gpu["cuda_graphs"],
        "kv_bytes": kv["num_blocks"] * kv["bytes_per_block"] if plan["mode"] == "pin" else per_gpu["kv"],
        "kv_tokens": kv["tokens_reported"],
        "kv_tokens_interval": kv["interval"],
        "num_blocks": kv["num_blocks"],
        "block_size": kv["block_size"],
        "max_concurrency": kv["max_concurrency"],
        "max_model_len": plan["vllm_args"]["max-model-len"],
    }


def arguments_of(plan: t.Mapping[str, t.Any], config: t.Mapping[str, t.Any], mode: str) -> Record:
    """Return the memory flags that the plan gives the engine: those that the inventory leaves to it."""
    if mode != "pin" or plan["confidence"] == "unsupported":
        return {}
    return {key: plan["vllm_args"][key] for key in ARGUMENTS if key in plan["vllm_args"] and key not in config}


def contradictions(config: t.Mapping[str, t.Any], plan: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return where an inventory gives the cache more than the plan has room for, with both numbers.

    Args:
        config: the engine's flags in the inventory.
        plan: of the same instance, with the size of the cache left to the planner.
    """
    room, block = plan["per_gpu"].get("kv", 0), plan["kv"].get("bytes_per_block", 0)
    said = []
    for key, unit in (("kv-cache-memory-bytes", 1), ("num-gpu-blocks-override", block)):
        if config.get(key) is None:
            continue
        value = flagging.whole_number(key, config[key])
        if isinstance(value, int) and unit and value * unit > room:
            said.append(
                "the inventory sets %s to %d (%s), the plan has room for %d (%s)"
                % (key, value, gib(value * unit), room // unit, gib(room))
            )
    return said


def _nothing(name: str, model: str, mode: str, why: str, kind: str) -> Record:
    return {
        "name": name,
        "model": model,
        "mode": mode,
        "users": 1,
        "state": kind,
        "why": why,
        "gpus": [],
        "plan": None,
        "arguments": {},
        "contradictions": [],
        "document": {"schema": SCHEMA, "instance": name, "mode": mode, "state": kind, "why": why},
        "kept": False,
        "calibrated": False,
    }


def plan_instance(
    model: t.Mapping[str, t.Any],
    found: t.Union[reading.Read, str],
    host: Host,
    version: str,
    default_mode: str = "pin",
    calibrations: t.Sequence[t.Mapping[str, t.Any]] = (),
    kept: t.Optional[t.Mapping[str, t.Any]] = None,
) -> Record:
    """Return one instance's plan and what follows from it.

    Args:
        model: of the inventory.
        found: its configuration and tensors, or why they couldn't be read.
        host: what the host has.
        version: the engine's.
        default_mode: ``pin``, ``estimate`` or ``off``, where the model doesn't say.
        calibrations: what starts on this host measured.
        kept: the document that is placed for this instance. Where it was made of the same, it stays: what serves isn't
            restarted because a start measured something.

    Returns:
        ``{name, model, mode, users, state, why, gpus, plan, arguments, contradictions, document, kept, calibrated}``;
        ``state`` is ``planned``, ``unsupported``, ``off`` (nobody wants a plan), ``unread`` (model or GPUs) or
        ``wrong``.
    """
    name, label = "%s-%s" % (model.get("name"), model.get("slot", "a")), str(model.get("name"))
    try:
        asked = asked_of(model, host.accelerator, default_mode)
    except (ValueError, TypeError) as exc:
        return _nothing(name, label, default_mode, str(exc), "wrong")
    if asked.mode == "off":
        return _nothing(name, label, "off", "memory_plan is off", "off")
    if isinstance(found, str):
        return _nothing(name, label, asked.mode, found, "unread")
    if host.accelerator != CPU and not host.gpus:
        return _nothing(name, label, asked.mode, host.why_no_gpus or "the host's GPUs aren't known", "unread")
    try:
        gpu: Record = {"name": CPU, "count": 1, "total_bytes": host.memory_bytes or (1 << 50)}
        if host.accelerator != CPU:
            gpu = devices.of_places(host.gpus or (), asked.places)
    except ValueError as exc:
        return _nothing(name, label, asked.mode, str(exc), "wrong")
    if asked.unplanned:
        why = "; ".join(unknown(text) for text in asked.unplanned)
        return _nothing(name, label, asked.mode, why, "unsupported")
    return _plan(asked, found, host, gpu, version, calibrations, kept)


def _filled(asked: Asked, found: reading.Read, gpu: Record, engine: Record) -> Record:
    """Return what the engine takes where nobody says how much is computed at once, by names with underscores."""
    want = {key: value for key, value in asked.want.items() if key not in calibrating.FILLED}
    arguments = planning.plan(found.config, gpu, engine, want, tensors=found.tensors)["vllm_args"]
    return {flagging.underscored(key): value for key, value in arguments.items()}


def _plan(
    asked: Asked,
    found: reading.Read,
    host: Host,
    gpu: Record,
    version: str,
    calibrations: t.Sequence[t.Mapping[str, t.Any]],
    kept: t.Optional[t.Mapping[str, t.Any]],
) -> Record:
    engine = {"name": ENGINE, "version": version}
    inputs = _inputs(asked, found, gpu, version, host)
    want = dict(asked.want)
    if host.accelerator == CPU and "kv_cache_memory_bytes" not in want:
        want["kv_cache_memory_bytes"] = host.kv_cache_bytes
    stays = bool(kept) and (kept or {}).get("schema") == SCHEMA and (kept or {}).get("inputs") == inputs
    if stays and kept:
        want.update({flagging.underscored(key): value for key, value in kept["arguments"].items()})
    terms = None
    there = len(host.gpus or ()) if asked.may_spread else 0
    plan = reading.plan_model(found, gpu, engine, want, asked.mode, None, there)
    if plan["confidence"] != "unsupported" and calibrations:
        device = dict(gpu, count=0) if host.accelerator == CPU else gpu
        terms = calibrating.find(
            calibrations,
            config=found.config,
            gpu=device,
            version=version,
            arguments=dict(asked.config, **arguments_of(plan, asked.config, asked.mode)),
            filled=_filled(asked, found, gpu, engine),
        )
        if terms:
            plan = reading.plan_model(found, gpu, engine, want, asked.mode, terms, there)
    made = _nothing(asked.name, asked.model, asked.mode, "", "planned")
    made.update(plan=plan, gpus=asked.places if host.accelerator != CPU else [], calibrated=bool(terms), kept=stays)
    made["users"] = int(want.get("concurrent_users") or 1)
    if plan["confidence"] == "unsupported":
        return dict(_nothing(asked.name, asked.model, asked.mode, "; ".join(plan["errors"]), "unsupported"), plan=plan)
    if host.accelerator != CPU and not stays:
        free = {key: value for key, value in want.items() if key not in _SIZES}
        roomy = plan if len(free) == len(want) else reading.plan_model(found, gpu, engine, free, "pin", terms)
        made["contradictions"] = contradictions(asked.config, roomy)
    made["arguments"] = dict(kept["arguments"]) if stays and kept else arguments_of(plan, asked.config, asked.mode)
    made["document"] = (
        kept
        if stays
        else {
            "schema": SCHEMA,
            "instance": asked.name,
            "inputs": inputs,
            "arguments": made["arguments"],
            "planned": planned_of(plan),
        }
    )
    return made


_SIZES = ("kv_cache_memory_bytes", "num_gpu_blocks_override")


def in_memory(placed: t.Sequence[t.Mapping[str, t.Any]], memory_bytes: int) -> Record:
    """Return whether a CPU host's memory holds all instances, as a placement without GPUs."""
    parts, total = [], 0
    for one in placed:
        weights, cache = one["plan"]["per_gpu"]["weights"], one["plan"]["per_gpu"]["kv"]
        total += weights + cache + ENGINE_OVERHEAD_BYTES
        parts.append(
            "%s: weights %s + KV cache %s + engine %s"
            % (one["name"], gib(weights), gib(cache), gib(ENGINE_OVERHEAD_BYTES))
        )
    errors = []
    if total > memory_bytes:
        errors = ["%s of memory are needed, the host has %s (%s)" % (gib(total), gib(memory_bytes), "; ".join(parts))]
    return {"fits": not errors, "errors": errors, "gpus": []}


def plan_host(
    models: t.Sequence[t.Mapping[str, t.Any]],
    found: t.Mapping[str, t.Union[reading.Read, str]],
    host: Host,
    version: str,
    default_mode: str = "pin",
    calibrations: t.Sequence[t.Mapping[str, t.Any]] = (),
    kept: t.Optional[t.Mapping[str, t.Mapping[str, t.Any]]] = None,
) -> Record:
    """Return the plans of all instances of a host, and whether they can share its GPUs.

    Args:
        models: the inventory's; those of another engine are left out.
        found: by model, its configuration and tensors, or why they couldn't be read.
        host: what the host has.
        version: the engine's.
        default_mode: of models that don't say.
        calibrations: what starts on this host measured.
        kept: by instance, the document that is placed.

    Returns:
        ``{instances: [as plan_instance], placement}``; ``placement`` as :func:`_memory_plan_hosts.place`; on a CPU the
        host's memory is counted instead, where it is known.
    """
    instances = [
        plan_instance(
            model,
            found.get(str(model.get("name")), "nobody read it"),
            host,
            version,
            default_mode,
            calibrations,
            (kept or {}).get("%s-%s" % (model.get("name"), model.get("slot", "a"))),
        )
        for model in models
        if model.get("engine", ENGINE) == ENGINE
    ]
    placement: Record = {"fits": True, "errors": [], "gpus": []}
    placed = [one for one in instances if one["state"] == "planned"]
    if host.accelerator == CPU and host.memory_bytes:
        placement = in_memory(placed, host.memory_bytes)
    elif host.gpus and host.accelerator != CPU and len(placed) > 1:
        placement = placing.place(placed, host.gpus)
        alone = {text for one in placed for text in one["plan"]["errors"]}
        placement["errors"] = [text for text in placement["errors"] if text not in alone]
    return {"instances": instances, "placement": placement}


def read_placed(directory: str, models: t.Sequence[t.Mapping[str, t.Any]]) -> t.Dict[str, Record]:
    """Return the plans that are placed on this machine, by instance; what can't be read is made anew.

    Args:
        directory: with ``INSTANCE/plan.json`` below it; empty: there are none.
        models: the inventory's.
    """
    found: t.Dict[str, Record] = {}
    for model in models if directory else ():
        name = "%s-%s" % (model.get("name"), model.get("slot", "a"))
        try:
            with open(os.path.join(directory, name, PLAN_FILE), encoding="utf-8") as handle:
                made = json.load(handle)
        except (OSError, ValueError):
            continue
        if isinstance(made, dict) and isinstance(made.get("arguments"), dict) and made.get("inputs"):
            found[name] = made
    return found
