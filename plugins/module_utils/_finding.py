# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The one record in which every check of the collection reports."""

from __future__ import annotations

import typing as t

SEVERITIES = ("error", "warning", "info")

Finding = t.Dict[str, t.Any]


def finding(
    check: str,
    ok: bool,
    *,
    expected: t.Any,
    found: t.Any,
    detail: str = "",
    remedy: str = "",
    severity: str = "error",
) -> Finding:
    """Build one finding.

    Args:
        check: dotted name of the check, ``<subject>.<aspect>``; units go in the name.
        ok: whether what was found is what was expected.
        expected: what the check wanted, JSON-serialisable.
        found: what the check saw, JSON-serialisable.
        detail: one sentence that says what was looked at and where.
        remedy: what a person does about it; required when ``ok`` is false.
        severity: ``error`` refuses, ``warning`` is said, ``info`` is recorded.

    Returns:
        ``{check, ok, severity, expected, found, detail, remedy}``.

    Raises:
        ValueError: an unknown severity, or a failed check without a remedy.
    """
    if severity not in SEVERITIES:
        raise ValueError("severity %r is not one of %s" % (severity, ", ".join(SEVERITIES)))
    if not ok and not remedy:
        raise ValueError("check %s failed without a remedy" % check)
    return {
        "check": check,
        "ok": bool(ok),
        "severity": severity,
        "expected": expected,
        "found": found,
        "detail": detail,
        "remedy": remedy,
    }


def refusals(findings: t.Iterable[Finding]) -> t.List[Finding]:
    """Return the findings that stop a deployment: failed, severity ``error``."""
    return [f for f in findings if not f["ok"] and f["severity"] == "error"]


def warnings(findings: t.Iterable[Finding]) -> t.List[Finding]:
    """Return the findings that are said but don't stop: failed, severity ``warning``."""
    return [f for f in findings if not f["ok"] and f["severity"] == "warning"]


def describe(f: Finding) -> str:
    """Return one finding as a line for a person: check, found, expected, detail, remedy."""
    line = "%s: found %s, expected %s." % (f["check"], f["found"], f["expected"])
    if f["detail"]:
        line += " %s" % f["detail"]
    if f["remedy"]:
        line += " Remedy: %s" % f["remedy"]
    return line


def refusal_message(findings: t.Iterable[Finding], subject: str) -> str:
    """Return one message that holds every refusal, numbered, or an empty string."""
    stopped = refusals(findings)
    if not stopped:
        return ""
    plural = "reason" if len(stopped) == 1 else "reasons"
    lines = ["%s refused, %d %s, nothing was changed:" % (subject, len(stopped), plural)]
    lines.extend("%d. %s" % (number, describe(f)) for number, f in enumerate(stopped, 1))
    return "\n".join(lines)
