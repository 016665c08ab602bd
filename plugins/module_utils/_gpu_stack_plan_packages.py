# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Package names, versions, pins and repositories of the GPU stack on one host. Pure; every name is the release's.

A package is ``{name, version}``; its version is what apt takes after ``=`` (dnf: after the name's ``-``), with ``*``
where the revision isn't known.
"""

from __future__ import annotations

import fnmatch
import re
import typing as t

Package = t.Dict[str, str]
Conflict = t.Dict[str, str]

DPKG_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
KEY_PATHS = {"apt": "/etc/apt/keyrings/gpufleet-%s.asc", "dnf": "/etc/pki/rpm-gpg/RPM-GPG-KEY-gpufleet-%s"}
SUFFIX = re.compile(r"-([0-9]{3})(?=-|$)")


def expand(templates: t.Iterable[str], host: t.Dict[str, t.Any], manager: str) -> t.List[str]:
    """Return names with the host's kernel and architecture put in."""
    architecture = host["architecture"]
    if manager == "apt":
        architecture = DPKG_ARCHITECTURES.get(architecture, architecture)
    return [
        name.replace("{kernel}", host["kernel"]).replace("{architecture}", architecture)
        for name in templates
        if host["kernel"] or "{kernel}" not in name
    ]


def at_version(names: t.Iterable[str], version: str) -> t.List[Package]:
    """Return packages, all at one version."""
    return [{"name": name, "version": version} for name in names]


def matches(version: str, pattern: str) -> bool:
    """Tell whether an installed version is the wanted one; an epoch that the pattern doesn't name is left out."""
    if ":" not in pattern:
        version = version.split(":", 1)[-1]
    return fnmatch.fnmatchcase(version, pattern)


def is_pinned(name: str, patterns: t.Iterable[str]) -> bool:
    """Tell whether a name is one of the family's."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def conflicts_of(
    package_set: t.Dict[str, t.Any], flavour: str, branch: str, installed: t.Dict[str, str]
) -> t.List[Conflict]:
    """Return what must go: named conflicts, the other flavour's packages, the family's packages of another branch.

    A conflict that is named as a glob stands for the installed packages it matches; one that is named in full is
    returned whether it is installed or not.
    """
    found: t.Dict[str, str] = {}
    wanted = {name for names in package_set["packages"].get(flavour, {}).values() for name in names}
    for conflict in package_set["conflicts"]:
        if conflict["name"] in wanted:
            continue
        names = [conflict["name"]]
        if re.search(r"[*?\[]", conflict["name"]):
            names = [name for name in installed if fnmatch.fnmatchcase(name, conflict["name"])]
        found.update((name, " ".join(conflict["reason"].split())) for name in names if name not in wanted)
    for other in sorted(set(package_set["packages"]) - {flavour}):
        for name in {name for names in package_set["packages"][other].values() for name in names} - wanted:
            if name in installed:
                found.setdefault(name, "It is of the %s kernel modules, and this host gets the %s." % (other, flavour))
    for name in installed:
        suffix = SUFFIX.search(name)
        if suffix and suffix.group(1) != branch and is_pinned(name, package_set["pinned"]):
            found.setdefault(
                name, "It is of driver branch %s, and the release pins branch %s." % (suffix.group(1), branch)
            )
    return [{"name": name, "reason": found[name]} for name in sorted(found)]


def followers(
    package_set: t.Dict[str, t.Any],
    packages: t.List[Package],
    conflicts: t.List[Conflict],
    version: str,
    installed: t.Dict[str, str],
) -> t.List[Package]:
    """Return the installed members of the family that are at another version, at the wanted one.

    Named in the same transaction, a library that is content with any newer driver goes back with a downgrade too.
    """
    named = {package["name"] for package in packages} | {conflict["name"] for conflict in conflicts}
    named |= {companion["name"] for companion in package_set.get("companions", [])}
    return at_version(
        (
            name
            for name in sorted(installed)
            if name not in named and is_pinned(name, package_set["pinned"]) and not matches(installed[name], version)
        ),
        version,
    )


def preferences(release_id: str, package_set: t.Dict[str, t.Any], version: str, companions: t.Iterable[Package]) -> str:
    """Return the apt preferences file: the pinned version of the family at 1001, every other at none.

    1001 lets apt go back to it; a negative priority keeps apt from any other version, of whatever repository, so that
    an upgrade can't move one member alone. apt takes the first record that names the version.
    """
    stanzas = [(" ".join(package_set["pinned"]), version, "The NVIDIA driver family")]
    stanzas += [(package["name"], package["version"], package["name"]) for package in companions]
    parts = []
    for names, pin, title in stanzas:
        parts.append(
            "Explanation: %s stays at the version of release %s.\nPackage: %s\nPin: version %s\nPin-Priority: 1001\n"
            % (title, release_id, names, pin)
        )
        parts.append(
            "Explanation: No other version, whatever repository offers it.\n"
            "Package: %s\nPin: version *\nPin-Priority: -1\n" % names
        )
    return "\n".join(parts)


def unattended_patterns(prefixes: t.Iterable[str]) -> t.List[str]:
    """Return regular expressions for unattended-upgrades, which matches them from a name's start."""
    return [re.sub(r"([.+])", r"\\\1", prefix) for prefix in prefixes]


def repository(
    name: str,
    entry: t.Dict[str, t.Any],
    architecture: str,
    mirror_url: str,
    mirror_key_fingerprint: str,
    module_stream: t.Optional[str],
) -> t.Optional[t.Dict[str, t.Any]]:
    """Return one repository as a host gets it; None if it isn't published for the architecture."""
    path = entry["paths"].get(architecture)
    if path is None:
        return None
    base = (mirror_url or entry["base"]).rstrip("/")
    is_apt = entry["format"] == "apt"
    return {
        "id": name,
        "format": entry["format"],
        "url": "%s/%s" % (base, path) + ("/" if is_apt else ""),
        "suite": "/" if is_apt else "",
        "components": [],
        "key_url": "%s/%s" % (base, entry["key"].replace("{path}", path)),
        "key_path": KEY_PATHS[entry["format"]] % name,
        "key_fingerprint": (mirror_url and mirror_key_fingerprint) or entry["key_fingerprint"],
        "module_stream": module_stream,
    }
