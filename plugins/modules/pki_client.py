#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Issues, rotates, revokes and lists the clients of a fleet's certificate directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pki_client
short_description: Issue, rotate, revoke and list the clients of a fleet's certificate directory
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
description:
  - A client is a certificate and API keys that belong together. This keeps both, in the directory that the role
    P(gpufleet.llm.llm_pki#role) lays out, and signs the revocation lists anew where that changes them.
  - Keys are known by their SHA-256. A new one is written once, to a file of mode 0600 in the client's directory, and
    is in no answer, no difference and no log.
  - One run at a time writes there. A run that is killed leaves what was, or what was to be; the next one finishes it.
  - Runs on the control node. What it changes counts for a host when the role P(gpufleet.llm.llm_proxy#role) has placed
    it there.
requirements:
  - cryptography
attributes:
  check_mode:
    support: full
    description: Says what would be made.
  diff_mode:
    support: full
    description: Shows the clients before and after, keys by the first digits of their SHA-256.
options:
  path:
    description: The directory, absolute.
    type: path
    required: true
  action:
    description:
      - V(issue) gives a client what it lacks of certificate and key, and notes O(tier) and O(jwt_subjects).
      - V(rotate) gives it new ones; what they replace stays valid for O(keep_seconds).
      - V(revoke) takes all keys away and puts every certificate it ever had on the revocation lists.
      - V(list) changes nothing.
    type: str
    choices: [issue, rotate, revoke, list]
    default: list
  names:
    description: Names of the clients. With O(action=list), all that there are if left out.
    type: list
    elements: str
    default: []
  parts:
    description: What O(action=rotate) rotates.
    type: list
    elements: str
    choices: [certificate, key]
    default: [certificate, key]
  tier:
    description: Tier of the proxy that is noted for the clients. What was noted stays if left out.
    type: str
  jwt_subjects:
    description: Subjects of tokens that are noted for the client. What was noted stays if left out.
    type: list
    elements: str
  keep_seconds:
    description: How long what O(action=rotate) replaces stays valid. 0 ends it at once, for what has leaked.
    type: int
    default: 604800
  pause_seconds:
    description: >-
      A key or certificate that is younger isn't rotated again, so that a run may be repeated. It doesn't count where
      O(keep_seconds) is 0.
    type: int
    default: 3600
  key_days:
    description: Lifetime of a new key in days; 0 for one without an end.
    type: int
    default: 0
  reinstate:
    description: Issue a revoked client again. What it had stays refused.
    type: bool
    default: false
  record:
    description: Note the clients as kept here. Without it only what the inventory's clients lack is made.
    type: bool
    default: true
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
    description: Passphrase of the authority's key. Read from C(ca.passphrase) in the directory if left out.
    type: str
  client_days:
    description: Lifetime of a client certificate in days.
    type: int
    default: 90
  renew_before_days:
    description: Days before its end at which a certificate counts as due.
    type: int
    default: 30
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
- name: Issue a client
  gpufleet.llm.pki_client:
    path: /srv/fleet/pki
    action: issue
    names: [batch-jobs]
  delegate_to: localhost

- name: Replace a key that has leaked
  gpufleet.llm.pki_client:
    path: /srv/fleet/pki
    action: rotate
    names: [batch-jobs]
    parts: [key]
    keep_seconds: 0
  delegate_to: localhost
"""

RETURN = r"""
clients:
  description:
    - The clients as they are now; what is not known is null. C(keys[].sha256) is the digest, C(keys[].id) the first
      digits of it.
  returned: success
  type: list
  elements: dict
  sample:
    - name: demo
      state: active
      tier: null
      jwt_subjects: []
      keys: [{id: 0a1b2c3d4e5f, made: null, begin: null, end: null, valid: true}]
      certificate: {serial: 5f2e, not_after: "2027-02-01T00:00:00Z", days_left: 89.9, due: ""}
      to_be_revoked: []
summary:
  description: One line for each client.
  returned: success
  type: list
  elements: str
report:
  description: What a person needs to read of the run; no secret is in it.
  returned: success
  type: list
  elements: str
handed_over:
  description: Paths of what was made now and is to be handed over, each 0600.
  returned: success
  type: list
  elements: str
finished:
  description: What an earlier run that was cut off had begun, and this one finished.
  returned: success
  type: list
  elements: str
notes:
  description: Why something that was asked for wasn't done.
  returned: success
  type: list
  elements: str
crl_renewed:
  description: Why the revocation lists were made anew; empty if they weren't.
  returned: success
  type: str
next_revocation:
  description: When the next replaced certificate is due on the revocation lists; null for never.
  returned: success
  type: str
"""

import datetime

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _file_lock,
    _pki,
    _pki_client_run,
    _pki_clients,
    _pki_make,
    _pki_records,
)


def main() -> None:
    """Read, decide, do, answer."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "action": {"type": "str", "choices": ["issue", "rotate", "revoke", "list"], "default": "list"},
            "names": {"type": "list", "elements": "str", "default": []},
            "parts": {
                "type": "list",
                "elements": "str",
                "choices": ["certificate", "key"],
                "default": ["certificate", "key"],
            },
            "tier": {"type": "str"},
            "jwt_subjects": {"type": "list", "elements": "str"},
            "keep_seconds": {"type": "int", "default": 604800},
            "pause_seconds": {"type": "int", "default": 3600},
            "key_days": {"type": "int", "default": 0, "no_log": False},
            "reinstate": {"type": "bool", "default": False},
            "record": {"type": "bool", "default": True},
            "revoked_clients": {"type": "list", "elements": "str", "default": []},
            "revoked_serials": {"type": "list", "elements": "str", "default": []},
            "ca_passphrase": {"type": "str", "no_log": True},
            "client_days": {"type": "int", "default": 90},
            "renew_before_days": {"type": "int", "default": 30},
            "crl_days": {"type": "int", "default": 30},
            "crl_renew_before_days": {"type": "int", "default": 20},
            "lock_timeout_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if not _pki.HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    given = module.params
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    directory = _pki_make.Directory(
        given["path"],
        now,
        passphrase=given["ca_passphrase"] or None,
        crl_lifetime=datetime.timedelta(days=given["crl_days"]),
        crl_renew_before_days=given["crl_renew_before_days"],
        revoked_clients=tuple(given["revoked_clients"]),
        revoked_serials=tuple(given["revoked_serials"]),
    )
    wanted = _pki_clients.Wanted(
        given["action"],
        now,
        parts=tuple(given["parts"]),
        keep=datetime.timedelta(seconds=given["keep_seconds"]),
        pause=datetime.timedelta(seconds=given["pause_seconds"]),
        key_lifetime=datetime.timedelta(days=given["key_days"]) if given["key_days"] else None,
        tier=given["tier"],
        jwt_subjects=None if given["jwt_subjects"] is None else tuple(given["jwt_subjects"]),
        reinstate=given["reinstate"],
        record=given["record"],
    )
    work = _pki_clients.Work(directory, client_days=given["client_days"], renew_before_days=given["renew_before_days"])
    try:
        result = _pki_client_run.run(
            work,
            wanted,
            given["names"],
            check_mode=module.check_mode,
            lock_timeout_seconds=given["lock_timeout_seconds"],
        )
    except (_pki_make.Refused, _pki_records.Malformed, _pki.Damaged) as exc:
        module.fail_json(msg=str(exc))
    except _file_lock.Held as exc:
        module.fail_json(
            msg="Another run writes to %s: %s. Nothing was changed. Remedy: wait for it, or end it; its lock goes with "
            "it." % (given["path"], exc)
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
