#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build an rpm repository of stand-ins for NVIDIA's driver family; needs rpmbuild, createrepo_c and modifyrepo_c.

  build_rpm.py --out DIR --versions A,B [--stream NAME:STREAM]

Standard library only, so that it runs on any host that has these tools, one without the project too. With --stream all
packages are of that module stream, which must be enabled before dnf shows them.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import typing as t
from pathlib import Path

EPOCH = "3"
RELEASE = "1.el9"
# name -> what it requires: "=" at its own version, ">=" at least that.
FAMILY: t.Dict[str, t.Tuple[str, ...]] = {
    "nvidia-driver": ("nvidia-driver-libs =", "nvidia-kmod-common ="),
    "nvidia-driver-libs": ("libnvidia-gpucomp =",),
    "nvidia-driver-cuda": ("nvidia-driver-cuda-libs =", "libnvidia-ml =", "nvidia-kmod-common ="),
    "nvidia-driver-cuda-libs": ("libnvidia-gpucomp =",),
    "kmod-nvidia-open-dkms": ("nvidia-kmod-common =",),
    "kmod-nvidia-latest-dkms": ("nvidia-kmod-common =",),
    "nvidia-kmod-common": (),
    "libnvidia-cfg": (),
    "libnvidia-fbc": (),
    "libnvidia-gpucomp": (),
    "libnvidia-ml": (),
    "libnvidia-nscq": (),
    "nvidia-fabricmanager": (),
    "nvidia-imex": (),
    "nvidia-modprobe": (),
    "nvidia-persistenced": ("libnvidia-cfg >=",),
    "nvidia-settings": (),
    "nvidia-xconfig": (),
}
OTHERS = {"foreign-tool": "1.0-1", "kernel": "5.14.0-1", "kernel-devel": "5.14.0-1"}
SPEC = """Name: {name}
Epoch: {epoch}
Version: {version}
Release: {release}
Summary: stand-in for tests
License: none
{relations}
%description
stand-in for tests
%files
"""


def spec(name: str, version: str, release: str, epoch: str, relations: t.Iterable[str]) -> str:
    """Return a spec file."""
    return SPEC.format(name=name, version=version, release=release, epoch=epoch, relations="\n".join(relations))


def specs(versions: t.Sequence[str]) -> t.Iterator[t.Tuple[str, str]]:
    """Yield file name and text of every spec."""
    for version in versions:
        exact = "%s:%s-%s" % (EPOCH, version, RELEASE)
        for name, requires in FAMILY.items():
            relations = ["Requires: %s %s" % (requirement, exact) for requirement in requires]
            if name.startswith("kmod-nvidia-"):
                relations += ["Provides: nvidia-kmod = %s" % exact, "Conflicts: nvidia-kmod"]
            yield "%s-%s.spec" % (name, version), spec(name, version, RELEASE, EPOCH, relations)
    for name, version in OTHERS.items():
        relations = ["Provides: installonlypkg(kernel)"] if name.startswith("kernel") else []
        yield name + ".spec", spec(name, *version.split("-"), "0", relations)


def modules(stream: str, artifacts: t.Sequence[str]) -> str:
    """Return modules.yaml of one stream that has all the packages."""
    name, _sep, stream = stream.partition(":")
    lines = ["---", "document: modulemd", "version: 2", "data:", "  name: %s" % name, '  stream: "%s"' % stream]
    lines += ["  version: 1", "  context: fixture", "  arch: x86_64", "  summary: stand-in", "  description: stand-in"]
    lines += ["  license: {module: [MIT]}", "  artifacts:", "    rpms:"]
    return "\n".join(lines + ["    - %s" % artifact for artifact in artifacts] + ["...", ""])


def build(out: Path, versions: t.Sequence[str], stream: str = "") -> t.List[str]:
    """Build the repository; return the files of its packages."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as top:
        texts = dict(specs(versions))
        for name, text in texts.items():
            (Path(top) / name).write_text(text)
        defines = [
            "_topdir %s" % top,
            "_rpmdir %s" % out.resolve(),
            "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
        ]
        command = ["rpmbuild", "-bb", "--quiet", "--nodeps", "--target", "x86_64-linux"]
        for define in defines:
            command += ["--define", define]
        subprocess.run([*command, *(str(Path(top) / name) for name in texts)], check=True)
        subprocess.run(["createrepo_c", "--quiet", str(out)], check=True)
        if stream:
            artifacts = [
                "%s-%s:%s-%s.x86_64" % (name, EPOCH, version, RELEASE) for version in versions for name in FAMILY
            ]
            path = Path(top) / "modules.yaml"
            path.write_text(modules(stream, artifacts))
            subprocess.run(["modifyrepo_c", "--mdtype=modules", str(path), str(out / "repodata")], check=True)
    return sorted(path.name for path in out.glob("*.rpm"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--versions", required=True, help="driver versions with commas")
    parser.add_argument("--stream", default="", help="the module stream, as nvidia-driver:580-open")
    options = parser.parse_args()
    print("%s: %d packages" % (options.out, len(build(options.out, options.versions.split(","), options.stream))))


if __name__ == "__main__":
    main()
