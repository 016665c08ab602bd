# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The members of a family that apt would take at another version than the rest, unless they are named too. Pure.

apt chooses the version of a dependency by its pins, before it looks at what depends on it. Where a repository has
several versions of a family, it then says that they don't fit. So each dependency is named with the version it needs.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _package_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_version as versions
from ansible_collections.gpufleet.llm.plugins.module_utils._package_depends import Groups, parse_depends

Offers = t.Mapping[str, t.Sequence[t.Tuple[str, str]]]


def parse_show(text: str) -> t.Dict[t.Tuple[str, str], Groups]:
    """Return what each version depends on, by name and version, of ``apt-cache show``."""
    found: t.Dict[t.Tuple[str, str], Groups] = {}
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"^[A-Za-z-]+: ", line))
        if "Package" in fields and "Version" in fields:
            both = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
            found[(fields["Package"], fields["Version"])] = parse_depends(both)
    return found


def wanted(
    shown: t.Mapping[t.Tuple[str, str], Groups],
    patterns: t.Mapping[str, str],
    request: planning.Request,
) -> t.Dict[str, str]:
    """Return the version pattern that further packages must have, by name, for what ``patterns`` has already.

    Args:
        shown: of :func:`parse_show`, of what was just added.
        patterns: version pattern of every package that is named so far.
        request: tells who is of the family.
    """
    more: t.Dict[str, str] = {}
    for (parent, _version), groups in shown.items():
        for group in groups:
            if any(alternative.name in patterns or alternative.name in more for alternative in group):
                continue
            first = group[0]
            if first.operator == "=":
                more[first.name] = first.version
            elif first.operator != "<<" and planning.is_family(first.name, request):
                more[first.name] = patterns.get(parent, "*")
    return more


def pick(pattern: str, offers: t.Sequence[t.Tuple[str, str]]) -> t.Optional[str]:
    """Return the newest offered version that fits, None when there is none."""
    fitting = sorted((v for v, _source in offers if versions.matches(v, pattern)), key=versions.debian_key)
    return fitting[-1] if fitting else None


def complete(
    chosen: t.Mapping[str, str],
    request: planning.Request,
    record: planning.Record,
    show: t.Callable[[t.Sequence[str]], str],
    offers: t.Callable[[t.Sequence[str]], Offers],
) -> t.Dict[str, str]:
    """Return the packages that must be named beside the chosen ones, with their versions.

    Args:
        chosen: version by name.
        request: what is wanted.
        record: what is there; what fits already isn't named, nor looked into unless a member of the family is broken.
        show: returns the text of ``apt-cache show`` for ``name=version``.
        offers: returns what is offered, by name.
    """
    patterns = {name: request.packages.get(name, version) for name, version in chosen.items()}
    added: t.Dict[str, str] = {}
    thorough = any(planning.is_family(name, request) for name in record.broken)
    fresh = {name: version for name, version in chosen.items() if thorough or record.installed.get(name) != version}
    while fresh:
        shown = parse_show(show(["%s=%s" % item for item in sorted(fresh.items())]))
        more = wanted(shown, patterns, request)
        offered = offers(sorted(more)) if more else {}
        fresh = {}
        for name, pattern in more.items():
            patterns[name] = pattern
            version = pick(pattern, offered.get(name, ()))
            installed = record.installed.get(name)
            fits = installed is not None and versions.matches(installed, pattern) and name not in record.broken
            if version is None or (fits and not thorough):
                continue
            fresh[name] = version
            if not fits:
                added[name] = version
    return added
