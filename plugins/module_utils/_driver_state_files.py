# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The files of the GPU stack's roles, as texts: repositories, pins, what unattended upgrades leave alone, nouveau."""

from __future__ import annotations

import typing as t

Plan = t.Mapping[str, t.Any]
File = t.Dict[str, str]

BLACKLIST = "/etc/modprobe.d/gpufleet-nvidia.conf"
NVML_LIBRARY = "/usr/local/lib/gpufleet/python/pynvml.py"
HEAD = "# Written by the collection gpufleet.llm, which puts it back.\n"


def source_path(repository: t.Mapping[str, t.Any]) -> str:
    """Return where a repository's source file goes."""
    if repository["format"] == "apt":
        return "/etc/apt/sources.list.d/gpufleet-%s.sources" % repository["id"]
    return "/etc/yum.repos.d/gpufleet-%s.repo" % repository["id"]


def source_file(repository: t.Mapping[str, t.Any]) -> File:
    """Return a repository's source file, which trusts the repository's own key and no other."""
    if repository["format"] == "apt":
        lines = ["Types: deb", "URIs: %s" % repository["url"], "Suites: %s" % repository["suite"]]
        if repository.get("components"):
            lines.append("Components: %s" % " ".join(repository["components"]))
        lines.append("Signed-By: %s" % repository["key_path"])
    else:
        lines = [
            "[gpufleet-%s]" % repository["id"],
            "name=%s" % repository["id"],
            "baseurl=%s" % repository["url"],
            "enabled=1",
            "gpgcheck=1",
            "repo_gpgcheck=1",
            "gpgkey=file://%s" % repository["key_path"],
        ]
    return {"dest": source_path(repository), "content": HEAD + "\n".join(lines) + "\n"}


def key(repository: t.Mapping[str, t.Any], content: str = "") -> t.Dict[str, str]:
    """Return a repository's key as package_source takes it."""
    return {
        "path": repository["key_path"],
        "fingerprint": repository["key_fingerprint"],
        "url": "" if content else repository["key_url"],
        "content": content,
    }


def unattended_file(name: str, patterns: t.Sequence[str]) -> File:
    """Return the file that makes unattended-upgrades leave packages alone; each is a pattern of a name's beginning."""
    lines = ['  "%s";' % pattern.replace("\\", "\\\\").replace('"', '\\"') for pattern in patterns]
    text = "%sUnattended-Upgrade::Package-Blacklist {\n%s\n};\n" % (HEAD.replace("#", "//"), "\n".join(lines))
    return {"dest": "/etc/apt/apt.conf.d/52gpufleet-%s" % name, "content": text}


def preferences_file(name: str, text: str) -> File:
    """Return an apt preferences file."""
    return {"dest": "/etc/apt/preferences.d/gpufleet-%s.pref" % name, "content": text}


def blacklist_file(modules: t.Sequence[str]) -> File:
    """Return the file that keeps modules out: not loaded by an alias, and without their kernel mode setting."""
    lines = [line for module in modules for line in ("blacklist %s" % module, "options %s modeset=0" % module)]
    return {"dest": BLACKLIST, "content": HEAD + "\n".join(lines) + "\n"}


def driver_files(plan: Plan) -> t.List[File]:
    """Return the files of the role nvidia_driver, but for the NVML library."""
    driver = plan["driver"]
    files = [source_file(repository) for repository in repositories_of(plan, "driver")]
    if driver["preferences"]:
        files.append(preferences_file("nvidia-driver", driver["preferences"]))
    if plan["manager"] == "apt" and driver["unattended_patterns"]:
        files.append(unattended_file("nvidia-driver", driver["unattended_patterns"]))
    files.append(blacklist_file(driver["modules_blacklisted"]))
    return files


def repositories_of(plan: Plan, part: str) -> t.List[t.Mapping[str, t.Any]]:
    """Return the repositories of ``driver`` (the CUDA toolkit comes from the same) or of ``container_toolkit``.

    A platform whose one repository has everything serves both.
    """
    own = [r for r in plan["repositories"] if r["id"].startswith("container-toolkit")]
    others = [r for r in plan["repositories"] if r not in own]
    return (own or others) if part == "container_toolkit" else others
