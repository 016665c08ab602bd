# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Read the states of packages and systemd units, all of them in two commands."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner

UNIT_PROPERTIES = {
    "LoadState": "load_state",
    "ActiveState": "active_state",
    "SubState": "sub_state",
    "UnitFileState": "unit_file_state",
    "MainPID": "main_pid",
    "InvocationID": "invocation_id",
    "NeedDaemonReload": "need_daemon_reload",
}


class HostStateError(Exception):
    """The host's package manager or service manager couldn't be asked."""


def read_packages(runner: Runner, names: t.Sequence[str]) -> t.Dict[str, t.Optional[str]]:
    """Return ``{name: version}`` of installed packages, None for those that aren't.

    Raises:
        HostStateError: neither dpkg nor rpm is on the host.
    """
    states: t.Dict[str, t.Optional[str]] = dict.fromkeys(names)
    if not names:
        return states
    rc, out, _err = runner.run(["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Status}\n", *names])
    if rc != 127:
        for line in out.splitlines():
            fields = line.split("\t")
            if len(fields) == 3 and fields[2] == "installed" and fields[0] in states:
                states[fields[0]] = fields[1]
        return states
    rc, out, err = runner.run(["rpm", "-q", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\n", *names])
    if rc == 127:
        raise HostStateError("neither dpkg-query nor rpm is on this host: %s" % err)
    for line in out.splitlines():
        fields = line.split("\t")
        if len(fields) == 2 and fields[0] in states:
            states[fields[0]] = fields[1]
    return states


def read_units(runner: Runner, names: t.Sequence[str]) -> t.Dict[str, t.Dict[str, t.Any]]:
    """Return the states of systemd units, one record a unit; a unit that doesn't exist has load_state not-found.

    Raises:
        HostStateError: systemd couldn't be asked.
    """
    if not names:
        return {}
    rc, out, err = runner.run(["systemctl", "show", "--property=Id," + ",".join(UNIT_PROPERTIES), "--", *names])
    if rc != 0:
        raise HostStateError("systemctl show exited with %d: %s" % (rc, err.strip()))
    blocks = [block for block in out.strip().split("\n\n") if block]
    if len(blocks) != len(names):
        raise HostStateError("systemctl show told %d units, %d were asked" % (len(blocks), len(names)))
    states: t.Dict[str, t.Dict[str, t.Any]] = {}
    for name, block in zip(names, blocks):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        record: t.Dict[str, t.Any] = {ours: values.get(theirs, "") for theirs, ours in UNIT_PROPERTIES.items()}
        record["main_pid"] = int(record["main_pid"] or 0)
        record["need_daemon_reload"] = record["need_daemon_reload"] == "yes"
        states[name] = record
    return states
