# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter watchdog_plan."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.llm.plugins.module_utils import _watchdog_plan


def watchdog_plan(models: t.Any, settings: t.Any, **options: t.Any) -> t.Dict[str, t.Any]:
    """Return ``{instances, settings}``; see the sidecar documentation."""
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise AnsibleFilterError(
            "watchdog_plan: found %s, expected a list of models. Remedy: make llm_watchdog_models a list of mappings."
            % type(models).__name__
        )
    try:
        return _watchdog_plan.plan(models, settings, **options)
    except ValueError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"watchdog_plan": watchdog_plan}
