# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What a set of packages needs on a host: which change, which go, which are held. Pure, for any package manager."""

from __future__ import annotations

import fnmatch
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _package_version as versions
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, describe, finding


class PackageError(Exception):
    """The set can't be had; ``findings`` say why."""

    def __init__(self, findings: t.Sequence[Finding]) -> None:
        super().__init__("\n".join(describe(f) for f in findings))
        self.findings = list(findings)


class Record(t.NamedTuple):
    """What is on a host.

    Attributes:
        installed: version by name of what is wholly installed.
        residue: names of what was removed and has left its configuration.
        held: names that are held at their version.
        broken: name -> status of what a cut transaction left half done.
        interrupted: whether the package manager's own journal says that it was cut.
    """

    installed: t.Dict[str, str]
    residue: t.FrozenSet[str] = frozenset()
    held: t.FrozenSet[str] = frozenset()
    broken: t.Dict[str, str] = {}
    interrupted: bool = False


class Request(t.NamedTuple):
    """What is wanted.

    Attributes:
        packages: version pattern by name.
        remove: names that must not be there, not even their configuration.
        hold: whether everything in ``packages`` and ``hold_also`` is held at the end.
        hold_also: names and glob patterns of further packages of the family; those that are installed are held.
        allow_downgrade: whether a package may go to an older version.
    """

    packages: t.Dict[str, str]
    remove: t.Tuple[str, ...] = ()
    hold: bool = True
    hold_also: t.Tuple[str, ...] = ()
    allow_downgrade: bool = True


class Need(t.NamedTuple):
    """What it takes: packages to change, packages to remove, packages to hold, and whether a cut run must be mended."""

    change: t.Tuple[str, ...]
    remove: t.Tuple[str, ...]
    hold: t.Tuple[str, ...]
    repair: bool

    @property
    def transaction(self) -> bool:
        """Whether the package manager must run."""
        return bool(self.change or self.remove or self.repair)


class Step(t.NamedTuple):
    """One package of a transaction; ``before`` is None for an installation, ``after`` None for a removal."""

    name: str
    before: t.Optional[str]
    after: t.Optional[str]


def any_match(name: str, patterns: t.Iterable[str]) -> bool:
    """Tell whether a name is one of the names or patterns; an architecture (name:i386) is left out."""
    bare = name.split(":", 1)[0]
    return any(fnmatch.fnmatchcase(bare, pattern) for pattern in patterns)


def is_family(name: str, request: Request) -> bool:
    """Tell whether a package is one that the request speaks of."""
    return name in request.packages or any_match(name, request.hold_also)


def to_hold(record: Record, request: Request) -> t.Tuple[str, ...]:
    """Return the installed packages that are to be held and aren't."""
    if not request.hold:
        return ()
    names = sorted(set(record.installed) | set(record.broken))
    return tuple(n for n in names if is_family(n, request) and n not in record.held and n not in request.remove)


def decide(record: Record, request: Request) -> Need:
    """Return what is missing; all empty when the host is as wanted."""
    change = tuple(
        name
        for name, pattern in request.packages.items()
        if name not in record.installed or not versions.matches(record.installed[name], pattern)
    )
    present = set(record.installed) | set(record.residue) | set(record.broken)
    remove = tuple(name for name in request.remove if name in present)
    mine = any(is_family(name, request) or name in request.remove for name in record.broken)
    return Need(change, remove, to_hold(record, request), mine)


def missing(record: Record, request: Request) -> t.List[str]:
    """Return the names, patterns aside, that were to be held and aren't installed."""
    return [n for n in request.hold_also if not set("*?[") & set(n) and n not in record.installed]


def choose(
    request: Request, record: Record, available: t.Mapping[str, t.Sequence[t.Tuple[str, str]]], key: t.Any
) -> t.Tuple[t.Dict[str, str], t.List[Finding]]:
    """Return the exact version of each package, and a finding for each that can't be had.

    Args:
        request: what is wanted.
        record: what is there; an installed version that fits is kept.
        available: ``(version, repository)`` of what repositories offer, by name.
        key: sorts versions.
    """
    chosen: t.Dict[str, str] = {}
    findings = []
    for name, pattern in request.packages.items():
        offered = sorted({version for version, _source in available.get(name, ())}, key=key, reverse=True)
        fitting = [version for version in offered if versions.matches(version, pattern)]
        installed = record.installed.get(name)
        if installed is not None and versions.matches(installed, pattern):
            chosen[name] = installed
        elif fitting:
            chosen[name] = fitting[0]
        else:
            sources = sorted({source for _version, source in available.get(name, ())})
            findings.append(
                finding(
                    "package.version",
                    False,
                    expected="%s %s" % (name, pattern),
                    found="%s: %s" % (name, ", ".join(offered) or "not in any repository of this host"),
                    detail="Offered by %s." % ", ".join(sources) if sources else "The host's package lists were asked.",
                    remedy="Take a release whose version is still published, or a mirror that has kept it."
                    if offered
                    else "Check the repository's source file and key on this host, or the package's name.",
                )
            )
    return chosen, findings


def guard(steps: t.Sequence[Step], record: Record, request: Request, key: t.Any) -> t.List[Finding]:
    """Return why a simulated transaction must not run: foreign removals, foreign holds, forbidden downgrades.

    A removal is foreign unless it's asked for, or the package is of the family and at the very version that the family
    leaves: such a package goes with it because the new version has none of that name.
    """
    moving = {step.before for step in steps if step.before and step.after and is_family(step.name, request)}
    moving |= {record.installed[name] for name in request.remove if name in record.installed}
    foreign = [
        step.name
        for step in steps
        if step.after is None
        and step.name not in request.remove
        and not (is_family(step.name, request) and step.before in moving)
    ]
    held = [
        step.name
        for step in steps
        if step.name in record.held and not is_family(step.name, request) and step.name not in request.remove
    ]
    older = [
        "%s %s -> %s" % step
        for step in steps
        if step.before and step.after and versions.action(step.before, step.after, key) == "downgrade"
    ]
    findings = []
    if foreign:
        findings.append(
            finding(
                "package.removal",
                False,
                expected="nothing removed but what is asked for (%s)" % (", ".join(request.remove) or "nothing"),
                found="%s would be removed" % ", ".join(foreign),
                detail="By the simulated transaction. Nothing was changed.",
                remedy="Remove them yourself if that is right, or find out with which wanted one they conflict.",
            )
        )
    if held:
        findings.append(
            finding(
                "package.foreign_hold",
                False,
                expected="packages held by somebody else left alone",
                found="%s would change, and is held" % ", ".join(held),
                detail="By the simulated transaction. Nothing was changed.",
                remedy="Free them by package_hold if the hold has no reason any more.",
            )
        )
    if older and not request.allow_downgrade:
        findings.append(
            finding(
                "package.downgrade",
                False,
                expected="no package at an older version than before",
                found=", ".join(older),
                detail="By the simulated transaction. Nothing was changed.",
                remedy="Set allow_downgrade to true.",
            )
        )
    return findings


def stragglers(steps: t.Sequence[Step], record: Record, request: Request) -> t.Dict[str, str]:
    """Return members of the family that a transaction would leave, or bring, at another version than the rest.

    Such a library is content with any newer version of the others, so that no dependency moves it. Only known where
    the request asks for one version; a member with versions of its own, as the kernel, isn't offered at that one.
    """
    patterns = {pattern for pattern in request.packages.values() if pattern != "*"}
    if len(patterns) != 1:
        return {}
    pattern = patterns.pop()
    result = {step.name: step.after for step in steps if step.after}
    gone = {step.name for step in steps if step.after is None}
    names = set(result) | set(record.installed)
    return {
        name: pattern
        for name in sorted(names - gone - set(request.packages))
        if is_family(name, request)
        and not versions.matches(result.get(name) or record.installed.get(name, ""), pattern)
    }


def unmet(record: Record, request: Request) -> t.List[Finding]:
    """Return what isn't as wanted after a transaction that said it went well."""
    need = decide(record, request)
    wrong = ["%s is %s" % (n, record.installed.get(n, record.broken.get(n, "absent"))) for n in need.change]
    wrong += ["%s is still there" % n for n in need.remove]
    wrong += ["%s is %s" % item for item in sorted(record.broken.items()) if is_family(item[0], request)]
    if not wrong:
        return []
    wanted = ", ".join("%s %s" % item for item in sorted(request.packages.items()))
    return [
        finding(
            "package.result",
            False,
            expected=wanted,
            found="; ".join(wrong),
            detail="The package manager said that it was done.",
            remedy="Look into its log (/var/log/apt/term.log or /var/log/dnf.log), mend what it names, run again.",
        )
    ]


def summarise(before: Record, after: Record, request: Request, key: t.Any) -> t.Dict[str, t.Dict[str, t.Any]]:
    """Return ``{name: {from, to, action}}`` of every package asked for and of every other one that changed."""
    names = set(request.packages) | set(request.remove)
    for name in set(before.installed) | set(after.installed):
        if before.installed.get(name) != after.installed.get(name):
            names.add(name)
    summary = {}
    for name in sorted(names):
        old, new = before.installed.get(name), after.installed.get(name)
        action = "none" if old == new else versions.action(old, new, key)
        summary[name] = {"from": old, "to": new, "action": action}
    return summary


def after_steps(record: Record, steps: t.Sequence[Step], request: Request) -> Record:
    """Return what a host would be after a transaction and its holds, for check mode."""
    installed = dict(record.installed)
    for step in steps:
        if step.after is None:
            installed.pop(step.name, None)
        else:
            installed[step.name] = step.after
    expected = record._replace(installed=installed, broken={}, interrupted=False)
    expected = expected._replace(held=frozenset(name for name in record.held if name in installed))
    return expected._replace(held=expected.held | frozenset(to_hold(expected, request)))


def differences(before: Record, after: Record) -> t.Dict[str, str]:
    """Return a diff of versions and holds, one line a package that changed."""
    names = [
        name
        for name in sorted(set(before.installed) | set(after.installed))
        if before.installed.get(name) != after.installed.get(name) or (name in before.held) != (name in after.held)
    ]

    def lines(record: Record) -> str:
        return "".join(
            "%s %s%s\n" % (name, record.installed[name], " (held)" if name in record.held else "")
            for name in names
            if name in record.installed
        )

    return {"before_header": "packages", "after_header": "packages", "before": lines(before), "after": lines(after)}


def refuse_contradictions(request: Request) -> None:
    """Raise for a name that is to be there and not to be there."""
    both = sorted(set(request.packages) & set(request.remove))
    if both:
        raise PackageError(
            [
                finding(
                    "package.request",
                    False,
                    expected="a name in packages or in remove",
                    found="%s in both" % ", ".join(both),
                    remedy="Leave it out of one of them.",
                )
            ]
        )
