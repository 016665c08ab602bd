#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs a pair of key and certificate in a fleet's certificate directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pki_leaf
short_description: Sign a pair of key and certificate in a fleet's certificate directory
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
description:
  - Makes a new key and its certificate in the directory that the role P(gpufleet.llm.llm_pki#role) lays out. Whether
    one is due is said by M(gpufleet.llm.pki_status), so this always makes one.
  - The old pair is replaced when the new one is whole. A run that is killed leaves one of the two.
  - Runs on the control node.
requirements:
  - cryptography
attributes:
  check_mode:
    support: full
    description: Nothing is made.
  diff_mode:
    support: none
    description: A key isn't shown, and a certificate differs every time.
options:
  path:
    description: The directory, absolute.
    type: path
    required: true
  usage:
    description: What the certificate is for.
    type: str
    choices: [server, client]
    required: true
  name:
    description: Its common name, and the name of its directory.
    type: str
    required: true
  names:
    description: Subject alternative names in OpenSSL's notation, V(DNS:llm1) or V(IP:192.0.2.10).
    type: list
    elements: str
    default: []
  days:
    description: Lifetime in days.
    type: int
    default: 90
  ca_passphrase:
    description: Passphrase of the authority's key. Read from C(ca.passphrase) in the directory if left out.
    type: str
  lock_timeout_seconds:
    description: How long to wait for another run that writes there.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Sign a server's certificate
  gpufleet.llm.pki_leaf:
    path: /srv/fleet/pki
    usage: server
    name: llm1
    names: ["DNS:llm1", "IP:192.0.2.10"]
  delegate_to: localhost
"""

RETURN = r"""
certificate:
  description: Path of the certificate.
  returned: success
  type: str
"""

import datetime
import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.gpufleet.llm.plugins.module_utils import _file_lock, _pki, _pki_files, _pki_make


def main() -> None:
    """Sign, answer."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "usage": {"type": "str", "choices": ["server", "client"], "required": True},
            "name": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "days": {"type": "int", "default": 90},
            "ca_passphrase": {"type": "str", "no_log": True},
            "lock_timeout_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if not _pki.HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    given = module.params
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    directory = _pki_make.Directory(given["path"], now, passphrase=given["ca_passphrase"] or None)
    usage, name = given["usage"], given["name"]
    try:
        if not module.check_mode:
            with _pki_files.locked(directory.path, given["lock_timeout_seconds"]):
                _pki_make.issue(directory, usage=usage, name=name, names=given["names"], days=given["days"])
    except (_pki_make.Refused, _pki.Damaged) as exc:
        module.fail_json(msg=str(exc))
    except _file_lock.Held as exc:
        module.fail_json(msg="Another run writes to %s: %s. Remedy: wait for it." % (given["path"], exc))
    module.exit_json(changed=True, certificate=os.path.join(directory.path, usage + "s", name, usage + ".crt"))


if __name__ == "__main__":
    main()
