# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Which of two package versions is newer, by dpkg's rule and by rpm's. Pure.

dpkg's is deb-version(7), rpm's is rpmvercmp of rpm-version(7).
"""

from __future__ import annotations

import fnmatch
import re
import typing as t

Key = t.Tuple[t.Any, ...]


def matches(version: str, pattern: str) -> bool:
    """Tell whether a version is what a pattern asks for; an epoch that the pattern doesn't name is left out."""
    if ":" not in pattern:
        version = version.split(":", 1)[-1]
    return fnmatch.fnmatchcase(version, pattern)


def _order(character: str) -> int:
    """Return a character's weight in dpkg's order: tilde, then the end, then letters, then the rest."""
    if character == "~":
        return -1
    if character.isalpha():
        return ord(character)
    return ord(character) + 256


def _debian_part(text: str) -> Key:
    key: t.List[t.Any] = []
    for words, digits in re.findall(r"([^0-9]*)([0-9]*)", text):
        if not words and not digits:
            continue
        key.append(tuple(_order(c) for c in words) + (0,))
        key.append(int(digits or 0))
    return (*key, (0,))


def debian_key(version: str) -> Key:
    """Return what dpkg's order of versions sorts by."""
    epoch, sep, rest = version.partition(":")
    if not sep:
        epoch, rest = "0", version
    upstream, sep, revision = rest.rpartition("-")
    if not sep:
        upstream, revision = rest, "0"
    return (int(epoch) if epoch.isdigit() else 0, _debian_part(upstream), _debian_part(revision))


def _rpm_part(text: str) -> Key:
    """Return a key of rpm's segments, in this order: tilde, the end, caret, letters, numbers."""
    key: t.List[Key] = []
    for segment in re.findall(r"~|\^|[0-9]+|[A-Za-z]+", text):
        if segment == "~":
            key.append((-1, 0, ""))
        elif segment == "^":
            key.append((1, 0, ""))
        elif segment.isdigit():
            key.append((3, int(segment), ""))
        else:
            key.append((2, 0, segment))
    return (*key, (0, 0, ""))


def rpm_key(version: str) -> Key:
    """Return what rpm's order of ``epoch:version-release`` sorts by."""
    epoch, sep, rest = version.partition(":")
    if not sep:
        epoch, rest = "0", version
    upstream, _sep, release = rest.partition("-")
    return (int(epoch) if epoch.isdigit() else 0, _rpm_part(upstream), _rpm_part(release))


def action(before: t.Optional[str], after: t.Optional[str], key: t.Callable[[str], Key]) -> str:
    """Return what a change of version is: none, install, remove, upgrade, downgrade or reinstall."""
    if before is None:
        return "none" if after is None else "install"
    if after is None:
        return "remove"
    if before == after:
        return "reinstall"
    return "downgrade" if key(after) < key(before) else "upgrade"
