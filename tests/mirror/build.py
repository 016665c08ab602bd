#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a signed mirror of NVIDIA's repositories for one platform, of stand-in packages; needs gpg and nothing else.

  build.py --out DIR --platform debian12 --versions A,B --key-dir DIR [--fault NAME[:PACKAGE]]... [--kernel RELEASE]...

DIR has the paths that the releases name (a mirror takes the place of the base of every repository), keys included, and
``mirror.json``: ``{fingerprint, key_file, platform, versions, packages: {repository: {name: [versions]}}}``.
The key lives in --key-dir and is made once; mirrors that share it are the same mirror to a host.

Faults:
  key_file      the key that is served is another one, and everything is signed by that
  signature     everything is signed by another key than the one that is served
  tampered      a package isn't what the signed index says (default: the first NVML library); same size, one bit
  expired       the signed metadata was valid until yesterday
  removed       the oldest of the versions isn't there any more
  missing_file  the index names a package that isn't there (404)
  incomplete    a library that the newest version depends on is missing at that version
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import yaml

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mirror import deb, family

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ("key_file", "signature", "tampered", "expired", "removed", "missing_file", "incomplete")
DAY = 86400.0
# Beside the releases' own: one that is safe, and one that isn't.
OTHER_CONTAINER_TOOLKITS = ("1.19.0-1", "1.16.2-1")
LIBRARIES = {"debian": "libnvidia-ml1", "ubuntu": "libnvidia-compute-{b}"}
Packages = t.Dict[str, t.List[deb.Package]]


class Keyring:
    """Keys below a directory, made when they aren't there. gpg's own home is short-lived, for its sockets' sake."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home = ""

    def __enter__(self) -> Keyring:
        self.home = tempfile.mkdtemp(prefix="gfm-")
        return self

    def __exit__(self, *_exc: object) -> None:
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        """Run gpg."""
        command = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--pinentry-mode", "loopback"]
        done = subprocess.run([*command, "--passphrase", "", *arguments], input=data, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError("gpg %s: %s" % (" ".join(arguments), done.stderr.decode()))
        return done.stdout

    def load(self, name: str) -> str:
        """Make sure of a key; return its fingerprint. Beside the secret one lie NAME.pub (armoured) and NAME.gpg."""
        secret = self.directory / (name + ".secret")
        if not secret.exists():
            self.gpg(
                "--quick-generate-key", "gpufleet fixture %s <%s@example.org>" % (name, name), "rsa2048", "sign", "0"
            )
            secret.touch(mode=0o600)
            secret.write_bytes(self.gpg("--armor", "--export-secret-keys", name + "@example.org"))
            (self.directory / (name + ".pub")).write_bytes(self.gpg("--armor", "--export", name + "@example.org"))
            (self.directory / (name + ".gpg")).write_bytes(self.gpg("--export", name + "@example.org"))
        else:
            self.gpg("--import", str(secret))
        listed = self.gpg("--with-colons", "--list-keys", name + "@example.org").decode()
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    def sign(self, text: str, fingerprint: str, mode: str) -> bytes:
        """Return a signature: ``--clearsign``, or ``--detach-sign`` in armour."""
        return self.gpg("--armor", "--digest-algo", "SHA256", "--local-user", fingerprint, mode, data=text.encode())


def releases(directory: Path) -> t.List[t.Dict[str, t.Any]]:
    """Return the releases of a directory."""
    paths = [path for path in sorted(directory.glob("*.yml")) if path.stem != "facts"]
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]


def revision(system: str, version: str) -> str:
    """Return a driver's version as its packages have it."""
    if "-" in version:
        return version
    return version + ("-1ubuntu1" if system == "ubuntu" else "-1")


def plan(
    platform: str, versions: t.Sequence[str], known: t.Sequence[t.Dict[str, t.Any]], kernels: t.Sequence[str]
) -> t.Tuple[Packages, t.Dict[str, t.Dict[str, str]], str]:
    """Return packages by repository, where each repository and its key lie, and ``debian`` or ``ubuntu``."""
    known = [release for release in known if platform in release["platforms"]]
    if not known:
        raise SystemExit("no release knows the platform %s" % platform)
    nvidia = known[0]["platforms"][platform]["nvidia"]
    system = nvidia["package_set"]
    if known[0]["package_sets"][system]["manager"] != "apt":
        raise SystemExit("%s isn't of apt; see build_rpm.py" % platform)
    places: t.Dict[str, t.Dict[str, str]] = {}
    for part in ("driver_repository", "container_toolkit_repository"):
        entry = known[0]["repositories"][nvidia[part]]
        path = entry["paths"]["x86_64"]
        places[nvidia[part]] = {"path": path, "key": entry["key"].replace("{path}", path)}
    driver = [package for version in versions for package in family.driver(system, revision(system, version))]
    driver += family.companions()
    toolkits = {str(release["container_toolkit"]["version"]) + "-1" for release in known} | set(
        OTHER_CONTAINER_TOOLKITS
    )
    for release in known:
        of_platform = release["platforms"][platform]["nvidia"]
        for name in of_platform["cuda_toolkit"] or ():
            driver += family.cuda_toolkit(name, "%s-1" % release["cuda_toolkit"]["version"])
        major = str(release["cuda"]["version"]).split(".")[0]
        driver += family.cudnn(major, "%s-1" % release["cudnn"]["version"]) if of_platform["cudnn"] else []
    for kernel in kernels:
        driver += family.kernel(kernel)
    packages = {nvidia["driver_repository"]: driver}
    packages.setdefault(nvidia["container_toolkit_repository"], []).extend(
        package for version in sorted(toolkits) for package in family.container_toolkit(version)
    )
    single = {name: list({(p.name, p.version): p for p in group}.values()) for name, group in packages.items()}
    return single, places, system


def apply_faults(packages: Packages, faults: t.Mapping[str, str], versions: t.Sequence[str], system: str) -> None:
    """Take away what the faults ``removed`` and ``incomplete`` take away."""
    for name in packages:
        if "removed" in faults:
            packages[name] = [p for p in packages[name] if p.version != revision(system, versions[0])]
        if "incomplete" in faults:
            last = revision(system, versions[-1])
            library = faults["incomplete"] or LIBRARIES[system].replace("{b}", last.split(".")[0])
            packages[name] = [p for p in packages[name] if (p.name, p.version) != (library, last)]


def spoil(data: bytes) -> bytes:
    """Flip one bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def write_repository(
    directory: Path, packages: t.Sequence[deb.Package], faults: t.Mapping[str, str], library: str
) -> str:
    """Write one flat repository's packages and indexes; return its Release text."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = []
    for package in packages:
        data = deb.build(package)
        entries.append(deb.index_entry(package, data))
        if "missing_file" in faults and package.name == (faults["missing_file"] or library):
            continue
        tampered = "tampered" in faults and package.name == (faults["tampered"] or library)
        (directory / package.file_name).write_bytes(spoil(data) if tampered else data)
    index = "\n".join(entries).encode()
    indexes = {"Packages": index, "Packages.gz": gzip.compress(index, mtime=0)}
    for name, content in indexes.items():
        (directory / name).write_bytes(content)
    now = time.time()
    expired = "expired" in faults
    return deb.release_file(
        indexes, date=now - (8 * DAY if expired else 0), valid_until=now - DAY if expired else None, origin="NVIDIA"
    )


def build(
    out: Path,
    platform: str,
    versions: t.Sequence[str],
    key_dir: Path,
    *,
    faults: t.Sequence[str] = (),
    kernels: t.Sequence[str] = (),
    releases_dir: Path = ROOT / "releases",
) -> t.Dict[str, t.Any]:
    """Build a mirror at a path that is replaced as a whole; return what mirror.json holds."""
    wrong = dict(fault.partition(":")[::2] for fault in faults)
    unknown = sorted(set(wrong) - set(FAULTS))
    if unknown:
        raise SystemExit("unknown fault: %s; known: %s" % (", ".join(unknown), ", ".join(FAULTS)))
    packages, places, system = plan(platform, versions, releases(releases_dir), kernels)
    apply_faults(packages, wrong, versions, system)
    library = LIBRARIES[system].replace("{b}", versions[0].split(".")[0])
    stage = out.with_name(out.name + ".new")
    shutil.rmtree(stage, ignore_errors=True)
    with Keyring(key_dir) as keyring:
        right = keyring.load("mirror")
        other = keyring.load("other") if {"key_file", "signature"} & set(wrong) else ""
        for repository, place in places.items():
            directory = stage / place["path"]
            text = write_repository(directory, packages[repository], wrong, library)
            (directory / "Release").write_text(text)
            (directory / "InRelease").write_bytes(keyring.sign(text, other or right, "--clearsign"))
            (directory / "Release.gpg").write_bytes(keyring.sign(text, other or right, "--detach-sign"))
            served = key_dir / ("other.pub" if "key_file" in wrong else "mirror.pub")
            (stage / place["key"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(served, stage / place["key"])
    record: t.Dict[str, t.Any] = {
        "fingerprint": right,
        "key_file": str((key_dir / "mirror.pub").resolve()),
        "platform": platform,
        "versions": [revision(system, version) for version in versions],
        "faults": list(faults),
        "built": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
        "packages": {},
    }
    for repository in packages:
        listed: t.Dict[str, t.List[str]] = {}
        for package in packages[repository]:
            listed.setdefault(package.name, []).append(package.version)
        record["packages"][repository] = listed
    (stage / "mirror.json").write_text(json.dumps(record, indent=1) + "\n")
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    stage.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--platform", required=True, help="a key of a release's platforms")
    parser.add_argument("--versions", required=True, help="driver versions, oldest first, with commas")
    parser.add_argument("--key-dir", type=Path, required=True)
    parser.add_argument("--fault", action="append", default=[], help="NAME or NAME:PACKAGE")
    parser.add_argument("--kernel", action="append", default=[], help="a kernel to have image and headers for")
    parser.add_argument("--releases-dir", type=Path, default=ROOT / "releases")
    options = parser.parse_args()
    record = build(
        options.out,
        options.platform,
        options.versions.split(","),
        options.key_dir,
        faults=options.fault,
        kernels=options.kernel,
        releases_dir=options.releases_dir,
    )
    count = sum(len(versions) for listed in record["packages"].values() for versions in listed.values())
    print("%s: %d packages, key %s" % (options.out, count, record["fingerprint"]))


if __name__ == "__main__":
    main()
