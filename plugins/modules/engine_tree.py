#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_tree
short_description: Have an engine's tree on a host, beside the one before
description:
  - Ships an archive of M(gpufleet.llm.engine_archive) to a host that lacks it, verifies it there, unpacks it under a
    name of its own, imports the engine once to see that this host can run it, and then switches C(current) and
    C(previous). Nothing that runs is touched; units name a tree by its full name.
  - Also resolves the directories of the models that the engine is to serve, and refuses one without C(config.json).
  - Trees that are neither current nor previous nor named in a unit are removed when another one comes.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  action:
    support: full
    description: The archive is sent by an action, and only when the host lacks it.
  check_mode:
    support: full
    description: Says whether the engine would be shipped; the disk space is checked.
  diff_mode:
    support: none
    description: A tree has no difference to show.
options:
  root:
    description: Directory of the trees on the host.
    type: path
    default: /opt/gpufleet/engines/vllm
  engine_id:
    description: Name of the tree.
    type: str
    required: true
  key:
    description: Key of the archive, which a verified tree carries.
    type: str
    required: true
  archive:
    description: Path of the archive on the control node; the action sends it when it is needed.
    type: str
    required: true
  sha256:
    description: sha256 of the archive; unset only in check mode, when it hasn't been built.
    type: str
  size_bytes:
    description: Size of the archive, in bytes.
    type: int
    default: 0
  unpacked_bytes:
    description: Size of the unpacked tree, in bytes.
    type: int
    default: 0
  models:
    description: Models to resolve, each with C(model) (its name) and C(model_link) (its C(current) link on the host).
    type: list
    elements: dict
    default: []
  packages:
    description:
      - Operating system packages that unpacking and trying the engine takes. When one is missing, RV(missing_packages)
        names it and the engine isn't sent; call again once they are installed.
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
  received:
    description: Set by the action, the path at which the archive arrived; never set it yourself.
    type: path
  remote_user:
    description: Set by the action, the account that sends the archive; never set it yourself.
    type: str
"""

EXAMPLES = r"""
- name: Have the engine on the host
  gpufleet.llm.engine_tree:
    engine_id: "{{ built.engine_id }}"
    key: "{{ built.key }}"
    archive: "{{ built.archive }}"
    sha256: "{{ built.sha256 }}"
    size_bytes: "{{ built.size_bytes }}"
    unpacked_bytes: "{{ built.unpacked_bytes }}"
  register: tree
"""

RETURN = r"""
path:
  description: The tree on the host.
  returned: always
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
"""

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_host as host
from ansible_collections.gpufleet.llm.plugins.module_utils import _host_state
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner


def converge(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Do as much as can be done with what is on the host; ``need_archive`` asks the action to send it."""
    p = module.params
    root, identity = p["root"], p["engine_id"]
    models = host.read_models(p["models"], module.check_mode)
    tree = os.path.join(root, identity)
    installed = _host_state.read_packages(LocalRunner(), p["packages"])
    missing = [name for name in p["packages"] if installed[name] is None]
    result: t.Dict[str, t.Any] = {
        "changed": False,
        "path": tree,
        "models": models,
        "missing_packages": missing,
        "pruned": [],
    }
    waits = bool(missing)
    if not host.verified(tree, p["key"]):
        if waits:
            host.check_space(root, p["size_bytes"] + p["unpacked_bytes"])
            result["changed"] = module.check_mode
        elif p["received"] is None:
            result["changed"] = True
            if not module.check_mode:
                for left in host.leftovers(root):
                    host.remove(left)
            host.check_space(root, p["size_bytes"] + p["unpacked_bytes"])
            if not module.check_mode:
                result.update(need_archive=True, incoming=host.prepare(root, p["remote_user"]))
        else:
            result["changed"] = True
            host.unpack(root, identity, p["key"], p["received"], p["sha256"])
            host.remove(os.path.dirname(p["received"]))
    if not module.check_mode and not waits and not result.get("need_archive"):
        result["changed"], result["pruned"] = host.serve_from(root, identity, p["references"], result["changed"])
    for link in ("current", "previous"):
        result[link] = host.link_target(os.path.join(root, link))
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/opt/gpufleet/engines/vllm"},
            "engine_id": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "archive": {"type": "str", "required": True},
            "sha256": {"type": "str"},
            "size_bytes": {"type": "int", "default": 0},
            "unpacked_bytes": {"type": "int", "default": 0},
            "models": {"type": "list", "elements": "dict", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "references": {
                "type": "list",
                "elements": "str",
                "default": [
                    "/etc/systemd/system/vllm@*.service.d/*.conf",
                    "/var/lib/gpufleet/known-good/vllm/*/*.conf",
                ],
            },
            "received": {"type": "path"},
            "remote_user": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        with contextlib.nullcontext() if module.check_mode else host.locked(module.params["root"]):
            result = converge(module)
        module.exit_json(**result)
    except (host.EngineTreeError, _host_state.HostStateError, OSError) as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
