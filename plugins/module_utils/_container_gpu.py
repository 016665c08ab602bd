# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Whether containers get the host's GPUs: the CDI specification, the runtimes' configuration. Decisions are pure."""

from __future__ import annotations

import json
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._host_read import Host

REFRESH_UNITS = ("nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service")
# Where the refresh service of the toolkit writes, and where a specification of our own goes without that service.
REFRESHED_SPEC = "/run/cdi/nvidia.yaml"
STATIC_SPEC = "/etc/cdi/nvidia.yaml"
RUNTIME_FILES = {
    "docker": ("/etc/docker/daemon.json",),
    "containerd": ("/etc/containerd/config.toml", "/etc/containerd/conf.d/99-nvidia.toml"),
}
# Docker reads its runtimes again when it's told to; containerd doesn't, and its containers outlive a restart of it.
RUNTIME_VERBS = {"docker": "reload", "containerd": "restart"}


def read(host: Host, spec: str) -> t.Dict[str, t.Any]:
    """Return ``{driver_version, devices, toolkit, spec, cdi_devices}``.

    Args:
        host: how to look at it.
        spec: path of the CDI specification.

    ``devices`` are the GPUs' device nodes, ``toolkit`` is null where nvidia-ctk isn't on the host, and ``spec`` is null
    or ``{path, devices, nodes, text_has_driver}``.
    """
    version = (host.read("/sys/module/nvidia/version") or "").strip()
    status, out, _err = host.run(["nvidia-ctk", "--version"])
    toolkit = None
    if status != 127:
        match = re.search(r"version (\d\S*)", out)
        toolkit = match.group(1) if match else ""
    record: t.Dict[str, t.Any] = {
        "driver_version": version or None,
        "devices": [name for name in host.names("/dev") if re.match(r"^nvidia\d+$", name)],
        "toolkit": toolkit,
        "spec": parse_spec(host.read(spec), spec, version),
        "cdi_devices": [],
    }
    if toolkit is not None and record["spec"]:
        status, out, err = host.run(["nvidia-ctk", "cdi", "list"])
        record["cdi_devices"] = re.findall(r"\bnvidia\.com/gpu=\S+", out + err) if status == 0 else []
    return record


def parse_spec(text: t.Optional[str], path: str, driver_version: str) -> t.Optional[t.Dict[str, t.Any]]:
    """Return what a CDI specification (YAML or JSON) says, without a parser of YAML, which a host may lack."""
    if not text or "cdiVersion" not in text:
        return None
    nodes = re.findall(r"(?:hostPath|path)['\"]?:\s*['\"]?(/dev/[^'\",\s]+)", text)
    return {
        "path": path,
        "devices": sorted({node for node in nodes if re.match(r"^/dev/nvidia\d+$", node)}),
        "nodes": sorted(set(nodes)),
        "text_has_driver": bool(driver_version) and driver_version in text,
    }


def is_stale(record: t.Mapping[str, t.Any]) -> bool:
    """Tell whether the specification must be made again: none, of another driver, or without a GPU that's there."""
    if not record["driver_version"]:
        return False
    spec = record["spec"]
    return not spec or not spec["text_has_driver"] or len(spec["devices"]) < len(record["devices"])


def decide(record: t.Mapping[str, t.Any], version: str, present: t.Container[str]) -> t.List[Finding]:
    """Return whether containers can be given the GPUs.

    Args:
        record: of :func:`read`, after everything was done.
        version: the toolkit's version that is wanted.
        present: the device nodes that exist now.
    """
    findings = [
        finding(
            "container.toolkit",
            record["toolkit"] == version,
            expected=version,
            found=record["toolkit"] if record["toolkit"] is not None else "no nvidia-ctk",
            detail="By nvidia-ctk --version.",
            remedy="" if record["toolkit"] == version else "Look for another nvidia-ctk before /usr/bin on the path.",
        )
    ]
    if not record["driver_version"]:
        findings.append(
            finding(
                "container.cdi",
                False,
                severity="warning",
                expected="a CDI specification of the loaded driver",
                found="no driver is loaded",
                detail="nvidia-ctk reads the GPUs through the driver.",
                remedy="Load the driver (nvidia_driver says how), then run again.",
            )
        )
        return findings
    spec = record["spec"] or {"path": "(none)", "nodes": [], "devices": []}
    missing = [node for node in spec["nodes"] if node not in present]
    listed = "nvidia.com/gpu=all" in record["cdi_devices"]
    fits = not is_stale(record) and listed and not missing
    found = "%d GPUs in %s" % (len(spec["devices"]), spec["path"])
    if missing:
        found += "; it names devices that aren't there: %s" % ", ".join(missing)
    if not listed:
        found += "; nvidia-ctk cdi list doesn't list nvidia.com/gpu=all"
    findings.append(
        finding(
            "container.cdi",
            fits,
            expected="%d GPUs of driver %s, and nvidia.com/gpu=all"
            % (len(record["devices"]), record["driver_version"]),
            found=found,
            detail="What a container is given by --device nvidia.com/gpu=all, after systemctl daemon-reload.",
            remedy="" if fits else "nvidia-ctk --debug cdi generate says what it can't find.",
        )
    )
    return findings


def same_configuration(path: str, before: t.Optional[str], after: t.Optional[str]) -> bool:
    """Tell whether two contents of a runtime's file mean the same: JSON by its value, anything else by its text."""
    if path.endswith(".json"):
        try:
            return bool(json.loads(before or "{}") == json.loads(after or "{}"))
        except ValueError:
            return False
    return (before or "").strip() == (after or "").strip()
