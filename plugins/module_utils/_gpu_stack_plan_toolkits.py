# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The toolkits of the GPU stack on one host: CUDA's, cuDNN, and the container toolkit. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan_packages as naming
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._release import numbers

Mapping = t.Dict[str, t.Any]


def cuda_toolkit(
    release: Mapping, key: str, nvidia: Mapping, package_set: Mapping, options: Mapping
) -> t.Tuple[Mapping, t.List[Finding]]:
    """Return the CUDA toolkit and cuDNN of the host: packages and the reason for them or against them, and findings."""
    pins = release["cuda_toolkit"]
    toolkit = pins["wanted"] if options["cuda_toolkit_wanted"] is None else bool(options["cuda_toolkit_wanted"])
    wanted = {"cuda_toolkit": toolkit, "cudnn": bool(options["cudnn_wanted"])}
    versions = {"cuda_toolkit": pins["version"], "cudnn": release["cudnn"]["version"]}
    findings: t.List[Finding] = []
    packages: t.List[naming.Package] = []
    for part in sorted(wanted):
        if not wanted[part]:
            continue
        known = nvidia[part]
        findings.append(
            finding(
                "gpu_stack.%s" % part,
                bool(known),
                expected="packages of %s %s" % (part, versions[part]),
                found=", ".join(known or []) or "none known for %s" % key,
                detail="Release %s." % release["id"],
                remedy="Don't ask for it on this platform, or use one for which the release knows it.",
            )
        )
        version = package_set["toolkit_version"].replace("{version}", versions[part])
        packages += naming.at_version(known or [], version)
    if toolkit or wanted["cudnn"]:
        names = [title for part, title in (("cuda_toolkit", "CUDA toolkit"), ("cudnn", "cuDNN")) if wanted[part]]
        reason = "The inventory asks for %s on this host." % " and ".join(names)
        if toolkit and options["cuda_toolkit_wanted"] is None:
            reason = " ".join(pins["reason"].split())
    else:
        reason = " ".join(pins["reason"].split())
    return {
        "wanted": bool(toolkit or wanted["cudnn"]),
        "reason": reason,
        "version": pins["version"],
        "packages": packages,
        "hold": [package["name"] for package in packages],
        "default_path": pins["path"] if toolkit else None,
    }, findings


def container_toolkit(
    release: Mapping, key: str, nvidia: Mapping, package_set: Mapping, options: Mapping
) -> t.Tuple[Mapping, t.List[Finding]]:
    """Return the container toolkit of the host: its packages, all at one version, and findings."""
    pins = release["container_toolkit"]
    safe = release["facts"]["container_toolkit"]["minimum_safe"]
    wanted = bool(options["container_toolkit_wanted"])
    result: Mapping = {
        "wanted": wanted,
        "reason": "The inventory asks for containers with GPUs on this host."
        if wanted
        else "The inventory doesn't ask for containers on this host; engines run without them.",
        "version": pins["version"],
        "packages": [],
        "hold": [],
    }
    if not wanted:
        return result, []
    repository = nvidia["container_toolkit_repository"]
    findings = [
        finding(
            "gpu_stack.container_toolkit.safe",
            numbers(pins["version"]) >= numbers(safe),
            expected="%s or newer" % safe,
            found=pins["version"],
            detail="Older ones let a container out to the host.",
            remedy="Choose a release with a newer container toolkit.",
        ),
        finding(
            "gpu_stack.container_toolkit.repository",
            bool(repository),
            expected="a repository with the container toolkit for %s" % key,
            found=repository or "none known",
            remedy="Don't ask for it on this platform, or use one for which the release knows it.",
        ),
    ]
    version = package_set["container_toolkit_version"].replace("{version}", pins["version"])
    result["packages"] = naming.at_version(pins["packages"], version)
    result["hold"] = list(pins["packages"])
    return result, findings
