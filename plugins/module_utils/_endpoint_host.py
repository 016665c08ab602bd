# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Prove the state of the host behind an endpoint: units, engine sockets, secrets' modes, exposure, listeners."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _host_read
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import Connection, Failure
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding

UNIT_PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "InvocationID", "MainPID")
SECRET_MODE = 0o600

State = t.Dict[str, t.Any]


# -- reading -----------------------------------------------------------------------------------------------------------


def parse_units(text: str) -> t.Dict[str, t.Dict[str, str]]:
    """Return what ``systemctl show`` says, by unit."""
    units: t.Dict[str, t.Dict[str, str]] = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id"):
            units[values["Id"]] = values
    return units


def parse_exposures(text: str) -> t.Dict[str, float]:
    """Return the overall exposure level by unit from ``systemd-analyze security UNIT…``."""
    return {m[0]: float(m[1]) for m in re.findall(r"Overall exposure level for (\S+?):\s+([0-9.]+)", text)}


def read_units(host: _host_read.Host, units: t.Sequence[str]) -> t.Dict[str, t.Dict[str, str]]:
    """Return the states of units in one call; a host without systemd has none."""
    if not units:
        return {}
    status, out, _err = host.run(["systemctl", "show", "--property", ",".join(UNIT_PROPERTIES), "--", *units])
    return parse_units(out) if status == 0 else {}


def read_secrets(patterns: t.Sequence[str]) -> t.List[t.Dict[str, t.Any]]:
    """Return ``{pattern, path, mode, uid, size}`` of what the patterns match; path null where one matches nothing."""
    found: t.List[t.Dict[str, t.Any]] = []
    for pattern in patterns:
        paths = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
        if not paths:
            found.append({"pattern": pattern, "path": None, "mode": None, "uid": None, "size": None})
        for path in paths:
            status = os.stat(path)
            found.append(
                {
                    "pattern": pattern,
                    "path": path,
                    "mode": stat.S_IMODE(status.st_mode),
                    "uid": status.st_uid,
                    "size": status.st_size,
                }
            )
    return found


def ask_socket(path: str, connect_seconds: float, request_seconds: float) -> t.Dict[str, t.Any]:
    """Ask an engine's socket for its models without a key; return ``{path, status, error}``."""
    try:
        with Connection.open_unix(path, connect_seconds) as connection:
            answer = connection.ask("GET", "/v1/models", seconds=request_seconds)
            return {"path": path, "status": answer.status, "error": ""}
    except Failure as failure:
        return {"path": path, "status": None, "error": str(failure)}


def read_state(
    host: _host_read.Host,
    *,
    units: t.Sequence[str],
    sockets: t.Sequence[str],
    secrets: t.Sequence[str],
    exposure_limits: t.Mapping[str, float],
    our_units: t.Sequence[str],
    connect_seconds: float,
    request_seconds: float,
) -> State:
    """Read the host once.

    Args:
        host: how to look at it.
        units: units that must be active.
        sockets: unix sockets of engines.
        secrets: glob patterns of secret files.
        exposure_limits: unit pattern -> highest exposure accepted; units without a pattern aren't analysed.
        our_units: patterns of the units whose TCP listeners count as ours.
        connect_seconds: limit of connecting to a socket.
        request_seconds: limit of asking one.
    """
    analysed = [u for u in units if any(fnmatch.fnmatch(u, pattern) for pattern in exposure_limits)]
    exposures: t.Dict[str, float] = {}
    if analysed:
        _status, out, _err = host.run(["systemd-analyze", "--no-pager", "security", *analysed])
        exposures = parse_exposures(out)
    processes = [
        p for p in _host_read.read_processes(host) if any(fnmatch.fnmatch(p["unit"], pattern) for pattern in our_units)
    ]
    owned = [
        listener
        for listener in _host_read.name_owners(host, _host_read.read_listeners(host), processes)
        if listener["unit"]
    ]
    return {
        "units": read_units(host, units),
        "sockets": [ask_socket(path, connect_seconds, request_seconds) for path in sockets],
        "secrets": read_secrets(secrets),
        "analysed": analysed,
        "exposures": exposures,
        "listeners": owned,
    }


def is_deployed(units: t.Mapping[str, t.Mapping[str, str]], wanted: t.Sequence[str]) -> bool:
    """Tell whether anything of ours is on the host: one of the units is loaded."""
    return any(units.get(unit, {}).get("LoadState") == "loaded" for unit in wanted)


# -- deciding ----------------------------------------------------------------------------------------------------------


def decide_units(state: State, units: t.Sequence[str]) -> t.Iterator[Finding]:
    """Every unit is active and running."""
    for unit in units:
        found = state["units"].get(unit) or {}
        yield finding(
            "host.unit.%s" % unit,
            found.get("ActiveState") == "active" and found.get("SubState") == "running",
            expected="active (running)",
            found="%s (%s)" % (found.get("ActiveState", "unknown"), found.get("SubState", "unknown")),
            remedy="journalctl -u '%s' -n 100 says why." % unit,
        )


def decide_sockets(state: State) -> t.Iterator[Finding]:
    """Every engine asks for its key even on its own socket."""
    for answer in state["sockets"]:
        yield finding(
            "host.engine_socket_refuses",
            answer["status"] == 401,
            expected="401 without a key",
            found=answer["error"] or "status %s" % answer["status"],
            detail="GET /v1/models on %s." % answer["path"],
            remedy="An engine that answers without a key has none (an empty key turns authentication off): "
            "run the vllm role again; one that doesn't answer isn't up.",
        )


def decide_secrets(state: State) -> t.Iterator[Finding]:
    """Secrets are files of root's alone, not empty, and they are there."""
    for secret in state["secrets"]:
        if secret["path"] is None:
            problem = "no file"
        else:
            problem = "mode %04o, uid %d, %d bytes" % (secret["mode"], secret["uid"], secret["size"])
        yield finding(
            "host.secret_file",
            secret["path"] is not None and secret["mode"] == SECRET_MODE and secret["uid"] == 0 and secret["size"] > 0,
            expected="mode 0600, uid 0, not empty",
            found=problem,
            detail="%s." % (secret["path"] or "Pattern %s" % secret["pattern"]),
            remedy="Run the role that makes it again; if others could read it, make a new secret.",
        )


def decide_exposures(state: State, limits: t.Mapping[str, float]) -> t.Iterator[Finding]:
    """systemd's own rating of each analysed unit is at most the limit."""
    for unit in state["analysed"]:
        limit = min(float(value) for pattern, value in limits.items() if fnmatch.fnmatch(unit, pattern))
        exposure = state["exposures"].get(unit)
        yield finding(
            "host.exposure.%s" % unit,
            exposure is not None and exposure <= limit,
            expected="at most %s" % limit,
            found=exposure,
            detail="systemd-analyze security (gpu_validate_exposure_limits).",
            remedy="See which lines of systemd-analyze security '%s' are new; a drop-in may have opened something."
            % unit,
        )


def decide_listeners(state: State, proxy_unit: str, ports: t.Sequence[int]) -> t.Iterator[Finding]:
    """Nothing of ours listens on TCP but the proxy on its ports, and there it does."""
    strangers = [li for li in state["listeners"] if li["unit"] != proxy_unit or li["port"] not in ports]
    missing = sorted(set(ports) - {li["port"] for li in state["listeners"] if li["unit"] == proxy_unit})
    shown = ["%s on %s port %d" % (li["unit"], li["address"], li["port"]) for li in strangers]
    shown += ["nothing of %s on port %d" % (proxy_unit, port) for port in missing]
    yield finding(
        "host.listeners",
        not shown,
        expected="%s on port %s and nothing else of ours" % (proxy_unit, ", ".join(str(p) for p in sorted(ports))),
        found=shown or "as expected",
        detail="/proc/net/tcp and tcp6 of the host's network namespace.",
        remedy="An engine belongs on its unix socket (PrivateNetwork= hides what it opens for itself); see ss -ltnp.",
    )


def decide_state(
    state: State,
    *,
    units: t.Sequence[str],
    exposure_limits: t.Mapping[str, float],
    proxy_unit: str,
    ports: t.Sequence[int],
) -> t.List[Finding]:
    """Judge what :func:`read_state` read.

    Args:
        state: what was read.
        units: units that must be active.
        exposure_limits: unit pattern -> highest exposure accepted.
        proxy_unit: the unit that may listen.
        ports: the ports it must listen on.
    """
    return [
        *decide_units(state, units),
        *decide_sockets(state),
        *decide_secrets(state),
        *decide_exposures(state, exposure_limits),
        *decide_listeners(state, proxy_unit, ports),
    ]
