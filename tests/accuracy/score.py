#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Score the planner against public start-up logs: a table, then one line of JSON.

    tests/accuracy/score.py [--records FILE] [--configs FILE]

Both files have the schema of those beside this one. A record that can't be scored is counted as such, with the reason.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import typing as t
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
for place in (HERE, HERE.parent):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))


class Row(t.NamedTuple):
    """What came of one record."""

    id: str
    uses: t.Tuple[str, ...]
    version: str
    layout: t.Any
    estimate: t.Any
    calibrated: t.Any
    refused: t.Tuple[str, str]
    weights: t.Optional[t.Tuple[float, float]]


def load(path: Path, key: str) -> t.Any:
    """Return one part of a file of records or geometries.

    Raises:
        SystemExit: the file isn't of that schema.
    """
    with path.open(encoding="utf-8") as file:
        content = yaml.safe_load(file)
    if not isinstance(content, dict) or key not in content:
        raise SystemExit("%s has no %s" % (path, key))
    return content[key]


def models_of(path: Path) -> t.Dict[str, t.Any]:
    """Return the geometries of a file, and those that the suite adds for models that it doesn't have."""
    models = dict(load(path, "models"))
    for name, entry in load(HERE / "configs_extra.yml", "models").items():
        models.setdefault(name, entry)
    return models


def weights_of(case: t.Any) -> t.Optional[t.Tuple[float, float]]:
    """Return GiB of weights by config.json alone and by the log, where both are there."""
    import estimate_check as estimating

    logged = estimating.logged_weights(case)
    if case.config is None or logged is None:
        return None
    plan, source = estimating.predict(case, False, False)
    if source != "config.json" or not plan["per_gpu"]:
        return None
    return plan["per_gpu"]["weights"] / estimating.GIB, logged / estimating.GIB


def score_record(record: t.Mapping[str, t.Any], models: t.Mapping[str, t.Any]) -> Row:
    """Return what came of one record; a record that is malformed is unsupported, and nothing is raised."""
    import estimate_check as estimating
    import facts
    import layout_check as laying

    name, uses = str(record.get("id", "(no id)")), tuple(record.get("use") or ())
    version = str(record.get("vllm", "unknown"))
    nothing = estimating.Estimate("open")
    try:
        case = facts.case_of(record, models)
        outcome = laying.check(case) if "layout" in uses or "reference" in uses else laying.Outcome("open")
        first = estimating.estimate(case) if "estimate" in uses else nothing
        second = estimating.estimate(case, True, True) if "estimate" in uses else nothing
        refusal = estimating.refused(case) if "refuse" in uses else ("", "")
        return Row(name, uses, version, outcome, first, second, refusal, weights_of(case))
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, AssertionError) as exc:
        why = "the record isn't understood: %r" % exc
        refusal = ("unsupported", why) if "refuse" in uses else ("", "")
        estimate = estimating.Estimate("unsupported", detail=why) if "estimate" in uses else nothing
        return Row(name, uses, version, laying.Outcome("unsupported", why), estimate, estimate, refusal, None)


def score(records: t.Sequence[t.Mapping[str, t.Any]], models: t.Mapping[str, t.Any]) -> t.List[Row]:
    """Return what came of each record."""
    return [score_record(record, models) for record in records]


def _errors(estimates: t.Sequence[t.Any]) -> t.Dict[str, t.Any]:
    """Return the figures of several predictions."""
    percents = [abs(one.error_percent) for one in estimates]
    if not percents:
        return {"records": 0}
    return {
        "records": len(percents),
        "within": sum(one.within for one in estimates),
        "within_share": round(sum(one.within for one in estimates) / len(percents), 4),
        "within_2_percent": sum(percent <= 2.0 for percent in percents),
        "mean_percent": round(statistics.mean(percents), 3),
        "median_percent": round(statistics.median(percents), 3),
        "max_percent": round(max(percents), 3),
        "mean_gib": round(statistics.mean(abs(one.error_gib) for one in estimates), 3),
        "max_gib": round(max(abs(one.error_gib) for one in estimates), 3),
    }


def summary(rows: t.Sequence[Row], exceptions: t.Mapping[str, str]) -> t.Dict[str, t.Any]:
    """Return the line of JSON."""
    layouts: t.Dict[str, int] = {}
    named = []
    for row in rows:
        if "layout" not in row.uses:
            continue
        status = row.layout.status
        if status in ("ranks", "outside") and row.id in exceptions:
            status = "exception"
            named.append(row.id)
        layouts[status] = layouts.get(status, 0) + 1
    good = sum(layouts.get(name, 0) for name in ("exact", "inferred", "stated"))
    determined = good + layouts.get("outside", 0) + layouts.get("ranks", 0)
    scored = [row for row in rows if row.estimate.status == "scored"]
    worst = sorted(scored, key=lambda row: -abs(row.estimate.error_percent))[:5]
    refusals = [row for row in rows if row.refused[0]]
    estimates = _errors([row.estimate for row in scored])
    weights = [abs(one[0] - one[1]) / one[1] * 100 for one in (row.weights for row in rows) if one and one[1]]
    return {
        "counts": {
            "records": len(rows),
            "layout": sum("layout" in row.uses for row in rows),
            "estimate": sum("estimate" in row.uses for row in rows),
            "refuse": len(refusals),
        },
        "exact": good,
        "within": estimates.get("within", 0),
        "mean": estimates.get("mean_percent"),
        "max": estimates.get("max_percent"),
        "worst": [row.id for row in worst],
        "layout": dict(layouts, determined=determined, exact_share=round(good / determined, 4) if determined else None),
        "layout_exceptions": named,
        "layout_outside": [row.id for row in rows if row.layout.status == "outside" and row.id not in exceptions],
        "layout_ranks": [row.id for row in rows if row.layout.status == "ranks" and row.id not in exceptions],
        "estimate": dict(
            estimates,
            unsupported=[row.id for row in rows if row.estimate.status == "unsupported"],
            open=[row.id for row in rows if "estimate" in row.uses and row.estimate.status == "open"],
        ),
        "estimate_calibrated": _errors([row.calibrated for row in rows if row.calibrated.status == "scored"]),
        "refuse": {name: [row.id for row in refusals if row.refused[0] == name] for name in ("accepted", "unsupported")}
        | {"refused": sum(row.refused[0] == "refused" for row in refusals)},
        "weights_from_config": {
            "records": len(weights),
            "mean_percent": round(statistics.mean(weights), 3) if weights else None,
            "max_percent": round(max(weights), 3) if weights else None,
        },
    }


def _notes(row: Row, exceptions: t.Mapping[str, str]) -> t.List[str]:
    """Return what there is to say about a record."""
    notes = []
    if "layout" in row.uses:
        notes.append(exceptions[row.id].strip() if row.id in exceptions else row.layout.detail)
    one = row.estimate
    if one.status == "scored":
        notes.append("" if one.within else "OUT of max(2 %, 0.25 GiB)")
        notes.append("weights of the log" if one.weights_source == "log" else "")
    elif "estimate" in row.uses:
        notes.append("estimate: %s, %s" % (one.status, one.detail))
    if row.refused[0]:
        notes.append("%s: %s" % row.refused)
    return [note for note in notes if note]


LINE = "%-50s %-8s %-11s %21s %8s %9s  %s"


def table(rows: t.Sequence[Row], exceptions: t.Mapping[str, str]) -> t.Iterator[str]:
    """Return the lines of the table."""
    yield LINE % ("record", "vLLM", "layout", "KV GiB said/logged", "error", "percent", "notes")
    for row in rows:
        status = row.layout.status if "layout" in row.uses else "-"
        if status in ("ranks", "outside") and row.id in exceptions:
            status = "exception"
        one = row.estimate
        numbers = ("", "", "")
        if one.status == "scored":
            pair = "%.2f / %.2f" % (one.predicted_gib, one.logged_gib)
            numbers = (pair, "%+.2f" % one.error_gib, "%+.2f %%" % one.error_percent)
        said = "; ".join(_notes(row, exceptions))[:150]
        yield LINE % ((row.id[:50], row.version[:8], status) + numbers + (said,))


def main(arguments: t.Optional[t.Sequence[str]] = None) -> int:
    """Score and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, default=HERE / "kv_records_open.yml")
    parser.add_argument("--configs", type=Path, default=HERE / "model_configs.yml")
    options = parser.parse_args(arguments)
    import conftest

    conftest.pytest_configure()
    exceptions = load(HERE / "exceptions.yml", "exceptions")
    rows = score(load(options.records, "records"), models_of(options.configs))
    for line in table(rows, exceptions):
        print(line)
    print(json.dumps(summary(rows, exceptions)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
