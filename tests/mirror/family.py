# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of the stand-in repositories: names and dependencies as NVIDIA's have them, contents tiny.

In a dependency ``=`` stands for the package's own version, ``>=`` for at least it (such a library stays behind when
the rest is downgraded, unless it's named too), ``{b}`` for the branch. Alternatives are written with ``|``.
"""

from __future__ import annotations

import re
import typing as t

from mirror.deb import Package

# name -> what it depends on. The driver family of NVIDIA's repositories for Debian.
DEBIAN: t.Dict[str, t.Tuple[str, ...]] = {
    "nvidia-open": ("nvidia-driver =", "nvidia-kernel-open-dkms ="),
    "cuda-drivers": ("nvidia-driver =", "nvidia-driver-cuda =", "nvidia-kernel-dkms ="),
    "nvidia-driver": (
        "nvidia-driver-libs =",
        "nvidia-driver-bin =",
        "nvidia-driver-cuda =",
        "nvidia-kernel-dkms = | nvidia-kernel-open-dkms =",
        "nvidia-settings =",
    ),
    "nvidia-driver-libs": ("libcuda1 =", "libnvidia-ml1 =", "nvidia-alternative ="),
    "nvidia-driver-bin": ("nvidia-alternative =",),
    "nvidia-driver-cuda": (
        "libcuda1 =",
        "libnvidia-ml1 =",
        "libnvidia-cfg1 =",
        "libnvidia-ptxjitcompiler1 =",
        "libnvidia-nvvm4 =",
        "nvidia-smi =",
        "nvidia-opencl-icd =",
        "nvidia-alternative =",
        "nvidia-kernel-open-dkms = | nvidia-kernel-dkms =",
    ),
    "nvidia-kernel-open-dkms": ("nvidia-kernel-support =", "firmware-nvidia-gsp ="),
    "nvidia-kernel-dkms": ("nvidia-kernel-support =", "firmware-nvidia-gsp ="),
    "nvidia-dkms-open": ("nvidia-kernel-open-dkms =",),
    "nvidia-kernel-support": ("nvidia-modprobe >=",),
    "nvidia-modprobe": (),
    "nvidia-alternative": (),
    "nvidia-smi": ("libnvidia-ml1 =",),
    "nvidia-opencl-icd": ("libnvidia-ptxjitcompiler1 =",),
    "nvidia-settings": ("libxnvctrl0 >=",),
    "nvidia-persistenced": ("libnvidia-cfg1 >=",),
    "firmware-nvidia-gsp": (),
    "libcuda1": ("libnvidia-ptxjitcompiler1 =",),
    "libnvidia-ml1": (),
    "libnvidia-cfg1": (),
    "libnvidia-compute": ("libcuda1 =", "libnvidia-ml1 ="),
    "libnvidia-ptxjitcompiler1": (),
    "libnvidia-nvvm4": (),
    "libnvidia-nscq": (),
    "libnvsdm": (),
    "libxnvctrl0": (),
    "nvidia-fabricmanager": (),
    "nvidia-imex": (),
    "nvlink5": ("nvidia-fabricmanager =", "nvidia-imex =", "libnvidia-nscq =", "libnvsdm =", "nvlsm"),
}

# The same for Ubuntu's, where at this branch most names carry it.
UBUNTU: t.Dict[str, t.Tuple[str, ...]] = {
    "nvidia-open": ("nvidia-open-{b} =",),
    "cuda-drivers": ("cuda-drivers-{b} =",),
    "nvidia-open-{b}": ("nvidia-driver-{b}-open =",),
    "cuda-drivers-{b}": ("nvidia-driver-{b} =",),
    "nvidia-driver-{b}": ("libnvidia-compute-{b} =", "nvidia-utils-{b} =", "nvidia-dkms-{b} ="),
    "nvidia-driver-{b}-open": ("libnvidia-compute-{b} =", "nvidia-utils-{b} =", "nvidia-dkms-{b}-open ="),
    "libnvidia-compute": ("libnvidia-compute-{b} =",),
    "libnvidia-compute-{b}": (),
    "nvidia-utils-{b}": ("libnvidia-compute-{b} =",),
    "nvidia-dkms-{b}": ("nvidia-kernel-common-{b} =", "nvidia-kernel-source-{b} ="),
    "nvidia-dkms-{b}-open": ("nvidia-kernel-common-{b} =", "nvidia-kernel-source-{b}-open ="),
    "nvidia-dkms-open": ("nvidia-dkms-{b}-open =",),
    "nvidia-kernel-common-{b}": ("nvidia-modprobe >=",),
    "nvidia-kernel-source-{b}": (),
    "nvidia-kernel-source-{b}-open": (),
    "nvidia-persistenced": (),
    "nvidia-modprobe": (),
    "nvidia-settings": (),
    "nvidia-fabricmanager": (),
    "nvidia-imex": (),
    "libnvidia-nscq": (),
    "libnvsdm": (),
    "nvlink5-{b}": ("nvidia-fabricmanager =", "nvidia-imex =", "libnvidia-nscq =", "libnvsdm =", "nvlsm"),
}

FLAVOURS = (("nvidia-kernel-open-dkms", "nvidia-kernel-dkms"), ("nvidia-dkms-{b}-open", "nvidia-dkms-{b}"))
SONAMES = {
    "libcuda1": "libcuda.so",
    "libnvidia-ml1": "libnvidia-ml.so",
    "libnvidia-compute-{b}": "libnvidia-ml.so",
    "libnvidia-ptxjitcompiler1": "libnvidia-ptxjitcompiler.so",
    "libnvidia-cfg1": "libnvidia-cfg.so",
}
UNITS = {
    "nvidia-persistenced": "nvidia-persistenced.service",
    "nvidia-fabricmanager": "nvidia-fabricmanager.service",
    "nvidia-imex": "nvidia-imex.service",
}
UNIT = """[Unit]
Description=stand-in for {name}
[Service]
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
DKMS = """PACKAGE_NAME="nvidia"
PACKAGE_VERSION="{version}"
BUILT_MODULE_NAME[0]="nvidia"
DEST_MODULE_LOCATION[0]="/updates/dkms"
AUTOINSTALL="yes"
"""
PREFERENCES = "Package: *nvidia* *cuda-drivers* libcuda1\nPin: version {version}*\nPin-Priority: 1000\n"


def upstream(version: str) -> str:
    """Return a version without epoch and revision."""
    return version.split(":", 1)[-1].split("-", 1)[0]


def _depends(relations: t.Iterable[str], version: str, branch: str) -> str:
    said = []
    for relation in relations:
        alternatives = []
        for alternative in relation.replace("{b}", branch).split(" | "):
            name, _sep, operator = alternative.partition(" ")
            alternatives.append("%s (%s %s)" % (name, operator, version) if operator else name)
        said.append(" | ".join(alternatives))
    return ", ".join(said)


def driver(system: str, version: str) -> t.List[Package]:
    """Return the driver family at one version, for ``debian`` or ``ubuntu``, with its pinning packages."""
    branch, plain = version.split(".", 1)[0], upstream(version)
    packages = []
    for template, relations in (DEBIAN if system == "debian" else UBUNTU).items():
        name = template.replace("{b}", branch)
        fields: t.Dict[str, str] = {}
        if relations:
            fields["Depends"] = _depends(relations, version, branch)
        for pair in FLAVOURS:
            if template in pair:
                other = pair[1 - pair.index(template)].replace("{b}", branch)
                fields.update(Provides="nvidia-kernel-%s" % plain, Conflicts=other)
        files: t.Dict[str, t.Union[str, bytes]] = {}
        if template in SONAMES:
            soname = SONAMES[template]
            files["/usr/lib/x86_64-linux-gnu/%s.%s" % (soname, plain)] = "stand-in %s\n" % plain
            files["/usr/lib/x86_64-linux-gnu/%s.1" % soname] = "-> %s.%s" % (soname, plain)
        if template in UNITS:
            files["/usr/lib/systemd/system/%s" % UNITS[template]] = UNIT.format(name=name)
        if template in ("nvidia-kernel-open-dkms", "nvidia-kernel-dkms", "nvidia-dkms-{b}", "nvidia-dkms-{b}-open"):
            files["/usr/src/nvidia-%s/dkms.conf" % plain] = DKMS.format(version=plain)
        packages.append(Package(name, version, fields, files))
    for suffix in (branch, plain):
        packages.append(
            Package(
                "nvidia-driver-pinning-%s" % suffix,
                version,
                {"Provides": "nvidia-driver-pinning", "Conflicts": "nvidia-driver-pinning"},
                {"/etc/apt/preferences.d/nvidia-driver-pinning": PREFERENCES.format(version=suffix)},
                ("/etc/apt/preferences.d/nvidia-driver-pinning",),
                architecture="all",
            )
        )
    return packages


def companions() -> t.List[Package]:
    """Return what has a version of its own."""
    return [Package("nvlsm", "2025.10.12-1")]


def container_toolkit(version: str) -> t.List[Package]:
    """Return the four packages at one version."""
    exact, plain = "(= %s)" % version, upstream(version)
    script = '#!/bin/sh\nif [ "$1" = --version ]; then echo "NVIDIA Container Toolkit CLI version %s"; fi\n' % plain
    return [
        Package(
            "nvidia-container-toolkit",
            version,
            {"Depends": "nvidia-container-toolkit-base %s, libnvidia-container-tools %s" % (exact, exact)},
            {"/usr/bin/nvidia-container-runtime-hook": script},
        ),
        Package("nvidia-container-toolkit-base", version, {}, {"/usr/bin/nvidia-ctk": script}),
        Package("libnvidia-container-tools", version, {"Depends": "libnvidia-container1 (>= %s)" % version}),
        Package("libnvidia-container1", version),
    ]


def cuda_toolkit(name: str, version: str) -> t.List[Package]:
    """Return a CUDA toolkit, as ``cuda-toolkit-13-0``: its metapackage and the parts that tests look at."""
    suffix = re.sub(r"^cuda-toolkit-", "", name)
    path = "/usr/local/cuda-%s" % suffix.replace("-", ".")
    priority = suffix.replace("-", "")
    parts = ["cuda-%s-%s" % (part, suffix) for part in ("cudart", "nvcc", "libraries")]
    record = '{"cuda": {"name": "CUDA SDK", "version": "%s"}}\n' % upstream(version)
    link = "  update-alternatives --install /usr/local/cuda cuda %s %s" % (path, priority)
    return [
        Package(name, version, {"Depends": ", ".join("%s (>= %s)" % (part, version) for part in parts)}, {}, (), link),
        Package(parts[0], version, {}, {path + "/version.json": record}),
        Package(parts[1], version, {}, {path + "/bin/nvcc": "#!/bin/sh\necho release %s\n" % upstream(version)}),
        Package(parts[2], version),
    ]


def cudnn(cuda_major: str, version: str) -> t.List[Package]:
    """Return cuDNN for a CUDA: the library, its headers and the metapackage."""
    library = "libcudnn9-cuda-%s" % cuda_major
    headers = "libcudnn9-dev-cuda-%s" % cuda_major
    plain = upstream(version)
    return [
        Package(
            library,
            version,
            {},
            {
                "/usr/lib/x86_64-linux-gnu/libcudnn.so.%s" % plain: "stand-in %s\n" % plain,
                "/usr/lib/x86_64-linux-gnu/libcudnn.so.9": "-> libcudnn.so.%s" % plain,
            },
        ),
        Package(headers, version, {"Depends": "%s (= %s)" % (library, version)}),
        Package("cudnn9-cuda-%s" % cuda_major, version, {"Depends": "%s (>= %s)" % (headers, version)}),
    ]


def kernel(release: str) -> t.List[Package]:
    """Return an image and headers of a kernel, and the metapackages that follow the newest."""
    version = "".join(re.findall(r"^[0-9.]*[0-9]", release)) + "-1"
    image, headers = "linux-image-%s" % release, "linux-headers-%s" % release
    return [
        Package(image, version, {}, {"/usr/lib/modules/%s/modules.builtin" % release: ""}),
        Package(headers, version, {}, {"/usr/src/linux-headers-%s/Makefile" % release: "# stand-in\n"}),
    ]
