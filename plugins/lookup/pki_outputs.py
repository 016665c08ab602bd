# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup pki_outputs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pki_outputs
short_description: What the role llm_pki left on the control node for a host
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
description:
  - Reads the directory that the role P(gpufleet.llm.llm_pki#role) documents as its output.
  - Never returns a key, only paths and digests. What isn't there yet is left out.
options:
  _terms:
    description: The directory, absolute.
    required: true
  server:
    description: Inventory name of the host.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show whose keys are known
  ansible.builtin.debug:
    msg: "{{ lookup('gpufleet.llm.pki_outputs', '/srv/fleet/pki', server=inventory_hostname).clients.keys() }}"
"""

RETURN = r"""
_raw:
  description:
    - For each directory C(path); C(files), the paths of C(ca.crt), C(crl.pem), C(server.crt) and C(server.key) that are
      there;
      C(clients), the list of SHA-256 digests of API keys by client, each followed by a space and the end of its
      validity if it has one; C(managed), what is noted about clients that are kept on the control node.
  type: list
  elements: dict
"""

import json
import os
import typing as t

from ansible.plugins.lookup import LookupBase


def read_outputs(path: str, server: str) -> t.Dict[str, t.Any]:
    """Return paths and digests below a directory of llm_pki."""
    places = {
        "ca.crt": os.path.join(path, "ca.crt"),
        "crl.pem": os.path.join(path, "crl.pem"),
        "server.crt": os.path.join(path, "servers", server, "server.crt"),
        "server.key": os.path.join(path, "servers", server, "server.key"),
    }
    clients: t.Dict[str, t.List[str]] = {}
    managed: t.Dict[str, t.Dict[str, t.Any]] = {}
    folder = os.path.join(path, "clients")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        digests = os.path.join(folder, name, "api_key.sha256")
        if os.path.isfile(digests):
            with open(digests, encoding="utf-8") as handle:
                clients[name] = [line.strip() for line in handle if line.strip()]
        record = os.path.join(folder, name, "client.json")
        if os.path.isfile(record):
            with open(record, encoding="utf-8") as handle:
                managed[name] = json.load(handle)
    return {
        "path": path,
        "files": {name: place for name, place in places.items() if os.path.isfile(place)},
        "clients": clients,
        "managed": managed,
    }


class LookupModule(LookupBase):
    """Ansible's entry point."""

    def run(self, terms: t.Any, variables: t.Any = None, **kwargs: t.Any) -> t.List[t.Any]:
        self.set_options(var_options=variables, direct=kwargs)
        return [read_outputs(str(term), str(self.get_option("server"))) for term in terms]
