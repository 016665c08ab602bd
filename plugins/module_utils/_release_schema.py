# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Holds data against the JSON Schemas in releases/, without a library.

The few keywords those schemas use are checked here by hand, so that a control node needs nothing for it beyond
ansible-core and a task pays some milliseconds for it; a keyword that isn't known here is an error, never ignored.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding

_ANNOTATIONS = frozenset(("$schema", "$defs", "title", "description"))
_TYPES: t.Dict[str, t.Tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def validate(data: t.Any, schema: t.Dict[str, t.Any], subject: str = "release") -> t.List[Finding]:
    """Hold data against a JSON Schema and return one failed finding per place that doesn't fit, none if all do.

    Args:
        data: what was read.
        schema: the schema, of the keywords known here.
        subject: what the data is, the first part of a place's name.

    Raises:
        ValueError: the schema uses a keyword that isn't known here.
    """
    return list(_errors(data, schema, schema, subject))


def _error(where: str, expected: t.Any, found: t.Any, detail: str, remedy: str) -> Finding:
    return finding(
        "release.schema", False, expected=expected, found=found, detail="At %s: %s" % (where, detail), remedy=remedy
    )


def _errors(data: t.Any, schema: t.Dict[str, t.Any], root: t.Dict[str, t.Any], where: str) -> t.Iterator[Finding]:
    for keyword, value in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword not in _KEYWORDS:
            raise ValueError("the schema uses %r at %s, which this checker doesn't know" % (keyword, where))
        yield from _KEYWORDS[keyword](data, value, schema, root, where)


def _is(data: t.Any, name: str) -> bool:
    if isinstance(data, bool) and name != "boolean":
        return False
    return isinstance(data, _TYPES[name])


def _check_type(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    names = value if isinstance(value, list) else [value]
    if not any(_is(data, name) for name in names):
        remedy = "Quote the value." if "string" in names and isinstance(data, (int, float)) else "Mend the value."
        yield _error(where, " or ".join(names), data, "the value has another type.", remedy)


def _check_enum(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if data not in value:
        yield _error(
            where,
            "one of %s" % ", ".join(map(str, value)),
            data,
            "the value isn't listed.",
            "Use one of the listed values.",
        )


def _check_pattern(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, str) and not re.search(value, data):
        yield _error(where, value, data, "the value doesn't match.", "Write it in the form of the pattern.")


def _check_minimum(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if _is(data, "integer") and data < value:
        yield _error(where, "at least %s" % value, data, "the value is too small.", "Mend the value, or say null.")


def _check_min_length(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, str) and len(data) < value:
        yield _error(where, "at least %s characters" % value, data, "the value is too short.", "Say something.")


def _check_min_items(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, list) and len(data) < value:
        yield _error(where, "at least %s items" % value, data, "the list is too short.", "Add what is missing.")


def _check_min_properties(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, dict) and len(data) < value:
        yield _error(where, "at least %s keys" % value, data, "the mapping is too small.", "Add what is missing.")


def _check_required(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, dict):
        for name in value:
            if name not in data:
                yield _error(where, "the key %s" % name, "no such key", "a key is missing.", "Add %s." % name)


def _check_properties(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, dict):
        for name, below in value.items():
            if name in data:
                yield from _errors(data[name], below, root, "%s.%s" % (where, name))


def _check_pattern_properties(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, dict):
        for pattern, below in value.items():
            for name in data:
                if isinstance(name, str) and re.search(pattern, name):
                    yield from _errors(data[name], below, root, "%s.%s" % (where, name))


def _check_additional(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if value is not False:
        raise ValueError("the schema says additionalProperties: %r at %s; only false is known here" % (value, where))
    if isinstance(data, dict):
        patterns = schema.get("patternProperties", {})
        for name in data:
            known = name in schema.get("properties", {})
            if not known and not any(isinstance(name, str) and re.search(pattern, name) for pattern in patterns):
                allowed = sorted(schema.get("properties", {})) + sorted(patterns)
                yield _error(
                    where,
                    "one of the keys %s" % ", ".join(allowed),
                    name,
                    "a key isn't known.",
                    "Remove the key, or mend its spelling.",
                )


def _check_items(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from _errors(item, value, root, "%s[%d]" % (where, index))


def _check_any_of(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    tried = [list(_errors(data, below, root, where)) for below in value]
    if all(tried):
        yield tried[0][0]


def _check_ref(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    target = root
    for part in value.replace("#/", "", 1).split("/"):
        target = target[part]
    return _errors(data, target, root, where)


_KEYWORDS: t.Dict[str, t.Callable[[t.Any, t.Any, t.Any, t.Any, str], t.Iterator[Finding]]] = {
    "type": _check_type,
    "enum": _check_enum,
    "pattern": _check_pattern,
    "minimum": _check_minimum,
    "minLength": _check_min_length,
    "minItems": _check_min_items,
    "minProperties": _check_min_properties,
    "required": _check_required,
    "properties": _check_properties,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_additional,
    "items": _check_items,
    "anyOf": _check_any_of,
    "$ref": _check_ref,
}
