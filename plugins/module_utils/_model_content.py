# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What the first bytes of a model's files say: pickles, Git LFS pointers, cut safetensors, code to be trusted."""

from __future__ import annotations

import json
import os
import struct
import typing as t
import zipfile

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import pickle_finding

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes; the format's own reader refuses more
JSON_LIMIT = 64 * 1024 * 1024


def is_pickle(path: str) -> bool:
    """Whether a file is a pickle or a zip archive that holds one (torch.save). Reads a few bytes."""
    with open(path, "rb") as handle:
        head = handle.read(4)
    if len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return True
    if head == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
        except (zipfile.BadZipFile, OSError):
            return False
    return False


def safetensors_problem(path: str) -> str:
    """Return what is wrong with a safetensors file's frame, or an empty string.

    The format: eight bytes of header length (little endian), a JSON header, then the tensors at the offsets it names.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as handle:
        raw = handle.read(8)
        if len(raw) < 8:
            return "it has only %d bytes" % len(raw)
        length = struct.unpack("<Q", raw)[0]
        if length > SAFETENSORS_HEADER_LIMIT or length > size - 8:
            return "its header says %d bytes, the file has %d" % (length, size)
        try:
            header = json.loads(handle.read(length).decode("utf-8"))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return "its header isn't what the format asks for"
    wanted = 8 + length + max(ends, default=0)
    return "" if size == wanted else "its header describes %d bytes, the file has %d" % (wanted, size)


def _read_json(path: str) -> t.Any:
    if os.path.getsize(path) > JSON_LIMIT:
        return None
    with open(path, encoding="utf-8") as handle:
        return json.load(handle)


def check_content(
    name: str, files: t.Mapping[str, str], *, allow_pickle: bool, present: t.Optional[t.Collection[str]] = None
) -> t.List[Finding]:
    """Look into files before they are trusted.

    Args:
        name: the model.
        files: path in the model -> path on this machine, the ones that can be read here.
        allow_pickle: don't refuse pickles.
        present: every path of the model, where ``files`` is only a part of it.

    Returns:
        Refusals and warnings.
    """
    found: t.List[Finding] = []
    known = set(files) if present is None else set(present)
    pickles: t.List[str] = []
    for path, real in sorted(files.items()):
        with open(real, "rb") as handle:
            head = handle.read(64)
        if head.startswith(LFS_POINTER):
            found.append(
                finding(
                    "model.lfs_pointer",
                    False,
                    expected="the file itself",
                    found="%s is a Git LFS pointer" % path,
                    detail="Model %s." % name,
                    remedy="Run 'git lfs pull' in the clone, or download the repository with its files.",
                )
            )
        elif path.endswith(".safetensors"):
            problem = safetensors_problem(real)
            if problem:
                found.append(
                    finding(
                        "model.safetensors",
                        False,
                        expected="a whole safetensors file",
                        found="%s: %s" % (path, problem),
                        detail="Model %s." % name,
                        remedy="Get the file again from where it was made; its checksum was made of a broken file.",
                    )
                )
        elif is_pickle(real):
            pickles.append(path)
        if path.endswith(".safetensors.index.json"):
            found.extend(_check_index(name, path, real, known))
    if pickles and not allow_pickle:
        found.append(pickle_finding(name, pickles, "by their content"))
    if "config.json" in files:
        found.extend(_check_config(name, files["config.json"]))
    return found


def _check_index(name: str, path: str, real: str, known: t.Collection[str]) -> t.Iterator[Finding]:
    try:
        shards = sorted({str(shard) for shard in _read_json(real)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        shards = []
    folder = path.rpartition("/")[0]
    missing = [s for s in shards if ("%s/%s" % (folder, s) if folder else s) not in known]
    if missing:
        yield finding(
            "model.shards",
            False,
            expected="every weight file that %s names" % path,
            found="missing: %s" % ", ".join(missing[:5]),
            detail="Model %s." % name,
            remedy="Complete the source, or correct .include and .exclude.",
        )


def _check_config(name: str, real: str) -> t.Iterator[Finding]:
    try:
        config = _read_json(real)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        yield finding(
            "model.config_json",
            False,
            expected="config.json holds a JSON object",
            found="something else",
            detail="Model %s." % name,
            remedy="Get config.json again.",
        )
    elif config.get("auto_map"):
        yield finding(
            "model.auto_map",
            False,
            severity="warning",
            expected="a model that the engine knows by itself",
            found="config.json has auto_map: %s" % ", ".join(sorted(config["auto_map"])),
            detail="Model %s asks to run Python code that comes with it." % name,
            remedy="Read that code before you set trust_remote_code for this model.",
        )
