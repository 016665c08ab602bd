# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""One plan of a host: the versions that a release gives it, and the memory of what it serves. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_findings as judging
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusal_message, warnings

Record = t.Dict[str, t.Any]

NOBODY_LOOKED = "nobody looked at the host"


def version_key(text: str) -> t.Tuple[int, ...]:
    """Return a version's numbers, for comparing."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def component(found: t.Optional[str], wanted: str, looked: bool, reboot: bool = False) -> Record:
    """Return what becomes of one component: ``{from, to, action, reboot, reason}``.

    Args:
        found: the version that is there, None where there is none or nobody looked.
        wanted: the release's.
        looked: whether the host was looked at.
        reboot: whether the host may have to boot when it changes.
    """
    action, reason = "install", "it isn't there" if looked else NOBODY_LOOKED
    if found is not None:
        old, new = version_key(found), version_key(wanted)
        action = "none" if old == new else "upgrade" if old < new else "downgrade"
        reason = "%s is there" % found
    return {"from": found, "to": wanted, "action": action, "reboot": reboot and action != "none", "reason": reason}


def components(release: t.Mapping[str, t.Any], accelerator: str, found: t.Optional[t.Mapping[str, t.Any]]) -> Record:
    """Return the components that a host of that accelerator gets from a release.

    Args:
        release: as the lookup ``release`` returns it.
        accelerator: ``cpu`` or ``cuda``.
        found: ``driver`` (version), ``engines`` (versions that are on the host); None: nobody looked.
    """
    looked = found is not None
    seen = found or {}
    made: Record = {}
    for name, builds in sorted((release.get("engines") or {}).items()):
        build = builds.get(accelerator) or {}
        if not build:
            continue
        there = [str(version) for version in seen.get("engines") or ()]
        newest = max(there, key=version_key) if there else None
        current = str(build["version"]) if str(build["version"]) in there else newest
        made[name] = component(current, str(build["version"]), looked)
    driver = (release.get("driver") or {}).get("version")
    if accelerator == "cuda" and driver:
        made["driver"] = component(seen.get("driver") or None, str(driver), looked, reboot=True)
    return made


def deployment_plan(
    release: t.Mapping[str, t.Any],
    memory: t.Mapping[str, t.Any],
    accelerator: str = "cuda",
    found: t.Optional[t.Mapping[str, t.Any]] = None,
    stack: t.Optional[t.Mapping[str, t.Any]] = None,
) -> Record:
    """Return versions and memory of one host, and every refusal of both.

    Args:
        release: as the lookup ``release`` returns it.
        memory: what the module ``memory_plan`` returned for the host's models: ``instances`` and ``placement``.
        accelerator: ``cpu`` or ``cuda``.
        found: what is on the host, as :func:`components` takes it; None: nobody looked.
        stack: what the filter ``gpu_stack_plan`` returned, where it was asked.

    Returns:
        ``{release, accelerator, components, instances, placement, vllm_args, findings, warnings, refusal}``.
    """
    findings = judging.findings_of(memory, accelerator)
    reasons = [refusal_message(findings, "This deployment is")]
    if (stack or {}).get("refusal"):
        reasons.append(str((stack or {})["refusal"]))
    made = components(release, accelerator, found)
    if (stack or {}).get("refusal") and "driver" in made:
        made["driver"].update(action="refuse", reboot=False, reason="the release's GPU stack refuses this host")
    return {
        "release": release.get("id"),
        "accelerator": accelerator,
        "components": made,
        "instances": list(memory["instances"]),
        "placement": memory["placement"],
        "vllm_args": {one["name"]: dict(one["arguments"]) for one in memory["instances"]},
        "findings": findings,
        "warnings": list(warnings(findings)),
        "refusal": "\n".join(reason for reason in reasons if reason),
    }
