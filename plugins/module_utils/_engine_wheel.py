# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""An engine that is one wheel: fetched by its hash on the control node, unpacked on a host beside the one before."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import typing as t
import zipfile

RECORD = "engine.json"
LINE = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s\\]+)[\s\\]+--hash=sha256:(?P<sha256>[0-9a-f]{64})\s*$", re.M
)


class Wheel(t.NamedTuple):
    """The one wheel of a lock file."""

    name: str
    version: str
    sha256: str

    @property
    def identity(self) -> str:
        return "%s-%s" % (self.version, self.sha256[:12])


def parse_lock(text: str) -> Wheel:
    """Return the wheel of a lock file. Raises ValueError unless it holds exactly one, with one hash."""
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("#")) + "\n"
    found = list(LINE.finditer(bare))
    if len(found) != 1 or bare.count("--hash=") != 1:
        raise ValueError(
            "expected one wheel with one sha256, found %d lines with %d" % (len(found), bare.count("--hash="))
        )
    return Wheel(found[0].group("name"), found[0].group("version"), found[0].group("sha256"))


def sha256_of(path: str) -> str:
    """Return a file's sha256, empty if it isn't there."""
    whole = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            for block in iter(lambda: handle.read(1 << 20), b""):
                whole.update(block)
    except FileNotFoundError:
        return ""
    return whole.hexdigest()


def cached(cache_dir: str, wheel: Wheel) -> str:
    """Return where the wheel is kept on the control node."""
    return os.path.join(cache_dir, "engines", "wheels", "%s-%s.whl" % (wheel.name, wheel.identity))


def fetch(python: str, lock_file: str, wheel: Wheel, target: str) -> None:
    """Have pip fetch the wheel by its hash. Raises OSError with what pip said."""
    place = target + ".fetch"
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    argv = [python, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--require-hashes",
            "--only-binary", ":all:", "-d", place, "-r", lock_file]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    try:
        names = [name for name in os.listdir(place) if name.endswith(".whl")]
        if done.returncode != 0 or len(names) != 1:
            raise OSError(
                "pip can't fetch %s %s: %s. Remedy: name an index that has it in the control node's pip configuration, "
                "or put the wheel at %s." % (wheel.name, wheel.version, done.stderr.strip()[-600:], target)
            )
        os.replace(os.path.join(place, names[0]), target)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def read_record(path: str) -> t.Dict[str, t.Any]:
    """Return what is known of a tree, empty if there is none that is whole."""
    try:
        with open(os.path.join(path, RECORD), encoding="utf-8") as handle:
            record: t.Dict[str, t.Any] = json.load(handle)
            return record
    except (OSError, ValueError):
        return {}


def unpack(archive: str, wheel_sha256: str, path: str) -> None:
    """Unpack a wheel beside its place and put it there in one step.

    Raises:
        OSError: the wheel isn't the one of the hash, the disk is full, or a name in it leads out of it.
    """
    found = sha256_of(archive)
    if found != wheel_sha256:
        raise OSError("%s has sha256 %s, expected %s" % (archive, found or "none", wheel_sha256))
    staging = path + ".new"
    shutil.rmtree(staging, ignore_errors=True)
    os.makedirs(staging, mode=0o755)
    with zipfile.ZipFile(archive) as wheel:
        for member in wheel.infolist():
            parts = member.filename.split("/")
            if member.filename.startswith("/") or ".." in parts:
                raise OSError("the wheel has a member %r" % member.filename)
        wheel.extractall(staging)
    for directory, _below, names in os.walk(staging):
        os.chmod(directory, 0o755)
        for name in names:
            os.chmod(os.path.join(directory, name), 0o755 if name.endswith(".so") else 0o644)
    with open(os.path.join(staging, RECORD), "w", encoding="utf-8") as handle:
        json.dump({"sha256": wheel_sha256}, handle)
    shutil.rmtree(path, ignore_errors=True)
    os.rename(staging, path)


def gguf_of(directory: str) -> str:
    """Return the GGUF file of a model's directory, the first part of a split one. Raises OSError unless it's one."""
    real = os.path.realpath(directory)
    names = sorted(name for name in os.listdir(real) if name.endswith(".gguf"))
    first = [name for name in names if re.search(r"-00001-of-\d{5}\.gguf$", name)]
    if len(names) != 1 and len(first) != 1:
        raise OSError("%s holds %d GGUF files, expected one. Remedy: give the model's source one." % (real, len(names)))
    path = os.path.join(real, (first or names)[0])
    with open(path, "rb") as handle:
        if handle.read(4) != b"GGUF":
            raise OSError("%s doesn't begin with GGUF. Remedy: get the model again." % path)
    return path


def unused(root: str, keep: t.Sequence[str]) -> t.List[str]:
    """Return the trees below a root that aren't kept, those of a run that was cut off too."""
    if not os.path.isdir(root):
        return []
    found = [os.path.join(root, name) for name in sorted(os.listdir(root))]
    return [path for path in found if stat.S_ISDIR(os.lstat(path).st_mode) and path not in keep]
