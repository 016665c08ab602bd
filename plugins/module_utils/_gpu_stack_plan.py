# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What the roles for the GPU stack put on one host: all of it, or every reason why not. Pure, and it reads nothing.

Input is a release (see ``_release.load``), what the host is, and what the inventory wants. The shape of the result is
in :func:`gpu_stack_plan`; a plan with a ``refusal`` has the same keys and may be empty below them.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan_gpus as gpus
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan_packages as naming
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan_toolkits as toolkits
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding, refusal_message
from ansible_collections.gpufleet.llm.plugins.module_utils._release import platform_of

Mapping = t.Dict[str, t.Any]

CHOICES: t.Dict[str, t.Tuple[str, ...]] = {"flavour": ("auto", "open", "proprietary"), "packages": ("compute", "full")}
DEFAULTS: Mapping = {
    "flavour": "auto",
    "packages": "compute",
    "mirror_url": "",
    "mirror_key_fingerprint": "",
    "cuda_toolkit_wanted": None,
    "cudnn_wanted": False,
    "container_toolkit_wanted": True,
}
PARTS = ("driver", "cuda_toolkit", "cudnn", "container_toolkit", "package_sets", "repositories")
HOST_DEFAULTS: Mapping = {
    "platform": "",
    "architecture": "",
    "kernel": "",
    "gpus": [],
    "nvswitches": None,
    "installed": {},
}


def gpu_stack_plan(release: Mapping, host: Mapping, options: t.Optional[Mapping] = None) -> Mapping:
    """Return the GPU stack of one host.

    Args:
        release: a release with its facts, as the lookup ``gpufleet.llm.release`` returns it.
        host: ``platform`` (a key of the release's platforms or one of its aliases), ``architecture`` (``x86_64`` or
            ``aarch64``), ``kernel`` (the running one, as ``uname -r`` says it), ``gpus`` (each with ``pci_address`` and
            ``pci_device_id``), ``nvswitches`` (what was found on the PCI bus; None, the default: nobody looked),
            ``installed`` (package to version, of the family; may be empty).
        options: ``flavour`` (``auto``, ``open`` or ``proprietary``), ``packages`` (``compute`` or ``full``),
            ``mirror_url``, ``mirror_key_fingerprint``, ``cuda_toolkit_wanted`` (None: what the release says),
            ``cudnn_wanted``, ``container_toolkit_wanted``.

    Returns:
        ``manager`` (``apt``, ``dnf``, or empty for an unknown platform), ``refusal`` (empty, or all reasons in one
        text), ``findings``, ``repositories``, ``driver``, ``cuda_toolkit``, ``container_toolkit``; the filter's
        documentation has their shapes.
    """
    options = dict(DEFAULTS, **(options or {}))
    host = dict(HOST_DEFAULTS, **host)
    host["installed"] = host["installed"] or {}
    subject = "The GPU stack of release %s on %s" % (release.get("id"), host["platform"] or "an unknown platform")
    findings = _check_options(options) + _check_host(release, host)
    if refusal_message(findings, subject):
        return _finish(_empty(), findings, subject)
    key, platform = t.cast("t.Tuple[str, Mapping]", platform_of(release, host["platform"]))
    plan = _empty()
    nvidia = platform["nvidia"]
    package_set = release["package_sets"][nvidia["package_set"]]
    plan["manager"] = package_set["manager"]
    plan["driver"], more = _driver(release, nvidia, package_set, host, options)
    findings += more
    plan["cuda_toolkit"], more = toolkits.cuda_toolkit(release, key, nvidia, package_set, options)
    findings += more
    plan["container_toolkit"], more = toolkits.container_toolkit(release, key, nvidia, package_set, options)
    findings += more
    plan["repositories"], more = _repositories(release, nvidia, package_set, plan, host, options)
    findings += more
    return _finish(plan, findings, subject)


def _finish(plan: Mapping, findings: t.List[Finding], subject: str) -> Mapping:
    plan["findings"] = findings
    plan["refusal"] = refusal_message(findings, subject)
    return plan


def _empty() -> Mapping:
    nothing: Mapping = {"wanted": False, "reason": "", "version": "", "packages": [], "hold": []}
    return {
        "manager": "",
        "refusal": "",
        "findings": [],
        "repositories": [],
        "driver": {
            "branch": "",
            "version": "",
            "flavour": "",
            "packages": [],
            "pin_patterns": [],
            "hold": [],
            "mechanism": "",
            "pinning_package": None,
            "kernel_packages": [],
            "build_packages": [],
            "conflicts": [],
            "unattended_patterns": [],
            "preferences": "",
            "modules_blacklisted": [],
            "services": {"enable": []},
            "fabric_manager": None,
        },
        "cuda_toolkit": dict(nothing, default_path=None),
        "container_toolkit": dict(nothing),
    }


def _check_options(options: Mapping) -> t.List[Finding]:
    findings = [
        finding(
            "gpu_stack.options.%s" % name,
            options[name] in choices,
            expected="one of %s" % ", ".join(choices),
            found=options[name],
            remedy="Set it to one of these.",
        )
        for name, choices in sorted(CHOICES.items())
    ]
    unknown = sorted(set(options) - set(DEFAULTS))
    findings.append(
        finding(
            "gpu_stack.options.names",
            not unknown,
            expected="some of %s" % ", ".join(sorted(DEFAULTS)),
            found=", ".join(unknown) or "nothing else",
            remedy="Mend the spelling.",
        )
    )
    return findings


def _check_host(release: Mapping, host: Mapping) -> t.List[Finding]:
    found = platform_of(release, host["platform"])
    whole = all(part in release for part in PARTS)
    known = sorted(key for key, entry in release["platforms"].items() if whole and "nvidia" in entry)
    fits = found is not None and found[0] in known
    findings = [
        finding(
            "gpu_stack.platform",
            fits,
            expected="one of %s" % (", ".join(known) or "none: the release has no GPU stack"),
            found=host["platform"] or "none",
            detail="Platforms of release %s with a GPU stack." % release.get("id"),
            remedy="Install one of these, or set gpufleet_release to a release that knows this one.",
        )
    ]
    if fits and found is not None:
        nvidia = found[1]["nvidia"]
        names = [name for name in (nvidia["driver_repository"],) if name]
        architectures = sorted({key for name in names for key in release["repositories"][name]["paths"]})
        architectures = architectures or sorted(found[1]["architectures"])
        findings.append(
            finding(
                "gpu_stack.architecture",
                host["architecture"] in architectures,
                expected="one of %s" % ", ".join(architectures),
                found=host["architecture"] or "none",
                detail="Architectures of the driver's repository for %s." % found[0],
                remedy="Use a machine of one of these, or another platform.",
            )
        )
    return findings


# -- the driver ------------------------------------------------------------------------------------------------------


def _driver(
    release: Mapping, nvidia: Mapping, package_set: Mapping, host: Mapping, options: Mapping
) -> t.Tuple[Mapping, t.List[Finding]]:
    pins, facts = release["driver"], release["facts"]
    kinds = [gpus.identify(gpu, facts) for gpu in host["gpus"]]
    findings = gpus.check_gpus(kinds, release)
    offered = list(package_set["packages"])
    flavour, more = gpus.choose_flavour(kinds, options["flavour"], pins["default_flavour"], offered)
    findings += more
    version = package_set["version"].replace("{version}", pins["version"])
    names = list(package_set["packages"].get(flavour, {}).get(options["packages"], []))
    fabric_manager, more = _fabric_manager(release, package_set, kinds, host)
    findings += more
    names += [name for name in (fabric_manager or {}).get("packages", []) if name not in names]
    companions = [dict(package) for package in package_set.get("companions", [])]
    conflicts = naming.conflicts_of(package_set, flavour, pins["branch"], host["installed"])
    packages = naming.at_version(names, version)
    packages += naming.followers(package_set, packages, conflicts, version, host["installed"])
    packages += companions
    members = {package["name"] for package in packages if not naming.is_pinned(package["name"], package_set["pinned"])}
    holds = nvidia["mechanism"] != "pinning_package"
    writes_preferences = nvidia["mechanism"] == "preferences_and_hold"
    units = list(pins["units"]) + ([fabric_manager["unit"]] if fabric_manager else [])
    return {
        "branch": pins["branch"],
        "version": pins["version"],
        "flavour": flavour,
        "packages": packages,
        "pin_patterns": list(package_set["pinned"]),
        "hold": sorted(members | set(package_set["pinned"])) if holds else [],
        "mechanism": nvidia["mechanism"],
        "pinning_package": nvidia["pinning_package"],
        "kernel_packages": naming.expand(package_set["kernel"], host, package_set["manager"]),
        "build_packages": naming.expand(package_set["build"], host, package_set["manager"]),
        "conflicts": conflicts,
        "unattended_patterns": naming.unattended_patterns(package_set["unattended"]),
        "preferences": naming.preferences(release["id"], package_set, version, companions)
        if writes_preferences
        else "",
        "modules_blacklisted": list(pins["modules_blacklisted"]),
        "services": {"enable": units},
        "fabric_manager": fabric_manager,
    }, findings


def _fabric_manager(
    release: Mapping, package_set: Mapping, kinds: t.List[gpus.Kind], host: Mapping
) -> t.Tuple[t.Optional[Mapping], t.List[Finding]]:
    fabrics = gpus.fabrics_of(kinds, host["nvswitches"])
    findings = gpus.check_fabric(kinds, fabrics, release)
    names: t.List[str] = []
    managed = [fabric for fabric in fabrics if fabric in gpus.FABRICS_WITH_MANAGER]
    for fabric in managed:
        known = package_set["fabric_manager"][fabric]
        findings.append(
            finding(
                "gpu_stack.fabric_manager.%s" % fabric,
                bool(known),
                expected="packages that bring up an %s fabric" % fabric,
                found=", ".join(known or []) or "none known for this platform",
                detail="Release %s, package set of the host's platform." % release["id"],
                remedy="Use a platform for which the release knows them.",
            )
        )
        names += [name for name in known or [] if name not in names]
    if not managed:
        return None, findings
    return {"packages": names, "unit": release["driver"]["fabric_manager_unit"]}, findings


# -- repositories ------------------------------------------------------------------------------------------------------


def _repositories(
    release: Mapping, nvidia: Mapping, package_set: Mapping, plan: Mapping, host: Mapping, options: Mapping
) -> t.Tuple[t.List[Mapping], t.List[Finding]]:
    streams = package_set["module_streams"] or {}
    wanted: t.List[t.Tuple[str, t.Optional[str]]] = []
    if nvidia["driver_repository"]:
        wanted.append((nvidia["driver_repository"], streams.get(plan["driver"]["flavour"])))
    toolkit = nvidia["container_toolkit_repository"]
    if plan["container_toolkit"]["wanted"] and toolkit and toolkit != nvidia["driver_repository"]:
        wanted.append((toolkit, None))
    repositories: t.List[Mapping] = []
    findings: t.List[Finding] = []
    for name, stream in wanted:
        entry = release["repositories"][name]
        made = naming.repository(
            name, entry, host["architecture"], options["mirror_url"], options["mirror_key_fingerprint"], stream
        )
        findings.append(
            finding(
                "gpu_stack.repository.%s" % name,
                made is not None,
                expected="one of %s" % ", ".join(sorted(entry["paths"])),
                found=host["architecture"],
                detail="Architectures that the repository is published for.",
                remedy="Use a machine of one of these.",
            )
        )
        if made is not None:
            repositories.append(made)
    return repositories, findings
