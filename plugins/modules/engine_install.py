#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_install
short_description: Build an engine's tree on the host that serves it
description:
  - Makes on the host the tree that M(gpufleet.llm.engine_archive) makes on the control node, from the same hash-locked
    requirements file, with the pip of the host's own Python and from the index or wheel directory that the host can
    reach. M(gpufleet.llm.engine_tree) is the other way to a tree; both give it the same name and the same return
    values, and a host may change from one to the other.
  - The tree is built beside the one before and tried; then it gets its name, and C(current) and C(previous) are
    switched. Nothing that runs is touched; units name a tree by its full name. An interrupted build is run again.
  - Also resolves the directories of the models that the engine is to serve, and refuses one without C(config.json), and
    a configuration with a key that the engine doesn't know.
  - Trees that are neither current nor previous nor named in a unit are removed when another one comes.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  action:
    support: full
    description: The requirements file is read on the control node by an action, which also says that a build starts.
  check_mode:
    support: full
    description: Says whether the engine would be built; interpreter, disk space and requirements file are checked.
  diff_mode:
    support: none
    description: A tree has no difference to show.
options:
  root:
    description: Directory of the trees on the host.
    type: path
    default: /opt/gpufleet/engines/vllm
  version:
    description: The engine's version, the first part of the tree's name.
    type: str
    required: true
  lock_file:
    description: Requirements file on the control node in which everything is pinned and has a sha256.
    type: str
    required: true
  python_version:
    description: Minor version of Python for which the lock file was resolved, such as V(3.11).
    type: str
    required: true
  python:
    description: Path of that Python on the host; unset takes the first in C(/usr/bin), C(/usr/local/bin), C(PATH).
    type: path
  python_search:
    description: Glob patterns of further directories on the host in which that Python is looked for, last.
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
    description:
      - Directories on the host or pages with wheels, in place of those of the host's own pip configuration.
      - An address with a password is refused; such a place is an index.
    type: list
    elements: str
    default: []
  index_url:
    description:
      - Package index, in place of that of the host's own pip configuration. It goes by environment.
      - An empty string takes no index at all, so that only O(find_links) is used.
    type: str
  extra_index_urls:
    description: Further package indexes, in place of those of the host's own pip configuration.
    type: list
    elements: str
    default: []
  disk_bytes:
    description: Size of the finished tree, in bytes; twice as much must be free. With V(0) 8 GiB must be.
    type: int
    default: 0
  instances:
    description:
      - Instances with their C(config), C(model) (its name) and C(model_link) (its C(current) link on the host).
    type: list
    elements: dict
    default: []
  packages:
    description:
      - Operating system packages that building and trying the engine takes. When one is missing, RV(missing_packages)
        names it and nothing is built; call again once they are installed.
    type: list
    elements: str
    default: []
  references:
    description: Glob patterns of the files that name trees still in use.
    type: list
    elements: str
    default:
      - /etc/systemd/system/vllm@*.service.d/*.conf
      - /var/lib/gpufleet/known-good/vllm/*/*.conf
  lock:
    description: Set by the action, the text of O(lock_file); never set it yourself.
    type: str
    default: ""
  build:
    description: Set by the action once it has said that a build starts; never set it yourself.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Have the engine on a host that reaches no index
  gpufleet.llm.engine_install:
    version: "{{ pins.version }}"
    lock_file: "{{ pins.lock_path }}"
    python_version: "{{ pins.python }}"
    distributions: "{{ pins.distributions }}"
    index_url: ""
    find_links: [/srv/wheels]
  register: tree
"""

RETURN = r"""
path:
  description:
    - The tree on the host. While the interpreter is missing as a package is, its name ends in C(-unbuilt).
  returned: always
  type: str
engine_id:
  description: Name of the tree, its version and the first 12 characters of its key.
  returned: when the interpreter is there
  type: str
current:
  description: Name of the current tree, null where there is none.
  returned: always
  type: str
previous:
  description: Name of the one before, null where there is none.
  returned: always
  type: str
models:
  description: Resolved directory by model name.
  returned: always
  type: dict
missing_packages:
  description: Those of O(packages) that aren't installed.
  returned: always
  type: list
  elements: str
pruned:
  description: Names of the trees that were removed.
  returned: always
  type: list
  elements: str
build_seconds:
  description: How long the build took.
  returned: when it was built
  type: float
"""

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_build as building
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_host as host
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_install as installing
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_pip as pips
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_python as pythons
from ansible_collections.gpufleet.llm.plugins.module_utils import _host_state
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner


def read_recipe(p: t.Mapping[str, t.Any], may_lack: bool) -> t.Optional[building.Recipe]:
    """Return what the tree is made of; None when the interpreter isn't there yet and may be installed first."""
    try:
        python = pythons.probe_python(p["python_version"], p["python"], p["python_search"], installing.THIS_HOST)
    except pythons.EngineError:
        if may_lack:
            return None
        raise
    return building.Recipe(p["version"], p["lock"], python, p["distributions"], p["headers"])


def converge(module: AnsibleModule, lock_descriptor: int) -> t.Dict[str, t.Any]:
    """Do as much as can be done with what is on the host; ``must_build`` asks the action to call with ``build``."""
    p = module.params
    root = p["root"]
    models = host.read_models(p["instances"], module.check_mode)
    installed = _host_state.read_packages(LocalRunner(), p["packages"])
    missing = [name for name in p["packages"] if installed[name] is None]
    recipe = read_recipe(p, bool(missing))
    tree = os.path.join(root, recipe.identity if recipe else p["version"] + "-unbuilt")
    result: t.Dict[str, t.Any] = {
        "changed": False,
        "path": tree,
        "models": models,
        "missing_packages": missing,
        "pruned": [],
    }
    if recipe:
        result["engine_id"] = recipe.identity
    built = recipe is not None and host.verified(tree, recipe.key)
    if not built:
        pips.check_lock(p["lock"], p["lock_file"])
        host.check_space(root, installing.needed_bytes(p["disk_bytes"]), "wheels and tree")
        if missing or recipe is None:
            result["changed"] = module.check_mode
        elif module.check_mode or not p["build"]:
            result.update(changed=True, must_build=not module.check_mode)
        else:
            env = pips.pip_environment(p["find_links"], p["index_url"], p["extra_index_urls"])
            result["build_seconds"] = installing.install(root, recipe, env, lock_descriptor)
            result["changed"] = built = True
    if recipe and built:
        refusal = planning.unknown_refusal(p["instances"], installing.known_arguments(tree), p["version"])
        if refusal:
            raise pythons.EngineError(refusal + " Nothing that serves was changed.")
        if module.check_mode:
            result["changed"] = host.link_target(os.path.join(root, "current")) != recipe.identity
        elif not missing:
            result["changed"], result["pruned"] = host.serve_from(
                root, recipe.identity, p["references"], result["changed"]
            )
    for link in ("current", "previous"):
        result[link] = host.link_target(os.path.join(root, link))
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/opt/gpufleet/engines/vllm"},
            "version": {"type": "str", "required": True},
            "lock_file": {"type": "str", "required": True},
            "python_version": {"type": "str", "required": True},
            "python": {"type": "path"},
            "python_search": {"type": "list", "elements": "str", "default": []},
            "distributions": {"type": "list", "elements": "dict", "default": []},
            "headers": {"type": "bool", "default": False},
            "find_links": {"type": "list", "elements": "str", "default": []},
            "index_url": {"type": "str", "no_log": True},
            "extra_index_urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "disk_bytes": {"type": "int", "default": 0},
            "instances": {"type": "list", "elements": "dict", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "references": {
                "type": "list",
                "elements": "str",
                "default": [
                    "/etc/systemd/system/vllm@*.service.d/*.conf",
                    "/var/lib/gpufleet/known-good/vllm/*/*.conf",
                ],
            },
            # No secret, but some hundred KiB that would go to the host's log at every run.
            "lock": {"type": "str", "default": "", "no_log": True},
            "build": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    # The engine runs as another user, whatever this host's habit is.
    os.umask(0o022)
    try:
        installing.refuse_secret_links(module.params["find_links"])
        with contextlib.ExitStack() as stack:
            descriptor = -1
            if not module.check_mode:
                descriptor = stack.enter_context(host.locked(module.params["root"], installing.LOCK_SECONDS))
            result = converge(module, descriptor)
        module.exit_json(**result)
    except (pythons.EngineError, host.EngineTreeError, _host_state.HostStateError, OSError) as exc:
        module.fail_json(msg=pips.redact_urls(str(exc)))


if __name__ == "__main__":
    main()
