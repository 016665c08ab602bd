# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What a GGUF file says of its model, through the gguf library: tensors, layers, heads, windows; never the weights.

The library maps the file and reads the header alone, but it makes an object of every string of the tokenizer: 2 s and
190 MiB for a vocabulary of 49,152 (gguf 0.19.0). Arrays that aren't asked for are stepped over here instead. What it
doesn't check is checked here: the sizes of arrays before anything is made of them, that the product of a tensor's
dimensions doesn't wrap, and that tensors neither overlap nor end behind the file.
"""

from __future__ import annotations

import struct
import sys
import traceback
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError
from ansible_collections.gpufleet.llm.plugins.module_utils._weight_record import Tensor, Weights, refuse, shown

GGUF_IMPORT_ERROR: t.Optional[str] = None

#: Longer arrays aren't read: per-layer settings are as long as the model is deep.
ARRAY_LIMIT = 4096
#: Entries of the tokenizer's arrays that are stepped over, in all: four vocabularies of a million with their merges.
STRINGS_LIMIT = 8_000_000
FIELDS_LIMIT = 65_536
TENSORS_LIMIT = 1_000_000
NAME_LIMIT_BYTES = 64 * 1024
BYTES_LIMIT = 2**50


def gguf_library() -> t.Any:
    """Import gguf late (it brings numpy) and return it, or None with GGUF_IMPORT_ERROR set."""
    global GGUF_IMPORT_ERROR
    try:
        import gguf
    except ImportError:
        GGUF_IMPORT_ERROR = traceback.format_exc()
        return None
    return gguf


class GgufModel(t.NamedTuple):
    """A GGUF file's own words. Per-layer lists have one entry for each of ``layers``; None: the file doesn't say."""

    architecture: str
    layers: int  # block_count, with those of multi-token prediction
    nextn_layers: int
    context_length: t.Optional[int]
    embedding_length: t.Optional[int]
    feed_forward_length: t.Optional[int]
    vocab_size: t.Optional[int]
    heads: t.List[int]
    kv_heads: t.List[int]
    key_length: int
    value_length: int
    key_length_mla: t.Optional[int]
    key_length_swa: t.Optional[int]
    value_length_swa: t.Optional[int]
    sliding_window: t.Optional[int]
    sliding_pattern: t.Union[int, t.List[bool], None]
    shared_kv_layers: int
    ssm: t.Dict[str, int]  # conv_kernel, inner_size, state_size, group_count, time_step_rank
    full_attention_interval: t.Optional[int]
    fields: t.Dict[str, t.Any]  # every scalar and short array
    weights: Weights


class _Bounded:
    """Goes before the library's reader: steps over what isn't needed and refuses what can't be.

    The library's names of methods and the layout of what they return are those of the version in the lock file.
    """

    library: t.Any
    data: t.Any
    byte_order: str
    gguf_scalar_to_np: t.Dict[t.Any, t.Any]
    stepped = 0

    def _get(self, offset: int, dtype: t.Any, count: int = 1, override_order: t.Any = None) -> t.Any:
        found = super()._get(offset, dtype, count, override_order)  # type: ignore[misc]
        if len(found) != int(count):
            raise ValueError("the file ends in the middle of its header, at byte %d" % len(self.data))
        return found

    def _get_str(self, offset: int) -> t.Any:
        length = int(self._get(offset, "u8")[0])
        if length > len(self.data) - offset - 8:
            raise ValueError("a text of %d bytes at byte %d of %d" % (length, offset, len(self.data)))
        return super()._get_str(offset)  # type: ignore[misc]

    def _build_fields(self, offs: int, count: int) -> int:
        if int(count) > FIELDS_LIMIT:
            raise ValueError("%d settings, %d are read at most" % (int(count), FIELDS_LIMIT))
        return int(super()._build_fields(offs, int(count)))  # type: ignore[misc]

    def _build_tensor_info(self, offs: int, count: int) -> t.Any:
        if int(count) > TENSORS_LIMIT:
            raise ValueError("%d tensors, %d are read at most" % (int(count), TENSORS_LIMIT))
        return super()._build_tensor_info(offs, int(count))  # type: ignore[misc]

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> t.Any:
        kinds = self.library.GGUFValueType
        if kinds(int(raw_type)) != kinds.ARRAY:
            return super()._get_field_parts(orig_offs, int(raw_type))  # type: ignore[misc]
        kind = kinds(int(self._get(orig_offs, "u4")[0]))
        count = int(self._get(orig_offs + 4, "u8")[0])
        if kind == kinds.ARRAY:
            raise ValueError("an array of arrays")
        if kind != kinds.STRING and count <= ARRAY_LIMIT:
            return super()._get_field_parts(orig_offs, int(raw_type))  # type: ignore[misc]
        head = [self._get(orig_offs, "u4"), self._get(orig_offs + 4, "u8")]
        if kind == kinds.STRING:
            behind = self._over_texts(count, orig_offs + 12)
        else:
            behind = orig_offs + 12 + count * int(self.gguf_scalar_to_np[kind]().nbytes)
        if behind > len(self.data):
            raise ValueError("an array of %d behind the file's end" % count)
        return behind - orig_offs, head, [], [kinds.ARRAY, kind]

    def _over_texts(self, count: int, offset: int) -> int:
        """Return the offset behind an array of texts, or one behind the file's end where it isn't whole."""
        size = len(self.data)
        self.stepped += count
        if self.stepped > STRINGS_LIMIT:
            raise ValueError("%d texts, %d are stepped over at most" % (self.stepped, STRINGS_LIMIT))
        unpack = struct.Struct("<Q" if (sys.byteorder == "little") == (self.byte_order == "I") else ">Q").unpack_from
        view = memoryview(self.data)
        for _number in range(count):
            if offset + 8 > size:
                return size + 1
            offset += 8 + int(unpack(view, offset)[0])
        return offset

    def _build_tensors(self, _start_offs: int, fields: t.Any) -> None:
        """Keep where the tensors lie; the library would map each of them."""
        self.tensor_fields = fields
        self.tensors: t.List[t.Any] = []


def _open(library: t.Any, path: str) -> t.Any:
    return type("GGUFReader", (_Bounded, library.GGUFReader), {"library": library})(path)


def _refuse(where: str, found: str, aspect: str = "gguf", expected: str = "a GGUF file") -> ModelError:
    return refuse(aspect, expected=expected, found=shown(found, 200), where=where)


def _tensors(library: t.Any, reader: t.Any, where: str, file: str) -> t.List[Tensor]:
    """Return the tensors with their bytes, in the order in which they lie.

    Raises:
        ModelError: a size that can't be, two that overlap, or one that ends behind the file.
    """
    names: t.Set[str] = set()
    placed: t.List[t.Tuple[int, int, Tensor]] = []
    for field in reader.tensor_fields:
        _length, raw, _dims_count, dims, kind_raw, offset_raw = field.parts
        name = bytes(raw).decode("utf-8")
        if name in names:
            raise _refuse(where, "tensor %s twice" % shown(name), "gguf_duplicate", "each tensor once")
        names.add(name)
        kind = library.GGMLQuantizationType(int(kind_raw[0]))
        block, size = library.GGML_QUANT_SIZES[kind]
        elements = 1
        for dimension in dims.tolist():
            elements *= int(dimension)
        if len(dims) > 8 or elements * size // block > BYTES_LIMIT:
            raise _refuse(where, "tensor %s of %s" % (shown(name), dims.tolist()), "gguf_shape", "a tensor below 1 PiB")
        if (int(dims[0]) if len(dims) else elements) % block:
            raise _refuse(
                where, "tensor %s, rows of %d" % (shown(name), int(dims[0])), "gguf_shape", "rows of whole blocks"
            )
        shape = tuple(reversed([int(dimension) for dimension in dims.tolist()]))
        tensor = Tensor(name, kind.name, shape, elements // block * size, file)
        placed.append((int(offset_raw[0]), tensor.nbytes, tensor))
    placed.sort(key=lambda item: (item[0], item[1]))
    at, holds = 0, len(reader.data) - int(reader.data_offset)
    for begin, size, tensor in placed:
        if begin < at:
            raise _refuse(
                where, "tensor %s begins at %d" % (shown(tensor.name), begin), "gguf_overlap", "%d or more" % at
            )
        at = begin + size
    if at > max(0, holds):
        raise _refuse(where, "%d bytes behind the header" % holds, "gguf_truncated", "%d bytes of tensors" % at)
    return [tensor for _begin, _size, tensor in placed]


def read_gguf(path: str, library: t.Any = None) -> GgufModel:
    """Return what a GGUF file says. The weights may be a hole: nothing behind the header is looked at.

    Args:
        path: the file; of a model in several, the first (each is read alone: give all to :func:`read_split`).
        library: the imported gguf.

    Raises:
        ModelError: it isn't there, isn't GGUF, or is damaged.
    """
    tensors, fields = _read(path, library)
    return _model(fields, Weights(tensors, sum(tensor.nbytes for tensor in tensors), []), path)


def read_split(paths: t.Sequence[str], library: t.Any = None) -> GgufModel:
    """Return what a model in several GGUF files says: the settings of the first, the tensors of all.

    Raises:
        ModelError: as :func:`read_gguf`, or they don't belong together.
    """
    first: t.Dict[str, t.Any] = {}
    tensors: t.List[Tensor] = []
    for number, path in enumerate(paths):
        found, fields = _read(path, library)
        if number == 0:
            first = fields
        count = fields.get("split.count")
        if len(paths) > 1 and (count != len(paths) or fields.get("split.no") != number):
            said = "part %s of %s" % (fields.get("split.no"), count)
            raise _refuse(path, said, "gguf_split", "part %d of %d" % (number, len(paths)))
        tensors.extend(found)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise _refuse(paths[0], "a tensor in two files", "gguf_duplicate", "each tensor once")
    count = first.get("split.count")
    if isinstance(count, int) and count > 1 and len(paths) == 1:
        raise _refuse(paths[0], "the first of %d files alone" % count, "gguf_split", "all files of the model")
    return _model(first, Weights(tensors, sum(tensor.nbytes for tensor in tensors), []), paths[0])


def _read(path: str, library: t.Any) -> t.Tuple[t.List[Tensor], t.Dict[str, t.Any]]:
    library = library or gguf_library()
    if library is None:
        raise _refuse(path, "no gguf library", "gguf_library", "the gguf package")
    try:
        reader = _open(library, path)
        fields = {name: _contents(library, field) for name, field in reader.fields.items()}
        return _tensors(library, reader, path, path.rsplit("/", 1)[-1]), fields
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as exc:
        # numpy and the library raise what fits the place at which a damaged file led them astray.
        raise _refuse(
            path, "%s" % (exc.args[0] if exc.args and isinstance(exc, (ValueError, KeyError)) else exc)
        ) from None


def _contents(library: t.Any, field: t.Any) -> t.Any:
    """Return a field as plain Python: scalars, texts, short arrays of numbers; None for what was stepped over."""
    kind = field.types[0]
    if kind == library.GGUFValueType.ARRAY:
        return [field.parts[index].tolist()[0] for index in field.data] if field.data else None
    if kind == library.GGUFValueType.STRING:
        raw = bytes(field.parts[-1][:NAME_LIMIT_BYTES])
        return raw.decode("utf-8", "replace")
    return field.parts[field.data[0]].tolist()[0]


# -- what the settings mean --------------------------------------------------------------------------------------------


def _whole(value: t.Any) -> t.Optional[int]:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < 2**40 else None


def _per_layer(value: t.Any, layers: int, default: int) -> t.List[int]:
    if isinstance(value, list) and len(value) == layers and all(_whole(item) is not None for item in value):
        return list(value)
    whole = _whole(value)
    return [default if whole is None else whole] * layers


def _model(fields: t.Dict[str, t.Any], weights: Weights, path: str) -> GgufModel:
    architecture = fields.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise _refuse(path, "no general.architecture", "gguf_settings", "the name of the architecture")

    def own(name: str) -> t.Any:
        return fields.get("%s.%s" % (architecture, name))

    layers, embedding = _whole(own("block_count")), _whole(own("embedding_length"))
    if not layers or layers > ARRAY_LIMIT:
        raise _refuse(path, "block_count %s" % own("block_count"), "gguf_settings", "1 to %d layers" % ARRAY_LIMIT)
    heads = _per_layer(own("attention.head_count"), layers, 0)
    kv_heads = _per_layer(own("attention.head_count_kv"), layers, -1)
    kv_heads = [mine if of < 0 else of for of, mine in zip(kv_heads, heads)]
    most = max(heads)
    width = embedding // most if embedding and most else 0
    pattern = own("attention.sliding_window_pattern")
    vocabulary = _whole(own("vocab_size"))
    if vocabulary is None:
        rows = [tensor.shape[0] for tensor in weights.tensors if tensor.name == "token_embd.weight" and tensor.shape]
        vocabulary = rows[0] if rows else None
    return GgufModel(
        architecture=architecture,
        layers=layers,
        nextn_layers=_whole(own("nextn_predict_layers")) or 0,
        context_length=_whole(own("context_length")),
        embedding_length=embedding,
        feed_forward_length=_whole(own("feed_forward_length")),
        vocab_size=vocabulary,
        heads=heads,
        kv_heads=kv_heads,
        key_length=_whole(own("attention.key_length")) or width,
        value_length=_whole(own("attention.value_length")) or width,
        key_length_mla=_whole(own("attention.key_length_mla")),
        key_length_swa=_whole(own("attention.key_length_swa")),
        value_length_swa=_whole(own("attention.value_length_swa")),
        sliding_window=_whole(own("attention.sliding_window")) or None,
        sliding_pattern=[bool(item) for item in pattern] if isinstance(pattern, list) else _whole(pattern),
        shared_kv_layers=_whole(own("attention.shared_kv_layers")) or 0,
        ssm={
            name: _whole(own("ssm.%s" % name)) or 0
            for name in ("conv_kernel", "inner_size", "state_size", "group_count", "time_step_rank")
        },
        full_attention_interval=_whole(own("full_attention_interval")),
        fields={name: value for name, value in fields.items() if value is not None},
        weights=weights,
    )
