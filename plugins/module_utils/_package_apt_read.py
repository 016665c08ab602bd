# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What dpkg and apt say, as records, and what it means when they fail; dnf too. Pure; they speak the C locale."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._package_depends import parse_depends
from ansible_collections.gpufleet.llm.plugins.module_utils._package_plan import Record, Step

QUERY_FORMAT = (
    "${Package}\t${Architecture}\t${Version}\t${db:Status-Want}\t${db:Status-Status}\t${db:Status-Eflag}"
    "\t${Pre-Depends}\t${Depends}\t${Provides}\n"
)
INSTALLED = "installed"
RESIDUE = "config-files"
ABSENT = ("not-installed", "")
SHOWN_LINES = 6

_STEP = re.compile(r"^Inst (\S+)(?: \[([^\]]*)\])? \((\S+)")
_REMOVAL = re.compile(r"^(?:Remv|Purg) (\S+)(?: \[([^\]]*)\])?")

# What apt and dpkg say when something is wrong, most telling first: kind, what to look for, what happened, the remedy.
TROUBLES: t.Tuple[t.Tuple[str, str, str, str], ...] = (
    (
        "disk_full",
        r"No space left on device|You don't have enough free space|not enough space",
        "the disk is full",
        "Make room on the file system that is named (apt-get clean frees /var/cache/apt), run again.",
    ),
    (
        "tampered",
        r"Hash Sum mismatch|File has unexpected size|Hashes of (?:received|expected) file"
        r"|incorrect checksum|checksum doesn't match|but expected sha",
        "a file isn't what the signed index of its repository says, and was thrown away",
        "A mirror that is just being synchronised: run again later. Otherwise find out who changes what it serves.",
    ),
    (
        "signature",
        r"NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|is not signed|isn't signed|Missing key"
        r"|GPG (?:signature verification|check|verification) |Bad GPG signature"
        r"|signatures? (?:couldn't|were invalid)|Sub-process \S*sqv returned an error",
        "the repository isn't signed by the key that this host trusts for it",
        "Compare the pinned fingerprint with the key that the repository signs with; don't switch the check off.",
    ),
    (
        "expired",
        r"is expired \(invalid since|is not valid yet|no longer valid",
        "the repository's metadata isn't valid at this host's time",
        "A mirror that isn't synchronised any more, or a wrong clock on this host: mend that, run again.",
    ),
    (
        "missing_file",
        r"404\s+(?:Not Found|File not found)|Status code: 404",
        "the repository has no longer what its index names",
        "Synchronise the mirror, or take a release whose version is still published; run again.",
    ),
    (
        "unreachable",
        r"Could not connect|Unable to connect|Could not resolve|Temporary failure resolving|Failed to fetch"
        r"|Failed to download metadata|Curl error"
        r"|Connection (?:failed|timed out|refused)",
        "the repository can't be reached",
        "Let this host reach it, or set a mirror (gpufleet_nvidia_mirror_url); run again.",
    ),
    (
        "locked",
        r"Could not get lock|Unable to acquire the dpkg frontend lock|Unable to lock",
        "another process holds the package manager's lock",
        "Let it end, run again.",
    ),
    (
        "script",
        r"dpkg: error processing|subprocess returned error exit status|returned an error code",
        "a package's own script failed",
        "Mend what it says (of a kernel module: /var/lib/dkms/*/*/build/make.log), run again: it goes on from here.",
    ),
    (
        "unmet",
        r"unmet dependencies|held broken packages|Unable to satisfy dependencies|is not installable|pkgProblemResolver"
        r"|Problem.*: |conflicting requests",
        "the packages don't fit together as asked",
        "Look which one is named: another repository or a preferences file offers another version of it.",
    ),
)


def parse_packages(text: str) -> Record:
    """Return what ``dpkg-query -W -f QUERY_FORMAT`` listed; packages of foreign architectures are ``name:arch``."""
    rows = [line.split("\t") for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 9]
    native = next((row[1] for row in rows if row[0] == "dpkg"), "")
    installed, residue, held, broken = {}, set(), set(), {}
    provided = set()
    for package, architecture, version, want, status, flag, _before, _depends, provides in rows:
        name = package if architecture in (native, "all", "") else "%s:%s" % (package, architecture)
        if status in ABSENT:
            continue
        if flag == "reinstreq":
            broken[name] = "%s %s, must be installed again" % (status, version)
        elif status == INSTALLED:
            installed[name] = version
            provided |= {group[0].name for group in parse_depends(provides)}
        elif status == RESIDUE:
            residue.add(name)
        else:
            broken[name] = "%s %s" % (status, version)
        if want == "hold" and status != RESIDUE:
            held.add(name)
    for package, architecture, version, _want, status, _flag, before, depends, _provides in rows:
        if status == INSTALLED and architecture in (native, "all", "") and version in before + depends:
            lacking = lacks(version, before + ", " + depends, installed, provided)
            if lacking and package not in broken:
                broken[package] = "%s, without %s" % (version, lacking)
    return Record(installed, frozenset(residue), frozenset(held), broken)


def lacks(version: str, depends: str, installed: t.Mapping[str, str], provided: t.Container[str]) -> str:
    """Return a dependency in lock step, on its own version, that isn't there; empty when all are.

    Somebody's ``dpkg --force`` leaves that, and dpkg calls it installed.
    """
    for group in parse_depends(depends):
        exact = [one for one in group if one.operator == "=" and one.version == version]
        if not exact or any(one.name in provided or installed.get(one.name) == version for one in exact):
            continue
        others = [one for one in group if one not in exact]
        if not any(one.name in installed or one.name in provided for one in others):
            return " or ".join("%s %s" % (one.name, one.version) for one in exact)
    return ""


def parse_madison(text: str) -> t.Dict[str, t.List[t.Tuple[str, str]]]:
    """Return ``(version, repository)`` by name of ``apt-cache madison``; sources aside."""
    found: t.Dict[str, t.List[t.Tuple[str, str]]] = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 3 and not fields[2].endswith("Sources"):
            found.setdefault(fields[0], []).append((fields[1], fields[2].split(" ", 1)[0]))
    return found


def parse_simulation(text: str) -> t.List[Step]:
    """Return the steps that ``apt-get --simulate`` said it would take."""
    steps = []
    for line in text.splitlines():
        match = _STEP.match(line)
        if match:
            steps.append(Step(match.group(1), match.group(2), match.group(3)))
            continue
        match = _REMOVAL.match(line)
        if match:
            steps.append(Step(match.group(1), match.group(2), None))
    return steps


def telling_lines(text: str) -> t.List[str]:
    """Return the lines of a command's output that say what is wrong, or its end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("dpkg: warning: downgrading")]
    telling = [
        line
        for line in lines
        if re.match(
            r"^(E:|Error|W: (?:GPG|OpenPGP|Failed|An error)|dpkg: error|Err:\d+|Problem"
            r"|- (?:conflicting|package|nothing|cannot)|\[MIRROR\]|\[FAILED\])",
            line,
        )
        or re.search(r"No space left|Hash Sum mismatch|Depends: .* but |asked to fail|error exit status", line)
    ]
    seen: t.Dict[str, None] = dict.fromkeys(telling or lines)
    shown = list(seen)
    if len(shown) > SHOWN_LINES:
        left = len(shown) - SHOWN_LINES
        shown[SHOWN_LINES // 2 : -SHOWN_LINES // 2] = ["(%d more)" % left]
    return shown


def trouble(text: str) -> t.Tuple[str, str, str]:
    """Return ``(kind, what happened, remedy)`` of a failed command's output; kind ``unknown`` if nothing is known."""
    for kind, pattern, happened, remedy in TROUBLES:
        if re.search(pattern, text):
            return kind, happened, remedy
    return "unknown", "the package manager failed", "Mend what it says, run again."


def failure(check: str, expected: str, text: str, status: int, command: str, consequence: str) -> Finding:
    """Return the finding of a command that failed."""
    kind, happened, remedy = trouble(text)
    if status < 0:
        kind, happened, remedy = (
            "killed",
            "it was killed by signal %d" % -status,
            "Run again; the run goes on from here.",
        )
    return finding(
        "package.%s.%s" % (check, kind),
        False,
        expected=expected,
        found="%s (%s exited with %d): %s" % (happened, command, status, " / ".join(telling_lines(text))),
        detail=consequence,
        remedy=remedy,
    )


def update_problems(text: str) -> t.List[str]:
    """Return the lines of ``apt-get update`` that say that a repository wasn't read, or not believed."""
    found = []
    for line in text.splitlines():
        if re.match(r"^(E|W): ", line) and re.search(
            r"://|GPG error|OpenPGP|Release file|Failed to fetch|isn't signed|not signed", line
        ):
            found.append(line.strip())
    return found


def problem_of(problems: t.Sequence[str], repositories: t.Iterable[str]) -> t.List[str]:
    """Return those problems that are of one of the repositories, by their URLs."""
    urls = [url.rstrip("/") for url in repositories]
    return [line for line in problems if any(re.search(re.escape(url) + r"(?![\w.-])", line) for url in urls)]
