# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Whether the watchdog runs with the files that are there, and has looked at what it watches."""

from __future__ import annotations

import hashlib
import json
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._engine_unit import read_unit
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner

Status = t.Mapping[str, t.Any]


def read_status(path: str) -> t.Dict[str, t.Any]:
    """Return what the watchdog wrote last, or an empty record."""
    try:
        with open(path, encoding="utf-8") as handle:
            status = json.load(handle)
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def digest(config: str) -> str:
    """Return one sha256 over the files that a configuration says the watchdog runs from, as the watchdog takes it."""
    whole = hashlib.sha256()
    try:
        with open(config, encoding="utf-8") as handle:
            paths = json.load(handle)["runs_from"]
        for path in paths:
            with open(path, "rb") as data:
                whole.update(hashlib.sha256(data.read()).digest())
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return whole.hexdigest()


def due(runner: Runner, unit: str, config: str, status: Status) -> str:
    """Return why the unit must be started or restarted, or an empty string."""
    found = read_unit(runner, unit)
    if found.get("LoadState") != "loaded":
        return "the unit isn't there yet"
    if found.get("ActiveState") != "active":
        return "the unit is %s" % found.get("ActiveState")
    if found.get("UnitFileState") != "enabled":
        return "the unit is %s" % (found.get("UnitFileState") or "not enabled")
    if found.get("NeedDaemonReload") == "yes":
        return "the unit's file changed"
    return "" if status.get("digest") == digest(config) else "what it runs from changed"


def restart(runner: Runner, unit: str) -> None:
    """Have systemd read its files, and start the unit anew. Raises OSError with what systemctl said."""
    for argv in (
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "--quiet", unit],
        ["systemctl", "reset-failed", unit],
        ["systemctl", "restart", unit],
    ):
        rc, out, err = runner.run(argv)
        if rc != 0 and "reset-failed" not in argv:
            raise OSError("%s exited with %d: %s" % (" ".join(argv), rc, (err or out).strip()))


def looked(runner: Runner, unit: str, config: str, status: Status) -> t.Tuple[t.Dict[str, str], str]:
    """Return (phase by instance, what is missing until it has looked at all of them)."""
    active = read_unit(runner, unit).get("ActiveState")
    if active != "active":
        return {}, "the unit is %s" % active
    if status.get("digest") != digest(config):
        return {}, "no status with this configuration"
    phases = {str(name): str(one.get("phase")) for name, one in (status.get("instances") or {}).items()}
    blind = sorted(name for name, phase in phases.items() if phase == "unknown")
    return phases, "%s not looked at" % ", ".join(blind) if blind else ""
