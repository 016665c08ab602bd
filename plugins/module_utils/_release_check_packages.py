# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Finds what doesn't fit together in the names, pins and repositories of a release's GPU stack.

Every function returns findings, one per link, whose ``check`` names the link. Nothing is read.
"""

from __future__ import annotations

import fnmatch
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_stack_plan_gpus import (
    FABRICS_WITH_MANAGER,
    Kind,
    identify,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_stack_plan_packages import SUFFIX, is_pinned
from ansible_collections.gpufleet.llm.plugins.module_utils._release import Release, numbers

FABRIC_NAMES = ("nvidia-fabricmanager", "libnvidia-nscq", "libnvsdm", "nvidia-imex", "cuda-drivers-fabricmanager")
MANAGER_OF = {"preferences_and_hold": "apt", "pinning_package": "apt", "versionlock": "dnf"}


def supported_gpus(release: Release) -> t.List[Kind]:
    """Return the GPUs a release supports: those of the facts at or above its CUDA level's compute capability."""
    least = numbers(release["cuda"]["minimum_compute_capability"])
    kinds = [identify({"pci_device_id": device_id}, release["facts"]) for device_id in sorted(release["facts"]["gpus"])]
    return [kind for kind in kinds if numbers(kind.compute_capability) >= least]


def major_of(release: Release) -> str:
    """Return the major version of the release's CUDA level."""
    return str(release["cuda"]["version"]).split(".", maxsplit=1)[0]


# -- package names ---------------------------------------------------------------------------------------------------


def _names(package_set: t.Dict[str, t.Any]) -> t.List[str]:
    """Return every package of a set that carries the driver's version."""
    names = [name for choice in package_set["packages"].values() for listed in choice.values() for name in listed]
    names += [name for listed in package_set["fabric_manager"].values() for name in listed or []]
    return sorted(set(names))


def check_package_set(release: Release, key: str, package_set: t.Dict[str, t.Any]) -> t.List[Finding]:
    """The set has modules for every supported GPU, its names are the branch's, and its pins cover all of them."""
    branch, limits = release["driver"]["branch"], release["facts"]["package_names"]["last_suffixed_branch"]
    names = _names(package_set)
    offered = set(package_set["packages"])
    undecided = [kind.name for kind in supported_gpus(release) if not offered & set(kind.flavours)]
    past = []
    for name in names:
        suffix = SUFFIX.search(name)
        limit = limits["fabric_manager" if name.startswith(FABRIC_NAMES) else "driver"]
        if suffix and (suffix.group(1) != branch or numbers(suffix.group(1)) > numbers(limit)):
            past.append(name)
    unpinned = [name for name in names if not is_pinned(name, package_set["pinned"])]
    fought = [name for name in names if any(_is(name, conflict["name"]) for conflict in package_set["conflicts"])]
    unmanaged = [fabric for fabric in FABRICS_WITH_MANAGER if not package_set["fabric_manager"][fabric]]
    where = "release.package_sets.%s" % key
    return [
        finding(
            where + ".module_flavour",
            not undecided and release["driver"]["default_flavour"] in offered,
            expected="kernel modules for every supported GPU, and driver.default_flavour among them",
            found="%s; none for %s" % (", ".join(sorted(offered)), ", ".join(undecided) or "no GPU"),
            detail="Flavours of the set against those that drive each GPU.",
            remedy="Add the flavour to the set, or change driver.default_flavour.",
        ),
        finding(
            where + ".names",
            not past,
            expected="names without a branch, or with %s up to the last branch that has them (%s; fabric manager %s)"
            % (branch, limits["driver"], limits["fabric_manager"]),
            found=", ".join(past) or "all so",
            detail="Package names that carry a branch.",
            remedy="Name the packages as the branch has them.",
        ),
        finding(
            where + ".pinned",
            not unpinned,
            expected="a pattern for every package of the set",
            found="none for %s" % ", ".join(unpinned) if unpinned else "all",
            detail="Packages against the patterns that pin them.",
            remedy="Add the names to pinned.",
        ),
        finding(
            where + ".conflicts",
            not fought,
            expected="conflicts that spare the set's own packages",
            found=", ".join(fought) or "so",
            remedy="Narrow the names of conflicts.",
        ),
        finding(
            where + ".module_streams",
            _streams_fit(package_set, branch),
            expected="a stream of branch %s for each of %s" % (branch, ", ".join(sorted(offered)))
            if package_set["manager"] == "dnf"
            else "none: apt has no streams",
            found=package_set["module_streams"] or "none",
            detail="dnf module streams against the driver's branch.",
            remedy="Mend module_streams.",
        ),
        finding(
            where + ".fabric_manager",
            not unmanaged,
            expected="packages for %s" % " and ".join(FABRICS_WITH_MANAGER),
            found="none for %s" % ", ".join(unmanaged) if unmanaged else "both",
            detail="Hosts whose GPUs have such a fabric are refused on these platforms.",
            remedy="Find out the names, and add them.",
            severity="warning",
        ),
    ]


def _is(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def _streams_fit(package_set: t.Dict[str, t.Any], branch: str) -> bool:
    streams = package_set["module_streams"]
    if package_set["manager"] == "apt":
        return streams is None
    if streams is None:
        return False
    offered = set(package_set["packages"])
    return set(streams) == offered and all(
        re.match(r"^%s(-|$)" % branch, stream.split(":", 1)[1]) for stream in streams.values()
    )


# -- repositories and platforms --------------------------------------------------------------------------------------


def check_key_name(name: str, repository: t.Dict[str, t.Any]) -> Finding:
    """A key file that is named after its key id has the fingerprint that ends so."""
    named = re.search(r"([0-9A-Fa-f]{8})\.pub$", repository["key"])
    return finding(
        "release.repositories.%s.key" % name,
        named is None or repository["key_fingerprint"].endswith(named.group(1).upper()),
        expected="a fingerprint that ends in the id of %s" % repository["key"],
        found=repository["key_fingerprint"],
        remedy="Mend key or key_fingerprint.",
    )


def check_platform(release: Release, key: str, platform: t.Dict[str, t.Any]) -> t.List[Finding]:
    """The platform names a package set and repositories that exist and suit it, a way to pin, and keys it takes."""
    nvidia, where = platform["nvidia"], "release.platforms.%s" % key
    package_set = release["package_sets"].get(nvidia["package_set"])
    manager = package_set["manager"] if package_set else None
    named = [nvidia[name] for name in ("driver_repository", "container_toolkit_repository") if nvidia[name]]
    lacking = [name for name in named if name not in release["repositories"]]
    used = [release["repositories"][name] for name in named if name not in lacking]
    unpublished = [arch for arch in platform["architectures"] for entry in used if arch not in entry["paths"]]
    refused = release["facts"]["refused_keys"].get(key, [])
    keys = [entry["key_fingerprint"] for entry in used if entry["key_fingerprint"] in refused]
    return [
        finding(
            where + ".package_set",
            package_set is not None,
            expected="one of %s" % ", ".join(sorted(release["package_sets"])),
            found=nvidia["package_set"],
            detail="Key into package_sets.",
            remedy="Mend the name, or add the set.",
        ),
        finding(
            where + ".repositories",
            not lacking and not unpublished and all(entry["format"] == manager for entry in used),
            expected="repositories in the form of %s, for %s" % (manager, ", ".join(platform["architectures"])),
            found="%s; unknown: %s; not published for: %s"
            % (", ".join(named) or "none", ", ".join(lacking) or "none", ", ".join(unpublished) or "none"),
            detail="driver_repository and container_toolkit_repository.",
            remedy="Mend the names, or add the repositories.",
        ),
        finding(
            where + ".keys",
            not keys,
            expected="keys that %s takes" % platform["title"],
            found=", ".join(keys) or "so",
            detail="Fingerprints against refused_keys of facts.yml.",
            remedy="Use the platform's own repository; its key is another.",
        ),
        _check_pinning(release, key, nvidia, manager),
        _check_toolkit_names(release, key, nvidia),
    ]


def _check_pinning(release: Release, key: str, nvidia: t.Dict[str, t.Any], manager: t.Optional[str]) -> Finding:
    exact = "nvidia-driver-pinning-%s" % release["driver"]["version"]
    by_package = nvidia["mechanism"] == "pinning_package"
    published = release["facts"]["package_names"]
    expected = "%s's way to pin, and no pinning package" % manager
    fits = MANAGER_OF[nvidia["mechanism"]] == manager and nvidia["pinning_package"] is None
    if by_package:
        expected = "%s on one of %s" % (exact, ", ".join(published["pinning_platforms"]))
        fits = (
            manager == "apt"
            and nvidia["pinning_package"] == exact
            and key in published["pinning_platforms"]
            and release["driver"]["branch"] in published["pinning_packages"]
        )
    return finding(
        "release.platforms.%s.pinning" % key,
        fits,
        expected=expected,
        found="%s, %s" % (nvidia["mechanism"], nvidia["pinning_package"] or "no package"),
        detail="A package that pins a branch lets the version move; one that isn't published can't be installed.",
        remedy="Mend mechanism or pinning_package.",
    )


def _check_toolkit_names(release: Release, key: str, nvidia: t.Dict[str, t.Any]) -> Finding:
    level = release["cuda"]["version"].replace(".", "-")
    wrong = [name for name in nvidia["cuda_toolkit"] or [] if not name.endswith("-" + level)]
    wrong += [name for name in nvidia["cudnn"] or [] if not name.endswith("-cuda-" + major_of(release))]
    return finding(
        "release.platforms.%s.cuda_toolkit" % key,
        not wrong,
        expected="packages of CUDA %s, and of cuDNN for CUDA %s" % (release["cuda"]["version"], major_of(release)),
        found=", ".join(wrong) or "so",
        detail="The CUDA level in the names of cuda_toolkit and cudnn.",
        remedy="Mend the names.",
    )
