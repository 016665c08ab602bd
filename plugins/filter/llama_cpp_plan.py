# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn an inventory's fallback models into llama.cpp instances, and those into files."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.llm.plugins.module_utils import _llama_plan


def llama_cpp_plan(models: t.Any, served: t.Any, **options: t.Any) -> t.Dict[str, t.Any]:
    """Return ``{instances, names}``; see the sidecar documentation."""
    for value in (models, served):
        if not isinstance(value, list) or not all(isinstance(model, dict) for model in value):
            raise AnsibleFilterError(
                "llama_cpp_plan: found %s, expected a list of models. Remedy: make llama_cpp_models a list of mappings."
                % type(value).__name__
            )
    try:
        return _llama_plan.plan(models, served, **options)
    except ValueError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"llama_cpp_plan": llama_cpp_plan, "llama_cpp_files": _llama_plan.placed}
