#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says what is due in a fleet's certificate directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pki_status
short_description: Say what is due in a fleet's certificate directory
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
description:
  - Reads every file of the directory that the role P(gpufleet.llm.llm_pki#role) keeps, and decides what has to be made
    or renewed.
  - Makes nothing itself. It refuses what must not be replaced silently, an expired authority for one.
  - Runs on the control node.
requirements:
  - cryptography
attributes:
  check_mode:
    support: full
    description: Says what a real run would make by O(ignore:changed) being true.
  diff_mode:
    support: full
    description: Lists what is due, never a content.
options:
  path:
    description: The directory, absolute.
    type: path
    required: true
  server_name:
    description: Inventory name of the host whose server certificate is looked at. None is looked at if left out.
    type: str
  server_names:
    description: Host names and addresses that the server certificate must carry, exactly.
    type: list
    elements: str
    default: []
  clients:
    description: Names of the clients that must have a certificate and an API key.
    type: list
    elements: str
    default: []
  revoked_clients:
    description: Names of clients none of whose certificates may be accepted.
    type: list
    elements: str
    default: []
  revoked_serials:
    description: Serial numbers, in hexadecimal, of single certificates that may not be accepted.
    type: list
    elements: str
    default: []
  ca_passphrase:
    description: Passphrase of the authority's key. Read from C(ca.passphrase) in the directory if left out.
    type: str
  server_days:
    description: Lifetime of a server certificate in days; it must exceed O(renew_before_days).
    type: int
    default: 90
  client_days:
    description: Lifetime of a client certificate in days; it must exceed O(renew_before_days).
    type: int
    default: 90
  crl_days:
    description: Lifetime of the revocation list in days; it must exceed O(crl_renew_before_days).
    type: int
    default: 30
  renew_before_days:
    description: Days before its end at which a certificate is renewed.
    type: int
    default: 30
  crl_renew_before_days:
    description: Days before its next update at which the revocation list is made anew.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Read the certificates
  gpufleet.llm.pki_status:
    path: /srv/fleet/pki
    server_name: llm1
    server_names: [llm1, 192.0.2.10, localhost, 127.0.0.1]
    clients: [demo]
  delegate_to: localhost
  register: status
"""

RETURN = r"""
anything_due:
  description: Whether something has to be made.
  returned: success
  type: bool
due:
  description: What has to be made, part by part.
  returned: success
  type: dict
  sample: {authority: false, server: true, clients: [], api_keys: [], crl: false, permissions: []}
reasons:
  description: One line for each thing that is due.
  returned: success
  type: list
  elements: str
revoked:
  description: The entries that the revocation list must hold.
  returned: success
  type: list
  elements: dict
authority_name:
  description: Common name of the authority; empty while there is none.
  returned: success
  type: str
server_alternative_names:
  description: The names that the server certificate must carry, in OpenSSL's notation.
  returned: success
  type: list
  elements: str
ends:
  description: When authorities, revocation lists, the server's and the clients' certificates end, the first one first.
  returned: success
  type: list
  elements: dict
  sample: [{kind: revocation_list, name: gpufleet CA, not_after: "2026-12-25T00:00:00+00:00", days_left: 29.9}]
authority_not_after:
  description: End of the authority's validity, ISO 8601; null while there is none.
  returned: success
  type: str
findings:
  description: Records of the checks that did not hold.
  returned: always
  type: list
  elements: dict
"""

import datetime

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.gpufleet.llm.plugins.module_utils import _finding, _pki


def main() -> None:
    """Read, decide, answer."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "server_name": {"type": "str"},
            "server_names": {"type": "list", "elements": "str", "default": []},
            "clients": {"type": "list", "elements": "str", "default": []},
            "revoked_clients": {"type": "list", "elements": "str", "default": []},
            "revoked_serials": {"type": "list", "elements": "str", "default": []},
            "ca_passphrase": {"type": "str", "no_log": True},
            "server_days": {"type": "int", "default": 90},
            "client_days": {"type": "int", "default": 90},
            "crl_days": {"type": "int", "default": 30},
            "renew_before_days": {"type": "int", "default": 30},
            "crl_renew_before_days": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    if not _pki.HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    given = module.params
    report = _pki.inspect(
        _pki.Request(
            directory=given["path"],
            now=datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0),
            server_name=given["server_name"],
            server_names=tuple(given["server_names"]),
            clients=tuple(given["clients"]),
            revoked_clients=tuple(given["revoked_clients"]),
            revoked_serials=tuple(given["revoked_serials"]),
            passphrase=given["ca_passphrase"] or None,
            server_days=given["server_days"],
            client_days=given["client_days"],
            crl_days=given["crl_days"],
            renew_before_days=given["renew_before_days"],
            crl_renew_before_days=given["crl_renew_before_days"],
        )
    )
    refusal = _finding.refusal_message(report["findings"], "The certificates")
    if refusal:
        module.fail_json(msg=refusal, findings=report["findings"])
    for warning in _finding.warnings(report["findings"]):
        module.warn(_finding.describe(warning))
    anything_due = bool(report["reasons"])
    result = dict(report, anything_due=anything_due, changed=anything_due and module.check_mode)
    if result["changed"]:
        after = "".join("%s\n" % reason for reason in report["reasons"])
        result["diff"] = {"before": "", "after": after, "after_header": "due in %s" % given["path"]}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
