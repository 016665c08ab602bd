# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""From a host's record and a release to what the GPU stack's roles do there, or to all reasons why they don't. Pure."""

from __future__ import annotations

import hashlib
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _driver_state,
    _driver_state_files,
    _finding,
    _gpu_stack_plan,
    _repository_key,
)

SUBJECTS = {
    "driver": "The NVIDIA driver",
    "cuda_toolkit": "The CUDA toolkit",
    "container_toolkit": "The NVIDIA container toolkit",
}

NOTHING: t.Dict[str, t.Any] = {"keys": [], "files": []}
NO_PACKAGES: t.Dict[str, t.Any] = {
    "packages": [],
    "remove": [],
    "hold": False,
    "hold_also": [],
    "module_streams": [],
}


def plan_for(
    record: t.Mapping[str, t.Any],
    release: t.Dict[str, t.Any],
    options: t.Mapping[str, t.Any],
    *,
    component: str = "driver",
    given_gpus: t.Sequence[t.Mapping[str, t.Any]] = (),
    mirror_key: str = "",
    library: t.Optional[str] = None,
) -> t.Dict[str, t.Any]:
    """Return ``{plan, findings, refusal, said, source, transaction}``.

    Args:
        record: of ``_driver_state_read.read_state``.
        release: as the lookup ``release`` returns it.
        options: as the filter gpu_stack_plan takes them.
        component: ``driver``, ``cuda_toolkit`` or ``container_toolkit``: whose files are wanted.
        given_gpus: GPUs that the inventory names; they count where the PCI bus has none.
        mirror_key: the text of a mirror's key.
        library: the text of pynvml.py, None to leave it out.

    ``said`` is warnings for a person. ``source`` is ``{keys, files}`` as the module package_source takes them; a
    library that is on the host already isn't in it. ``transaction`` is what package_set takes. Both are empty with a
    refusal, and for a component that isn't wanted, which refuses nothing either.
    """
    options = dict(options)
    if options.get("container_toolkit_wanted") == "auto":
        options["container_toolkit_wanted"] = bool(record["runtimes"])
    host = {
        "platform": record["platform"],
        "architecture": record["architecture"],
        "kernel": record["kernel"]["next_boot"],
        "gpus": list(record["gpus"]) or list(given_gpus),
        "nvswitches": record["nvswitches"] if record["gpus"] else None,
        "installed": record["packages"],
    }
    plan = _gpu_stack_plan.gpu_stack_plan(release, host, options)
    if component == "container_toolkit" and not options.get("container_toolkit_wanted"):
        return {"plan": plan, "findings": [], "refusal": "", "said": [], "source": NOTHING, "transaction": NO_PACKAGES}
    findings: t.List[_finding.Finding] = list(plan["findings"])
    repositories = _driver_state_files.repositories_of(plan, component) if plan["repositories"] else []
    if component == "driver":
        findings += _driver_state.before(record, plan, given_gpus)
    findings += _driver_state.sources(record, repositories)
    findings += mirror_key_findings(mirror_key, repositories)
    refusal = _finding.refusal_message(findings, SUBJECTS[component])
    source, transaction = dict(NOTHING), dict(NO_PACKAGES)
    if not refusal:
        transaction = packages_for(component, plan)
        source["keys"] = [_driver_state_files.key(r, mirror_key) for r in repositories]
        source["files"] = files_for(component, plan, repositories)
        if library is not None and digest(library) != record["files"].get(_driver_state_files.NVML_LIBRARY):
            source["files"].append({"dest": _driver_state_files.NVML_LIBRARY, "content": library, "show": False})
    return {
        "plan": plan,
        "findings": findings,
        "refusal": refusal,
        "said": [_finding.describe(f) for f in _finding.warnings(findings)],
        "source": source,
        "transaction": transaction,
    }


def packages_for(component: str, plan: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return one transaction: the family and what its module is built with, what must go, and what is held with it."""
    part = plan[component]
    if component != "driver":
        return dict(NO_PACKAGES, packages=part["packages"], hold=bool(part["hold"]), hold_also=part["hold"])
    streams = [repository["module_stream"] for repository in plan["repositories"] if repository["module_stream"]]
    return {
        "module_streams": streams,
        "packages": part["packages"] + [{"name": name, "version": "*"} for name in part["build_packages"]],
        "remove": [conflict["name"] for conflict in part["conflicts"]],
        "hold": part["mechanism"] != "pinning_package",
        "hold_also": part["hold"] + part["kernel_packages"] if part["mechanism"] != "pinning_package" else [],
    }


def digest(text: str) -> str:
    """Return a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def files_for(
    component: str, plan: t.Mapping[str, t.Any], repositories: t.Sequence[t.Mapping[str, t.Any]]
) -> t.List[_driver_state_files.File]:
    """Return the files that a component places besides the keys."""
    if component == "driver":
        return _driver_state_files.driver_files(plan)
    files = [_driver_state_files.source_file(repository) for repository in repositories]
    if plan["manager"] == "apt" and plan[component]["hold"]:
        name = component.replace("_", "-")
        files.append(_driver_state_files.unattended_file(name, ["%s$" % p for p in plan[component]["hold"]]))
    return files


def mirror_key_findings(text: str, repositories: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[_finding.Finding]:
    """Return whether a mirror's key, given on the control node, is the pinned one of each repository."""
    findings = []
    for repository in repositories if text else ():
        wrong = _repository_key.check(text.encode("utf-8"), repository["key_fingerprint"], "the given key file")
        findings.append(
            _finding.finding(
                "driver.mirror_key.%s" % repository["id"],
                not wrong,
                expected=_repository_key.normal(repository["key_fingerprint"]),
                found=wrong or "the same",
                detail="gpufleet_nvidia_mirror_key_file against gpufleet_nvidia_mirror_key_fingerprint.",
                remedy="Give the key the mirror signs with, and its fingerprint as the mirror's keeper says it."
                if wrong
                else "",
            )
        )
    return findings
