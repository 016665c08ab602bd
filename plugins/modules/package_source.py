#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_source
short_description: Trust a repository's key by its fingerprint, and place its source file and what goes with it
description:
  - Proves every key against its pinned fingerprint before anything is written, then puts keys and files in place
    together, each atomically.
  - A key file must hold exactly the one key that is trusted. A second one in it would be trusted as well, so that it's
    refused like a wrong one.
  - Needs neither gpg nor a keyring on the host.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: A key that the host lacks is fetched and proved in check mode too, and not written.
  diff_mode:
    support: full
    description: The files before and after.
options:
  keys:
    description: Keys to trust.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it goes. A name that ends in C(.gpg) gets the binary form, any other the armoured one.
        type: path
        required: true
      fingerprint:
        description: The fingerprint that it must have, in full.
        type: str
        required: true
      url:
        description: Where it's fetched from when the host hasn't got it and no O(keys[].content) is given.
        type: str
        default: ""
      content:
        description: The key in armour, from the control node.
        type: str
        default: ""
  files:
    description: Files that belong to the source, as the source file itself, preferences, limits of unattended upgrades.
    type: list
    elements: dict
    default: []
    suboptions:
      dest: {description: Absolute path; its directory is made., type: path, required: true}
      content: {description: The content., type: str, required: true}
      mode: {description: Permissions in octal., type: str, default: "0644"}
      show: {description: Whether C(--diff) shows the content., type: bool, default: true}
  absent:
    description: Absolute paths that must not exist.
    type: list
    elements: path
    default: []
  timeout_seconds:
    description: How long fetching a key may take, in seconds.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Trust the repository, and say where it is
  gpufleet.llm.package_source:
    keys:
      - path: /etc/apt/keyrings/example.asc
        url: https://packages.example.org/key.asc
        fingerprint: 0123456789ABCDEF0123456789ABCDEF01234567
    files:
      - dest: /etc/apt/sources.list.d/example.sources
        content: |
          Types: deb
          URIs: https://packages.example.org/debian
          Suites: /
          Signed-By: /etc/apt/keyrings/example.asc
"""

RETURN = r"""
changed_paths:
  description: Paths that differ from what was wanted.
  returned: always
  type: list
  elements: str
fetched:
  description: URLs of the keys that were fetched.
  returned: always
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.gpufleet.llm.plugins.module_utils import _place_files as placing
from ansible_collections.gpufleet.llm.plugins.module_utils import _repository_key

MAXIMUM_KEY_BYTES = 1024 * 1024


def fetch(url: str, timeout_seconds: int) -> bytes:
    """Return what is at a URL, at most a mebibyte."""
    with open_url(url, timeout=timeout_seconds, http_agent="gpufleet.llm") as answer:
        return t.cast("bytes", answer.read(MAXIMUM_KEY_BYTES))


def key_file(module: AnsibleModule, key: t.Dict[str, t.Any], fetched: t.List[str]) -> t.Dict[str, t.Any]:
    """Return one key as a file to place, or end the module because it isn't the trusted one."""
    path, where = key["path"], "keys[].content for %s" % key["path"]
    data = key["content"].encode("utf-8")
    if not data:
        try:
            with open(path, "rb") as handle:
                data = handle.read()
        except OSError:
            data = b""
        if _repository_key.check(data, key["fingerprint"], path):
            where = key["url"]
            try:
                data = fetch(where, module.params["timeout_seconds"])
            except Exception as exc:  # noqa: BLE001 - open_url raises much; all of it means that there is no key
                module.fail_json(
                    msg="%s: no key from %s: %s. Nothing was changed. Remedy: let the host reach it, or give the key's "
                    "file on the control node." % (path, where or "keys[].url, which is empty", exc)
                )
            fetched.append(where)
    wrong = _repository_key.check(data, key["fingerprint"], where)
    if wrong:
        module.fail_json(
            msg="repository key mismatch: %s Nothing was trusted and nothing was changed. Remedy: find out who serves "
            "that key; if the vendor has really changed its key, set the new fingerprint where the old one is pinned."
            % wrong
        )
    return {
        "dest": path,
        "data": _repository_key.for_path(data, path),
        "mode": "0644",
        "owner": None,
        "group": None,
        "secret": False,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "keys": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": {
                    "path": {"type": "path", "required": True},
                    "fingerprint": {"type": "str", "required": True},
                    "url": {"type": "str", "default": ""},
                    "content": {"type": "str", "default": ""},
                },
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "dest": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                    "show": {"type": "bool", "default": True},
                },
            },
            "absent": {"type": "list", "elements": "path", "default": []},
            "timeout_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    fetched: t.List[str] = []
    files = [key_file(module, key, fetched) for key in module.params["keys"]]
    for item in module.params["files"]:
        files.append(dict(item, data=item["content"].encode("utf-8"), owner=None, group=None, secret=False))
    parents = sorted({os.path.dirname(item["dest"]) for item in files})
    directories = [
        {"path": parent, "mode": "0755", "owner": None, "group": None}
        for parent in parents
        if not os.path.isdir(parent)
    ]
    try:
        os.umask(0o022)
        changes = placing.plan(
            {"directories": directories, "files": files, "links": [], "absent": module.params["absent"]}
        )
        if not module.check_mode:
            placing.apply(changes)
    except (placing.PlaceError, OSError) as exc:
        module.fail_json(msg=str(exc))
    long = {item["dest"] for item in module.params["files"] if not item["show"]}
    shown = [change._replace(before="", after="(not shown)\n") if change.path in long else change for change in changes]
    module.exit_json(
        changed=bool(changes),
        changed_paths=[change.path for change in changes],
        fetched=fetched,
        diff=placing.diffs(shown),
    )


if __name__ == "__main__":
    main()
