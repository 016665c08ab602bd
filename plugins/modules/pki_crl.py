#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the revocation lists of a fleet's certificate directory fresh."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pki_crl
short_description: Keep the revocation lists of a fleet's certificate directory fresh
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
description:
  - Signs one revocation list for every trusted authority, where one is missing, lists other certificates than those
    that are revoked, or ends soon. An expired list refuses every client.
  - Runs on the control node.
requirements:
  - cryptography
attributes:
  check_mode:
    support: full
    description: Says whether the lists would be made anew.
  diff_mode:
    support: full
    description: Shows until when the lists are good.
options:
  path:
    description: The directory, absolute.
    type: path
    required: true
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
  crl_days:
    description: Lifetime of the lists in days.
    type: int
    default: 30
  renew_before_days:
    description: Days before their next update at which the lists are made anew.
    type: int
    default: 20
  lock_timeout_seconds:
    description: How long to wait for another run that writes there.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Renew the revocation lists where it is time
  gpufleet.llm.pki_crl:
    path: /srv/fleet/pki
  delegate_to: localhost
"""

RETURN = r"""
reason:
  description: Why the lists were made anew; empty if they weren't.
  returned: success
  type: str
next_update:
  description: Until when each list is good, by the authority's common name; null for one that isn't there.
  returned: success
  type: dict
  sample: {gpufleet CA: "2026-12-25T00:00:00Z"}
next_revocation:
  description: When the next replaced certificate is due on the lists; null for never.
  returned: success
  type: str
"""

import contextlib
import datetime
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _file_lock,
    _pki,
    _pki_files,
    _pki_make,
    _pki_records,
)


def ends(directory: _pki_make.Directory) -> t.Dict[str, t.Optional[str]]:
    """Return until when each authority's list is good."""
    try:
        crls = _pki.read_crls(directory.join("crl.pem"))
    except _pki.Damaged:
        crls = []
    found: t.Dict[str, t.Optional[str]] = {}
    for authority in directory.authority().trusted():
        crl = _pki.crl_of(authority, crls)
        until = _pki.next_update(crl) if crl is not None else None
        found[_pki.common_name(authority)] = _pki_records.format_time(until) if until else None
    return found


def main() -> None:
    """Look, sign, answer."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "revoked_clients": {"type": "list", "elements": "str", "default": []},
            "revoked_serials": {"type": "list", "elements": "str", "default": []},
            "ca_passphrase": {"type": "str", "no_log": True},
            "crl_days": {"type": "int", "default": 30},
            "renew_before_days": {"type": "int", "default": 20},
            "lock_timeout_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if not _pki.HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    given = module.params
    if not 0 <= given["renew_before_days"] < given["crl_days"]:
        module.fail_json(
            msg="renew_before_days is %(renew_before_days)d, crl_days is %(crl_days)d: every run would renew them. "
            "Remedy: 0 or more, and less than crl_days." % given
        )
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    directory = _pki_make.Directory(
        given["path"],
        now,
        passphrase=given["ca_passphrase"] or None,
        crl_lifetime=datetime.timedelta(days=given["crl_days"]),
        crl_renew_before_days=given["renew_before_days"],
        revoked_clients=tuple(given["revoked_clients"]),
        revoked_serials=tuple(given["revoked_serials"]),
    )
    try:
        directory.authority()
        nothing = contextlib.nullcontext()
        with nothing if module.check_mode else _pki_files.locked(directory.path, given["lock_timeout_seconds"]):
            before = ends(directory)
            reason = _pki_make.crl_due(directory)
            if reason and not module.check_mode:
                _pki_make.renew_crl(directory)
        after = ends(directory)
        upcoming = _pki_records.next_revocation(_pki_records.read_records(directory.path), now)
    except (_pki_make.Refused, _pki_records.Malformed, _pki.Damaged) as exc:
        module.fail_json(msg=str(exc))
    except _file_lock.Held as exc:
        module.fail_json(msg="Another run writes to %s: %s. Remedy: wait for it." % (given["path"], exc))
    result: t.Dict[str, t.Any] = {
        "changed": bool(reason),
        "reason": reason,
        "next_update": after,
        "next_revocation": _pki_records.format_time(upcoming) if upcoming else None,
    }
    if reason:
        planned = "made anew for %d days: %s\n" % (given["crl_days"], reason)
        result["diff"] = {
            "before": "".join("%s: until %s\n" % item for item in sorted(before.items())),
            "after": planned
            if module.check_mode
            else "".join("%s: until %s\n" % item for item in sorted(after.items())),
            "before_header": directory.join("crl.pem"),
            "after_header": directory.join("crl.pem"),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
