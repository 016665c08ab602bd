# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages and the indexes of a flat repository, written without any tool of Debian's."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import tarfile
import typing as t
from email.utils import formatdate

# What every maintainer script of a stand-in obeys. The log tells a test what was configured, and in which order.
MARKERS = "/run/gpufleet-mirror"
LOG = "/var/log/gpufleet-mirror.log"
POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
  echo "configure {name} {version}" >> {log}
  waited=0
  while [ -e {markers}/slow ] || [ -e {markers}/slow-{name} ]; do
    sleep 1
    waited=$((waited + 1))
    [ "$waited" -lt 300 ] || break
  done
  if [ -e {markers}/fail ] || [ -e {markers}/fail-{name} ]; then
    echo "{name}: asked to fail by {markers}" >&2
    exit 1
  fi
{postinst}
fi
exit 0
"""


@dataclasses.dataclass(frozen=True)
class Package:
    """One stand-in package; ``fields`` are control fields as they are written, ``files`` is path -> text.

    A text that starts with ``-> `` makes a symbolic link. ``postinst`` is shell that runs at configuration.
    """

    name: str
    version: str
    fields: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: t.Mapping[str, t.Union[str, bytes]] = dataclasses.field(default_factory=dict)
    conffiles: t.Tuple[str, ...] = ()
    postinst: str = ""
    architecture: str = "amd64"

    @property
    def file_name(self) -> str:
        """The name in the repository; an epoch isn't in it."""
        return "%s_%s_%s.deb" % (self.name, self.version.split(":", 1)[-1], self.architecture)

    def control(self) -> str:
        """The control paragraph."""
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Maintainer": "Fixture <fixture@example.org>",
            "Section": "non-free/libs",
            "Priority": "optional",
            **self.fields,
            "Description": "stand-in for tests",
        }
        return "".join("%s: %s\n" % field for field in fields.items())


def _tar(files: t.Mapping[str, t.Union[str, bytes]], executable: t.Container[str] = ()) -> bytes:
    """Return a compressed tar archive with every directory in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        directories = {""}
        for path in files:
            parts = path.strip("/").split("/")[:-1]
            directories |= {"/".join(parts[: depth + 1]) for depth in range(len(parts))}
        for directory in sorted(directories):
            info = tarfile.TarInfo("./" + directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for path, content in sorted(files.items()):
            info = tarfile.TarInfo("./" + path.strip("/"))
            if isinstance(content, str) and content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:]
                archive.addfile(info)
                continue
            data = content.encode() if isinstance(content, str) else content
            info.size, info.mode = len(data), 0o755 if path in executable or "/bin/" in path else 0o644
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), compresslevel=1, mtime=0)


def build(package: Package) -> bytes:
    """Return the bytes of a .deb."""
    script = POSTINST.format(
        name=package.name, version=package.version, log=LOG, markers=MARKERS, postinst=package.postinst or "  :"
    )
    control = {"control": package.control(), "postinst": script}
    if package.conffiles:
        control["conffiles"] = "".join("%s\n" % path for path in package.conffiles)
    files = {"/usr/share/doc/%s/version" % package.name: package.version + "\n", **package.files}
    members = (
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", _tar(control, executable=("postinst",))),
        ("data.tar.gz", _tar(files)),
    )
    out = b"!<arch>\n"
    for name, data in members:
        out += ("%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, "100644", len(data))).encode()
        out += data + b"\n" * (len(data) % 2)
    return out


def index_entry(package: Package, data: bytes) -> str:
    """Return a package's paragraph of ``Packages``."""
    return "%sFilename: ./%s\nSize: %d\nMD5sum: %s\nSHA1: %s\nSHA256: %s\n" % (
        package.control(),
        package.file_name,
        len(data),
        hashlib.md5(data).hexdigest(),
        hashlib.sha1(data).hexdigest(),
        hashlib.sha256(data).hexdigest(),
    )


def release_file(indexes: t.Mapping[str, bytes], *, date: float, valid_until: float | None, origin: str) -> str:
    """Return the ``Release`` file of a flat repository over its index files."""
    lines = [
        "Origin: %s" % origin,
        "Label: %s" % origin,
        "Architecture: amd64",
        "Date: %s" % formatdate(date, usegmt=True),
    ]
    if valid_until is not None:
        lines.append("Valid-Until: %s" % formatdate(valid_until, usegmt=True))
    for title, digest in (("MD5Sum", hashlib.md5), ("SHA256", hashlib.sha256)):
        lines.append("%s:" % title)
        lines += [" %s %d %s" % (digest(data).hexdigest(), len(data), name) for name, data in sorted(indexes.items())]
    return "\n".join(lines) + "\n"
