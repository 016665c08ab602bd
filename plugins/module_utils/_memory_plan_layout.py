# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""From each layer's cache to groups, blocks, tokens and the longest request, in the integers that vLLM prints.

The rules are those of ``vllm/v1/core/kv_cache_utils.py`` and ``vllm/v1/kv_cache_interface.py``; which release does what
is in ``_memory_plan_rules``. Everything is integer arithmetic on bytes and tokens.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import Rule

#: Kinds whose blocks cover every token of a request.
FULL_KINDS = ("full", "mla")


class LayoutError(ValueError):
    """Specs that vLLM itself can't lay out, or that this code doesn't know."""


class Spec(t.NamedTuple):
    """The cache of one layer on one rank."""

    kind: str  # full, mla, sliding, sliding_mla, chunked, mamba, cross
    block_size: int  # tokens
    page_bytes: int  # bytes of one block, padding included
    window: int = 0  # tokens of a sliding window or a chunk
    shape: t.Tuple[int, ...] = ()  # what else makes two layers differ: heads, sizes, bytes of an element
    padded: bool = False
    checkpoint_blocks: int = 0  # of a recurrent layer: states kept besides, while prefix caching aligns them


class Group(t.NamedTuple):
    """Layers that share a table of blocks."""

    layers: t.Tuple[int, ...]  # indices into the specs of the whole model
    specs: t.Tuple[Spec, ...]  # one for each of the layers

    @property
    def block_size(self) -> int:
        """Tokens of one block."""
        return self.specs[0].block_size


class Request(t.NamedTuple):
    """What, besides its length, decides the blocks that a request needs."""

    inflight_tokens: int  # tokens that were scheduled and aren't settled yet
    mamba_mode: str = "none"  # none, align, all
    speculative_tokens: int = 0
    encoder_tokens: int = 0
    retained_tokens: int = 0  # kept below a sliding window for several draft modules


class Capacity(t.NamedTuple):
    """What a KV cache of one size holds."""

    num_blocks: int
    blocks_per_request: int
    max_concurrency: float
    tokens: int


def cdiv(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def blocks_of(spec: Spec, length: int, request: Request) -> int:
    """Return the blocks of one layer that a request of ``length`` tokens needs at the most."""
    if spec.kind in FULL_KINDS:
        return cdiv(length, spec.block_size)
    if spec.kind in ("sliding", "sliding_mla"):
        held = spec.window - 1 + request.retained_tokens + request.inflight_tokens
        # One more, as a window may begin in the middle of a block.
        return cdiv(min(held, length), spec.block_size) + 1
    if spec.kind == "chunked":
        return cdiv(min(spec.window + request.inflight_tokens, length), spec.block_size)
    if spec.kind == "mamba":
        if request.mamba_mode == "all":
            return cdiv(length, spec.block_size) + request.speculative_tokens
        if request.mamba_mode == "align":
            return 2 + spec.checkpoint_blocks + request.speculative_tokens
        return 1 + request.speculative_tokens
    if spec.kind == "cross":
        return cdiv(request.encoder_tokens, spec.block_size)
    raise LayoutError("layer kind %r has no rule" % spec.kind)


def _uniform(specs: t.Sequence[Spec]) -> bool:
    """Whether all layers always need the same number of token slots, so that one table of blocks serves them."""
    if len({spec.block_size for spec in specs}) > 1:
        return False
    first = specs[0]
    if first.kind in FULL_KINDS:
        return all(spec.kind in FULL_KINDS for spec in specs)
    if first.kind in ("sliding", "sliding_mla", "chunked"):
        return all(spec.kind == first.kind and spec.window == first.window for spec in specs)
    if first.kind == "mamba":
        return all(spec.kind == "mamba" and spec.page_bytes == first.page_bytes for spec in specs)
    return all(spec.kind == first.kind for spec in specs)


def promoted(specs: t.Sequence[Spec]) -> t.List[Spec]:
    """Return the specs with windows and chunks kept in full, as without the hybrid manager.

    Raises:
        LayoutError: even then the layers aren't of one type; vLLM refuses them too.
    """
    full = {spec.block_size for spec in specs if spec.kind in FULL_KINDS}
    if _uniform(specs):
        return list(specs)
    block = full.pop() if len(full) == 1 else None
    result = []
    windows: t.Dict[str, t.Set[int]] = {}
    for spec in specs:
        if spec.kind in ("sliding", "chunked", "sliding_mla") and (full or block):
            windows.setdefault(spec.kind, set()).add(spec.window)
            size = block or spec.block_size
            kind = "mla" if spec.kind == "sliding_mla" else "full"
            page = spec.page_bytes * size // spec.block_size
            spec = spec._replace(kind=kind, window=0, block_size=size, page_bytes=page)
        result.append(spec)
    if not _uniform(result):
        raise LayoutError("Failed to promote local KV cache specs to one unified type.")
    if any(len(sizes) > 1 for sizes in windows.values()):
        raise LayoutError("All attention layers in the same KV cache group must have the same window size.")
    return result


def _equal_pages(specs: t.Sequence[Spec]) -> t.List[Spec]:
    """Return the specs with one page size: smaller pages get more tokens, or are padded where that doesn't divide."""
    largest = max(spec.page_bytes for spec in specs)
    result = []
    for spec in specs:
        if spec.page_bytes != largest:
            if spec.kind == "mamba":
                spec = spec._replace(page_bytes=largest, padded=True)
            elif largest % spec.page_bytes == 0:
                ratio = largest // spec.page_bytes
                spec = spec._replace(page_bytes=largest, block_size=spec.block_size * ratio)
            elif spec.kind != "mla":
                spec = spec._replace(page_bytes=largest, padded=True)
            else:
                raise LayoutError(
                    "pages of %d and %d bytes can't be made equal: latent attention isn't padded"
                    % (spec.page_bytes, largest)
                )
        result.append(spec)
    return result


def _one_group(specs: t.Sequence[Spec]) -> t.List[Group]:
    return [Group(tuple(range(len(specs))), tuple(specs))]


def make_groups(specs: t.Sequence[Spec], rules: Rule, disable_hybrid: bool = False) -> t.List[Group]:
    """Return the groups of all layers of the model, over all pipeline stages.

    Args:
        specs: one for each layer that has a cache of its own, in the order of the layers.
        rules: those of the engine's version.
        disable_hybrid: whether windows are kept in full, as with ``--disable-hybrid-kv-cache-manager``.

    Raises:
        LayoutError: vLLM couldn't lay these out either.
    """
    if not specs:
        return []
    if rules["engine"] == "V0":
        return _one_group(
            [spec._replace(kind="full") if spec.kind in ("sliding", "chunked") else spec for spec in specs]
        )
    if disable_hybrid:
        specs = promoted(specs)
    if _uniform(specs):
        return _one_group(specs)
    try:
        equal = _equal_pages(specs)
    except LayoutError:
        kinds = {spec.kind for spec in specs}
        if not ("mla" in kinds and "sliding" in kinds) or kinds & {"sliding_mla", "chunked", "mamba", "cross"}:
            raise
        return _one_group(promoted(specs))
    buckets: t.Dict[Spec, t.List[int]] = {}
    for index, spec in enumerate(equal):
        buckets.setdefault(spec, []).append(index)
    sizes = [len(layers) for layers in buckets.values()]
    size = min(sizes)
    if rules["group_threshold"] and max(sizes) < size * rules["group_threshold"]:
        size = max(sizes)
    groups = []
    for spec, layers in buckets.items():
        count = cdiv(len(layers), size)
        for number in range(count):
            members = tuple(layers[number::count])
            groups.append(Group(members, (spec,) * len(members)))
    return groups


def padding_layers(groups: t.Sequence[Group]) -> int:
    """Return how many layers' worth of each block no layer uses, over all groups."""
    widest = max((len(group.layers) for group in groups), default=0)
    return sum(widest - len(group.layers) for group in groups) if len(groups) > 1 else 0


def bytes_per_block(groups: t.Sequence[Group], layers: t.Optional[t.Container[int]] = None) -> int:
    """Return the bytes of one block of the pool on one rank: the widest group's.

    Args:
        groups: those of the whole model.
        layers: the layers of this pipeline stage; None: all of them.
    """
    widths = [
        sum(spec.page_bytes for layer, spec in zip(group.layers, group.specs) if layers is None or layer in layers)
        for group in groups
    ]
    return max(widths, default=0)


def blocks_per_request(groups: t.Sequence[Group], length: int, request: Request) -> int:
    """Return the blocks of the pool that one request of ``length`` tokens needs, over all groups."""
    return sum(max(blocks_of(spec, length, request) for spec in set(group.specs)) for group in groups)


def needed_bytes(
    groups: t.Sequence[Group],
    length: int,
    request: Request,
    rules: Rule,
    layers: t.Optional[t.Container[int]] = None,
) -> int:
    """Return the bytes that one request of ``length`` tokens needs on one rank, as the engine's check counts them."""
    if rules["check"] == "groups":
        return bytes_per_block(groups, layers) * blocks_per_request(groups, length, request)
    total = 0
    for group in groups:
        for layer, spec in zip(group.layers, group.specs):
            if layers is None or layer in layers:
                total += blocks_of(spec, length, request) * spec.page_bytes
    return total


def largest_length(
    groups: t.Sequence[Group],
    available: int,
    limit: int,
    request: Request,
    rules: Rule,
    layers: t.Optional[t.Container[int]] = None,
) -> int:
    """Return the longest request, at most ``limit`` tokens, that ``available`` bytes serve; 0: not even one token."""

    def fits(length: int) -> bool:
        return needed_bytes(groups, length, request, rules, layers) <= available

    if limit < 1 or not fits(1):
        return 0
    low, high, found = 1, limit, 1
    while low <= high:
        middle = (low + high) // 2
        if fits(middle):
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return found


def usable_bytes(available: int, block_bytes: int, rules: Rule) -> int:
    """Return what a request may use of the available bytes: all of it, or all but the block that is held back."""
    return available - block_bytes if rules["null_block"] else available


def request_blocks(blocks: int, rules: Rule) -> int:
    """Return the blocks that requests get: the engine keeps one for itself, whatever its check at the start counts.

    Source: ``vllm/v1/core/block_pool.py``, the null block.
    """
    return blocks if rules["engine"] == "V0" else max(0, blocks - 1)


def capacity(groups: t.Sequence[Group], num_blocks: int, max_model_len: int, request: Request, rules: Rule) -> Capacity:
    """Return tokens and concurrency of a pool of ``num_blocks``, as this version prints them."""
    if not groups:
        return Capacity(num_blocks, 0, 0.0, 0)
    if rules["tokens"] == "blocks":
        tokens = num_blocks * groups[0].block_size
        return Capacity(num_blocks, cdiv(max_model_len, groups[0].block_size), tokens / max_model_len, tokens)
    per_request = blocks_per_request(groups, max_model_len, request)
    concurrency = num_blocks / per_request
    if rules["tokens"] == "concurrency":
        return Capacity(num_blocks, per_request, concurrency, int(concurrency * max_model_len))
    # A recurrent layer's block is as long as the longest request there, unless prefix caching aligns it.
    smallest = min(group.block_size for group in groups)
    return Capacity(num_blocks, per_request, concurrency, num_blocks // len(groups) * smallest)


def stages(layers: int, pipeline: int) -> t.List[range]:
    """Return each pipeline stage's layers: what is left over goes to the last stages but one, as in vLLM."""
    counts = [layers // pipeline] * pipeline
    for place in range(2, layers % pipeline + 2):
        counts[-place] += 1
    result, start = [], 0
    for count in counts:
        result.append(range(start, start + count))
        start += count
    return result
