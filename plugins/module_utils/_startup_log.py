# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What vLLM says of its memory when it starts, whatever the release calls it. Pure: text in, record out.

The wordings are those of the releases from 0.6 to 0.32, as their logs and sources have them. vLLM prints GiB with two
decimals, so a number of bytes made of one is right within :data:`PRECISION_BYTES`; what it prints in bytes is exact.
"""

from __future__ import annotations

import ast
import re
import typing as t

GIB = 1 << 30
#: Half of the last decimal vLLM prints.
PRECISION_BYTES = GIB // 200

Record = t.Dict[str, t.Any]

_N = r"(-?\d+(?:\.\d+)?)"
_INT = r"([\d,]+)"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_RANK = re.compile(r"\(((?:\w*Worker\w*|EngineCore\w*|VllmWorker[\w-]*))[ ,]+(?:rank=\d+ )?pid=\d+\)")
_START = re.compile(r"vLLM API server version|█\s+version \d|non-default args:")

#: field, how several ranks' values make one, what to search. GiB unless the field says otherwise.
#: The fullest rank decides what memory is used, the emptiest how much KV cache there is.
_PATTERNS: t.Tuple[t.Tuple[str, str, str], ...] = (
    ("weights_gib", "max", r"Model loading took %s Gi?B" % _N),
    ("weights_gib", "max", r"Loading model weights took %s Gi?B" % _N),
    ("weights_gib", "max", r"model weights take %s ?GiB" % _N),
    ("weights_gib", "max", r"weights memory: %s ?GiB" % _N),
    ("weights_gib", "max", r"Actual usage is %s GiB for weight," % _N),
    ("consumed_gib", "max", r"Actual usage is %s GiB for consumed memory" % _N),
    ("consumed_gib", "max", r"total consumed \(from mem_get_info\): %s ?GiB" % _N),
    ("peak_gib", "max", r"%s GiB for peak activation" % _N),
    ("activation_gib", "max", r"PyTorch activation peak memory takes %s ?GiB" % _N),
    ("activation_gib", "max", r"torch peak memory increase: %s ?GiB" % _N),
    ("non_torch_gib", "max", r"%s GiB for non-torch memory" % _N),
    ("non_torch_gib", "max", r"non_torch_memory takes %s ?GiB" % _N),
    ("non_torch_gib", "max", r"non-torch forward increase memory: %s ?GiB" % _N),
    ("graphs_gib", "max", r"%s GiB for CUDAGraph memory" % _N),
    ("graphs_gib", "max", r"Graph capturing finished in \d+ secs?, took %s GiB" % _N),
    ("graphs_gib", "max", r"CUDA graph pool memory: %s GiB \(actual\)" % _N),
    ("graphs_estimate_gib", "max", r"Estimated CUDA graph memory: %s GiB" % _N),
    ("graphs_estimate_gib", "max", r"GiB \(actual\), %s GiB \(estimated\)" % _N),
    ("available_kv_gib", "min", r"Available KV cache memory: %s GiB" % _N),
    ("available_kv_gib", "min", r"reserved for KV Cache is %s ?GiB" % _N),
    ("reserved_kv_gib", "min", r"reserved %s GiB memory for KV Cache as specified" % _N),
    ("reserved_kv_gib", "min", r"Explicitly set \(%s/" % _N),
    ("available_kv_gib", "min", r"Auto set \(%s/" % _N),
    ("available_kv_bytes", "min", r"Current kv cache memory in use is (\d+) bytes"),
    ("free_gib", "min", r"Free memory on device \(%s/" % _N),
    ("free_gib", "min", r"Initial free memory:? %s GiB" % _N),
    ("total_gib", "min", r"Free memory on device \([-\d.]+/%s GiB\)" % _N),
    ("total_gib", "min", r"total_gpu_memory \(%s ?GiB\)" % _N),
    ("total_gib", "min", r"(?:Explicitly|Auto) set \([-\d.]+/%s\) GiB" % _N),
    ("requested_gib", "min", r"Desired GPU memory utilization is \([\d.]+, %s GiB\)" % _N),
    ("requested_gib", "min", r"gpu_memory_utilization \([\d.]+\) = %s ?GiB" % _N),
    ("requested_gib", "min", r"Requested memory: [\d.]+ \(util\), %s GiB" % _N),
    ("gpu_memory_utilization", "last", r"Desired GPU memory utilization is \(%s," % _N),
    ("gpu_memory_utilization", "last", r"gpu_memory_utilization \(%s\) =" % _N),
    ("gpu_memory_utilization", "last", r"Requested memory: %s \(util\)" % _N),
    ("kv_tokens", "min", r"KV cache size: %s tokens" % _INT),
    ("num_blocks", "min", r"# (?:GPU|CUDA|cuda|gpu|CPU KV) blocks: %s" % _INT),
    ("num_blocks", "min", r"cache_config_info with initialization after num_gpu_blocks is: %s" % _INT),
    ("max_concurrency", "min", r"Maximum concurrency for [\d,]+ tokens per request: %sx" % _N),
    ("max_model_len", "last", r"Maximum concurrency for %s tokens per request" % _INT),
    ("block_size", "last", r"Setting (?:attention|kv cache) block size to %s" % _INT),
    ("attention_backend", "last", r"Using (\w+) attention backend out of potential backends"),
    ("attention_backend", "last", r"Using (?:AttentionBackendEnum\.)?([A-Z][A-Z0-9_]+) backend\b"),
    ("attention_backend", "last", r"Using ((?:Flash|XFormers|Torch|Triton|FlashInfer|FlexAttention)[\w ]*?) backend\b"),
    ("kv_cache_layout", "last", r"Using (\w+) KV cache layout"),
    ("vllm_version", "last", r"LLM engine \(v?([^)\s]+)\)"),
    ("vllm_version", "last", r"vLLM API server version:? v?(\S+)"),
    ("vllm_version", "last", r"█\s+version (\d\S*)"),
)
_FIELDS = tuple((name, how, re.compile(pattern)) for name, how, pattern in _PATTERNS)
_WHOLE = ("kv_tokens", "num_blocks", "max_model_len", "block_size", "available_kv_bytes")
_TEXT = ("attention_backend", "kv_cache_layout", "vllm_version")

#: What an engine says when it refuses to start for want of memory, newest wording first.
_REFUSALS = tuple(
    re.compile(pattern)
    for pattern in (
        r"To serve at least one request with the model's max seq len.*",
        r"The model's max seq len \(\d+\) is larger than the maximum number of tokens.*",
        r"No available memory for the cache blocks.*",
        r"Free memory on device.*is less than desired GPU memory utilization.*",
        r"Available memory on node.*is less than.*",
        r"(?:torch\.)?(?:cuda\.)?OutOfMemoryError: .*",
    )
)
#: For journalctl --grep: each line that says something of memory has one of these; what an engine says every ten
#: seconds of its load has none.
JOURNAL_PATTERN = "|".join(
    (
        "version [0-9v]",
        r"LLM engine \(v",
        "non-default args",
        "[Mm]odel (loading|weights)",
        "[Ww]eights memory",
        "[Cc]apturing finished",
        "CUDA graph",
        "Actual usage",
        "[Mm]emory",
        "KV [Cc]ache (size|layout|is|as|on)",
        "blocks: ",
        "num_gpu_blocks is",
        "Maximum concurrency",
        " block size to",
        " backend",
        "for KV cache",
        "max seq len",
    )
)


def last_start(text: str) -> str:
    """Return the part of a log that begins with its last start; the whole where no start is in it.

    One start announces itself in several lines, a few apart: those count as one.
    """
    lines = text.splitlines()
    begins = [number for number, line in enumerate(lines) if _START.search(line)]
    if not begins:
        return text
    first = begins[-1]
    for number in reversed(begins):
        if first - number > 8:
            break
        first = number
    return "\n".join(lines[first:])


_SIMPLE = re.compile(r"'(\w+)': (True|False|None|-?\d+(?:\.\d+)?|'[^']*')(?=[,}])")
_ARGUMENTS = re.compile(r"non-default args: (\{.*\})")


def _simple(text: str) -> t.Any:
    if text.startswith("'"):
        return text[1:-1]
    known = {"True": True, "False": False, "None": None}
    return known[text] if text in known else float(text) if "." in text else int(text)


def parse_arguments(text: str) -> t.Dict[str, t.Any]:
    """Return the arguments that the last start was given and that aren't the engine's defaults.

    Returns:
        ``{argument: value}`` with underscores; empty where the log has none that can be read.
    """
    found = _ARGUMENTS.findall(last_start(text))
    if not found:
        return {}
    try:
        made = ast.literal_eval(found[-1])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        # Some releases print objects among the values: what is simple is taken alone.
        made = {name: _simple(value) for name, value in _SIMPLE.findall(found[-1])}
    return made if isinstance(made, dict) else {}


def _value(name: str, text: str) -> t.Any:
    if name in _TEXT:
        return text.rstrip(".,")
    number = text.replace(",", "")
    return int(number) if name in _WHOLE else float(number)


def _merge(how: str, values: t.Sequence[t.Any]) -> t.Any:
    return values[-1] if how == "last" else max(values) if how == "max" else min(values)


def parse_startup_log(text: str) -> Record:
    """Return what the last start in a log says of memory.

    Returns:
        ``{vllm_version, gpu_memory_utilization, max_model_len, block_size, attention_backend, kv_cache_layout,
        weights_bytes, activation_bytes, non_torch_bytes, graphs_bytes, graphs_estimate_bytes, available_kv_bytes,
        kv_bytes_given, kv_bytes_exact, kv_tokens, num_blocks, max_concurrency, total_bytes, free_bytes,
        requested_bytes, ranks, precision_bytes, refusal}``; None where the log doesn't say it. Bytes are per GPU, of
        the fullest one; ``activation_bytes`` is without the estimate of the graphs, whether the release prints it
        with it or not; ``kv_bytes_given``: the KV cache was given in bytes, so nothing was profiled.
    """
    found: t.Dict[str, t.List[t.Any]] = {}
    ranks: t.Set[str] = set()
    refusal = ""
    graphs_counted = None
    for raw in last_start(_ANSI.sub("", text)).splitlines():
        rank = _RANK.search(raw)
        before = len(found.get("weights_gib", ())) + len(found.get("available_kv_gib", ()))
        for name, _how, pattern in _FIELDS:
            match = pattern.search(raw)
            if match:
                found.setdefault(name, []).append(_value(name, match.group(1)))
        if rank and len(found.get("weights_gib", ())) + len(found.get("available_kv_gib", ())) > before:
            ranks.add(rank.group(1))
        if "is equivalent to --gpu-memory-utilization" in raw or "graph memory profiling is enabled" in raw:
            graphs_counted = True
        elif "graph memory profiling is disabled" in raw:
            graphs_counted = False
        for pattern in _REFUSALS:
            match = pattern.search(raw)
            if match and not refusal:
                refusal = match.group(0)[:600]
    how_of = {name: how for name, how, _pattern in _FIELDS}
    merged = {name: _merge(how_of[name], values) for name, values in found.items()}
    return _record(merged, len(ranks), refusal, graphs_counted)


def _record(found: t.Mapping[str, t.Any], ranks: int, refusal: str, graphs_counted: t.Optional[bool]) -> Record:
    estimate = found.get("graphs_estimate_gib")
    activation = found.get("activation_gib")
    if activation is None and found.get("peak_gib") is not None:
        # From 0.20 on the estimate of the graphs is in the peak, where it was taken off the KV cache.
        activation = found["peak_gib"] - (estimate or 0.0 if graphs_counted else 0.0)
    weights = found.get("weights_gib")
    non_torch = found.get("non_torch_gib")
    if non_torch is None and found.get("consumed_gib") is not None and weights is not None:
        # From 0.27 on weights and non-torch memory are one number.
        non_torch = found["consumed_gib"] - weights
    exact = found.get("available_kv_bytes")
    given = found.get("reserved_kv_gib")
    available = exact if exact is not None else _bytes(found.get("available_kv_gib", given))
    return {
        "vllm_version": found.get("vllm_version"),
        "gpu_memory_utilization": found.get("gpu_memory_utilization"),
        "max_model_len": found.get("max_model_len"),
        "block_size": found.get("block_size"),
        "attention_backend": found.get("attention_backend"),
        "kv_cache_layout": found.get("kv_cache_layout"),
        "weights_bytes": _bytes(weights),
        "activation_bytes": _bytes(activation),
        "non_torch_bytes": _bytes(non_torch),
        "graphs_bytes": _bytes(found.get("graphs_gib")),
        "graphs_estimate_bytes": _bytes(estimate),
        "graphs_in_budget": graphs_counted,
        "available_kv_bytes": available,
        "kv_bytes_given": given is not None,
        "kv_bytes_exact": exact is not None,
        "kv_tokens": found.get("kv_tokens"),
        "num_blocks": found.get("num_blocks"),
        "max_concurrency": found.get("max_concurrency"),
        "total_bytes": _bytes(found.get("total_gib")),
        "free_bytes": _bytes(found.get("free_gib")),
        "requested_bytes": _bytes(found.get("requested_gib")),
        "ranks": max(1, ranks),
        "precision_bytes": PRECISION_BYTES,
        "refusal": refusal,
    }


def _bytes(gib: t.Optional[float]) -> t.Optional[int]:
    return None if gib is None else round(gib * GIB)


_CACHE_INFO = re.compile(r"^vllm:cache_config_info\{(.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse_cache_info(metrics: str) -> Record:
    """Return what a running engine's metrics say of its KV cache, exact.

    Returns:
        ``{block_size, num_blocks, kv_tokens, max_concurrency, available_kv_bytes, kv_cache_dtype, kv_cache_layout,
        gpu_memory_utilization}`` as far as the release has them.
    """
    match = _CACHE_INFO.search(metrics)
    if not match:
        return {}
    labels = {name: value for name, value in _LABEL.findall(match.group(1)) if value not in ("None", "")}
    record: Record = {}
    for name, label, kind in (
        ("block_size", "block_size", int),
        ("num_blocks", "num_gpu_blocks", int),
        ("kv_tokens", "kv_cache_size_tokens", int),
        ("max_concurrency", "kv_cache_max_concurrency", float),
        ("kv_bytes_asked", "kv_cache_memory_bytes", int),
        ("gpu_memory_utilization", "gpu_memory_utilization", float),
        ("kv_cache_dtype", "cache_dtype", str),
        ("kv_cache_layout", "kv_cache_layout", str),
    ):
        if label in labels:
            try:
                record[name] = kind(labels[label])
            except ValueError:
                continue
    return record
