# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: release
short_description: Read a release of the collection by its id
description:
  - Returns what C(releases/<id>.yml) pins, once it has been held against C(releases/schema.json), and the facts of
    C(releases/facts.yml).
  - Fails for an id that isn't known, naming the known ones, and for a file that doesn't hold to the schema.
  - It reads files on the control node, those that ship with the collection or your own, and touches no host.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
options:
  _terms:
    description: Ids of releases, each C(YYYY.MM.N). As a rule there is one, the value of C(gpufleet_release).
    type: list
    elements: str
    required: true
  directory:
    description:
      - Absolute path of a directory on the control node with releases of your own, laid out like the collection's.
      - A release that isn't there is taken from the collection.
      - A directory without C(schema.json), C(facts.schema.json) or C(facts.yml) uses the collection's.
      - Empty, the collection's own directory.
    type: str
    default: ""
    vars:
      - name: gpufleet_releases_dir
notes:
  - Runs on the control node, in check mode as otherwise. A process reads a release once, until the file changes.
"""

EXAMPLES = r"""
- name: Show the version of the engine this host gets
  ansible.builtin.debug:
    msg: "{{ lookup('gpufleet.llm.release', gpufleet_release).engines.vllm[gpufleet_accelerator].version }}"

- name: Tell whether this host's platform is in the support matrix
  ansible.builtin.assert:
    that: platform in lookup('gpufleet.llm.release', gpufleet_release).platforms
  vars:
    platform: "{{ ansible_facts['distribution'] | lower }}{{ ansible_facts['distribution_major_version'] }}"
"""

RETURN = r"""
_raw:
  description:
    - One dictionary per id. Its keys are those of C(releases/<id>.yml), described in C(releases/schema.json),
      and three more.
  type: list
  elements: dict
  contains:
    id:
      description: The id that was asked for.
      type: str
    engines:
      description:
        - Engine to accelerator to build.
        - Every build has C(lock_path), the absolute path of its lock file, besides C(lock_file).
      type: dict
    platforms:
      description: The support matrix. Keys are the distribution in lower case with its version, like V(debian12).
      type: dict
    facts:
      description: The content of C(facts.yml), described in C(releases/facts.schema.json).
      type: dict
"""

import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.gpufleet.llm.plugins.module_utils import _release
from ansible_collections.gpufleet.llm.plugins.module_utils._release import ReleaseError, load_cached


class LookupModule(LookupBase):
    """Returns releases by id."""

    def run(self, terms: t.Any, variables: t.Any = None, **kwargs: t.Any) -> t.List[t.Dict[str, t.Any]]:
        """Return one completed release per term; see :func:`load_cached` for its shape and errors."""
        self.set_options(var_options=variables, direct=kwargs)
        # A variable comes as it's written in the inventory, which may be an expression.
        directory = self.get_option("directory")
        directory = (self._templar.template(directory) if self._templar else directory) or _release.COLLECTION_RELEASES
        try:
            return [load_cached(_release.home_of(term, directory), term) for term in terms]
        except ReleaseError as exc:
            raise AnsibleLookupError(str(exc)) from exc
