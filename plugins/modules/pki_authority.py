#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets a new certificate authority follow the present one, step by step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pki_authority
short_description: Let a new certificate authority follow the present one, step by step
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
description:
  - While one authority follows another in the directory of the role P(gpufleet.llm.llm_pki#role), both are trusted.
    C(ca.crt) holds both then, and C(crl.pem) a revocation list of each.
  - A step that was taken already changes nothing. A run that is killed is run again.
  - Runs on the control node.
requirements:
  - cryptography
attributes:
  check_mode:
    support: full
    description: Says what the step would do, and refuses what the step would refuse.
  diff_mode:
    support: full
    description: Shows which authority signs and which ones are trusted.
options:
  path:
    description: The directory, absolute.
    type: path
    required: true
  step:
    description:
      - V(add) makes a new authority that is trusted from now on. The present one signs on.
      - V(switch) lets the new one sign. M(gpufleet.llm.pki_status) calls every pair of the old one due then.
      - V(switch_back) lets the old one sign again.
      - V(drop) ends the trust in the one that doesn't sign and removes its key. It is refused while a pair in the
        directory is still that one's.
    type: str
    choices: [add, switch, switch_back, drop]
    required: true
  name:
    description: Common name of the authority that O(step=add) makes; another one than the present one's.
    type: str
    required: true
  days:
    description: Lifetime in days of the authority that O(step=add) makes.
    type: int
    default: 3650
  revoked_clients:
    description: Names of clients that the inventory revokes.
    type: list
    elements: str
    default: []
  revoked_serials:
    description: Serial numbers, in hexadecimal, that the inventory revokes.
    type: list
    elements: str
    default: []
  ca_passphrase:
    description: Passphrase of the authorities' keys. Read from C(ca.passphrase) in the directory if left out.
    type: str
  crl_days:
    description: Lifetime of the revocation lists in days.
    type: int
    default: 30
  crl_renew_before_days:
    description: Days before their next update at which the revocation lists are made anew.
    type: int
    default: 20
  lock_timeout_seconds:
    description: How long to wait for another run that writes there.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Trust a new authority beside the present one
  gpufleet.llm.pki_authority:
    path: /srv/fleet/pki
    step: add
    name: gpufleet CA 2027
  delegate_to: localhost
"""

RETURN = r"""
authorities:
  description: One line for each trusted authority.
  returned: success
  type: list
  elements: str
crl_renewed:
  description: Why the revocation lists were made anew; empty if they weren't.
  returned: success
  type: str
swept:
  description: Files of authorities that are no longer trusted, now removed.
  returned: success
  type: list
  elements: str
"""

import contextlib
import datetime

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _file_lock,
    _pki,
    _pki_authority,
    _pki_files,
    _pki_make,
    _pki_records,
)


def main() -> None:
    """Take the step, answer."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "step": {"type": "str", "choices": ["add", "switch", "switch_back", "drop"], "required": True},
            "name": {"type": "str", "required": True},
            "days": {"type": "int", "default": 3650},
            "revoked_clients": {"type": "list", "elements": "str", "default": []},
            "revoked_serials": {"type": "list", "elements": "str", "default": []},
            "ca_passphrase": {"type": "str", "no_log": True},
            "crl_days": {"type": "int", "default": 30},
            "crl_renew_before_days": {"type": "int", "default": 20},
            "lock_timeout_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if not _pki.HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    given = module.params
    directory = _pki_make.Directory(
        given["path"],
        datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0),
        passphrase=given["ca_passphrase"] or None,
        crl_lifetime=datetime.timedelta(days=given["crl_days"]),
        crl_renew_before_days=given["crl_renew_before_days"],
        revoked_clients=tuple(given["revoked_clients"]),
        revoked_serials=tuple(given["revoked_serials"]),
    )
    check_mode = bool(module.check_mode)
    try:
        if _pki.read_bytes(directory.join("ca.crt")) is None:
            directory.authority()
        nothing = contextlib.nullcontext()
        with nothing if check_mode else _pki_files.locked(directory.path, given["lock_timeout_seconds"]):
            result = _pki_authority.take_step(
                directory, given["step"], name=given["name"], days=given["days"], check_mode=check_mode
            )
    except (_pki_make.Refused, _pki_records.Malformed, _pki.Damaged) as exc:
        module.fail_json(msg=str(exc))
    except _file_lock.Held as exc:
        module.fail_json(msg="Another run writes to %s: %s. Remedy: wait for it." % (given["path"], exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
