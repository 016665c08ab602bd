# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner's integers and refusals are those of vLLM's own kv_cache_utils."""

from __future__ import annotations

import random
import re
import typing as t

import geometries
import oracle
import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_layout as layout
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_rules as ruling

VERSION = "0.32.0"
RANDOM_CASES = 400
#: Of the questions every n-th is one whose answer record_oracle.py keeps.
RECORDED_EVERY = 6
NEEDED = re.compile(r"\(([\d.]+) GiB KV cache is needed.*memory \((-?[\d.]+) GiB\)")
LENGTH = re.compile(r"maximum model length is (\d+)")

pytestmark = pytest.mark.oracle


def spec_of(layer: t.Mapping[str, t.Any]) -> layout.Spec:
    """Return the planner's spec of a layer of the question."""
    size = geometries.page_of(layer)
    if layer["kind"] == "mamba":
        padded = layer["page_bytes"] is not None
        return layout.Spec(
            "mamba",
            layer["block_size"],
            size,
            padded=padded,
            checkpoint_blocks=layer["checkpoints"],
            shape=(layer["state_bytes"],),
        )
    shape = (layer["heads"], layer["head_k"], layer["head_v"], layer["width"])
    return layout.Spec(layer["kind"], layer["block_size"], size, layer["window"], shape)


def questions() -> t.List[t.Dict[str, t.Any]]:
    """Return what is asked: every geometry with several sizes of memory."""
    asked = []
    cases = geometries.families() + [geometries.random_case(seed) for seed in range(RANDOM_CASES)]
    for number, made in enumerate(cases):
        dice = random.Random(number)
        parts = layout.stages(len(made["layers"]), made["pipeline"])
        for memory in geometries.memories(made, dice):
            available = [int(memory * dice.uniform(0.9, 1.0)) if made["pipeline"] > 1 else memory for _part in parts]
            asked.append(dict(made, ask="layout", stages=[list(part) for part in parts], available=available))
    return asked


def planned(question: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return the planner's answer, in the shape of the engine's."""
    rules = ruling.rules_for(VERSION)
    specs = [spec_of(layer) for layer in question["layers"]]
    try:
        groups = layout.make_groups(specs, rules, bool(question.get("disable_hybrid")))
    except layout.LayoutError as exc:
        return {"error": str(exc), "layout": True}
    recurrent = [layer for layer in question["layers"] if layer["kind"] == "mamba"]
    request = layout.Request(
        question["inflight_tokens"],
        str(question.get("mamba_mode", "none")),
        recurrent[0]["speculative"] if recurrent else 0,
        int(question.get("encoder_tokens", 0)),
    )
    length = question["max_model_len"]
    stages = [frozenset(stage) for stage in question["stages"]]
    sizes = [layout.bytes_per_block(groups, stage) for stage in stages]
    usable = [layout.usable_bytes(memory, size, rules) for memory, size in zip(question["available"], sizes)]
    if question.get("auto_fit"):
        fitted = [
            layout.largest_length(groups, memory, length, request, rules, stage)
            for memory, stage in zip(usable, stages)
        ]
        length = min(length, *fitted)
        if length <= 0:
            return {"error": "Cannot auto-fit max_model_len", "auto_fit": True}
    for memory, stage in zip(usable, stages):
        needed = layout.needed_bytes(groups, length, request, rules, stage)
        if memory <= 0 or needed > memory:
            longest = layout.largest_length(groups, memory, length, request, rules, stage)
            return {"error": "refused", "needed": needed, "available": memory, "longest": longest}
    blocks = min(memory // size for memory, size in zip(question["available"], sizes))
    held = layout.capacity(groups, blocks, length, request, rules)
    return {
        "num_blocks": blocks,
        "tokens": held.tokens,
        "concurrency": held.max_concurrency,
        "groups": sorted(len(group.layers) for group in groups),
        "max_model_len": length,
        "block_bytes": sizes,
    }


def gib(size: int) -> str:
    """Return bytes as vLLM formats them."""
    return str(round(size / (1 << 30), 2))


def same_refusal(mine: t.Mapping[str, t.Any], theirs: str) -> bool:
    """Whether both refuse for the same reason, with the same numbers."""
    if mine.get("layout"):
        return mine["error"] == theirs or "page size" in theirs
    if mine.get("auto_fit"):
        return theirs.startswith("Cannot auto-fit max_model_len")
    if mine["available"] <= 0:
        return theirs.startswith("No available memory for the cache blocks")
    found = NEEDED.search(theirs)
    if found is None or found.groups() != (gib(mine["needed"]), gib(mine["available"])):
        return False
    length = LENGTH.search(theirs)
    return (int(length.group(1)) if length else 0) == mine["longest"]


def agree(mine: t.Mapping[str, t.Any], theirs: t.Mapping[str, t.Any]) -> bool:
    """Whether the planner and the engine say the same, refusals too."""
    if "error" in theirs or "error" in mine:
        return "error" in theirs and "error" in mine and same_refusal(mine, theirs["error"])
    return mine == theirs


@pytest.fixture(scope="module")
def answers() -> t.List[t.Tuple[t.Dict[str, t.Any], t.Dict[str, t.Any]]]:
    """All questions with the engine's answers: one start of the engine."""
    asked = questions()
    try:
        return list(zip(asked, oracle.ask(VERSION, asked)))
    except oracle.NoEngine as exc:
        pytest.skip(str(exc))


def test_enough_is_compared(answers: t.Sequence[t.Any]) -> None:
    """Forty geometries of families, hundreds of random ones, and refusals among them."""
    names = {question["name"] for question, _answer in answers}
    assert sum(not name.startswith("random") for name in names) >= 40
    assert len(names) >= 400
    refused = sum("error" in answer for _question, answer in answers)
    assert 200 < refused < len(answers) - 400
    assert not [answer for _question, answer in answers if "fault" in answer]


def test_same_integers_and_refusals(
    answers: t.Sequence[t.Any], record_property: t.Callable[[str, object], None]
) -> None:
    """Blocks, tokens, concurrency, groups and bytes of a block are equal, and what one refuses the other does."""
    wrong = []
    for question, theirs in answers:
        mine = planned(question)
        if not agree(mine, theirs):
            wrong.append((question["name"], question["available"], mine, theirs))
    record_property("compared", len(answers))
    assert not wrong, "%d of %d differ, such as %r" % (len(wrong), len(answers), wrong[0])
