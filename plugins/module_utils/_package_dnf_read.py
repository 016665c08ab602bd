# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What rpm and dnf say, as records. Pure: parsers of their output in the C locale, of dnf 4."""

from __future__ import annotations

import fnmatch
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _package_version as versions
from ansible_collections.gpufleet.llm.plugins.module_utils._package_plan import Record, Step

RPM_FORMAT = "%{NAME}\t%{ARCH}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n"
QUERY_FORMAT = "%{name}\t%{arch}\t%{epoch}:%{version}-%{release}\t%{repoid}"
# Packages of which several versions may be installed beside each other, as dnf's installonlypkgs has them.
SEVERAL = re.compile(r"^(kernel(-.*)?|gpg-pubkey)$")

SECTIONS = {
    "Installing": "install",
    "Installing dependencies": "install",
    "Installing weak dependencies": "install",
    "Installing group/module packages": "install",
    "Upgrading": "install",
    "Downgrading": "install",
    "Reinstalling": "install",
    "Removing": "remove",
    "Removing dependent packages": "remove",
    "Removing unused dependencies": "remove",
}


class Row(t.NamedTuple):
    """One package, its version with the epoch unless that is 0."""

    name: str
    architecture: str
    version: str

    @property
    def alias(self) -> str:
        """The name with version and architecture, as one of several kernels is asked for."""
        return "%s-%s.%s" % (self.name, self.version.split(":", 1)[-1], self.architecture)

    @property
    def lock(self) -> str:
        """The entry of a version lock list that holds it."""
        epoch, sep, rest = self.version.partition(":")
        return "%s-%s:%s.*" % (self.name, epoch if sep else "0", rest if sep else self.version)


def without_zero(version: str) -> str:
    """Return a version without the epoch 0, which is the same as none."""
    return version[2:] if version.startswith("0:") else version


def parse_rows(text: str) -> t.List[Row]:
    """Return what ``rpm -qa --qf RPM_FORMAT`` listed."""
    rows = [line.split("\t") for line in text.splitlines()]
    return [Row(row[0], row[1], without_zero(row[2])) for row in rows if len(row) == 3]


def parse_locks(text: str) -> t.List[str]:
    """Return the entries of a version lock list; exclusions and remarks aside."""
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("!")]


def is_locked(row: Row, locks: t.Iterable[str]) -> bool:
    """Tell whether an entry holds a package at the version it has."""
    epoch, sep, rest = row.version.partition(":")
    plain = rest if sep else row.version
    full = "%s:%s" % (epoch if sep else "0", plain)
    forms = ["%s-%s%s" % (row.name, evr, tail) for evr in (full, plain) for tail in ("." + row.architecture, "")]
    return any(fnmatch.fnmatchcase(form, lock) for form in forms for lock in locks)


def lock_is_of(lock: str, name: str) -> bool:
    """Tell whether an entry is one of a package's."""
    return re.match(r"%s-(\d+:)?[0-9*]" % re.escape(name), lock) is not None


def record_of(rows: t.Sequence[Row], locks: t.Sequence[str]) -> Record:
    """Return what is on the host. A package that may only be there once and is there twice was cut in the middle."""
    by_name: t.Dict[str, t.List[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    installed: t.Dict[str, str] = {}
    broken: t.Dict[str, str] = {}
    held = set()
    for name, group in by_name.items():
        found = sorted({row.version for row in group}, key=versions.rpm_key)
        if len(found) > 1 and not SEVERAL.match(name):
            broken[name] = "there in %d versions: %s" % (len(found), ", ".join(found))
            continue
        installed[name] = found[-1]
        if all(is_locked(row, locks) for row in group):
            held.add(name)
        for row in group if SEVERAL.match(name) else ():
            installed[row.alias] = row.version
            if is_locked(row, locks):
                held.add(row.alias)
    return Record(installed, frozenset(), frozenset(held), broken)


def parse_query(text: str) -> t.Dict[str, t.List[t.Tuple[str, str]]]:
    """Return ``(version, repository)`` by name, and by alias, of ``dnf repoquery --qf QUERY_FORMAT``."""
    found: t.Dict[str, t.List[t.Tuple[str, str]]] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) == 4:
            row = Row(fields[0], fields[1], without_zero(fields[2]))
            for name in (row.name, row.alias):
                found.setdefault(name, []).append((row.version, fields[3]))
    return found


def parse_transaction(text: str, installed: t.Mapping[str, str]) -> t.List[Step]:
    """Return the steps of the table that dnf shows before it asks; long names are wrapped in it."""
    steps: t.List[Step] = []
    section = ""
    waiting: t.List[str] = []
    for line in text.splitlines():
        title = line.rstrip().rstrip(":")
        if line.rstrip().endswith(":") and not line.startswith(" "):
            section, waiting = SECTIONS.get(title, ""), []
            continue
        if line.startswith("Transaction Summary"):
            break
        if not section or not line.startswith(" ") or line.strip().startswith("replacing "):
            continue
        waiting += line.split()
        if len(waiting) < 5:
            continue
        name, _architecture, version = waiting[:3]
        waiting = []
        before = installed.get(name)
        steps.append(Step(name, before, without_zero(version) if section == "install" else None))
    return steps


def parse_stream(text: str) -> str:
    """Return the stream that a file of /etc/dnf/modules.d enables, empty when it enables none."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return values.get("stream", "").strip() if values.get("state", "").strip() == "enabled" else ""
