#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_archive
short_description: Build an engine once, as one relocatable and hashed archive
description:
  - Runs on the control node. It copies an interpreter, installs a hash-locked requirements file beside it with the
    control node's own pip (and so with the operator's index, wheel directories and certificates), tries the engine,
    compiles it, and packs it with zstd in a fixed order.
  - The archive is kept in the cache under a key made of everything that decides its content, so that a second run with
    the same inputs takes a fraction of a second, and an interrupted build leaves nothing that counts.
  - It says how far it is while it builds.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  action:
    support: full
    description: It is an action that runs on the control node only; nothing is sent to a host.
  check_mode:
    support: full
    description: Says whether it would build.
  diff_mode:
    support: none
    description: An archive has no difference to show.
options:
  cache_dir:
    description: Directory on the control node for what can be made again; the archive goes to C(engines) below it.
    type: path
    required: true
  version:
    description: The engine's version, the first part of its name.
    type: str
    required: true
  lock_file:
    description: Requirements file on the control node in which everything is pinned and has a sha256.
    type: path
    required: true
  python_version:
    description: Minor version of Python for which the lock file was resolved, such as V(3.11).
    type: str
    required: true
  python:
    description:
      - Path of that Python on the control node; unset takes the first in C(/usr/bin), C(/usr/local/bin), C(PATH).
    type: path
  python_search:
    description: Glob patterns of further directories on the control node in which that Python is looked for, last.
    type: list
    elements: str
    default: []
  distributions:
    description: Distributions of metadata only, which are added after the lock file, each with C(name) and C(version).
    type: list
    elements: dict
    default: []
  headers:
    description: Carry the interpreter's C headers too; kernels that are compiled on the host need them.
    type: bool
    default: false
  find_links:
    description: Directories or pages with wheels, in place of those of the operator's own pip configuration.
    type: list
    elements: str
    default: []
  index_url:
    description:
      - Package index, in place of that of the operator's own pip configuration. It goes by environment.
      - An empty string takes no index at all, so that only O(find_links) is used.
    type: str
  extra_index_urls:
    description: Further package indexes, in place of those of the operator's own pip configuration.
    type: list
    elements: str
    default: []
  instances:
    description: Instances with their C(config); a key that this engine doesn't know is refused.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Build the engine
  gpufleet.llm.engine_archive:
    cache_dir: /var/cache/gpufleet
    version: "{{ pins.version }}"
    lock_file: "{{ playbook_dir }}/../releases/{{ pins.lock_file }}"
    python_version: "{{ pins.python }}"
    distributions: "{{ pins.distributions }}"
"""

RETURN = r"""
engine_id:
  description: Name of the engine's tree, its version and the first 12 characters of its key.
  returned: always
  type: str
key:
  description: sha256 over everything that decides the content.
  returned: always
  type: str
archive:
  description: Path of the archive on the control node.
  returned: always
  type: str
sha256:
  description: sha256 of the archive.
  returned: when it has been built
  type: str
size_bytes:
  description: Size of the archive, in bytes.
  returned: when it has been built
  type: int
unpacked_bytes:
  description: Size of the unpacked tree, in bytes.
  returned: when it has been built
  type: int
files:
  description: Number of files in it.
  returned: when it has been built
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_archive as archiving


def main() -> None:
    module = AnsibleModule(argument_spec=archiving.ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(msg="engine_archive runs as an action on the control node only.")


if __name__ == "__main__":
    main()
