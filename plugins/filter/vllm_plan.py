# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn an inventory's models into vLLM instances, and those into files."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_plan


def vllm_plan(models: t.Any, **options: t.Any) -> t.Dict[str, t.Any]:
    """Return ``{instances, names, refusal}``; see the sidecar documentation."""
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise AnsibleFilterError(
            "vllm_plan: found %s, expected a list of models. Remedy: make vllm_models a list of mappings."
            % type(models).__name__
        )
    try:
        return _engine_plan.plan(models, **options)
    except TypeError as exc:
        raise AnsibleFilterError("vllm_plan: %s" % exc) from exc


class FilterModule:
    """The collection's filters about engines."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"vllm_plan": vllm_plan, "vllm_files": _engine_plan.files}
