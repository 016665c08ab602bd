# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner against answers of vLLM that record_oracle.py kept: the oracle's comparison where no engine is built."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import test_oracle_layers as layers
import test_oracle_layout as layouts

RECORDED = Path(__file__).resolve().parent / "recorded"


def recorded(name: str) -> t.List[t.Dict[str, t.Any]]:
    content = json.loads((RECORDED / name).read_text(encoding="utf-8"))
    assert content["vllm"] == layers.VERSION
    return t.cast("t.List[t.Dict[str, t.Any]]", content["answers"])


ANSWERS = {answer["name"]: answer for answer in recorded("layers.json")}


def test_every_configuration_was_recorded() -> None:
    assert [name for name, _config in layers.cases()] == list(ANSWERS)
    assert not [answer for answer in ANSWERS.values() if "fault" in answer]


@pytest.mark.parametrize(("name", "config"), layers.cases())
def test_layers_are_those_that_the_class_made(name: str, config: t.Dict[str, t.Any]) -> None:
    assert dict(layers.planned(config), name=name) == ANSWERS[name]


def test_blocks_tokens_concurrency_and_refusals_are_those_recorded() -> None:
    asked, answers = layouts.questions()[:: layouts.RECORDED_EVERY], recorded("layout.json")
    assert len(asked) == len(answers) > 150
    assert 20 < sum("error" in answer for answer in answers) < len(answers) - 60
    wrong = [(q["name"], theirs) for q, theirs in zip(asked, answers) if not layouts.agree(layouts.planned(q), theirs)]
    assert not wrong
