# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Debian's dependency fields. Pure."""

from __future__ import annotations

import re
import typing as t


class Dependency(t.NamedTuple):
    """One alternative: a name, and an operator and a version, both empty where any will do."""

    name: str
    operator: str
    version: str


Groups = t.List[t.List[Dependency]]
_RELATION = re.compile(r"^([^\s:(]+)(?::\S+)?\s*(?:\(\s*([<>=]+)\s*([^\s)]+)\s*\))?")


def parse_depends(text: str) -> Groups:
    """Return a Depends field as groups of alternatives."""
    groups = []
    for part in text.split(","):
        matches = [_RELATION.match(alternative.strip()) for alternative in part.split("|")]
        group = [Dependency(m.group(1), m.group(2) or "", m.group(3) or "") for m in matches if m]
        if group:
            groups.append(group)
    return groups
