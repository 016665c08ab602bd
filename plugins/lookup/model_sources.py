# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: model_sources
short_description: Look at the sources of models on the control node
description:
  - For every model whose source is C(file:), tells whether it's there, how big it is, whether it has a C(config.json),
    and in which dtype it is stored.
  - For other sources it looks at nothing and hands on what the model itself states.
  - It reads the control node's disk, changes nothing, and touches no host.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
options:
  _terms:
    description: Models, each a dictionary as in C(gpufleet_models), or lists of them.
    type: list
    elements: raw
    required: true
"""

EXAMPLES = r"""
- name: Say how big the models are
  ansible.builtin.debug:
    msg: "{{ query('gpufleet.llm.model_sources', gpufleet_models) | map(attribute='size_bytes') }}"
"""

RETURN = r"""
_raw:
  description: One dictionary per model.
  type: list
  elements: dict
  contains:
    name:
      description: The model's name.
      type: str
    looked_at:
      description: The path that was looked at, empty for a source that isn't C(file:).
      type: str
    exists:
      description: Whether the path exists; null when nothing was looked at.
      type: bool
    is_directory:
      description: Whether the path is a directory; null when nothing was looked at.
      type: bool
    has_config:
      description: Whether the directory holds a C(config.json); null when nothing was looked at.
      type: bool
    size_bytes:
      description: Size of all files in bytes, links followed; the model's own C(size_bytes) where nothing was looked
        at; null when neither is known.
      type: int
    stored_dtype:
      description: The dtype C(config.json) states, empty when it states none.
      type: str
"""

import typing as t

from ansible.plugins.lookup import LookupBase
from ansible_collections.gpufleet.llm.plugins.module_utils._preflight_source import source_facts


def flat(terms: t.Iterable[t.Any]) -> t.Iterator[t.Mapping[str, t.Any]]:
    """Yield the models of terms that are models or lists of models; what is neither is left to the argument specs."""
    for term in terms:
        if isinstance(term, t.Mapping):
            yield term
        elif isinstance(term, (list, tuple)):
            yield from flat(term)


class LookupModule(LookupBase):
    """Looks at models' sources."""

    def run(self, terms: t.Any, variables: t.Any = None, **kwargs: t.Any) -> t.List[t.Dict[str, t.Any]]:
        """Return one dictionary per model; see :func:`source_facts`."""
        self.set_options(var_options=variables, direct=kwargs)
        return [source_facts(model) for model in flat(terms)]
