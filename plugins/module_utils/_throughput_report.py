# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""A throughput sweep as a report: what a million tokens cost where power and prices are known, and a page of plots."""

from __future__ import annotations

import html
import typing as t

Record = t.Dict[str, t.Any]
MILLION = 1000000.0


class Prices(t.NamedTuple):
    """What is given; None is not known, and never made up."""

    currency: str = ""
    per_kwh: t.Optional[float] = None
    host_per_hour: t.Optional[float] = None
    watts: t.Optional[float] = None  # of the host, in place of what NVML measures
    power_usage_effectiveness: float = 1.0


def cost_of(level: t.Mapping[str, t.Any], prices: Prices) -> Record:
    """Return what a million tokens cost at one level.

    Returns:
        ``watts`` with ``watts_source``; ``energy``, ``host`` and ``total`` in the currency for a million output tokens,
        and ``total_all_tokens`` for a million of prompt and answer together; each None where an input is missing, which
        ``reasons`` names. ``total`` is the sum of the parts that are known.
    """
    reasons: t.List[str] = []
    power = level.get("power") or {}
    watts, source = prices.watts, "given"
    if watts is None:
        watts, source = power.get("watts"), str(power.get("reason") or "not measured")
    output, everything = level.get("output_tokens_per_second"), level.get("total_tokens_per_second")
    energy = host = total = total_all = None
    if not output:
        reasons.append("no token came, so none has a price")
    else:
        hours = MILLION / output / 3600.0
        if watts is None:
            reasons.append("energy: no power is known (%s); give watts" % source)
        elif prices.per_kwh is None:
            reasons.append("energy: no price of a kWh is given")
        else:
            energy = watts / 1000.0 * prices.power_usage_effectiveness * hours * prices.per_kwh
        if prices.host_per_hour is None:
            reasons.append("host: no price of an hour is given")
        else:
            host = hours * prices.host_per_hour
        if energy is not None or host is not None:
            total = (energy or 0.0) + (host or 0.0)
            total_all = total * output / everything if everything else None
    return {
        "watts": watts,
        "watts_source": source,
        "energy": energy,
        "host": host,
        "total": total,
        "total_all_tokens": total_all,
        "currency": prices.currency or None,
        "reasons": reasons,
    }


def report_of(about: t.Mapping[str, t.Any], levels: t.Sequence[t.Mapping[str, t.Any]], prices: Prices) -> Record:
    """Return the report: ``{about, prices, levels}``, each level with its ``cost_per_million_tokens``."""
    ordered = sorted(levels, key=lambda level: int(level["concurrency"]))
    return {
        "schema": 1,
        "about": dict(about),
        "prices": prices._asdict(),
        "levels": [dict(level, cost_per_million_tokens=cost_of(level, prices)) for level in ordered],
    }


def best(report: t.Mapping[str, t.Any]) -> Record:
    """Return what goes into a receipt: the level with most output, in a few numbers."""
    level = max(report["levels"], key=lambda one: one["output_tokens_per_second"] or 0.0)
    cost = level["cost_per_million_tokens"]
    return {
        "concurrency": level["concurrency"],
        "output_tokens_per_second": level["output_tokens_per_second"],
        "ttft_p50_ms": level["ttft_ms"]["p50"],
        "tpot_p50_ms": level["tpot_ms"]["p50"],
        "watts": cost["watts"],
        "cost_per_million_output_tokens": cost["total"],
        "currency": cost["currency"],
        "cost_reasons": cost["reasons"],
        "levels": len(report["levels"]),
    }


# -- the page ----------------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --dim: #68737f; --line: #dbe1e7; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --dim: #93a0ad; --line: #333d47; --paper: #15191e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem; } h2 { font-size: 1rem; margin: 2rem 0 .4rem; }
p { color: var(--dim); margin: .2rem 0; } .charts { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--dim); } svg { width: 100%; height: auto; }
text { fill: var(--dim); font-size: 11px; }
.axis { stroke: var(--line); } .value { fill: var(--ink); }
"""
COLOURS = ("#2f6fde", "#d97706", "#0f9d74")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420.0, 250.0, 56.0, 16.0, 14.0, 40.0


def number(value: t.Any, digits: int = 1) -> str:
    """Return a number for a person; a dash where there is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "-"
    return "{:,.{}f}".format(value, 0 if abs(value) >= 1000 else digits)


def nice_ceiling(value: float) -> float:
    """Return the next of 1, 2, 2.5, 5 times a power of ten that isn't below a value."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value * 0.9999)


Series = t.Sequence[t.Tuple[str, t.Sequence[t.Tuple[float, t.Optional[float]]]]]


def chart(title: str, unit: str, series: Series) -> str:
    """Return one line chart as SVG: concurrency across, values upward from zero."""
    points = [(x, y) for _name, line in series for x, y in line if y is not None]
    if not points:
        return "<figure><h2>%s</h2><p>Nothing was measured.</p></figure>" % html.escape(title)
    places = sorted({x for x, _y in points})
    top = nice_ceiling(max(y for _x, y in points))

    def across(x: float) -> float:
        steps = max(1, len(places) - 1)
        return LEFT + (WIDTH - LEFT - RIGHT) * (places.index(x) / steps if len(places) > 1 else 0.5)

    def upward(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top

    parts = ['<svg viewBox="0 0 %d %d" role="img" aria-label="%s">' % (WIDTH, HEIGHT, html.escape(title))]
    for step in range(5):
        value = top * step / 4
        parts.append(
            '<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>'
            '<text x="%.1f" y="%.1f" text-anchor="end">%s</text>'
            % (
                LEFT,
                WIDTH - RIGHT,
                upward(value),
                upward(value),
                LEFT - 6,
                upward(value) + 4,
                number(value, 2 if top < 4 else 0),
            )
        )
    for place in places:
        parts.append(
            '<text x="%.1f" y="%.1f" text-anchor="middle">%g</text>' % (across(place), HEIGHT - BOTTOM + 16, place)
        )
    parts.append(
        '<text x="%.1f" y="%.1f" text-anchor="middle">requests at once</text>'
        % ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6)
    )
    for index, (name, line) in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        drawn = [(across(x), upward(y), y) for x, y in line if y is not None]
        path = " ".join("%.1f,%.1f" % (x, y) for x, y, _value in drawn)
        parts.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>' % (path, colour))
        for x, y, value in drawn:
            parts.append(
                '<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s %s</title></circle>'
                % (x, y, colour, html.escape(name), number(value, 2))
            )
    parts.append("</svg>")
    legend = " · ".join(
        '<span style="color:%s">■</span> %s' % (COLOURS[index % len(COLOURS)], html.escape(name))
        for index, (name, _line) in enumerate(series)
    )
    return "<figure><h2>%s <small>(%s)</small></h2>%s<p>%s</p></figure>" % (
        html.escape(title),
        html.escape(unit),
        "".join(parts),
        legend,
    )


def _row(cells: t.Iterable[str], tag: str = "td") -> str:
    return "<tr>%s</tr>" % "".join("<%s>%s</%s>" % (tag, html.escape(cell), tag) for cell in cells)


def page(report: t.Mapping[str, t.Any]) -> str:
    """Return the report as one HTML file that needs nothing else."""
    about, levels = report["about"], report["levels"]
    title = "%s on %s" % (about.get("model", "?"), about.get("host", "?"))

    def line(name: str, part: str = "") -> t.List[t.Tuple[float, t.Optional[float]]]:
        return [(float(level["concurrency"]), level[name][part] if part else level[name]) for level in levels]

    charts = [
        chart(
            "Throughput",
            "tokens per second",
            [
                ("answers", line("output_tokens_per_second")),
                ("prompts and answers", line("total_tokens_per_second")),
            ],
        ),
        chart(
            "Time to first token",
            "ms",
            [(name, line("ttft_ms", name)) for name in ("p50", "p99")],
        ),
        chart(
            "Time per further token",
            "ms",
            [(name, line("tpot_ms", name)) for name in ("p50", "p99")],
        ),
    ]
    head = ["at once", "requests", "failed", "tokens/s", "all tokens/s", "first token p50 ms", "p99", "further p50 ms"]
    rows = [_row([*head, "p99", "watts", "cost of 1 M"], "th")]
    for level in levels:
        cost = level["cost_per_million_tokens"]
        rows.append(
            _row(
                [
                    number(level["concurrency"], 0),
                    number(level["completed"], 0),
                    number(level["failed"], 0),
                    number(level["output_tokens_per_second"], 2),
                    number(level["total_tokens_per_second"], 2),
                    number(level["ttft_ms"]["p50"]),
                    number(level["ttft_ms"]["p99"]),
                    number(level["tpot_ms"]["p50"]),
                    number(level["tpot_ms"]["p99"]),
                    number(cost["watts"]),
                    ("%s %s" % (number(cost["total"], 2), cost["currency"] or "")).strip(),
                ]
            )
        )
    reasons = sorted({reason for level in levels for reason in level["cost_per_million_tokens"]["reasons"]})
    said = "".join("<p>No number: %s.</p>" % html.escape(reason) for reason in reasons)
    facts = ", ".join("%s %s" % (html.escape(str(key)), html.escape(str(value))) for key, value in about.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width"><title>%s</title><style>%s</style></head><body>\n<h1>%s</h1><p>%s</p>\n'
        '<div class="charts">%s</div>\n<h2>Numbers</h2><div class="wide"><table>%s</table></div>%s\n</body></html>\n'
        % (html.escape(title), STYLE, html.escape(title), facts, "\n".join(charts), "\n".join(rows), said)
    )


def lines(report: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return the sweep as a short table for a person."""
    head = ("at once", "tokens/s", "first token p50/p99 ms", "further p50/p99 ms", "watts", "cost of 1 M")
    rows = [head]
    for level in report["levels"]:
        cost = level["cost_per_million_tokens"]
        rows.append(
            (
                str(level["concurrency"]),
                number(level["output_tokens_per_second"], 2),
                "%s / %s" % (number(level["ttft_ms"]["p50"]), number(level["ttft_ms"]["p99"])),
                "%s / %s" % (number(level["tpot_ms"]["p50"]), number(level["tpot_ms"]["p99"])),
                number(cost["watts"]),
                ("%s %s" % (number(cost["total"], 2), cost["currency"] or "")).strip(),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    said = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
    reasons = sorted({reason for level in report["levels"] for reason in level["cost_per_million_tokens"]["reasons"]})
    return said + ["no number: %s" % reason for reason in reasons]
