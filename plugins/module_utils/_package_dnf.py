# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The package sets' back end for RHEL and its relatives: rpm and dnf 4 by their commands."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _package_apt_read as troubles
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_dnf_read as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_host as hosts
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_version as versions
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._package_plan import PackageError, Record, Request, Step

LOCK_LIST = "/etc/dnf/plugins/versionlock.list"
LOCK_PLUGIN = "python3-dnf-plugin-versionlock"
STREAMS = "/etc/dnf/modules.d/%s.module"
PID_FILES = (
    "/var/lib/dnf/rpmdb_lock.pid",
    "/var/cache/dnf/metadata_lock.pid",
    "/var/cache/dnf/download_lock.pid",
)
LOCKS = ("/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock")
DNF = ("dnf", "--assumeyes", "--disableplugin=versionlock")
# Locks stay in force for everybody else while this transaction looks past them; foreign ones are refused before.
CHANGE = (*DNF, "--setopt=install_weak_deps=False", "--setopt=clean_requirements_on_remove=False", "--allowerasing")
TROUBLE = re.compile(r"^(Error|Errors during|  - |Failed|Cannot|\[Errno)", re.IGNORECASE)


class Dnf:
    """rpm and dnf of one host."""

    name = "dnf"

    def __init__(self, host: hosts.PackageHost, module_streams: t.Sequence[str] = ()) -> None:
        self.host = host
        self.module_streams = tuple(module_streams)
        self.update_problems: t.List[str] = []

    def _failure(self, check: str, expected: str, text: str, status: int, command: str, consequence: str) -> Finding:
        return troubles.failure(check, expected, text, status, command, consequence)

    def _rows(self) -> t.List[reading.Row]:
        status, out, err = self.host.run(["rpm", "--query", "--all", "--queryformat", reading.RPM_FORMAT])
        if status != 0:
            raise PackageError([self._failure("read", "the list of packages", err, status, "rpm --query --all", "")])
        return reading.parse_rows(out)

    def _locks(self) -> t.List[str]:
        return reading.parse_locks(self.host.read(LOCK_LIST) or "")

    def key(self, version: str) -> versions.Key:
        """Return what the order of versions sorts by."""
        return versions.rpm_key(version)

    def read(self) -> Record:
        """Return what is on the host."""
        return reading.record_of(self._rows(), self._locks())

    def busy(self) -> str:
        """Return who has one of the locks; empty when nobody does."""
        for path in PID_FILES:
            pid = (self.host.read(path) or "").strip()
            if pid.isdigit() and self.host.read("/proc/%s/stat" % pid) is not None:
                return "%s is held by %s" % (path, hosts.who(self.host, int(pid)))
        return hosts.busy_reason(self.host, LOCKS)

    def wait(self, deadline: hosts.Deadline) -> t.List[str]:
        """Wait for cloud-init and for everybody who has one of the locks; return whom."""
        return deadline.wait(self.busy)

    def repair(self) -> t.List[Finding]:
        """Take away what a cut transaction left in two versions."""
        status, out, err = self.host.run([*DNF, "remove", "--duplicates"])
        lines = troubles.telling_lines(out + err) if status else []
        return [
            finding(
                "package.interrupted",
                False,
                severity="warning",
                expected="no package in two versions",
                found="a run was cut before" + (": %s" % " / ".join(lines) if lines else ""),
                detail="dnf remove --duplicates exited with %d." % status,
                remedy="None: this run goes on from there.",
            )
        ]

    def prepare(self) -> None:
        """Enable the module streams that aren't; without that dnf hides their packages.

        Raises:
            PackageError: dnf refused.
        """
        for wanted in self.module_streams:
            name, _sep, stream = wanted.partition(":")
            if reading.parse_stream(self.host.read(STREAMS % name) or "") == stream:
                continue
            for verb, argument in (("reset", name), ("enable", wanted)):
                status, out, err = self.host.run([*DNF, "module", verb, argument])
                if status != 0:
                    raise PackageError(
                        [
                            self._failure(
                                "module", wanted, out + err, status, "dnf module " + verb, "Nothing was installed."
                            )
                        ]
                    )

    def update(self, deadline: hosts.Deadline) -> None:
        """Read the repositories' lists again. What isn't read is remembered; it counts if it concerns the request."""
        self.update_problems = []
        status, out, err = self.host.run([*DNF, "makecache", "--refresh"])
        if status != 0:
            lines = (out + err).splitlines()
            self.update_problems = [line.strip() for line in lines if TROUBLE.match(line)] or ["dnf makecache failed"]

    def available(self, names: t.Sequence[str]) -> t.Dict[str, t.List[t.Tuple[str, str]]]:
        """Return ``(version, repository)`` of what the lists offer, by name."""
        if not names:
            return {}
        query = ["repoquery", "--showduplicates", "--queryformat", reading.QUERY_FORMAT]
        _status, out, _err = self.host.run([*DNF, "--quiet", *query, *names])
        return reading.parse_query(out)

    def update_findings(self, repositories: t.Iterable[str], unresolved: bool) -> t.List[Finding]:
        """Return what reading the lists complained of: dnf stops at the first repository that it can't read."""
        if not self.update_problems:
            return []
        text = "\n".join(self.update_problems)
        return [self._failure("update", "every repository's lists", text, 1, "dnf makecache", "Nothing was changed.")]

    def complete(self, chosen: t.Mapping[str, str], record: Record, request: Request) -> t.Dict[str, str]:
        """Return the chosen versions: dnf finds those of the dependencies by itself."""
        return dict(chosen)

    def _specs(self, chosen: t.Mapping[str, str], record: Record) -> t.List[str]:
        """Return what dnf is asked for: ``name-epoch:version-release``, or the alias of one of several kernels."""
        specs = []
        for name, version in sorted(chosen.items()):
            is_alias = name.endswith((".x86_64", ".aarch64"))
            specs.append(name if is_alias else "%s-%s" % (name, version))
        return specs

    def simulate(self, chosen: t.Mapping[str, str], record: Record, request: Request) -> t.List[Step]:
        """Return the steps dnf would take.

        Raises:
            PackageError: dnf finds no way.
        """
        command = [part for part in CHANGE if part != "--assumeyes"] + ["--assumeno", "install"]
        status, out, err = self.host.run([*command, *self._specs(chosen, record)]) if chosen else (0, "", "")
        steps = reading.parse_transaction(out, record.installed)
        if status != 0 and not steps and "Nothing to do" not in out:
            wanted = ", ".join(self._specs(chosen, record))
            raise PackageError(
                [self._failure("resolve", wanted, out + err, status, "dnf install", "Nothing was changed.")]
            )
        gone = {step.name for step in steps if step.after is None}
        present = [name for name in request.remove if name in record.installed and name not in gone]
        return steps + [Step(name, record.installed[name], None) for name in present]

    def transact(self, chosen: t.Mapping[str, str], record: Record, request: Request, deadline: hosts.Deadline) -> None:
        """Run the one transaction; what must go and is in nobody's way goes after it.

        Raises:
            PackageError: dnf failed.
        """
        if chosen:
            self._run(["install", *self._specs(chosen, record)], chosen, record)
        left = [name for name in request.remove if name in self.read().installed]
        if left:
            self._run(["remove", *left], chosen, record)

    def _run(self, arguments: t.Sequence[str], chosen: t.Mapping[str, str], record: Record) -> None:
        status, out, err = self.host.run([*CHANGE, *arguments])
        if status == 0:
            return
        begun = "Running transaction\n" in out
        consequence = (
            "The transaction was cut; what is there stays locked." if begun else "Nothing was installed or removed."
        )
        wanted = ", ".join(self._specs(chosen, record))
        raise PackageError(
            [self._failure("transaction", wanted, out + err, status, "dnf " + arguments[0], consequence)]
        )

    def hold(self, names: t.Sequence[str], deadline: hosts.Deadline, record: Record) -> None:
        """Lock packages at the version they have; entries of the same packages for other versions go."""
        rows = [row for row in self._rows() if row.name in names or row.alias in names]
        wanted = {row.lock for row in rows}
        locks = self._locks()
        stale = [
            lock for lock in locks if lock not in wanted and any(reading.lock_is_of(lock, row.name) for row in rows)
        ]
        self.wait(deadline)
        self._lock("delete", stale)
        self._lock("add", sorted(wanted - set(locks)))

    def free(self, names: t.Sequence[str], deadline: hosts.Deadline, record: Record) -> None:
        """Take away every lock of packages."""
        rows = [row for row in self._rows() if row.name in names or row.alias in names]
        self.wait(deadline)
        self._lock("delete", [k for k in self._locks() if any(reading.lock_is_of(k, row.name) for row in rows)])

    def _lock(self, verb: str, entries: t.Sequence[str]) -> None:
        if not entries:
            return
        arguments = ["versionlock", verb, "--raw", *entries] if verb == "add" else ["versionlock", verb, *entries]
        status, out, err = self.host.run(["dnf", "--assumeyes", *arguments])
        if status != 0 and "No such command" in out + err:
            self.host.run([*DNF, "install", LOCK_PLUGIN])
            status, out, err = self.host.run(["dnf", "--assumeyes", *arguments])
        if status != 0:
            raise PackageError(
                [self._failure(verb, ", ".join(entries), out + err, status, "dnf versionlock " + verb, "")]
            )
