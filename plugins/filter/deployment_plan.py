# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter deployment_plan."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_merge


def deployment_plan(release: t.Any, memory: t.Any, **options: t.Any) -> t.Dict[str, t.Any]:
    """Return versions, memory and every refusal of both; see the sidecar documentation."""
    if not isinstance(release, dict) or not isinstance(memory, dict) or "instances" not in memory:
        raise AnsibleFilterError(
            "deployment_plan: found %s and %s, expected a release and what the module memory_plan returned for models. "
            "Remedy: pass lookup('gpufleet.llm.release', gpufleet_release) and the registered result."
            % (type(release).__name__, type(memory).__name__)
        )
    try:
        return _deployment_merge.deployment_plan(release, memory, **options)
    except (KeyError, TypeError) as exc:
        raise AnsibleFilterError("deployment_plan: %s" % exc) from exc


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"deployment_plan": deployment_plan}
