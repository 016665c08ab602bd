# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The links beside the driver: toolkit, the host's cuDNN, fabric, containers, C library. Pure rules over a `View`."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_facts as known
from ansible_collections.gpufleet.llm.plugins.module_utils._cuda_parity_view import Gpu, View
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding
from ansible_collections.gpufleet.llm.plugins.module_utils._host_proc import parse_version as numbers

#: Kinds of fabric (facts.yml) whose switches are run by a fabric manager on the host itself.
MANAGED_FABRICS = ("nvswitch", "nvlink5")


def rule_cuda_toolkit(view: View) -> t.List[Finding]:
    """The release's toolkit is there and default, where one is wanted; absent is fine otherwise."""
    toolkits = view.record["toolkits"]
    found = ", ".join("%s in %s" % (one["version"], one["path"]) for one in toolkits["installed"]) or "none"
    if not view.options["cuda_toolkit_wanted"]:
        detail = "The engine's wheels bring their own CUDA runtime."
        return [view.say("cuda_toolkit", True, expected="none needed", found=found, detail=detail)]
    cuda = view.release["cuda"]["version"]
    paths = [one["path"] for one in toolkits["installed"] if numbers(one["version"])[:2] == numbers(cuda)]
    ok = bool(paths) and toolkits["default"] in paths
    expected = "CUDA %s, and /usr/local/cuda pointing at it" % cuda
    found += "; /usr/local/cuda is %s" % (toolkits["default"] or "absent")
    return [view.say("cuda_toolkit", ok, expected=expected, found=found)]


def judge_cudnn(view: View, link: str, version: str, cuda_major: str) -> Finding:
    """Return the finding of a link whether the driver is new enough for a cuDNN."""
    architectures = sorted({gpu.architecture for gpu in view.gpus if gpu.architecture})
    floor, row = known.cudnn_floor(view.facts, version, cuda_major, architectures)
    if floor is None:
        why = "NVIDIA's matrix has no row for cuDNN %s with CUDA %s." % (version, cuda_major)
        return view.undecided(link, expected="a driver for cuDNN %s" % version, why=why)
    return view.say(
        link,
        known.at_least(str(view.driver), floor),
        expected="driver %s or newer for cuDNN %s" % (floor, version),
        found="driver %s" % view.driver,
        detail="By the row of cuDNN %s and CUDA %s in NVIDIA's matrix." % (row, cuda_major),
    )


def rule_cudnn_host(view: View) -> t.List[Finding]:
    """The host's own cuDNN, where there is one, fits the driver."""
    libraries = [one for one in view.record["cudnn"] if one["version"]]
    if not libraries:
        wanted = view.options["cudnn_wanted"]
        expected = "a cuDNN" if wanted else "none needed"
        return [view.say("cudnn_host", not wanted, expected=expected, found="none on the host")]
    major = view.release["cuda"]["version"].split(".")[0]
    return [judge_cudnn(view, "cudnn_host", one["version"], major) for one in libraries]


def fabric_gpus(view: View) -> t.List[Gpu]:
    """Return the GPUs that hang on an NVLink switch."""
    return [gpu for gpu in view.gpus if gpu.fact.get("fabric") not in (None, "none")]


def fabric_state(gpu: Gpu) -> str:
    """Return NVML's fabric state in lower case, empty where the driver tells none."""
    state = str(gpu.fabric.get("state") or "").lower()
    return "" if state in ("not_supported", "none") else state


def fabric_completed(gpu: Gpu) -> bool:
    """Tell whether a GPU has joined its fabric."""
    status = str(gpu.fabric.get("status") or "").lower()
    return fabric_state(gpu) == "completed" and status in ("", "success", "none")


def rule_fabric_manager(view: View) -> t.List[Finding]:
    """Where NVSwitches want a fabric manager, it's the driver's version and runs.

    In a virtual machine that was given some of the GPUs the switches are run outside: there the state decides.
    """
    managed = [gpu for gpu in fabric_gpus(view) if gpu.fact["fabric"] in MANAGED_FABRICS]
    package, unit = view.record["fabric_manager"]["package"], view.record["fabric_manager"]["unit"] or {}
    if not managed:
        found = "%s %s" % (package["name"], package["version"]) if package else "none"
        return [view.say("fabric_manager", True, expected="none needed: no GPU on an NVSwitch", found=found)]
    waiting = [gpu.title for gpu in managed if fabric_state(gpu) and not fabric_completed(gpu)]
    expected = "fabric manager %s, active and enabled" % view.driver
    if package is None and not view.record["pci"]["switches"] and not waiting:
        detail = "No NVSwitch on the PCI bus and no GPU that waits: the fabric is managed outside of this host."
        return [view.say("fabric_manager", True, expected=expected, found="none", detail=detail)]
    wrong = []
    if package is None:
        wrong.append("not installed")
    elif known.upstream(package["version"]) != view.driver:
        wrong.append("%s is %s" % (package["name"], package["version"]))
    for key, wanted in (("active_state", "active"), ("unit_file_state", "enabled")):
        if unit.get(key) != wanted:
            wrong.append("%s is %s" % (view.words["fabric_unit"], unit.get(key) or "unknown to systemd"))
    found = "; ".join(wrong) or "%s, active and enabled" % (package or {}).get("version")
    return [view.say("fabric_manager", not wrong, expected=expected, found=found)]


def rule_fabric(view: View) -> t.List[Finding]:
    """Every GPU on an NVLink switch has joined its fabric."""
    members = fabric_gpus(view)
    expected = "completed, success"
    if not members:
        return [view.say("fabric", True, expected="none: no GPU on an NVLink switch", found="none")]
    told = [gpu for gpu in members if fabric_state(gpu)]
    if not told:
        detail = "NVML tells no fabric state of these GPUs; CUDA's first call tells whether it's ready."
        return [view.say("fabric", True, expected=expected, found="unknown", detail=detail, severity="info")]
    wrong = ["%s: %s, %s" % (g.title, fabric_state(g), g.fabric.get("status")) for g in told if not fabric_completed(g)]
    found = "; ".join(wrong) or "%d GPUs completed" % len(told)
    return [view.say("fabric", not wrong, expected=expected, found=found)]


def rule_container_toolkit(view: View) -> t.List[Finding]:
    """The toolkit's packages are of one version, safe, and the release's where it is wanted."""
    pinned = view.release.get("container_toolkit") or {}
    installed = {name: view.record["packages"].get(name) for name in pinned.get("packages") or []}
    present = {name: known.upstream(version) for name, version in installed.items() if version}
    wanted = view.options["container_toolkit_wanted"]
    if not present:
        expected = pinned.get("version") if wanted else "none needed"
        return [view.say("container_toolkit", not wanted, expected=expected, found="none")]
    safe = (view.facts.get("container_toolkit") or {}).get("minimum_safe")
    wrong = []
    if len(set(present.values())) > 1:
        wrong.append("packages of different versions")
    wrong += [
        "%s %s is older than %s" % (n, v, safe) for n, v in present.items() if safe and numbers(v) < numbers(safe)
    ]
    if wanted:
        wrong += ["%s isn't installed" % name for name in installed if name not in present]
        wrong += ["%s is %s" % (n, v) for n, v in present.items() if v != pinned.get("version")]
    told = ", ".join("%s %s" % item for item in sorted(present.items()))
    expected = "all of one version, %s or newer%s" % (safe, ", and %s" % pinned.get("version") if wanted else "")
    return [view.say("container_toolkit", not wrong, expected=expected, found="; ".join(wrong) or told)]


def rule_cdi(view: View) -> t.List[Finding]:
    """Every CDI specification mentions the driver's libraries at their version."""
    specs, version = view.record["cdi"], view.library or view.driver
    expected = "a specification that mentions %s alone" % version
    if not specs:
        wanted = view.options["container_toolkit_wanted"]
        return [view.say("cdi", not wanted, expected=expected if wanted else "none needed", found="none")]
    wrong = [one for one in specs if one["versions"] != [version]]
    found = ["%s mentions %s" % (one["path"], ", ".join(one["versions"]) or "no driver") for one in wrong or specs]
    return [view.say("cdi", not wrong, expected=expected, found="; ".join(found))]


def rule_glibc(view: View) -> t.List[Finding]:
    """The host's C library is new enough for the engine's wheels."""
    floor, found = view.build.get("minimum_glibc"), view.record["glibc"]
    if not floor or not found:
        return [view.undecided("glibc", expected="glibc %s" % floor, why="The host's C library tells no version.")]
    ok = numbers(found) >= numbers(floor)
    return [view.say("glibc", ok, expected="glibc %s or newer" % floor, found=found)]
