# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The memory plan of a llama.cpp server: the same record as vLLM's, from a GGUF header. Pure; it reads nothing.

Weights and KV cache follow from the header alone and are exact. The compute buffer depends on the graph that a release
builds: it is llama-server's own, by its dry run (:mod:`_memory_plan_llama_dry`), or scaled from one that was measured,
for it grows with the micro-batch; without either it is a stated reserve and the plan is an estimate.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_llama_layers as layered
from ansible_collections.gpufleet.llm.plugins.module_utils._gguf_header import GgufModel

Record = t.Dict[str, t.Any]

MIB = 1 << 20
GIB = 1 << 30
#: What is set aside for the compute buffer where nobody measured one.
COMPUTE_RESERVE_BYTES = GIB // 2
#: What llama-server itself leaves free on each device (--fit-target).
MARGIN_BYTES = GIB
#: Context and libraries of CUDA on a device, outside of llama.cpp's own buffers.
CONTEXT_BYTES = 300 * MIB


class Want(t.NamedTuple):
    """The wanted flags, by llama-server's names."""

    ctx_size: int = 0  # of all slots together; 0: what the model was trained for
    parallel: int = 1
    kv_unified: bool = False
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    ubatch_size: int = 512
    n_gpu_layers: t.Optional[int] = None  # None: as many as fit
    swa_full: bool = False
    flash_attn: bool = True
    concurrent_users: t.Optional[int] = None


class Compute(t.NamedTuple):
    """A compute buffer that was measured: bytes by device (``host``, ``gpu``) at one micro-batch."""

    host: int
    gpu: int
    ubatch_size: int


class Parts(t.NamedTuple):
    """What each place holds, in bytes; ``gpus`` has one entry for each device."""

    host_weights: int
    host_kv: int
    gpu_weights: t.List[int]
    gpu_kv: t.List[int]
    output: int


def _is_whole(value: t.Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def want_of(raw: t.Mapping[str, t.Any]) -> Want:
    """Return the flags, checked.

    Raises:
        ValueError: one is unknown or makes no sense.
    """
    unknown = sorted(set(raw) - set(Want._fields))
    if unknown:
        raise ValueError(
            "llama.cpp has no flag %s; expected some of %s" % (", ".join(unknown), ", ".join(Want._fields))
        )
    want = Want(**dict(raw))
    for name, least in (("ctx_size", 0), ("parallel", 1), ("ubatch_size", 1)):
        value = getattr(want, name)
        if not _is_whole(value, least):
            raise ValueError("%s is %r, expected a whole number of at least %d" % (name, value, least))
    if want.n_gpu_layers is not None and not _is_whole(want.n_gpu_layers, 0):
        raise ValueError("n_gpu_layers is %r, expected a number of layers" % (want.n_gpu_layers,))
    for name in ("cache_type_k", "cache_type_v"):
        if getattr(want, name) not in layered.CACHE_TYPES:
            raise ValueError(
                "%s is %r, expected one of %s" % (name, getattr(want, name), ", ".join(layered.CACHE_TYPES))
            )
    if want.cache_type_v in layered.QUANTISED and not want.flash_attn:
        raise ValueError("cache_type_v %s needs flash_attn" % want.cache_type_v)
    return want


def share(model: GgufModel, want: Want, offloaded: int, devices: int) -> Parts:
    """Return what the host and each device hold.

    Layers go to the devices from the last one down, the output layer first; with several like devices, in equal shares
    of what is offloaded. The token embedding stays on the host, and where the output shares it, the device has a copy.

    Args:
        model: the GGUF's header.
        want: the flags, ctx_size filled.
        offloaded: layers on devices, the output layer counted: 0 to layers + 1.
        devices: how many.
    """
    weights = layered.weights_by_layer(model)
    caches = layered.cache_by_layer(model, want)
    first = max(0, model.layers + 1 - offloaded)
    count = model.layers + 1 - first
    parts = Parts(weights.host, 0, [0] * max(1, devices), [0] * max(1, devices), layered.output_bytes(model, want))
    host_weights, host_kv = weights.host, 0
    for layer in range(model.layers + 1):
        size = weights.layers[layer] if layer < model.layers else weights.output
        cache = caches[layer] if layer < model.layers else 0
        if devices == 0 or layer < first:
            host_weights, host_kv = host_weights + size, host_kv + cache
            if layer == model.layers:
                host_weights -= weights.shared
            continue
        device = min(devices - 1, (layer - first) * devices // count)
        parts.gpu_weights[device] += size
        parts.gpu_kv[device] += cache
    return parts._replace(host_weights=host_weights, host_kv=host_kv)


def _compute(measured: t.Optional[Compute], want: Want) -> t.Tuple[int, int, str]:
    """Return the compute buffers of host and device, and where they come from."""
    if measured is None:
        return COMPUTE_RESERVE_BYTES, COMPUTE_RESERVE_BYTES, "a reserve of 512 MiB, not measured"
    if measured.ubatch_size == want.ubatch_size:
        return measured.host, measured.gpu, "measured"
    factor = want.ubatch_size / measured.ubatch_size
    return (
        round(measured.host * factor),
        round(measured.gpu * factor),
        ("measured at a micro-batch of %d, scaled" % measured.ubatch_size),
    )


def plan_llama(
    model: GgufModel,
    gpu: t.Mapping[str, t.Any],
    engine: t.Mapping[str, t.Any],
    want: t.Optional[t.Mapping[str, t.Any]] = None,
    *,
    compute: t.Optional[Compute] = None,
    host_bytes: t.Optional[int] = None,
) -> Record:
    """Return the plan of one llama-server.

    Args:
        model: the GGUF's header.
        gpu: ``total_bytes``, ``free_bytes``, ``count`` and ``name`` of like GPUs; count 0 where there is none.
        engine: ``version``.
        want: flags by llama-server's names; see :class:`Want`.
        compute: a measured compute buffer.
        host_bytes: memory of the host that is free; None where nobody looked.

    Returns:
        The record of the module ``memory_plan``, with ``llama_args`` in place of ``vllm_args`` and ``host`` beside
        ``per_gpu``. What isn't known is ``unsupported`` and says why.
    """
    record: Record = {
        "fits": False,
        "confidence": "unsupported",
        "mode": "pin",
        "engine": {"name": "llama_cpp", "version": str(engine.get("version", ""))},
        "model": {"architecture": model.architecture, "layers": model.layers},
        "gpu": {"name": str(gpu.get("name") or ""), "count": int(gpu.get("count") or 0)},
        "errors": [],
        "warnings": [],
        "per_gpu": {},
        "host": {},
        "kv": {},
        "vllm_args": {},
        "llama_args": {},
        "sources": {},
    }
    try:
        wish = want_of(want or {})
        wish = wish._replace(ctx_size=wish.ctx_size or model.context_length or 0)
        if not wish.ctx_size:
            raise ValueError("the file names no context length: set ctx_size")
        layered.check(model)
        return _planned(record, model, gpu, wish, compute, host_bytes)
    except ValueError as exc:
        record["errors"] = ["%s: no estimate made" % exc]
        return record


def _devices_fit(parts: Parts, compute: int, free: int) -> bool:
    return all(
        weights + kv + compute + CONTEXT_BYTES + MARGIN_BYTES <= free
        for weights, kv in zip(parts.gpu_weights, parts.gpu_kv)
        if weights or kv
    )


def _offload(model: GgufModel, want: Want, devices: int, compute: int, free: int) -> int:
    """Return as many layers as fit on the devices."""
    if not devices:
        return 0
    for offloaded in range(model.layers + 1, 0, -1):
        if _devices_fit(share(model, want, offloaded, devices), compute, free):
            return offloaded
    return 0


def _planned(
    record: Record,
    model: GgufModel,
    gpu: t.Mapping[str, t.Any],
    want: Want,
    measured: t.Optional[Compute],
    host_bytes: t.Optional[int],
) -> Record:
    devices = record["gpu"]["count"]
    total = int(gpu.get("total_bytes") or 0)
    free_known = gpu.get("free_bytes")
    free = int(free_known) if free_known is not None else total
    host_compute, gpu_compute, source = _compute(measured, want)
    given = want.n_gpu_layers
    offloaded = min(given, model.layers + 1) if given is not None else _offload(model, want, devices, gpu_compute, free)
    offloaded = offloaded if devices else 0
    parts = share(model, want, offloaded, devices)
    used = [w + k for w, k in zip(parts.gpu_weights, parts.gpu_kv)]
    most = max(range(len(used)), key=lambda device: used[device])
    on_gpu = bool(used[most])
    needed = used[most] + (gpu_compute + CONTEXT_BYTES if on_gpu else 0)
    record["per_gpu"] = {
        "total": total,
        "free": free_known,
        "budget": max(0, free - MARGIN_BYTES) if devices else 0,
        "weights": parts.gpu_weights[most],
        "activation": gpu_compute if on_gpu else 0,
        "non_torch": CONTEXT_BYTES if on_gpu else 0,
        "cuda_graphs": 0,
        "kv": parts.gpu_kv[most],
        "margin": MARGIN_BYTES if devices else 0,
        "headroom": free - needed if devices else 0,
        "outside_budget": 0,
    }
    host = {
        "weights": parts.host_weights,
        "kv": parts.host_kv,
        "output": parts.output,
        "compute": host_compute,
        "total": parts.host_weights + parts.host_kv + parts.output + host_compute,
        "free": host_bytes,
    }
    record["host"] = host
    record["kv"] = _kv(model, want, parts)
    record["sources"] = {
        "weights": "the GGUF's header",
        "kv": "llama.cpp's own rules",
        "activation": source,
        "non_torch": "300 MiB for each device, a table's" if on_gpu else "none: no device",
    }
    _refuse(record, model, want, needed, free, host_bytes)
    if devices and given is None and offloaded <= model.layers:
        record["warnings"].append(
            "%d of %d layers fit on the GPUs; the rest runs on the host, much slower." % (offloaded, model.layers + 1)
        )
    if free_known is None and devices:
        record["warnings"].append(
            "Nobody looked at the memory that is free; the plan assumes that nothing else uses it."
        )
    record["fits"] = not record["errors"]
    record["confidence"] = "exact" if source == "measured" and not on_gpu else "estimated"
    record["llama_args"] = _arguments(want, offloaded)
    return record


def _kv(model: GgufModel, want: Want, parts: Parts) -> Record:
    cells = layered.cells_of(model, want)
    available = parts.host_kv + sum(parts.gpu_kv)
    slots = want.parallel
    longest = layered.context_per_request(want)
    kinds: t.Dict[t.Tuple[str, int], int] = {}
    for layer in layered.layers_of(model):
        if layer.kind != "none":
            key = (layer.kind, cells[layer.kind])
            kinds[key] = kinds.get(key, 0) + 1
    record: Record = {
        "bytes_per_token": layered.bytes_per_token(model, want),
        "bytes_per_block": None,
        "block_size": layered.PAD_CELLS,
        "groups": [{"kind": kind, "layers": count, "cells": size} for (kind, size), count in sorted(kinds.items())],
        "num_blocks": None,
        "blocks_per_request": None,
        "tokens_reported": layered.padded_context(want),
        "max_concurrency": float(slots),
        "max_sustainable_context": min(longest, model.context_length or longest),
        "interval": [layered.padded_context(want)] * 2,
        "dtype": "%s/%s" % (want.cache_type_k, want.cache_type_v),
        "available": available,
    }
    if want.concurrent_users:
        record["context_for_users"] = layered.padded_context(want) // want.concurrent_users
    return record


def _refuse(record: Record, model: GgufModel, want: Want, needed: int, free: int, host_bytes: t.Optional[int]) -> None:
    """Add to a plan why it doesn't fit."""
    gib = "%.2f GiB"
    if record["gpu"]["count"] and needed + MARGIN_BYTES > free:
        record["errors"].append(
            "n_gpu_layers %s and ctx_size %d need %s on a device and %s of margin, %s free: lower n_gpu_layers or "
            "ctx_size, or quantise the cache (cache_type_k, cache_type_v)"
            % (want.n_gpu_layers, want.ctx_size, gib % (needed / GIB), gib % (MARGIN_BYTES / GIB), gib % (free / GIB))
        )
    if host_bytes is not None and record["host"]["total"] + MARGIN_BYTES > host_bytes:
        record["errors"].append(
            "the host needs %s and %s of margin, %s free"
            % (gib % (record["host"]["total"] / GIB), gib % (MARGIN_BYTES / GIB), gib % (host_bytes / GIB))
        )
    if model.context_length and layered.context_per_request(want) > model.context_length:
        record["warnings"].append(
            "a request may have %d tokens, the model was trained for %d"
            % (layered.context_per_request(want), model.context_length)
        )
    users = want.concurrent_users
    if users and users > want.parallel:
        record["errors"].append(
            "%d users need as many slots: set parallel to %d (it is %d)" % (users, users, want.parallel)
        )


def _arguments(want: Want, offloaded: int) -> Record:
    return {
        "ctx-size": want.ctx_size,
        "parallel": want.parallel,
        "kv-unified" if want.kv_unified else "no-kv-unified": True,
        "cache-type-k": want.cache_type_k,
        "cache-type-v": want.cache_type_v,
        "ubatch-size": want.ubatch_size,
        "n-gpu-layers": offloaded,
        "swa-full": want.swa_full,
        "flash-attn": "on" if want.flash_attn else "off",
        "fit": "off",
    }


def largest_context(
    model: GgufModel,
    gpu: t.Mapping[str, t.Any],
    engine: t.Mapping[str, t.Any],
    want: t.Mapping[str, t.Any],
    *,
    compute: t.Optional[Compute] = None,
    host_bytes: t.Optional[int] = None,
) -> int:
    """Return the largest ``ctx_size`` (of all slots together) whose plan fits, 0 where none does."""
    slots = 1 if want.get("kv_unified") else int(want.get("parallel") or 1)
    step = layered.PAD_CELLS * slots
    low, high = 0, -(-(model.context_length or 2**20) // layered.PAD_CELLS)
    while low < high:
        middle = (low + high + 1) // 2
        tried = dict(want, ctx_size=middle * step)
        if plan_llama(model, gpu, engine, tried, compute=compute, host_bytes=host_bytes)["fits"]:
            low = middle
        else:
            high = middle - 1
    return low * step
