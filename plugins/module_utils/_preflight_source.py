# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What a model's source says on the control node: is it there, how big is it, how are its weights stored."""

from __future__ import annotations

import json
import os
import typing as t

DTYPE_BYTES = {"float64": 8, "float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2, "float8_e4m3fn": 1}
JSON_LIMIT = 8 * 1024 * 1024


def dtype_bytes(dtype: t.Any) -> t.Optional[int]:
    """Return the bytes one weight takes in a dtype by its torch or vLLM name, None when the name says nothing."""
    if not isinstance(dtype, str):
        return None
    return DTYPE_BYTES.get(dtype.rsplit(".", 1)[-1])


def _stored_dtype(config_path: str) -> str:
    """Return the dtype a model's config.json states, or an empty string."""
    try:
        if os.path.getsize(config_path) > JSON_LIMIT:
            return ""
        with open(config_path, encoding="utf-8") as handle:
            config = json.load(handle)
    except (OSError, ValueError):
        return ""
    if not isinstance(config, dict):
        return ""
    value = config.get("dtype") or config.get("torch_dtype") or ""
    return value if isinstance(value, str) else ""


def source_facts(model: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Look at one model's source where the control node can see it.

    Args:
        model: an element of ``gpufleet_models``; anything may be in it.

    Returns:
        ``{name, looked_at, exists, is_directory, has_config, size_bytes, stored_dtype}``. For a source that isn't
        ``file:`` nothing is looked at and ``size_bytes`` is the model's own ``size_bytes``, null when it has none.
    """
    source = model.get("source")
    stated = model.get("size_bytes")
    facts: t.Dict[str, t.Any] = {
        "name": model.get("name"),
        "looked_at": "",
        "exists": None,
        "is_directory": None,
        "has_config": None,
        "size_bytes": stated if isinstance(stated, int) and not isinstance(stated, bool) else None,
        "stored_dtype": "",
    }
    if not isinstance(source, str) or not source.startswith("file:/"):
        return facts
    path = source[len("file:") :]
    facts["looked_at"] = path
    facts["exists"] = os.path.exists(path)
    facts["is_directory"] = os.path.isdir(path)
    if facts["is_directory"]:
        config_path = os.path.join(path, "config.json")
        facts["has_config"] = os.path.isfile(config_path)
        facts["stored_dtype"] = _stored_dtype(config_path)
        total = 0
        for root, _directories, names in os.walk(path):
            for name in names:
                try:
                    total += os.stat(os.path.join(root, name)).st_size
                except OSError:
                    continue
        facts["size_bytes"] = total
    elif facts["exists"]:
        facts["size_bytes"] = os.path.getsize(path)
    return facts
