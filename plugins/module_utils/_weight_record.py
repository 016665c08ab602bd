# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What is read of a model's files: the records, how files are asked for, and JSON that a stranger wrote."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import finding
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError

DIGITS_LIMIT = 19
#: Brackets, braces and commas in one file: a tensor has about ten. They bound what parsing can make of 16 MiB.
MARKS_LIMIT = 1_500_000


class Tensor(t.NamedTuple):
    """One tensor as it is stored: ``nbytes`` is end - begin; ``file`` is the path below the model's directory."""

    name: str
    dtype: str
    shape: t.Tuple[int, ...]
    nbytes: int
    file: str


class Weights(t.NamedTuple):
    """What a model's headers say: its tensors, their bytes in all, and what is odd but stops nothing."""

    tensors: t.List[Tensor]
    total_bytes: int
    warnings: t.List[str]

    def as_dict(self) -> t.Dict[str, t.Any]:
        """Return it as JSON takes it: ``{tensors: [{name, dtype, shape, nbytes, file}], total_bytes, warnings}``."""
        return {
            "tensors": [dict(tensor._asdict(), shape=list(tensor.shape)) for tensor in self.tensors],
            "total_bytes": self.total_bytes,
            "warnings": list(self.warnings),
        }


class Files(t.Protocol):
    """A model's files, wherever they are."""

    where: str

    def names(self) -> t.Optional[t.List[str]]:
        """Return the paths of all files, None where the source can't list them."""

    def size(self, name: str) -> t.Optional[int]:
        """Return a file's size in bytes, None where there is no such file."""

    def read(self, name: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``, fewer only where the file ends."""


def refuse(aspect: str, *, expected: str, found: str, where: str, detail: str = "", remedy: str = "") -> ModelError:
    """Return (not raise) the refusal of a file of weights, check ``weights.<aspect>``."""
    return ModelError(
        [
            finding(
                "weights.%s" % aspect,
                False,
                expected=expected,
                found=found,
                detail=("Read from %s. %s" % (where, detail)).strip(),
                remedy=remedy or "The file is damaged, or made by something else: fetch it again from its source.",
            )
        ]
    )


def shown(value: t.Any, limit: int = 60) -> str:
    """Return something a stranger wrote as a short, printable text."""
    text = repr(value) if isinstance(value, str) else str(value)
    text = text.encode("ascii", "backslashreplace").decode("ascii")
    return text if len(text) <= limit else text[:limit] + "…"


# -- JSON that a stranger wrote ----------------------------------------------------------------------------------------


class _Repeated(Exception):
    """A key that comes twice in one object."""


class _Wrong(Exception):
    """A number that no header holds."""


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_LIMIT:
        raise _Wrong("a number of %d digits" % len(digits))
    return int(digits)


def _not_a_number(text: str) -> t.NoReturn:
    raise _Wrong("the number %s" % shown(text, 30))


def _object(pairs: t.List[t.Tuple[str, t.Any]]) -> t.Dict[str, t.Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: t.Set[str] = set()
        for key, _value in pairs:
            if key in seen:
                raise _Repeated(key)
            seen.add(key)
    return made


def parse_json(data: bytes, where: str, aspect: str, floats: bool = False) -> t.Any:
    """Return what JSON bytes say, keys unique, integers of at most 19 digits.

    Args:
        data: the bytes.
        where: what they are, for the refusal.
        aspect: name of the check in it.
        floats: whether numbers that aren't whole may be there.

    Raises:
        ModelError: it isn't such JSON.
    """
    marks = sum(data.count(mark) for mark in (b"{", b"[", b","))
    said = ""
    if marks > MARKS_LIMIT:
        said = "%d brackets and commas" % marks
    else:
        try:
            text = data.decode("utf-8")
            made = json.loads(
                text,
                object_pairs_hook=_object,
                parse_int=_integer,
                parse_float=float if floats else _not_a_number,
                parse_constant=_not_a_number,
            )
            if "\\u" in text:
                # An escape can smuggle half of a surrogate pair in, which no later output could encode.
                json.dumps(made, ensure_ascii=False).encode("utf-8")
            return made
        except UnicodeError as exc:
            said = "text that isn't UTF-8 (%s)" % shown(str(exc), 200)
        except RecursionError:
            said = "brackets nested too deep"
        except _Repeated as exc:
            raise refuse(
                aspect + "_duplicate",
                expected="each name once",
                found="%s twice" % shown(exc.args[0]),
                where=where,
            ) from None
        except _Wrong as exc:
            said = str(exc)
        except ValueError as exc:
            said = shown(str(exc), 120)
    raise refuse(aspect + "_json", expected="a JSON object", found=said, where=where) from None
