# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the blocks, tokens and concurrency of a public log are those that the planner computes."""

from __future__ import annotations

import math
import typing as t

import facts
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_config as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_layout as layout
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_rules as ruling
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_want as wanting

GIB = facts.GIB


class Outcome(t.NamedTuple):
    """What came of one record."""

    status: str  # exact, inferred, stated, outside, ranks, unsupported, open
    detail: str = ""
    inferred: str = ""


class Numbers(t.NamedTuple):
    """A layout, whoever computed it."""

    block_bytes: int
    groups: int
    block_size: int
    tokens: t.Callable[[int], int]
    concurrency: t.Callable[[int], t.Optional[float]]
    blocks_per_request: t.Optional[int]


def numbers(case: facts.Case, version: str, flags: t.Mapping[str, t.Any]) -> Numbers:
    """Return the planner's layout of a record under one reading of what the log leaves open."""
    assert case.config is not None
    rules = ruling.rules_for(version, case.generation)
    model = reading.read_model(case.config)
    want = wanting.want_of(dict(case.want, **flags))
    if not want.max_model_len and not model.max_position:
        want = want._replace(max_model_len=4096)
    laid = planning.laid_out(model, want, wanting.gpu_of(case.gpu), rules)

    def held(count: int) -> layout.Capacity:
        return layout.capacity(laid.groups, count, laid.want.max_model_len, laid.laid.request, rules)

    stated = bool(case.record.get("max_model_len"))
    return Numbers(
        laid.block_bytes,
        len(laid.groups),
        laid.laid.block_size,
        lambda count: held(count).tokens,
        (lambda count: held(count).max_concurrency) if stated else (lambda _count: None),
        held(1).blocks_per_request if stated and rules["engine"] != "V0" else None,
    )


def from_record(case: facts.Case) -> t.Optional[Numbers]:
    """Return the layout that the record itself states, for a model whose geometry isn't at hand."""
    said = case.record.get("layout") or {}
    if not said.get("bytes_per_block"):
        return None
    groups, size = int(said.get("groups") or 1), int(said.get("block_size") or 16)
    length, per = case.record.get("max_model_len"), said.get("blocks_per_request")
    rules = ruling.rules_for(case.versions[0], case.generation)
    if not per and length and groups == 1:
        per = math.ceil(length / size)

    def tokens(count: int) -> int:
        if rules["tokens"] == "concurrency" and per and length:
            return int(count / per * length)
        return count * size if rules["tokens"] == "blocks" else count // groups * size

    def concurrency(count: int) -> t.Optional[float]:
        if rules["tokens"] == "blocks":
            return count * size / length if length else None
        return count / per if per else None

    return Numbers(int(said["bytes_per_block"]), groups, size, tokens, concurrency, per)


def _available(reported: t.Mapping[str, t.Any]) -> t.Optional[t.Tuple[int, int]]:
    """Return the least and the most bytes that print as the logged memory."""
    if isinstance(reported.get("available_kv_bytes"), int):
        return reported["available_kv_bytes"], reported["available_kv_bytes"]
    value = reported.get("available_kv_gib")
    if not isinstance(value, (int, float)):
        return None
    return math.ceil((value - 0.005) * GIB), int((value + 0.005) * GIB)


def _by_memory(found: Numbers, span: t.Tuple[int, int], reported: t.Mapping[str, t.Any]) -> t.List[t.Optional[str]]:
    """Return for each number that follows from the logged memory what differs, or None."""
    blocks, tokens, users = (reported.get(name) for name in ("num_gpu_blocks", "kv_tokens", "max_concurrency"))
    low, high = span[0] // found.block_bytes, span[1] // found.block_bytes
    lines: t.List[t.Optional[str]] = []
    if blocks is not None:
        lines.append(None if low <= blocks <= high else "blocks %d, not %d..%d" % (blocks, low, high))
    if tokens is not None:
        least, most = found.tokens(low), found.tokens(high)
        lines.append(None if least <= tokens <= most else "tokens %d, not %d..%d" % (tokens, least, most))
    if users is not None and blocks is None and tokens is None and found.concurrency(low) is not None:
        fewest, most_users = found.concurrency(low) or 0.0, found.concurrency(high) or 0.0
        good = fewest - 0.0051 <= users <= most_users + 0.0051
        lines.append(None if good else "concurrency %.2f, not %.2f..%.2f" % (users, fewest, most_users))
    return lines


def _by_blocks(found: Numbers, reported: t.Mapping[str, t.Any]) -> t.List[t.Optional[str]]:
    """Return for each number that follows from the logged blocks or tokens what differs, or None."""
    blocks, tokens, users = (reported.get(name) for name in ("num_gpu_blocks", "kv_tokens", "max_concurrency"))
    lines: t.List[t.Optional[str]] = []
    least = most = blocks
    if blocks is not None and tokens is not None:
        good = found.tokens(blocks) == tokens
        lines.append(None if good else "tokens %d of %d blocks, not %d" % (tokens, blocks, found.tokens(blocks)))
    elif blocks is None and tokens is not None:
        # The blocks aren't logged: some number of them has to give both.
        least = most = _blocks_for(found, tokens)
        while least is not None and least > 1 and found.tokens(least - 1) == tokens:
            least -= 1
    if users is not None and least is not None and most is not None and found.concurrency(most) is not None:
        low, high = found.concurrency(least) or 0.0, found.concurrency(most) or 0.0
        good = low - 0.0051 <= users <= high + 0.0051
        lines.append(None if good else "concurrency %.2f, not %.2f..%.2f" % (users, low, high))
    return lines


def compare(case: facts.Case, found: Numbers) -> t.Tuple[t.List[str], t.List[str], int]:
    """Return what differs: from the logged memory, and between the log's own integers; and how much was compared."""
    reported = case.record.get("reported") or {}
    span = _available(reported)
    one = _by_memory(found, span, reported) if span is not None and span[0] > 0 else []
    two = _by_blocks(found, reported)
    return [line for line in one if line], [line for line in two if line], len(one) + len(two)


def _blocks_for(found: Numbers, tokens: int) -> t.Optional[int]:
    """Return the most blocks that give so many tokens, or None."""
    low, high = 0, 1
    while found.tokens(high) <= tokens and high < 1 << 40:
        high *= 2
    while low < high:
        middle = (low + high + 1) // 2
        if found.tokens(middle) <= tokens:
            low = middle
        else:
            high = middle - 1
    return low if found.tokens(low) == tokens else None


def _stated(case: facts.Case, found: Numbers) -> t.List[str]:
    """Return what differs from the layout that the record states beside the log's numbers."""
    said = case.record.get("layout") or {}
    pairs = (
        ("bytes_per_block", found.block_bytes),
        ("groups", found.groups),
        ("block_size", found.block_size),
        ("blocks_per_request", found.blocks_per_request),
    )
    wrong = [(name, value) for name, value in pairs if value is not None and said.get(name) not in (None, value)]
    return ["%s %s, not %s" % (name, said[name], value) for name, value in wrong]


def check(case: facts.Case) -> Outcome:
    """Return how a record compares with what the planner computes."""
    reported = case.record.get("reported") or {}
    known = sum(reported.get(name) is not None for name in ("num_gpu_blocks", "kv_tokens", "max_concurrency"))
    if not known or (known == 1 and _available(reported) is None):
        return Outcome("open", "the log has no two numbers to compare")
    if case.config is None:
        found = from_record(case)
        if found is None:
            return Outcome("unsupported", "no geometry of %s" % case.record.get("model"))
        by_memory, by_blocks, compared = compare(case, found)
        if not compared:
            return Outcome("open", "the log has no two numbers to compare")
        return _judge(case, by_memory, by_blocks, "stated", "")
    first: t.Optional[Outcome] = None
    for version in case.versions:
        for flags in case.open_flags:
            try:
                found = numbers(case, version, flags)
            except (reading.Unsupported, layout.LayoutError, wanting.WantError, ValueError) as exc:
                return Outcome("unsupported", str(exc))
            by_memory, by_blocks, compared = compare(case, found)
            if not compared:
                return Outcome("open", "the log has no two numbers to compare")
            by_stated = _stated(case, found)
            guess = ", ".join("%s=%s" % pair for pair in sorted(flags.items()))
            if len(case.versions) > 1 and version != case.versions[0]:
                guess = ", ".join(filter(None, ["vLLM %s" % version, guess]))
            outcome = _judge(case, by_memory + by_stated, by_blocks, "inferred" if guess else "exact", guess)
            if outcome.status in ("exact", "inferred"):
                return outcome
            if first is None or (first.status == "outside" and outcome.status == "ranks"):
                first = outcome
    assert first is not None
    return first


def _judge(case: facts.Case, by_memory: t.List[str], by_blocks: t.List[str], good: str, guess: str) -> Outcome:
    if not by_memory and not by_blocks:
        return Outcome(good, guess, guess)
    record = case.record
    several = int(record.get("tp") or 1) * int(record.get("pp") or 1) > 1
    if several and not by_blocks and all("not" in line and ".." in line for line in by_memory):
        return Outcome("ranks", "; ".join(by_memory) + ": lines of different GPUs")
    return Outcome("outside", "; ".join(by_memory + by_blocks))
