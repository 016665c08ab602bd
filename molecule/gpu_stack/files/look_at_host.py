#!/usr/bin/python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a host of the scenario by its own tools: look_at_host.py driver VERSION TOOLKIT | unguarded | digest

driver     what is installed, held, loaded and configured, and that neither apt nor unattended-upgrades would touch it
unguarded  with the collection's guards put aside both would: so that the look above can fail
digest     a sum over packages, holds and /etc, to see that nothing was changed
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

FAMILY = re.compile(r"^(nvidia-|libnvidia-|libcuda1|firmware-nvidia|libnvsdm|libxnvctrl)(?!container)")
GUARDS = (
    "/etc/apt/preferences.d/gpufleet-nvidia-driver.pref",
    "/etc/apt/apt.conf.d/52gpufleet-nvidia-driver",
    "/etc/apt/apt.conf.d/52gpufleet-container-toolkit",
)


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        sys.exit("%s exited with %d: %s" % (" ".join(argv), done.returncode, done.stdout + done.stderr))
    return done.stdout


def family() -> dict[str, str]:
    lines = run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n").splitlines()
    found = dict(line.split()[:2] for line in lines if line.split()[2] == "installed")
    return {name: v for name, v in found.items() if FAMILY.match(name) and not name.startswith("nvidia-container")}


def upgrades(*options: str) -> list[str]:
    """The packages that apt would upgrade, of our repositories."""
    said = run("apt-get", "--simulate", *options, "full-upgrade")
    return sorted(name for name in re.findall(r"^Inst (\S+)", said, re.MULTILINE) if re.search("nvidia|cuda", name))


def unattended() -> list[str]:
    said = run("unattended-upgrade", "--dry-run", "--verbose", "--debug")
    lines = re.findall(r"(?:Packages that will be upgraded|pkgs that look like they should be upgraded): ?(.*)", said)
    return sorted({name for line in lines for name in line.split() if re.search("nvidia|cuda", name)})


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        sys.exit("%s: found %s, expected %s" % (what, found, wanted))
    print("%s: %s" % (what, found))


def driver(version: str, toolkit: str) -> None:
    packages = family()
    if len(packages) < 8:
        sys.exit("only %s of the family are installed" % sorted(packages))
    expect("versions of the %d packages of the family" % len(packages), set(packages.values()), {version + "-1"})
    holds = set(run("apt-mark", "showhold").split())
    headers = "linux-headers-%s" % os.uname().release
    expect("members of the family that aren't held", sorted(set(packages) - holds), [])
    expect("the kernel's headers are held", headers in holds, True)
    four = (
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    )
    toolkits = run("dpkg-query", "-W", "-f", "${Version}\n", *four).split()
    expect("versions of the container toolkit", toolkits, [toolkit + "-1"] * 4)
    expect("what apt full-upgrade would touch", upgrades(), [])
    expect("what unattended-upgrade would touch", unattended(), [])
    expect("version in memory", Path("/sys/module/nvidia/version").read_text().strip(), version)
    for unit in ("nvidia-persistenced.service", "vllm@demo-a.service"):
        expect("%s runs" % unit, run("systemctl", "is-active", unit).strip(), "active")
    expect(
        "persistence daemon at boot", run("systemctl", "is-enabled", "nvidia-persistenced.service").strip(), "enabled"
    )
    expect(
        "keys that apt trusts for everything",
        sorted(p.name for p in Path("/etc/apt/trusted.gpg.d").glob("gpufleet*")),
        [],
    )
    source = next(Path("/etc/apt/sources.list.d").glob("gpufleet-cuda-*.sources")).read_text()
    expect(
        "the source trusts one key file",
        re.findall("^Signed-By: (.*)$", source, re.MULTILINE)[0][:26],
        "/etc/apt/keyrings/gpufleet",
    )
    expect("nouveau is kept out", "blacklist nouveau" in Path("/etc/modprobe.d/gpufleet-nvidia.conf").read_text(), True)
    expect("Docker has the runtime", '"nvidia-container-runtime"' in Path("/etc/docker/daemon.json").read_text(), True)
    expect("the CDI specification is of this driver", version in Path("/etc/cdi/nvidia.yaml").read_text(), True)
    expect("the journal of a switch is gone", Path("/var/lib/gpufleet/driver-switch.json").exists(), False)


def unguarded() -> None:
    held = run("apt-mark", "showhold").split()
    run("apt-mark", "unhold", *held)
    for path in GUARDS:
        os.rename(path, "/root/" + os.path.basename(path))
    try:
        apt, by_itself = upgrades(), unattended()
    finally:
        for path in GUARDS:
            os.rename("/root/" + os.path.basename(path), path)
        run("apt-mark", "hold", *held)
    if "libcuda1" not in apt or "libcuda1" not in by_itself:
        sys.exit(
            "without the guards apt would touch %s and unattended-upgrade %s: expected libcuda1" % (apt, by_itself)
        )
    print("without the guards apt would touch %d packages, unattended-upgrade %d" % (len(apt), len(by_itself)))


def digest() -> None:
    text = run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n") + run("apt-mark", "showhold")
    for path in sorted(Path("/etc").rglob("*")):
        if path.is_file() and path.name not in ("ld.so.cache", "os-release", "mtab"):
            text += "%s %s\n" % (path, hashlib.sha256(path.read_bytes()).hexdigest())
    print(hashlib.sha256(text.encode()).hexdigest())


if __name__ == "__main__":
    {"driver": driver, "unguarded": unguarded, "digest": digest}[sys.argv[1]](*sys.argv[2:])
