#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: place_files
short_description: Place all of a role's files in one step
description:
  - Renders templates on the controller, and puts files, directories and links in place on the host by one module call.
  - Every new content is proved together with the others, in a staging directory, before the first one is replaced.
    Directories are made before the proof, which may need them.
  - Each file is replaced atomically; a full disk is met before anything has been replaced.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Says what would change; the proof runs if its command exists on the host, and a failure is a warning.
  diff_mode:
    support: full
    description: One difference for each file; contents marked O(files[].secret) are never shown.
options:
  directories:
    description: Directories that must exist, parents first.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      owner: {description: Owning user; unset leaves it., type: str}
      group: {description: Owning group; unset leaves it., type: str}
      mode: {description: Permissions in octal., type: str, default: "0755"}
  files:
    description:
      - Files that must have exactly this content. Each has one of V(template), V(src) or V(content).
    type: list
    elements: dict
    default: []
    suboptions:
      dest: {description: Absolute path., type: path, required: true}
      template: {description: Template on the controller; it is looked up as by M(ansible.builtin.template)., type: str}
      src: {description: Text file on the controller; it is looked up as by M(ansible.builtin.copy)., type: str}
      content: {description: The content itself., type: str}
      secret_content:
        description: Set by the action for files marked O(files[].secret); never set it yourself.
        type: str
      vars: {description: Variables for the template on top of the task's own., type: dict}
      secret: {description: Keep the content out of the result and of C(--diff)., type: bool, default: false}
      owner: {description: Owning user; unset leaves it., type: str}
      group: {description: Owning group; unset leaves it., type: str}
      mode: {description: Permissions in octal., type: str, default: "0644"}
  links:
    description: Symbolic links that must have exactly this target; they are switched atomically.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path of the link., type: path, required: true}
      target: {description: What the link holds., type: str, required: true}
  absent:
    description: Absolute paths that must not exist.
    type: list
    elements: path
    default: []
  exclusive:
    description: Glob patterns of absolute paths; what they match and isn't listed in this task is removed.
    type: list
    elements: str
    default: []
  validate:
    description:
      - Commands that must succeed before anything is replaced, each a list of arguments.
      - V({stage}) in an argument stands for a directory that mirrors the absolute paths of all O(files) and O(links).
      - They run only if a content or link changes.
    type: list
    elements: list
    default: []
"""

EXAMPLES = r"""
- name: Place the files of a service
  gpufleet.llm.place_files:
    directories:
      - {path: /etc/example, mode: "0755"}
    files:
      - {dest: /etc/example/nginx.conf, template: nginx.conf.j2}
      - {dest: /etc/example/server.key, src: "{{ key_path }}", mode: "0600", secret: true}
    validate:
      - [nginx, -t, -c, "{stage}/etc/example/nginx.conf"]
"""

RETURN = r"""
changed_paths:
  description: Paths that differ from what was wanted, in the order in which they were put in place.
  returned: always
  type: list
  elements: str
"""

import os
import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _place_files as placing

ENTRY = {"owner": {"type": "str"}, "group": {"type": "str"}}


def prove(module: AnsibleModule, wanted: t.Dict[str, t.List[t.Any]]) -> None:
    """Run the validation commands over a staged copy; end the module if one of them says no."""
    commands = [c for c in module.params["validate"] if shutil.which(c[0])]
    absent = sorted({c[0] for c in module.params["validate"] if not shutil.which(c[0])})
    if absent and not module.check_mode:
        module.fail_json(msg="validate: %s isn't on this host. Remedy: install it first." % ", ".join(absent))
    if absent:
        module.warn("validate: %s isn't on this host yet, so the new files were not proved." % ", ".join(absent))
    if not commands:
        return
    root = placing.stage(wanted)
    try:
        for command in commands:
            argv = [part.replace("{stage}", root) for part in command]
            rc, out, err = module.run_command(argv, cwd=root)
            if rc == 0:
                continue
            said = "\n".join(line for line in (out + err).replace(root, "").splitlines() if line.strip())
            msg = "validate: %s exited with %d, so nothing was replaced: %s" % (command[0], rc, said)
            if module.check_mode:
                module.warn(msg)
            else:
                module.fail_json(msg=msg, rc=rc, changed=False, changed_paths=[])
    finally:
        shutil.rmtree(root)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": dict(
                    ENTRY, path={"type": "path", "required": True}, mode={"type": "str", "default": "0755"}
                ),
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": dict(
                    ENTRY,
                    dest={"type": "path", "required": True},
                    template={"type": "str"},
                    src={"type": "str"},
                    content={"type": "str"},
                    secret_content={"type": "str", "no_log": True},
                    vars={"type": "dict"},
                    secret={"type": "bool", "default": False, "no_log": False},
                    mode={"type": "str", "default": "0644"},
                ),
            },
            "links": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "target": {"type": "str", "required": True}},
            },
            "absent": {"type": "list", "elements": "path", "default": []},
            "exclusive": {"type": "list", "elements": "str", "default": []},
            "validate": {"type": "list", "elements": "list", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = {key: list(module.params[key]) for key in ("directories", "files", "links", "absent")}
    for item in wanted["files"]:
        text = item["secret_content"] if item["secret"] else item["content"]
        if text is None:
            module.fail_json(msg="%s: no content. Remedy: give one of template, src or content." % item["dest"])
        item["data"] = text.encode("utf-8")
    os.umask(0o077)
    wanted["absent"] += placing.unlisted(wanted, module.params["exclusive"])
    try:
        changes = placing.plan(wanted)
        directories = [c for c in changes if c.kind == "directory"]
        others = [c for c in changes if c.kind != "directory"]
        if not module.check_mode:
            placing.apply(directories)  # a proof may need them, the proxy's log directory for one
        if any(c.content for c in others):
            prove(module, wanted)
        if not module.check_mode:
            placing.apply(others)
    except placing.PlaceError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg="%s. What was already served is untouched unless it is named here." % exc)
    module.exit_json(
        changed=bool(changes),
        changed_paths=[c.path for c in changes],
        diff=placing.diffs(changes),
    )


if __name__ == "__main__":
    main()
