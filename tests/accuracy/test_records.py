# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner against public start-up logs: floors that hold, and records of any kind that don't break the score."""

from __future__ import annotations

import json
import random
import typing as t

import pytest
import score


@pytest.fixture(scope="module")
def summary() -> t.Dict[str, t.Any]:
    """The figures of the records beside this file."""
    exceptions = score.load(score.HERE / "exceptions.yml", "exceptions")
    records = score.load(score.HERE / "kv_records_open.yml", "records")
    models = score.models_of(score.HERE / "model_configs.yml")
    return score.summary(score.score(records, models), exceptions)


def test_layout_is_exact(summary: t.Mapping[str, t.Any]) -> None:
    """Every record that its log determines; exceptions are named, and there are no others."""
    layout = summary["layout"]
    assert layout["determined"] >= 50
    assert layout["exact_share"] == 1.0, summary["layout_outside"]
    exceptions = score.load(score.HERE / "exceptions.yml", "exceptions")
    assert sorted(summary["layout_exceptions"]) == sorted(exceptions)
    assert layout.get("inferred", 0) <= 3, "what a log doesn't say may be tried, but hardly ever"


def test_estimates_are_good(summary: t.Mapping[str, t.Any]) -> None:
    """At least 90 % within max(2 %, 0.25 GiB), 1 % in the mean, and none left out."""
    estimate = summary["estimate"]
    assert estimate["records"] == summary["counts"]["estimate"] >= 35
    assert estimate["within_share"] >= 0.90
    assert estimate["mean_percent"] <= 1.0
    assert summary["estimate_calibrated"]["within_share"] >= 0.95


def test_refusals_are_refused(summary: t.Mapping[str, t.Any]) -> None:
    """What an engine refused is refused, or not planned for want of the model's geometry."""
    assert summary["refuse"]["accepted"] == []
    assert summary["refuse"]["unsupported"] == ["syvai39"]
    assert summary["refuse"]["refused"] >= 9


def test_any_record_is_scored_or_has_a_reason() -> None:
    """Records with anything missing or wrong, four hundred of them: no crash, and one line of JSON."""
    records = score.load(score.HERE / "kv_records_open.yml", "records")
    models = score.models_of(score.HERE / "model_configs.yml")
    dice = random.Random(7)
    odd: t.List[t.Any] = [None, "", -1, 0, 3.5, [], {}, "0.x", True, "nonsense", 10**12]
    changed = []
    for _number in range(400):
        record = json.loads(json.dumps(dice.choice(records)))
        for _change in range(dice.randint(1, 3)):
            key = dice.choice(list(record))
            if key == "use":
                continue
            if dice.random() < 0.5:
                record.pop(key)
            else:
                record[key] = dice.choice(odd)
        changed.append(record)
    rows = score.score(changed, models)
    assert len(rows) == len(changed)
    json.loads(json.dumps(score.summary(rows, {})))
    assert "\n".join(score.table(rows, {}))
