# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Which kernel modules and which fabric manager the GPUs of one host need. Pure; the facts are the release's.

A ``gpu`` is ``{pci_address, pci_device_id, ...}`` as the host reports it, a ``Kind`` what the facts say of it.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._release import numbers

FLAVOURS = ("open", "proprietary")
FABRICS_WITH_MANAGER = ("nvlink5", "nvswitch")

Facts = t.Dict[str, t.Any]


class Kind(t.NamedTuple):
    """What the facts say of one GPU.

    Attributes:
        where: PCI address, for findings.
        device_id: PCI device id, four lower-case hexadecimal digits.
        name: what it is called, ``unknown GPU`` where the facts don't know it.
        known: whether the facts say what follows.
        flavours: kernel module flavours that drive it; both for an unknown one.
        first_driver: first branch that drives it; None: not known.
        last_driver: last branch that drives it; None: no end announced.
        compute_capability: like ``9.0``; empty if it isn't known.
        fabric: ``none``, ``nvswitch``, ``nvlink5`` or ``imex``.
    """

    where: str
    device_id: str
    name: str
    known: bool
    flavours: t.Tuple[str, ...]
    first_driver: t.Optional[str]
    last_driver: t.Optional[str]
    compute_capability: str
    fabric: str


def identify(gpu: t.Dict[str, t.Any], facts: Facts) -> Kind:
    """Return what the facts say of a GPU, by its PCI device id."""
    device_id = str(gpu.get("pci_device_id", "")).lower().replace("0x", "")
    where = str(gpu.get("pci_address") or device_id)
    entry = facts["gpus"].get(device_id)
    architecture = facts["architectures"].get(entry["architecture"]) if entry else None
    if entry and architecture:
        return Kind(
            where=where,
            device_id=device_id,
            name=entry["name"],
            known=True,
            flavours=_flavours(architecture, bool(entry.get("open_only"))),
            first_driver=architecture["first_driver"],
            last_driver=architecture["last_driver"],
            compute_capability=entry["compute_capability"],
            fabric=entry["fabric"],
        )
    for span in facts["pci_ranges"]:
        if span["first"] <= device_id <= span["last"]:
            return _of_span(where, device_id, span, [facts["architectures"][name] for name in span["architectures"]])
    return Kind(where, device_id, "unknown GPU", False, FLAVOURS, None, None, "", "none")


def _of_span(where: str, device_id: str, span: t.Dict[str, t.Any], kinds: t.List[t.Dict[str, t.Any]]) -> Kind:
    """Return what all architectures of a range of ids have in common."""
    lasts = [kind["last_driver"] for kind in kinds]
    return Kind(
        where=where,
        device_id=device_id,
        name=span["name"],
        known=True,
        flavours=tuple(name for name in FLAVOURS if all(name in _flavours(kind, False) for kind in kinds)),
        first_driver=None,
        last_driver=min(lasts, key=numbers) if all(lasts) else None,
        compute_capability="",
        fabric="none",
    )


def _flavours(architecture: t.Dict[str, t.Any], open_only: bool) -> t.Tuple[str, ...]:
    drives = {"open": architecture["open_module"], "proprietary": architecture["proprietary_module"] and not open_only}
    return tuple(name for name in FLAVOURS if drives[name])


def branches_for(kind: Kind, facts: Facts) -> t.List[str]:
    """Return the branches that drive a GPU: those with support, else all, oldest first."""
    fitting = [
        branch
        for branch in sorted(facts["driver_branches"], key=numbers)
        if (kind.first_driver is None or numbers(branch) >= numbers(kind.first_driver))
        and (kind.last_driver is None or numbers(branch) <= numbers(kind.last_driver))
    ]
    supported = [branch for branch in fitting if facts["driver_branches"][branch]["status"] == "supported"]
    return supported or fitting


def check_gpus(kinds: t.List[Kind], release: t.Dict[str, t.Any]) -> t.List[Finding]:
    """Return the findings on each GPU: it is known, the branch drives it, the release's CUDA supports it."""
    facts, branch, version = release["facts"], release["driver"]["branch"], release["driver"]["version"]
    findings: t.List[Finding] = []
    if not kinds:
        findings.append(
            finding(
                "gpu_stack.gpus",
                False,
                expected="an NVIDIA GPU",
                found="none",
                detail="The host shows no GPU on its PCI bus.",
                remedy="Check that it is seated and passed through. The driver comes with the release's default.",
                severity="warning",
            )
        )
    for kind in kinds:
        findings.append(
            finding(
                "gpu_stack.%s.known" % kind.where,
                kind.known,
                expected="a PCI device id of releases/facts.yml",
                found=kind.device_id or "none",
                detail="%s: the flavour of its kernel modules is the release's default." % kind.name
                if not kind.known
                else kind.name + ".",
                remedy="Name the flavour yourself if the default is wrong, and add the GPU to releases/facts.yml.",
                severity="warning",
            )
        )
        findings.append(
            finding(
                "gpu_stack.%s.driver_branch" % kind.where,
                _drives(kind, branch),
                expected="a branch that drives %s: %s"
                % (kind.name, ", ".join(branches_for(kind, facts)) or "none known"),
                found=branch,
                detail="The release pins driver %s." % version,
                remedy="Choose a release on one of these branches, or take the GPU out of the host.",
            )
        )
        if kind.compute_capability:
            needed = release["cuda"]["minimum_compute_capability"]
            findings.append(
                finding(
                    "gpu_stack.%s.compute_capability" % kind.where,
                    numbers(kind.compute_capability) >= numbers(needed),
                    expected="%s or newer" % needed,
                    found=kind.compute_capability,
                    detail="%s against what the release supports on CUDA %s; the driver drives it, the engine can't."
                    % (kind.name, release["cuda"]["version"]),
                    remedy="Keep the engine off this GPU, or choose a release with an older CUDA level.",
                    severity="warning",
                )
            )
    return findings


def _drives(kind: Kind, branch: str) -> bool:
    old_enough = kind.last_driver is None or numbers(branch) <= numbers(kind.last_driver)
    new_enough = kind.first_driver is None or numbers(branch) >= numbers(kind.first_driver)
    return old_enough and new_enough


def choose_flavour(
    kinds: t.List[Kind], wanted: str, default: str, offered: t.Iterable[str]
) -> t.Tuple[str, t.List[Finding]]:
    """Return the kernel module flavour for a host, and the findings that say why it isn't another.

    Args:
        kinds: the host's GPUs.
        wanted: ``auto``, or a flavour that the inventory insists on.
        default: the release's, for GPUs that both flavours drive.
        offered: flavours that the platform's repositories have.
    """
    findings: t.List[Finding] = []
    offered = [name for name in FLAVOURS if name in offered]
    fitting = [name for name in offered if all(name in kind.flavours for kind in kinds)]
    if wanted != "auto":
        for kind in kinds:
            findings.append(
                finding(
                    "gpu_stack.%s.module_flavour" % kind.where,
                    wanted in kind.flavours,
                    expected=" or ".join(kind.flavours),
                    found=wanted,
                    detail="%s is driven by %s kernel modules only." % (kind.name, " or ".join(kind.flavours))
                    if len(kind.flavours) == 1
                    else "%s." % kind.name,
                    remedy="Set the flavour to auto, or to %s." % " or ".join(kind.flavours),
                )
            )
        findings.append(
            finding(
                "gpu_stack.module_flavour",
                wanted in offered,
                expected=" or ".join(offered),
                found=wanted,
                detail="The platform's repositories don't have it at this branch." if wanted not in offered else "",
                remedy="Set the flavour to auto.",
            )
        )
        return wanted, findings
    chosen = default if default in fitting else fitting[0] if fitting else default
    needs = "; ".join("%s at %s: %s" % (kind.name, kind.where, " or ".join(kind.flavours)) for kind in kinds)
    findings.append(
        finding(
            "gpu_stack.module_flavour",
            bool(fitting),
            expected="one flavour that drives every GPU, of %s" % " or ".join(offered),
            found=chosen if fitting else needs,
            detail=needs + "." if needs else "",
            remedy="Move the GPUs that need another flavour to another host.",
        )
    )
    return chosen, findings


def fabrics_of(kinds: t.List[Kind], nvswitches: t.Optional[t.Sequence[t.Any]]) -> t.List[str]:
    """Return the fabrics of a host that something has to bring up, ``nvlink5`` first.

    A host that was looked at and has no NVSwitch on its PCI bus (``nvswitches`` is empty, not None) needs no manager
    for that kind: boards of four GPUs are wired to each other.
    """
    found = {kind.fabric for kind in kinds} - {"none"}
    if nvswitches is not None and not nvswitches:
        found.discard("nvswitch")
    return sorted(found)


def check_fabric(kinds: t.List[Kind], fabrics: t.List[str], release: t.Dict[str, t.Any]) -> t.List[Finding]:
    """Return the findings on the fabrics: the branch's fabric manager is new enough, and one exists at all."""
    findings: t.List[Finding] = []
    branch = release["driver"]["branch"]
    for kind in kinds:
        minimum = release["facts"]["fabric_manager_minimum_branch"].get(kind.device_id)
        if minimum and kind.fabric in fabrics:
            findings.append(
                finding(
                    "gpu_stack.%s.fabric_manager_branch" % kind.where,
                    numbers(branch) >= numbers(minimum),
                    expected="%s or newer" % minimum,
                    found=branch,
                    detail="The fabric manager of the driver's branch against what a board with %s needs." % kind.name,
                    remedy="Choose a release on a newer branch.",
                )
            )
        if kind.fabric not in FABRICS_WITH_MANAGER and kind.fabric in fabrics:
            findings.append(
                finding(
                    "gpu_stack.%s.fabric" % kind.where,
                    False,
                    expected="GPUs whose fabric lies within one host",
                    found=kind.fabric,
                    detail="%s is part of an NVLink domain of several hosts (IMEX)." % kind.name,
                    remedy="Set up the NVLink domain by NVIDIA's guide; the collection doesn't.",
                )
            )
    return findings
