# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Collects what is wrong with the proxy's inputs."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _finding


class Checks:
    """Collects refusals."""

    def __init__(self) -> None:
        self.findings: t.List[_finding.Finding] = []

    def refuse(self, check: str, expected: str, found: t.Any, detail: str, remedy: str) -> None:
        self.findings.append(
            _finding.finding("proxy.%s" % check, False, expected=expected, found=found, detail=detail, remedy=remedy)
        )

    def matches(self, check: str, pattern: t.Pattern[str], value: t.Any, expected: str, where: str) -> bool:
        if isinstance(value, str) and pattern.fullmatch(value):
            return True
        self.refuse(check, expected, repr(value), "It is in %s." % where, "Correct it in %s." % where)
        return False
