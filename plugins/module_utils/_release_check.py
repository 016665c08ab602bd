# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Finds what in a release doesn't fit together: engines, lock files, platforms, and by its helpers the GPU stack."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._release import (
    Release,
    Requirement,
    check_lock_files_exist,
    engines,
    numbers,
    parse_lock,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._release_check_facts import check_facts
from ansible_collections.gpufleet.llm.plugins.module_utils._release_check_packages import major_of, supported_gpus
from ansible_collections.gpufleet.llm.plugins.module_utils._release_check_stack import check_stack


def check_consistency(release: Release) -> t.List[Finding]:
    """Return every finding on how the parts of one completed release (see ``_release.load``) fit together.

    The links that are checked: engine to CUDA, driver and GPUs, lock file to engine (version, interpreter, hashes, CUDA
    and cuDNN of torch, C library), platform to engine (glibc, packages, a build for each accelerator), and those of the
    GPU stack (see ``_release_check_stack``). Lock files are read.
    """
    findings = check_facts(release["facts"]) + check_stack(release) + check_lock_files_exist(release)
    for name, engine in engines(release):
        findings.extend(_check_engine_limits(release, name, engine))
        if os.path.isfile(engine["lock_path"]):
            with open(engine["lock_path"], encoding="utf-8") as handle:
                text = handle.read()
            findings.extend(_check_lock(release, name, engine, parse_lock(text)))
            findings.append(_check_lock_glibc(name, engine, text))
    findings.extend(_check_platforms(release))
    return findings


def _check_engine_limits(release: Release, name: str, engine: t.Dict[str, t.Any]) -> t.List[Finding]:
    tag = "py" + engine["python"].replace(".", "")
    findings = [
        finding(
            "release.%s.python" % name,
            engine["lock_file"].endswith("-%s.txt" % tag),
            expected="a lock file whose name ends -%s.txt" % tag,
            found=engine["lock_file"],
            detail="The interpreter of the engine against the one its lock file was resolved for.",
            remedy="Resolve the lock file for Python %s (tools/lock.sh), or mend python." % engine["python"],
        )
    ]
    if not name.endswith(".cuda"):
        return findings
    for key in ("minimum_driver", "minimum_compute_capability"):
        found, needed = engine[key], release["cuda"][key]
        findings.append(
            finding(
                "release.%s.%s" % (name, key),
                found is not None and numbers(found) >= numbers(needed),
                expected="%s or newer" % needed,
                found=found,
                detail="What the engine says it needs against what CUDA %s needs." % release["cuda"]["version"],
                remedy="Set %s to the CUDA level's, or higher." % key,
            )
        )
    able = engine["minimum_compute_capability"] or "0"
    unable = [kind.name for kind in supported_gpus(release) if numbers(kind.compute_capability) < numbers(able)]
    findings.append(
        finding(
            "release.%s.gpus" % name,
            not unable,
            expected="every GPU from compute capability %s on" % release["cuda"]["minimum_compute_capability"],
            found="not %s" % ", ".join(unable) if unable else "all",
            detail="GPUs that the release supports against what the engine needs.",
            remedy="Raise cuda.minimum_compute_capability, or choose an engine with machine code for them.",
        )
    )
    version = release.get("driver", {}).get("version")
    if version and engine["minimum_driver"]:
        findings.append(
            finding(
                "release.%s.driver" % name,
                numbers(version) >= numbers(engine["minimum_driver"]),
                expected="%s or newer" % engine["minimum_driver"],
                found=version,
                detail="The pinned driver against what the engine needs.",
                remedy="Pin a newer driver, or an older engine.",
            )
        )
    return findings


def _check_lock(release: Release, name: str, engine: t.Dict[str, t.Any], lock: t.List[Requirement]) -> t.List[Finding]:
    pins = {requirement.name: requirement.version for requirement in lock}
    loose = ["line %d (%s)" % (r.line, r.name) for r in lock if not r.version or not r.hashes]
    shims = sorted(shim["name"] for shim in engine["distributions"] if shim["name"] in pins)
    relock = "Resolve the lock file again (tools/lock.sh), or mend the release."
    return [
        finding(
            "release.%s.lock.hashes" % name,
            bool(lock) and not loose,
            expected="every line pinned by == with a sha256",
            found="%d of %d lines without: %s" % (len(loose), len(lock), ", ".join(loose[:5]))
            if loose
            else "%d lines, all with" % len(lock),
            detail=engine["lock_file"] + ".",
            remedy=relock,
        ),
        finding(
            "release.%s.lock.version" % name,
            pins.get(engine["package"]) == engine["version"],
            expected="%s==%s" % (engine["package"], engine["version"]),
            found="%s==%s" % (engine["package"], pins.get(engine["package"], "(absent)")),
            detail=engine["lock_file"] + ".",
            remedy=relock,
        ),
        finding(
            "release.%s.distributions" % name,
            not shims,
            expected="no metadata-only distribution that the lock file installs for real",
            found=", ".join(shims) or "none",
            detail=engine["lock_file"] + ".",
            remedy="Remove the metadata-only distribution.",
        ),
        _check_lock_cuda(release, name, engine, pins),
    ] + ([_check_lock_cudnn(release, name, engine, pins)] if name.endswith(".cuda") and "cudnn" in release else [])


def _check_lock_cuda(release: Release, name: str, engine: t.Dict[str, t.Any], pins: t.Dict[str, str]) -> Finding:
    torch = pins.get("torch", "(absent)")
    runtime = next((pins[pin] for pin in sorted(pins) if re.match(r"^nvidia-cuda-runtime(-cu[0-9]+)?$", pin)), "")
    found = ".".join(runtime.split(".")[:2])
    if name.endswith(".cuda"):
        wanted = release["cuda"]["version"]
        return finding(
            "release.%s.lock.cuda" % name,
            "torch" in pins and found == wanted and not torch.endswith("+cpu"),
            expected="CUDA %s" % wanted,
            found="torch %s with CUDA %s" % (torch, found or "none"),
            detail="The CUDA runtime that torch brings, in %s, against the release's." % engine["lock_file"],
            remedy="Choose an engine version whose torch is built for CUDA %s, or change cuda.version." % wanted,
        )
    return finding(
        "release.%s.lock.cuda" % name,
        "torch" in pins and not runtime,
        expected="torch without a CUDA runtime",
        found="torch %s with CUDA %s" % (torch, found or "none"),
        detail="The CUDA runtime that torch brings, in %s." % engine["lock_file"],
        remedy="Resolve the lock file against PyTorch's index for the CPU.",
    )


def _check_lock_cudnn(release: Release, name: str, engine: t.Dict[str, t.Any], pins: t.Dict[str, str]) -> Finding:
    found = ["%s==%s" % (pin, pins[pin]) for pin in sorted(pins) if re.match(r"^nvidia-cudnn-cu[0-9]+$", pin)]
    wanted = "nvidia-cudnn-cu%s==%s" % (major_of(release), release["cudnn"]["version"])
    return finding(
        "release.%s.lock.cudnn" % name,
        found == [wanted],
        expected=wanted,
        found=", ".join(found) or "none",
        detail="The cuDNN that torch brings, in %s, against the release's." % engine["lock_file"],
        remedy="Mend cudnn.version, or resolve the lock file again (tools/lock.sh).",
    )


def _check_lock_glibc(name: str, engine: t.Dict[str, t.Any], text: str) -> Finding:
    said = re.search(r"^#.*--python-platform \S*manylinux_([0-9]+)_([0-9]+)", text, re.MULTILINE)
    found = ".".join(said.groups()) if said else "none"
    return finding(
        "release.%s.lock.glibc" % name,
        bool(said) and numbers(found) <= numbers(engine["minimum_glibc"]),
        expected="resolved for glibc %s, or older" % engine["minimum_glibc"],
        found=found,
        detail="The C library that %s says it was resolved for against minimum_glibc." % engine["lock_file"],
        remedy="Mend minimum_glibc, or resolve the lock file again (tools/lock.sh).",
    )


def _check_platforms(release: Release) -> t.List[Finding]:
    findings: t.List[Finding] = []
    builds = {name.split(".")[1] for name, _engine in engines(release)}
    for key in sorted(release["platforms"]):
        platform = release["platforms"][key]
        unbuilt = sorted(set(platform["accelerators"]) - builds)
        findings.append(
            finding(
                "release.platforms.%s.accelerators" % key,
                not unbuilt,
                expected="accelerators that an engine is built for: %s" % ", ".join(sorted(builds)),
                found=", ".join(sorted(platform["accelerators"])),
                detail="The platform's accelerators against the engines' builds.",
                remedy="Take %s from the platform, or add a build." % ", ".join(unbuilt),
            )
        )
        for name, engine in engines(release):
            if name.split(".")[1] not in platform["accelerators"]:
                continue
            findings.append(
                finding(
                    "release.%s.glibc.%s" % (name, key),
                    numbers(platform["glibc"]) >= numbers(engine["minimum_glibc"]),
                    expected="glibc %s or newer" % engine["minimum_glibc"],
                    found=platform["glibc"],
                    detail="The platform %s against what the engine's wheels were linked with." % key,
                    remedy="Drop the platform's accelerator, or choose an engine whose wheels fit.",
                )
            )
            findings.append(
                finding(
                    "release.%s.packages.%s" % (name, key),
                    platform["os_family"] in engine["packages"],
                    expected="a package list for %s (it may be empty)" % platform["os_family"],
                    found="lists for %s" % ", ".join(sorted(engine["packages"])),
                    detail="The platform %s against the engine's packages." % key,
                    remedy="Add packages.%s to the engine." % platform["os_family"],
                )
            )
    return findings
