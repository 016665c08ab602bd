# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Finds what doesn't fit together in the GPU stack of a release: driver, CUDA, cuDNN, GPUs, toolkits.

Every function takes a completed release with its facts (see ``_release.load``) and returns findings, one per link,
whose ``check`` names the link. Nothing is read. Names, pins and repositories are in ``_release_check_packages``.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _release_check_packages as packaging
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._release import Release, numbers
from ansible_collections.gpufleet.llm.plugins.module_utils._release_check_packages import major_of, supported_gpus

PARTS = ("driver", "cuda_toolkit", "cudnn", "container_toolkit", "package_sets", "repositories")


def cuda_platforms(release: Release) -> t.Dict[str, t.Dict[str, t.Any]]:
    """Return the platforms on which the release claims CUDA."""
    return {key: entry for key, entry in release["platforms"].items() if "cuda" in entry["accelerators"]}


def check_stack(release: Release) -> t.List[Finding]:
    """Return every finding on the GPU stack of one release; none where no platform claims CUDA."""
    platforms = cuda_platforms(release)
    if not platforms:
        return []
    missing = [part for part in PARTS if part not in release]
    missing += ["platforms.%s.nvidia" % key for key in sorted(platforms) if "nvidia" not in platforms[key]]
    findings = [
        finding(
            "release.gpu_stack",
            not missing,
            expected=", ".join(PARTS) + ", and nvidia below every platform with CUDA",
            found="no " + ", ".join(missing) if missing else "all of them",
            remedy="Add them, or take the accelerator cuda from the platforms.",
        )
    ]
    if missing:
        return findings
    findings += check_driver(release) + check_cuda(release) + check_gpus(release)
    findings += check_toolkits(release)
    for name in sorted(release["package_sets"]):
        findings += packaging.check_package_set(release, name, release["package_sets"][name])
    for name in sorted(release["repositories"]):
        findings.append(packaging.check_key_name(name, release["repositories"][name]))
    for key in sorted(platforms):
        findings += packaging.check_platform(release, key, platforms[key])
    return findings


# -- driver, CUDA, GPUs ----------------------------------------------------------------------------------------------


def check_driver(release: Release) -> t.List[Finding]:
    """The driver is of its branch, the branch has support on the release's day, and it runs the CUDA level."""
    driver, cuda, facts = release["driver"], release["cuda"], release["facts"]
    branch = facts["driver_branches"].get(driver["branch"])
    level = facts["cuda"].get(cuda["version"], {})
    floor, full = level.get("mvc_floor"), level.get("toolkit_driver")
    end = branch["end_of_life"] if branch else None
    alive = bool(branch) and (end >= release["date"][:7] if end else branch["status"] == "supported")
    return [
        finding(
            "release.driver.branch",
            driver["version"].split(".")[0] == driver["branch"],
            expected="a version of branch %s" % driver["branch"],
            found=driver["version"],
            detail="The driver's version against its branch.",
            remedy="Mend driver.version or driver.branch.",
        ),
        finding(
            "release.driver.end_of_life",
            alive,
            expected="a branch with support on %s" % release["date"],
            found="%s: %s" % (driver["branch"], "end of life %s, %s" % (end or "unknown", branch["status"]))
            if branch
            else "%s: not in facts.yml" % driver["branch"],
            detail="The driver's branch on the day of the release.",
            remedy="Pin one of: %s."
            % ", ".join(
                name for name, entry in sorted(facts["driver_branches"].items()) if entry["status"] == "supported"
            ),
        ),
        finding(
            "release.driver.cuda",
            numbers(driver["version"]) >= numbers(cuda["minimum_driver"]),
            expected="%s or newer" % cuda["minimum_driver"],
            found=driver["version"],
            detail="The pinned driver against what the release says CUDA %s needs." % cuda["version"],
            remedy="Pin a newer driver branch, or an older CUDA level with engines to match.",
        ),
        finding(
            "release.driver.runs_cuda",
            bool(floor) and numbers(driver["version"]) >= numbers(floor or ""),
            expected="%s or newer" % (floor or "a CUDA level that facts.yml knows, unlike %s" % cuda["version"]),
            found=driver["version"],
            detail="The pinned driver against the floor of minor version compatibility with CUDA %s." % cuda["version"],
            remedy="Pin a newer driver branch, or an older CUDA level with engines to match.",
        ),
        finding(
            "release.driver.compiles_cuda",
            bool(full) and numbers(driver["version"]) >= numbers(full or ""),
            expected="%s or newer" % (full or "a driver that facts.yml knows for CUDA %s" % cuda["version"]),
            found=driver["version"],
            detail="With less the driver can't compile PTX of CUDA %s." % cuda["version"],
            remedy="Pin a newer driver branch, or use wheels with machine code for every GPU.",
            severity="warning",
        ),
    ]


def check_cuda(release: Release) -> t.List[Finding]:
    """The lowest driver that the release claims is one that CUDA and cuDNN run on."""
    cuda, facts = release["cuda"], release["facts"]
    floor = facts["cuda"].get(cuda["version"], {}).get("mvc_floor")
    row, needed = cudnn_floor(release)
    return [
        finding(
            "release.cuda.minimum_driver",
            bool(floor) and numbers(cuda["minimum_driver"]) >= numbers(floor or ""),
            expected="%s or newer" % (floor or "a CUDA level that facts.yml knows"),
            found=cuda["minimum_driver"],
            detail="What the release says CUDA %s needs, against the floor in facts.yml." % cuda["version"],
            remedy="Set cuda.minimum_driver to that, or higher.",
        ),
        finding(
            "release.cudnn.driver",
            needed is None or numbers(cuda["minimum_driver"]) >= numbers(needed),
            expected="%s or newer" % needed if needed else "any: no floor is known",
            found=cuda["minimum_driver"],
            detail="cuDNN %s: the nearest row of NVIDIA's matrix that is known is that of %s."
            % (release["cudnn"]["version"], row or "no version"),
            remedy="Set cuda.minimum_driver to that, or choose an engine with an older cuDNN.",
        ),
        finding(
            "release.cudnn.row",
            row is not None and numbers(release["cudnn"]["version"])[: len(numbers(row))] == numbers(row),
            expected="a row for cuDNN %s with a driver for CUDA %s" % (release["cudnn"]["version"], major_of(release)),
            found=row or "none",
            detail="cuDNN's driver floor was taken from the nearest older row.",
            remedy="Look the version up in NVIDIA's cuDNN support matrix, and add it to facts.yml.",
            severity="warning",
        ),
    ]


def cudnn_floor(release: Release) -> t.Tuple[t.Optional[str], t.Optional[str]]:
    """Return ``(row, driver)``: the newest known row of cuDNN's matrix up to the release's version, and its driver."""
    major, version = major_of(release), numbers(release["cudnn"]["version"])
    blackwell = any(kind.first_driver for kind in supported_gpus(release))
    rows = release["facts"]["cudnn"]
    for row in sorted(rows, key=numbers, reverse=True):
        if numbers(row) <= version[: len(numbers(row))] and rows[row].get(major):
            floors = [rows[row][major]]
            if blackwell and rows[row].get("blackwell"):
                floors.append(rows[row]["blackwell"])
            return row, max(floors, key=numbers)
    return None, None


def check_gpus(release: Release) -> t.List[Finding]:
    """CUDA still builds for every supported GPU, the branch drives it, and so does its fabric manager."""
    facts, branch, major = release["facts"], numbers(release["driver"]["branch"]), major_of(release)
    kinds = supported_gpus(release)
    least = numbers(release["cuda"]["minimum_compute_capability"])
    dropped = [
        name
        for name, entry in sorted(facts["architectures"].items())
        if entry["last_cuda_major"]
        and numbers(entry["last_cuda_major"]) < numbers(major)
        and any(numbers(capability) >= least for capability in entry["compute_capabilities"])
    ]
    undriven = [
        kind.name
        for kind in kinds
        if (kind.last_driver and numbers(kind.last_driver) < branch)
        or (kind.first_driver and numbers(kind.first_driver) > branch)
    ]
    unready = [
        kind.name for kind in kinds if numbers(facts["fabric_manager_minimum_branch"].get(kind.device_id, "0")) > branch
    ]
    return [
        finding(
            "release.cuda.compute_capability",
            not dropped,
            expected="%s or newer, and CUDA %s for all of them" % (".".join(map(str, least)), major),
            found="not for %s" % ", ".join(dropped) if dropped else "all",
            detail="Architectures from cuda.minimum_compute_capability on, against the last CUDA for them.",
            remedy="Raise cuda.minimum_compute_capability.",
        ),
        finding(
            "release.driver.gpus",
            bool(kinds) and not undriven,
            expected="branch %s for each of %d supported GPUs" % (release["driver"]["branch"], len(kinds)),
            found="not for %s" % ", ".join(undriven) if undriven else "all",
            detail="GPUs of facts.yml at or above cuda.minimum_compute_capability.",
            remedy="Pin a branch that drives them, or raise cuda.minimum_compute_capability.",
        ),
        finding(
            "release.driver.fabric_manager",
            not unready,
            expected="a fabric manager for every supported GPU with NVSwitches",
            found="too old for %s" % ", ".join(unready) if unready else "all",
            detail="The fabric manager is of the driver's branch, %s." % release["driver"]["branch"],
            remedy="Pin a newer branch.",
        ),
    ]


def check_toolkits(release: Release) -> t.List[Finding]:
    """CUDA toolkit and container toolkit: the right level, safe, and whole."""
    toolkit, container, facts = release["cuda_toolkit"], release["container_toolkit"], release["facts"]
    level = release["cuda"]["version"]
    safe = facts["container_toolkit"]["minimum_safe"]
    return [
        finding(
            "release.cuda_toolkit.cuda",
            toolkit["version"].startswith(level + ".") and toolkit["path"].endswith("-" + level),
            expected="a version %s.* in a path that ends -%s" % (level, level),
            found="%s in %s" % (toolkit["version"], toolkit["path"]),
            detail="The toolkit against the release's CUDA level.",
            remedy="Mend cuda_toolkit, or cuda.version.",
        ),
        finding(
            "release.container_toolkit.safe",
            numbers(container["version"]) >= numbers(safe),
            expected="%s or newer" % safe,
            found=container["version"],
            detail="Older ones let a container out to the host.",
            remedy="Pin a newer container toolkit.",
        ),
        finding(
            "release.container_toolkit.packages",
            sorted(container["packages"]) == sorted(facts["container_toolkit"]["packages"]),
            expected=", ".join(sorted(facts["container_toolkit"]["packages"])),
            found=", ".join(sorted(container["packages"])),
            detail="The packages that belong together at one version.",
            remedy="Name all of them.",
        ),
    ]
