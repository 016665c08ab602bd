# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The arguments of model_snapshot, for its action plugin and its module."""

from __future__ import annotations

import typing as t

STEPS = ("inspect", "resolve", "fetch", "seal", "commit")

ARGUMENT_SPEC: t.Dict[str, t.Any] = {
    "directory": {"type": "path", "required": True},
    "models": {"type": "list", "elements": "dict", "required": True},
    "state": {"type": "str", "choices": ["present", "verified"], "default": "present"},
    "verify": {"type": "str", "choices": ["recorded", "always"], "default": "recorded"},
    "keep_versions": {"type": "int", "default": 2},
    "fetch_on": {"type": "str", "choices": ["control", "host"], "default": "control"},
    "cache_dir": {"type": "path"},
    "allow_pickle": {"type": "bool", "default": False},
    "allow_http": {"type": "bool", "default": False},
    "disk_margin_mib": {"type": "int", "default": 512},
    "hf_endpoint": {"type": "str", "default": "https://huggingface.co"},
    "hf_token": {"type": "str", "no_log": True},
    "reference_globs": {"type": "list", "elements": "path", "default": []},
    "step": {"type": "str", "choices": list(STEPS), "default": "inspect"},
    "plan": {"type": "list", "elements": "dict", "default": []},
}
