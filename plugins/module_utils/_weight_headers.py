# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What weights a model has, from the headers of its safetensors files: never a byte of the weights themselves.

A file is an 8-byte little-endian length N, N bytes of JSON ``{name: {dtype, shape, data_offsets: [begin, end]}}``, and
the tensors one after the other without a hole (the format's own description, of safetensors 0.6). A header is what a
stranger sent: its length, its structure and each number in it are bounded before they are believed.
"""

from __future__ import annotations

import struct
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError, human, path_problem
from ansible_collections.gpufleet.llm.plugins.module_utils._weight_record import (
    Files,
    Tensor,
    Weights,
    parse_json,
    refuse,
    shown,
)

#: Bits of one element. Sub-byte types are packed: a tensor is rounded up to whole bytes only as a whole.
DTYPE_BITS: t.Mapping[str, int] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
LENGTH_BYTES = 8
#: The format allows 100 MB. 100,000 tensors in one file come to about 12 MB, and no model is stored like that.
HEADER_LIMIT_BYTES = 16 * 1024 * 1024
INDEX_LIMIT_BYTES = 16 * 1024 * 1024
CONFIG_LIMIT_BYTES = 4 * 1024 * 1024
TENSORS_LIMIT = 1_000_000
DIMENSIONS_LIMIT = 16
NUMBER_LIMIT = 2**63 - 1
INDEX_NAMES = ("model.safetensors.index.json", "consolidated.safetensors.index.json")
SUFFIX = ".safetensors"
NAMES_SHOWN = 3
HEAD_BYTES = 64 * 1024  # what is read of a file at first: most headers are smaller


# -- one header --------------------------------------------------------------------------------------------------------


def header_length(first: bytes, size: int, where: str) -> int:
    """Return how long a file's header is, in bytes.

    Args:
        first: the file's first bytes, 8 of them or more.
        size: the file's size in bytes.
        where: the file, for the refusal.

    Raises:
        ModelError: the file is too short, or announces more than it holds or than a header may have.
    """
    if size < LENGTH_BYTES or len(first) < LENGTH_BYTES:
        raise refuse("truncated", expected="at least 8 bytes", found="%d bytes" % min(size, len(first)), where=where)
    length = int(struct.unpack("<Q", first[:LENGTH_BYTES])[0])
    if first[:8] == b"version ":
        raise refuse(
            "pointer",
            expected="a safetensors file",
            found="the pointer of a file that Git LFS or git-annex keeps elsewhere",
            where=where,
            remedy="Fetch the file itself (git lfs pull), or let model_store fetch it from the hub.",
        )
    if length > HEADER_LIMIT_BYTES:
        raise refuse(
            "header_length",
            expected="a header of at most %s" % human(HEADER_LIMIT_BYTES),
            found="%d bytes announced" % length,
            where=where,
            detail="The file has %d bytes." % size,
        )
    if LENGTH_BYTES + length > size:
        raise refuse(
            "truncated",
            expected="%d bytes of header" % length,
            found="%d bytes after the length" % (size - LENGTH_BYTES),
            where=where,
        )
    return length


def _extent(name: str, value: t.Any, where: str) -> t.Tuple[int, int, str, t.Tuple[int, ...]]:
    """Return ``(begin, end, dtype, shape)`` of a header's entry, offsets in bytes."""

    def wrong(aspect: str, expected: str, found: t.Any) -> ModelError:
        return refuse(
            aspect, expected=expected, found=shown(found), where=where, detail="Tensor %s." % shown(name, 120)
        )

    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise wrong("entry", "{dtype, shape, data_offsets}", value)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise wrong("dtype", "one of %s" % ", ".join(DTYPE_BITS), dtype)
    if not isinstance(shape, list) or len(shape) > DIMENSIONS_LIMIT or not all(_is_size(number) for number in shape):
        raise wrong("shape", "at most %d whole numbers that aren't negative" % DIMENSIONS_LIMIT, shape)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(number) for number in offsets):
        raise wrong("offsets", "[begin, end] in bytes", offsets)
    begin, end = offsets
    elements = 1
    for number in shape:
        elements *= number
    if elements * bits > NUMBER_LIMIT:
        raise wrong("shape", "a tensor below 2**60 bytes", shape)
    whole, rest = divmod(elements * bits, 8)
    if rest or end - begin != whole:
        raise refuse(
            "tensor_size",
            expected="%s bytes for %s %s" % (whole if not rest else "a whole number of", dtype, shown(shape)),
            found="%d bytes (offsets %d to %d)" % (end - begin, begin, end),
            where=where,
            detail="Tensor %s." % shown(name, 120),
        )
    return begin, end, dtype, tuple(shape)


def _is_size(number: t.Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= NUMBER_LIMIT


def parse_header(data: bytes, size: int, file: str, where: str) -> t.List[Tensor]:
    """Return the tensors of one file, in the order in which their bytes lie.

    Args:
        data: the header, without the 8 bytes of its length.
        size: the whole file's size in bytes.
        file: the file's path below the model's directory.
        where: the file, for refusals.

    Raises:
        ModelError: it isn't a header, or not one of a file of that size.
    """
    if data[:1] != b"{":
        raise refuse("header_json", expected="a JSON object", found="bytes %r" % data[:8], where=where)
    made = parse_json(data, where, "header")
    if not isinstance(made, dict):
        raise refuse("header_json", expected="a JSON object", found=type(made).__name__, where=where)
    metadata = made.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refuse("metadata", expected="texts by name", found=shown(metadata), where=where)
    extents = sorted((*_extent(name, value, where), name) for name, value in made.items())
    at = 0
    tensors = []
    for begin, end, dtype, shape, name in extents:
        if begin != at:
            raise refuse(
                "overlap" if begin < at else "hole",
                expected="tensor %s to begin where the one before ends, at %d" % (shown(name, 120), at),
                found="offset %d" % begin,
                where=where,
            )
        at = end
        tensors.append(Tensor(name, dtype, shape, end - begin, file))
    holds = size - LENGTH_BYTES - len(data)
    if at != holds:
        raise refuse(
            "truncated" if holds < at else "trailing",
            expected="%d bytes of tensors" % at,
            found="%d bytes after the header" % holds,
            where=where,
        )
    return tensors


def read_file(files: Files, name: str) -> t.List[Tensor]:
    """Return the tensors of one safetensors file; reads its header and nothing behind it but what came along.

    Raises:
        ModelError: there is no such file, or its header is wrong.
    """
    where = "%s of %s" % (shown(name, 120), files.where)
    size = files.size(name)
    if size is None:
        raise refuse("missing", expected="the file", found="no such file", where=where)
    head = files.read(name, 0, min(size, HEAD_BYTES))
    length = header_length(head, size, where)
    if LENGTH_BYTES + length > len(head):
        head += files.read(name, len(head), LENGTH_BYTES + length - len(head))
    data = head[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(data) != length:
        raise refuse(
            "truncated", expected="%d bytes of header" % length, found="%d bytes came" % len(data), where=where
        )
    return parse_header(data, size, name, where)


# -- a model -----------------------------------------------------------------------------------------------------------


def read_json(files: Files, name: str, limit_bytes: int, aspect: str, floats: bool = False) -> t.Any:
    """Return what a model's JSON file says, None where there is no such file.

    Raises:
        ModelError: it is longer than ``limit_bytes``, or isn't JSON with unique keys.
    """
    where = "%s of %s" % (shown(name, 120), files.where)
    size = files.size(name)
    if size is None:
        return None
    if size > limit_bytes:
        raise refuse(
            aspect + "_length", expected="at most %s" % human(limit_bytes), found="%d bytes" % size, where=where
        )
    return parse_json(files.read(name, 0, size), where, aspect, floats=floats)


def read_config(files: Files) -> t.Dict[str, t.Any]:
    """Return a model's config.json.

    Raises:
        ModelError: there is none, or it isn't a JSON object.
    """
    config = read_json(files, "config.json", CONFIG_LIMIT_BYTES, "config", floats=True)
    if not isinstance(config, dict):
        raise refuse(
            "config",
            expected="config.json with a JSON object",
            found="no such file" if config is None else type(config).__name__,
            where=files.where,
            remedy="Point the source at the directory that holds config.json and the weights.",
        )
    return config


def parse_index(made: t.Any, where: str) -> t.Tuple[t.Dict[str, str], t.Optional[int]]:
    """Return ``{tensor: file}`` and the total size in bytes that an index states, None where it states none.

    Raises:
        ModelError: it isn't an index, or names a file outside of the model's directory.
    """
    weight_map = made.get("weight_map") if isinstance(made, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise refuse("index", expected="weight_map with a file for each tensor", found=shown(weight_map), where=where)
    texts = {value for value in weight_map.values() if isinstance(value, str)}
    others: t.List[t.Any] = [value for value in weight_map.values() if not isinstance(value, str)]
    for file in sorted(texts) + others[:1]:
        problem = path_problem(file) if isinstance(file, str) else "it isn't a text"
        if not problem and not file.endswith(SUFFIX):
            problem = "it doesn't end in %s" % SUFFIX
        if problem:
            raise refuse(
                "index_path",
                expected="a safetensors file below the model's directory",
                found=shown(file, 120),
                where=where,
                detail="%s." % (problem[0].upper() + problem[1:]),
                remedy="Don't use this model: no tool writes such an index.",
            )
    metadata = made.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(total, float) and total.is_integer():
        total = int(total)
    return weight_map, total if _is_size(total) else None


def some(names: t.Iterable[str]) -> str:
    """Return the first of many names and how many more there are."""
    ordered = sorted(names)
    rest = len(ordered) - NAMES_SHOWN
    text = ", ".join(shown(name, 120) for name in ordered[:NAMES_SHOWN])
    return text + (" and %d more" % rest if rest > 0 else "")


def top_files(names: t.Iterable[str]) -> t.List[str]:
    """Return the safetensors files an engine loads where there is no index: those at the top, sorted.

    Beside ``model*.safetensors``, ``consolidated*`` holds the same weights under other names, and ``adapter*`` others.
    """
    found = sorted(name for name in names if name.endswith(SUFFIX) and "/" not in name)
    model = [name for name in found if not name.startswith(("consolidated", "adapter"))]
    return model or [name for name in found if not name.startswith("adapter")]


ReadMany = t.Callable[[Files, t.Sequence[str]], t.List[t.List[Tensor]]]


def one_by_one(files: Files, names: t.Sequence[str]) -> t.List[t.List[Tensor]]:
    """Read the headers of several files, one after the other."""
    return [read_file(files, name) for name in names]


def read_weights(files: Files, read_many: ReadMany = one_by_one) -> Weights:
    """Return what weights a model has, by its index and the headers of the files that one names.

    Args:
        files: the model's files.
        read_many: how the headers of several files are read; a source far away reads some at a time.

    Raises:
        ModelError: there are none, one is damaged, or index and files don't agree.
    """
    listed = files.names()
    index, index_name = None, ""
    for index_name in INDEX_NAMES:
        if listed is None or index_name in listed:
            index = read_json(files, index_name, INDEX_LIMIT_BYTES, "index", floats=True)
        if index is not None:
            break
    warnings: t.List[str] = []
    weight_map: t.Dict[str, str] = {}
    stated: t.Optional[int] = None
    if index is not None:
        where = "%s of %s" % (index_name, files.where)
        weight_map, stated = parse_index(index, where)
        shards = sorted(set(weight_map.values()))
        missing = [name for name in shards if files.size(name) is None]
        if missing:
            raise refuse(
                "shard_missing",
                expected="all %d files that the index names" % len(shards),
                found="%d missing: %s" % (len(missing), some(missing)),
                where=where,
                remedy="Fetch the model again: it isn't whole.",
            )
        unused = set(top_files(listed or ())) - set(shards)
        if unused:
            warnings.append("the index names no tensor of %s; they aren't counted" % some(unused))
    else:
        shards = top_files(listed) if listed is not None else ["model.safetensors"]
        if not shards:
            raise refuse(
                "none",
                expected="safetensors files",
                found="%d files: %s" % (len(listed or ()), some(listed or ())),
                where=files.where,
                remedy="Take a safetensors copy of the model; for GGUF use an engine that takes it.",
            )
    tensors, of = _together(files, shards, read_many)
    if weight_map:
        _agree(weight_map, of, files.where, warnings)
    total = sum(tensor.nbytes for tensor in tensors)
    if stated is not None and stated != total:
        warnings.append("the index states %d bytes in all, the headers %d; the headers count" % (stated, total))
    return Weights(tensors, total, warnings)


def _together(files: Files, shards: t.Sequence[str], read_many: ReadMany) -> t.Tuple[t.List[Tensor], t.Dict[str, str]]:
    tensors: t.List[Tensor] = []
    of: t.Dict[str, str] = {}
    for found in read_many(files, shards):
        for tensor in found:
            if tensor.name in of:
                raise refuse(
                    "duplicate",
                    expected="each tensor in one file",
                    found="%s in %s and %s" % (shown(tensor.name, 120), of[tensor.name], tensor.file),
                    where=files.where,
                    remedy="Leave the copy out (gpufleet_models[].exclude), or take the model from its source again.",
                )
            of[tensor.name] = tensor.file
        tensors.extend(found)
        if len(tensors) > TENSORS_LIMIT:
            raise refuse(
                "count", expected="at most %d tensors" % TENSORS_LIMIT, found="more of them", where=files.where
            )
    return tensors, of


def _agree(weight_map: t.Mapping[str, str], of: t.Mapping[str, str], where: str, warnings: t.List[str]) -> None:
    """Refuse an index that names a tensor its shard doesn't hold; say what no index names."""
    absent = [name for name, file in weight_map.items() if of.get(name) != file]
    if absent:
        raise refuse(
            "index_tensor",
            expected="each tensor in the file that the index names",
            found="%d not there: %s" % (len(absent), some(absent)),
            where=where,
            remedy="Index and files are of different versions: fetch the model again.",
        )
    extra = set(of) - set(weight_map)
    if extra:
        warnings.append("the index doesn't name %s, which the files hold; they are counted" % some(extra))
