#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_wheel
short_description: Have an engine that is one wheel on a host, beside the one before
description:
  - Fetches the wheel of a lock file once on the control node, by its hash, sends it to a host that lacks it, and
    unpacks it to C(<root>/<version>-<hash>) in one step. The host's own Python imports it before it counts.
  - Names the GGUF file of each model, in the directory of its very version.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  action:
    support: full
    description: Fetching is done on the controller.
  check_mode:
    support: full
    description: Says whether the wheel would be sent.
  diff_mode:
    support: none
    description: A tree has no difference to show.
options:
  root:
    description: Directory of the trees on the host.
    type: path
    required: true
  lock_file:
    description: Lock file on the control node with one wheel and its sha256.
    type: str
    required: true
  cache_dir:
    description: Directory on the control node for what can be fetched again.
    type: str
  library:
    description: What Python imports from the tree.
    type: str
    required: true
  packages:
    description: Operating system packages that it loads; when one is missing nothing is done, and it is named.
    type: list
    elements: str
    default: []
  models:
    description: Models, each with C(name) and C(model_link).
    type: list
    elements: dict
    default: []
  engine_id:
    description: Set by the action; never set it yourself.
    type: str
  sha256:
    description: Set by the action; never set it yourself.
    type: str
  archive:
    description: Set by the action, where the wheel is on the host; never set it yourself.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Have llama.cpp on the host
  gpufleet.llm.engine_wheel:
    root: /opt/gpufleet/engines/llama_cpp
    lock_file: "{{ pins.lock_path }}"
    cache_dir: /var/cache/gpufleet
    library: xllamacpp
"""

RETURN = r"""
path:
  description: The tree.
  returned: always
  type: str
present:
  description: Whether the tree is there.
  returned: always
  type: bool
files:
  description: GGUF file by model name. In check mode, those that are there.
  returned: always
  type: dict
missing_packages:
  description: Packages of O(packages) that aren't installed.
  returned: always
  type: list
  elements: str
"""

import os
import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_wheel as wheels
from ansible_collections.gpufleet.llm.plugins.module_utils import _host_state
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner

KEPT_TREES = 2


def gguf_files(models: t.Sequence[t.Mapping[str, str]], dry: bool) -> t.Dict[str, str]:
    """Return the GGUF file of each model; in check mode one that isn't there yet is left out."""
    found = {}
    for model in models:
        try:
            found[model["name"]] = wheels.gguf_of(model["model_link"])
        except OSError:
            if not dry:
                raise
    return found


def put(module: AnsibleModule, path: str) -> None:
    """Unpack the wheel, try it, and remove what is older than the tree before this one."""
    p = module.params
    os.makedirs(p["root"], mode=0o755, exist_ok=True)
    wheels.unpack(p["archive"], p["sha256"], path)
    rc, out, err = LocalRunner(timeout_seconds=120).run(
        ["/usr/bin/python3", "-s", "-B", "-c", "import sys; sys.path.insert(0, %r); import %s" % (path, p["library"])]
    )
    if rc != 0:
        shutil.rmtree(path)
        raise OSError(
            "%s can't be imported by this host's Python: %s. Remedy: see the release's minimum_python and packages."
            % (p["library"], (err or out).strip()[-600:])
        )
    trees = sorted(wheels.unused(p["root"], [path]), key=os.path.getmtime)
    for old in trees[: -(KEPT_TREES - 1)]:
        shutil.rmtree(old)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "lock_file": {"type": "str", "required": True},
            "cache_dir": {"type": "str"},
            "library": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "models": {"type": "list", "elements": "dict", "default": []},
            "engine_id": {"type": "str"},
            "sha256": {"type": "str"},
            "archive": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    p = module.params
    path = os.path.join(p["root"], p["engine_id"] or "")
    result: t.Dict[str, t.Any] = {"changed": False, "path": path}
    try:
        result["present"] = wheels.read_record(path).get("sha256") == p["sha256"]
        installed = _host_state.read_packages(LocalRunner(), p["packages"])
        result["missing_packages"] = [name for name in p["packages"] if installed[name] is None]
        result["changed"] = not result["present"]
        if p["archive"] and not result["present"] and not result["missing_packages"] and not module.check_mode:
            put(module, path)
            result["present"] = True
        result["files"] = gguf_files(p["models"], module.check_mode)
    except (OSError, _host_state.HostStateError) as exc:
        module.fail_json(msg="engine_wheel: %s" % exc)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
