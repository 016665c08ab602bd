# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The package sets' back end for Debian and its relatives: dpkg and apt by their commands."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _package_apt_family as family
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_apt_read as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_host as hosts
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_version as versions
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._package_plan import PackageError, Record, Request, Step

LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
JOURNAL = "/var/lib/dpkg/updates"
APT_GET = ("apt-get", "--quiet", "--yes", "--option", "Dpkg::Use-Pty=0")
# Holds are ignored by the resolver and not by us: what would change a foreign hold is refused before apt runs.
INSTALL = (
    *APT_GET,
    "--option", "Dpkg::Options::=--force-confdef",
    "--option", "Dpkg::Options::=--force-confold",
    "--option", "Acquire::Retries=3",
    "--no-install-recommends", "--ignore-hold", "--allow-change-held-packages", "--purge",
)  # fmt: skip
UPDATE = ("apt-get", "--quiet", "--option", "Acquire::Retries=3", "update")
LOCKED = "Could not get lock"


class Apt:
    """dpkg and apt of one host."""

    name = "apt"

    def __init__(self, host: hosts.PackageHost) -> None:
        self.host = host
        self.update_problems: t.List[str] = []

    def key(self, version: str) -> versions.Key:
        """Return what the order of versions sorts by."""
        return versions.debian_key(version)

    def read(self) -> Record:
        """Return what is on the host."""
        status, out, err = self.host.run(["dpkg-query", "--show", "--showformat", reading.QUERY_FORMAT])
        if status != 0:
            raise PackageError([reading.failure("read", "the list of packages", err, status, "dpkg-query", "")])
        journal = any(name.isdigit() for name in self.host.names(JOURNAL))
        return reading.parse_packages(out)._replace(interrupted=journal)

    def wait(self, deadline: hosts.Deadline) -> t.List[str]:
        """Wait for cloud-init and for everybody who has one of the locks; return whom."""
        return deadline.wait(lambda: hosts.busy_reason(self.host, LOCKS))

    def repair(self) -> t.List[Finding]:
        """Let dpkg configure what a cut run left; what that can't mend, the transaction does (--fix-broken)."""
        status, out, err = self.host.run(["dpkg", "--force-confdef", "--force-confold", "--configure", "--pending"])
        lines = reading.telling_lines(out + err) if status else []
        return [
            finding(
                "package.interrupted",
                False,
                severity="warning",
                expected="no package half done",
                found="a run was cut before" + (": %s" % " / ".join(lines) if lines else ""),
                detail="dpkg --configure --pending exited with %d." % status,
                remedy="None: this run goes on from there.",
            )
        ]

    def prepare(self) -> None:
        """Nothing has to be enabled before apt sees its packages."""

    def update(self, deadline: hosts.Deadline) -> None:
        """Read the repositories' lists again. What isn't read is remembered; it counts if it concerns the request."""
        while True:
            _status, out, err = self.host.run(UPDATE)
            if LOCKED not in err or deadline.left() <= 0:
                break
            self.wait(deadline)
        if LOCKED in err:
            raise PackageError([hosts.locked_finding(err.strip(), deadline.limit)])
        self.update_problems = reading.update_problems(out + err)

    def available(self, names: t.Sequence[str]) -> t.Dict[str, t.List[t.Tuple[str, str]]]:
        """Return ``(version, repository)`` of what the lists offer, by name."""
        if not names:
            return {}
        _status, out, _err = self.host.run(["apt-cache", "madison", *names])
        return reading.parse_madison(out)

    def update_findings(self, repositories: t.Iterable[str], unresolved: bool) -> t.List[Finding]:
        """Return what reading the lists complained of: errors for the request's own repositories, else warnings.

        While a package is nowhere to be found, every repository that couldn't be read may be the one.
        """
        mine = self.update_problems if unresolved else reading.problem_of(self.update_problems, repositories)
        findings = []
        if mine:
            text = "\n".join(mine)
            failed = reading.failure(
                "update", "the repository's signed lists", text, 100, "apt-get update", "Nothing was changed."
            )
            findings.append(failed)
        others = [line for line in self.update_problems if line not in mine]
        if others:
            findings.append(
                finding(
                    "package.update",
                    False,
                    severity="warning",
                    expected="every repository of the host read",
                    found=" / ".join(others),
                    detail="None of the wanted packages comes from there.",
                    remedy="Mend or remove that repository.",
                )
            )
        return findings

    def complete(self, chosen: t.Mapping[str, str], record: Record, request: Request) -> t.Dict[str, str]:
        """Return the chosen versions and those of the dependencies that must be named with them."""

        def show(names: t.Sequence[str]) -> str:
            return self.host.run(["apt-cache", "show", *names])[1]

        return {**chosen, **family.complete(chosen, request, record, show, self.available)}

    def _arguments(self, chosen: t.Mapping[str, str], record: Record, request: Request, broken: bool) -> t.List[str]:
        arguments = ["--allow-downgrades"] if request.allow_downgrade else []
        arguments += ["--fix-broken"] if broken else []
        arguments += ["install"] + ["%s=%s" % item for item in sorted(chosen.items())]
        present = set(record.installed) | set(record.residue) | set(record.broken)
        return arguments + ["%s-" % name for name in request.remove if name in present]

    def simulate(self, chosen: t.Mapping[str, str], record: Record, request: Request) -> t.List[Step]:
        """Return the steps apt would take.

        Raises:
            PackageError: apt finds no way.
        """
        forced = request._replace(allow_downgrade=True)  # a downgrade is refused by name, not by apt's sentence
        arguments = self._arguments(chosen, record, forced, bool(record.broken))
        status, out, err = self.host.run([*INSTALL, "--simulate", *arguments])
        if status != 0:
            wanted = ", ".join("%s %s" % item for item in sorted(request.packages.items()))
            found = reading.failure(
                "resolve", wanted, out + err, status, "apt-get --simulate install", "Nothing was changed."
            )
            raise PackageError([found])
        return reading.parse_simulation(out)

    def transact(self, chosen: t.Mapping[str, str], record: Record, request: Request, deadline: hosts.Deadline) -> None:
        """Run the one transaction.

        Raises:
            PackageError: apt failed.
        """
        limit = ["--option", "DPkg::Lock::Timeout=%d" % max(1, round(deadline.left()))]
        arguments = self._arguments(chosen, record, request, bool(record.broken))
        automatic = self._automatic(set(chosen) - set(request.packages), record)
        status, out, err = self.host.run([*INSTALL, *limit, *arguments])
        if status == 0:
            if automatic:
                self.host.run(["apt-mark", "auto", *automatic])
            return
        begun = "Unpacking " in out or "Setting up " in out or "Removing " in out
        consequence = (
            "The transaction was cut: packages are in two versions or half configured, and stay held."
            if begun
            else "Nothing was installed."
        )
        wanted = ", ".join("%s %s" % item for item in sorted(request.packages.items()))
        raise PackageError([reading.failure("transaction", wanted, out + err, status, "apt-get install", consequence)])

    def _automatic(self, named: t.Set[str], record: Record) -> t.List[str]:
        """Return those that nobody asked for, new or marked so: they are named for their version only."""
        there = sorted(name for name in named if name in record.installed)
        marked = self.host.run(["apt-mark", "showauto", *there])[1].split() if there else []
        return sorted((named - set(there)) | (named & set(marked)))

    def hold(self, names: t.Sequence[str], deadline: hosts.Deadline, record: Record) -> None:
        """Hold packages at their version."""
        self._mark("hold", names, deadline)

    def free(self, names: t.Sequence[str], deadline: hosts.Deadline, record: Record) -> None:
        """Let packages change again."""
        self._mark("unhold", names, deadline)

    def _mark(self, verb: str, names: t.Sequence[str], deadline: hosts.Deadline) -> None:
        self.wait(deadline)
        status, out, err = self.host.run(["apt-mark", verb, *names])
        if status != 0:
            found = reading.failure(verb, "%s on hold" % ", ".join(names), out + err, status, "apt-mark " + verb, "")
            raise PackageError([found])
