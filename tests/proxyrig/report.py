# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables, JSON and floors: what every trial ends with."""

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t

Row = t.Mapping[str, t.Any]


def percentile(values: t.Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of them doesn't exceed (nearest rank); NaN for none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    rank = max(1, -(-len(ordered) * round(share * 1000) // 1000))
    return ordered[int(rank) - 1]


def load() -> str:
    return "/".join("%.1f" % value for value in os.getloadavg())


def cell(value: t.Any) -> str:
    return "%.2f" % value if isinstance(value, float) else str(value)


def table(title: str, rows: t.Sequence[Row]) -> None:
    """Print rows that share their columns."""
    print("\n" + title)
    if not rows:
        print("  (nothing)")
        return
    columns = list(rows[0])
    cells = [columns] + [[cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    for line in cells:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


class Floors:
    """What must hold; each is printed with what was found."""

    def __init__(self) -> None:
        self.rows: t.List[t.Dict[str, t.Any]] = []

    def at_most(self, what: str, found: float, limit: float) -> None:
        self.rows.append({"held": found <= limit, "what": what, "found": found, "limit": "<= %g" % limit})

    def at_least(self, what: str, found: float, limit: float) -> None:
        self.rows.append({"held": found >= limit, "what": what, "found": found, "limit": ">= %g" % limit})

    def true(self, what: str, held: bool, found: str = "") -> None:
        self.rows.append({"held": held, "what": what, "found": found or held, "limit": "true"})

    @property
    def failed(self) -> t.List[t.Dict[str, t.Any]]:
        return [row for row in self.rows if not row["held"]]

    def end(self, results: t.Dict[str, t.Any], json_path: str = "") -> int:
        """Print the floors, write the JSON, and return the exit status."""
        shown = [dict(row, held="ok" if row["held"] else "FAILED") for row in self.rows]
        table("floors", shown)
        results["floors"] = self.rows
        results["load_average"] = load()
        results["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if json_path:
            pathlib.Path(json_path).write_text(json.dumps(results, indent=2) + "\n")
            print("JSON: %s" % json_path)
        print("\n%d floors held, %d failed" % (len(self.rows) - len(self.failed), len(self.failed)))
        return 1 if self.failed or not self.rows else 0
