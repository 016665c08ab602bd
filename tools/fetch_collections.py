#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the collections that a requirements file names into place, out of one hash-pinned wheel.

Usage: tools/fetch_collections.py [REQUIREMENTS_YML COLLECTIONS_DIR], by default requirements.yml and ./collections.

The wheel is the community distribution `ansible`; only the named collections are unpacked. The versions in
the requirements must be the wheel's: a difference is refused.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def wanted(requirements: Path) -> dict[str, str]:
    """Return {collection: exact version} of a requirements file."""
    listed = yaml.safe_load(requirements.read_text(encoding="utf-8"))
    return {entry["name"]: entry["version"] for entry in listed["collections"]}


def installed(target: Path, name: str) -> str | None:
    """Return the version of a collection that lies below target, None when there is none."""
    manifest = target / name.replace(".", "/") / "MANIFEST.json"
    if not manifest.exists():
        return None
    version = json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"]
    return str(version)


def unpack(wheel: Path, target: Path, name: str, version: str) -> None:
    """Unpack one collection beside its place, check its version, and rename it into place."""
    prefix = f"ansible_collections/{name.replace('.', '/')}/"
    place = target / name.replace(".", "/")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [member for member in archive.namelist() if member.startswith(prefix)])
        fresh = Path(folder) / prefix
        found = json.loads((fresh / "MANIFEST.json").read_text(encoding="utf-8"))["collection_info"]["version"]
        if found != version:
            sys.exit(f"{name}: {version} is asked, the pinned wheel holds {found}. Remedy: ask for {found}.")
        if place.exists():
            shutil.rmtree(place)
        fresh.rename(place)


def main() -> None:
    requirements, collections = map(Path, sys.argv[1:3] or (ROOT / "requirements.yml", ROOT / "collections"))
    target = collections / "ansible_collections"
    missing = {name: version for name, version in wanted(requirements).items() if installed(target, name) != version}
    if not missing:
        return
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--require-hashes", "-d", folder, "-r", "requirements/collections.txt"]
        subprocess.run(command, cwd=ROOT, check=True)
        wheel = next(Path(folder).glob("*.whl"))
        for name, version in missing.items():
            unpack(wheel, target, name, version)
            print(f"    {name} {version}")


if __name__ == "__main__":
    main()
