# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Bring a set of packages to a host in one transaction, and hold it: the order of steps, for any package manager."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _package_host as hosts
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding, refusals
from ansible_collections.gpufleet.llm.plugins.module_utils._package_plan import PackageError, Record, Request, Step

NO_MANAGER = finding(
    "package.manager",
    False,
    expected="apt-get or dnf in /usr/bin",
    found="neither",
    remedy="Use a platform that the release supports.",
)


class Backend(t.Protocol):
    """A package manager."""

    name: str
    host: hosts.PackageHost

    def key(self, version: str) -> t.Tuple[t.Any, ...]:
        """Return what its order of versions sorts by."""

    def read(self) -> Record:
        """Return what is on the host."""

    def wait(self, deadline: hosts.Deadline) -> t.List[str]:
        """Wait for its locks; return who was waited for."""

    def repair(self) -> t.List[Finding]:
        """Mend what a cut run left."""

    def prepare(self) -> None:
        """Make its packages visible, where that takes more than a repository."""

    def update(self, deadline: hosts.Deadline) -> None:
        """Read the repositories' lists again."""

    def available(self, names: t.Sequence[str]) -> t.Mapping[str, t.Sequence[t.Tuple[str, str]]]:
        """Return ``(version, repository)`` of what is offered, by name."""

    def update_findings(self, repositories: t.Iterable[str], unresolved: bool) -> t.List[Finding]:
        """Return what was wrong with the lists."""

    def complete(self, chosen: t.Mapping[str, str], record: Record, request: Request) -> t.Dict[str, str]:
        """Return the chosen versions and those of dependencies that must be named with them."""

    def simulate(self, chosen: t.Mapping[str, str], record: Record, request: Request) -> t.List[Step]:
        """Return what a transaction would do."""

    def transact(self, chosen: t.Mapping[str, str], record: Record, request: Request, deadline: hosts.Deadline) -> None:
        """Do it."""

    def hold(self, names: t.Sequence[str], deadline: hosts.Deadline, record: Record) -> None:
        """Hold packages at the version they have."""

    def free(self, names: t.Sequence[str], deadline: hosts.Deadline, record: Record) -> None:
        """Let packages change again."""


class Outcome(t.NamedTuple):
    """What was done, or would be: the host before and after, findings, and for whom it waited."""

    before: Record
    after: Record
    findings: t.List[Finding]
    waited: t.List[str]

    @property
    def changed(self) -> bool:
        """Whether the host is another one than before."""
        return self.before != self.after


def converge(
    backend: Backend, request: Request, before: Record, *, check: bool, timeout_seconds: float, update: bool
) -> Outcome:
    """Bring the set to the host.

    Args:
        backend: the package manager.
        request: what is wanted.
        before: what is there now.
        check: only say what would be done. Locks aren't waited for, lists aren't read again.
        timeout_seconds: what all waiting for locks and cloud-init may take together.
        update: read the lists again before a transaction. They are too when a wanted version isn't in them.

    Raises:
        PackageError: with findings that say why.
    """
    record = before
    need = planning.decide(record, request)
    findings: t.List[Finding] = []
    if not need.transaction and not need.hold:
        return Outcome(before, before, findings, [])
    if check:
        return _foresee(backend, request, before, need, update)
    deadline = hosts.Deadline(backend.host, timeout_seconds)
    waited = backend.wait(deadline)
    if waited:
        record = backend.read()
        need = planning.decide(record, request)
    if need.transaction:
        try:
            findings += _change(backend, request, record, deadline, update)
        except PackageError as exc:
            # What is there now stays where it is, whatever it is.
            raise PackageError(exc.findings + _hold_after_failure(backend, request, deadline)) from exc
        record = backend.read()
        wrong = planning.unmet(record, request)
        if wrong:
            raise PackageError(wrong + _hold_after_failure(backend, request, deadline))
    _hold(backend, request, record, deadline)
    return Outcome(before, backend.read(), findings, waited)


def _change(
    backend: Backend, request: Request, record: Record, deadline: hosts.Deadline, update: bool
) -> t.List[Finding]:
    """Mend what a cut run left, then run the transaction if one is still needed."""
    findings: t.List[Finding] = []
    if record.broken or record.interrupted:
        findings += backend.repair()
        record = backend.read()
    if planning.decide(record, request).transaction:
        findings += _transaction(backend, request, record, deadline, update)
    return findings


def _hold_after_failure(backend: Backend, request: Request, deadline: hosts.Deadline) -> t.List[Finding]:
    """Hold what is there; a failure to do so is said beside the one that came first."""
    try:
        _hold(backend, request, backend.read(), deadline)
    except PackageError as exc:
        return exc.findings
    return []


def _hold(backend: Backend, request: Request, record: Record, deadline: hosts.Deadline) -> None:
    names = planning.to_hold(record, request)
    if names:
        backend.hold(names, deadline, record)


def _resolve(
    backend: Backend, request: Request, record: Record, deadline: t.Optional[hosts.Deadline], update: bool
) -> t.Tuple[t.Dict[str, str], t.List[Finding], t.List[Finding]]:
    """Return exact versions, what can't be had, and what is to be said of the lists; no deadline: read no lists."""
    names = sorted(request.packages)
    updated = update and deadline is not None
    if updated and deadline is not None:
        backend.update(deadline)
    offered = backend.available(names)
    chosen, absent = planning.choose(request, record, offered, backend.key)
    if absent and not updated and deadline is not None:
        backend.update(deadline)
        updated = True
        offered = backend.available(names)
        chosen, absent = planning.choose(request, record, offered, backend.key)
    sources = {
        source for name, version in chosen.items() for offer, source in offered.get(name, ()) if offer == version
    }
    said = backend.update_findings(sources, bool(absent)) if updated else []
    return chosen, absent, said


def _whole_family(
    backend: Backend, chosen: t.Mapping[str, str], record: Record, request: Request
) -> t.Tuple[t.Dict[str, str], t.List[Step]]:
    """Return every package that must be named, with its version, and the steps of the transaction."""
    named = backend.complete(chosen, record, request)
    steps = backend.simulate(named, record, request)
    behind = planning.stragglers(steps, record, request)
    if behind:
        offered = backend.available(sorted(behind))
        found, _absent = planning.choose(Request(behind), Record({}), offered, backend.key)
        if found:
            named = {**named, **found}
            steps = backend.simulate(named, record, request)
    return named, steps


def _transaction(
    backend: Backend, request: Request, record: Record, deadline: hosts.Deadline, update: bool
) -> t.List[Finding]:
    backend.prepare()
    chosen, absent, said = _resolve(backend, request, record, deadline, update)
    stopped = refusals(said) + absent
    if stopped:
        raise PackageError(stopped)
    chosen, steps = _whole_family(backend, chosen, record, request)
    stopped = planning.guard(steps, record, request, backend.key)
    if stopped:
        raise PackageError(stopped)
    backend.transact(chosen, record, request, deadline)
    return said


def _foresee(backend: Backend, request: Request, before: Record, need: planning.Need, update: bool) -> Outcome:
    """Return what a run would do, as far as the lists of this host know."""
    if not need.transaction:
        return Outcome(before, planning.after_steps(before, [], request), [], [])
    chosen, absent, _said = _resolve(backend, request, before, None, update)
    if absent:
        unknown = [name for name in request.packages if name not in chosen]
        steps = [Step(n, before.installed.get(n), request.packages[n]) for n in need.change]
        steps += [Step(n, before.installed.get(n), None) for n in need.remove]
        said = finding(
            "package.check_mode",
            False,
            severity="warning",
            expected="the wanted versions in the lists this host has",
            found="%s not in them" % ", ".join("%s %s" % (name, request.packages[name]) for name in unknown),
            detail="Check mode reads no lists anew: versions are shown as they were asked for, dependencies aren't.",
            remedy="None if this very run places the repository; a run says if a version isn't there.",
        )
        return Outcome(before, planning.after_steps(before, steps, request), [said], [])
    chosen, steps = _whole_family(backend, chosen, before, request)
    stopped = planning.guard(steps, before, request, backend.key)
    if stopped:
        raise PackageError(stopped)
    return Outcome(before, planning.after_steps(before, steps, request), [], [])


def set_hold(
    backend: t.Optional[Backend], patterns: t.Sequence[str], *, held: bool, check: bool, timeout_seconds: float
) -> Outcome:
    """Hold the installed packages that match, or free those that are held and match.

    Raises:
        PackageError: the package manager failed, or there is none.
    """
    if backend is None:
        raise PackageError([NO_MANAGER])
    before = backend.read()
    if held:
        request = Request({}, hold_also=tuple(patterns))
        names = planning.to_hold(before, request)
        after = before._replace(held=before.held | frozenset(names))
    else:
        names = tuple(sorted(name for name in before.held if planning.any_match(name, patterns)))
        after = before._replace(held=before.held - frozenset(names))
    if not names or check:
        return Outcome(before, after, [], [])
    deadline = hosts.Deadline(backend.host, timeout_seconds)
    waited = backend.wait(deadline)
    (backend.hold if held else backend.free)(names, deadline, before)
    return Outcome(before, backend.read(), [], waited)


def _held(record: Record, request: Request) -> t.List[str]:
    return sorted(name for name in record.held if planning.is_family(name, request))


def report(backend: Backend, request: Request, outcome: Outcome) -> t.Dict[str, t.Any]:
    """Return what the module package_set returns."""
    return {
        "changed": outcome.changed,
        "packages": planning.summarise(outcome.before, outcome.after, request, backend.key),
        "held": _held(outcome.after, request),
        "not_installed": planning.missing(outcome.after, request),
        "waited_for": outcome.waited,
        "findings": outcome.findings,
        "diff": planning.differences(outcome.before, outcome.after),
    }


def run(
    backend: t.Optional[Backend], request: Request, *, check: bool, timeout_seconds: float, update: bool
) -> t.Dict[str, t.Any]:
    """Return what the module package_set returns; with ``msg`` when it failed.

    Args:
        backend: the package manager, None where the host has none.
        request: what is wanted.
        check: only say what would be done.
        timeout_seconds: what all waiting may take together.
        update: read the lists again before a transaction.
    """
    before: t.Optional[Record] = None
    try:
        planning.refuse_contradictions(request)
        if backend is None:
            raise PackageError([NO_MANAGER])
        before = backend.read()
        outcome = converge(backend, request, before, check=check, timeout_seconds=timeout_seconds, update=update)
    except PackageError as exc:
        after = _read_after_failure(backend, before)
        if backend is None or before is None or after is None:
            empty: t.Dict[str, t.Any] = {"changed": False, "packages": {}, "held": [], "not_installed": []}
            return dict(empty, waited_for=[], findings=exc.findings, msg=str(exc))
        return dict(report(backend, request, Outcome(before, after, exc.findings, [])), msg=str(exc))
    return report(backend, request, outcome)


def _read_after_failure(backend: t.Optional[Backend], before: t.Optional[Record]) -> t.Optional[Record]:
    if backend is None or before is None:
        return before
    try:
        return backend.read()
    except PackageError:
        return before
