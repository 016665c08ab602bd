#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: egress_proof
short_description: Count every packet that leaves a host, and prove that none did but answers
description:
  - O(state=started) loads an nft table that counts every packet leaving the host, by what it is. It changes nothing of
    what passes. O(state=checked) reads the counts and reports findings; O(state=absent) removes the table.
  - What the host answers is told from what it began by the kernel's connection tracking.
  - A count that was reset, or whose rules were changed meanwhile, proves nothing, and says so.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Says whether the table would be loaded or removed; a check reads what is there.
  diff_mode:
    support: none
    description: There is nothing to show.
notes:
  - Needs the nft program, root, and a kernel with connection tracking.
  - Seen is what goes through the network stack. A process with CAP_NET_RAW that writes frames itself passes below it,
    and so do ARP requests, which no router forwards.
options:
  state:
    description: What to do.
    type: str
    choices: [started, checked, absent]
    default: checked
  allowed:
    description:
      - Protocol and port of what the host may begin itself, like V(udp/123); counted apart.
      - Used with O(state=started).
    type: list
    elements: str
    default: []
  record:
    description: File that keeps when the count began, and the rules it began with.
    type: path
    default: /var/lib/gpufleet/egress.json
"""

EXAMPLES = r"""
- name: Begin to count
  gpufleet.llm.egress_proof:
    state: started

- name: See what has left the host since
  gpufleet.llm.egress_proof:
    state: checked
  register: egress
"""

RETURN = r"""
findings:
  description: What the counts prove; empty unless O(state=checked).
  returned: always
  type: list
  elements: dict
egress:
  description: The counts and whose they are; empty if nothing is counted.
  returned: always
  type: dict
  sample:
    packets: {answers: 412, started: 0, allowed: 0, forwarded: 0, loopback: 96, neighbour: 0}
    contacted: []
    ruleset_sha256: 5cd75ec4...
    began_at: 1795619875
    seconds: 96
"""

import json
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _egress_proof as egress
from ansible_collections.gpufleet.llm.plugins.module_utils._engine_unit import boot_id
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner


def start(nft: egress.Nft, allowed: t.Sequence[str], path: str) -> None:
    """Load the rules, all counts at 0, and write down when."""
    answered, begun = egress.standing(nft.runner)
    text = egress.rules(answered, begun, allowed)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as handle:
        # One transaction: at no moment is nothing counted.
        handle.write("table inet %s\ndelete table inet %s\n%s" % (egress.TABLE, egress.TABLE, text))
    try:
        nft.run("-f", temporary)
        record = {"boot_id": boot_id(), "monotonic_seconds": time.monotonic(), "began_at": int(time.time())}
        with open(temporary, "w", encoding="utf-8") as handle:
            json.dump(dict(record, ruleset_sha256=nft.fingerprint(), allowed=list(allowed)), handle)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def check(nft: egress.Nft, path: str) -> t.Dict[str, t.Any]:
    """Return the record of the counts, empty if nothing is counted in this boot."""
    try:
        with open(path, encoding="utf-8") as handle:
            began = json.load(handle)
    except (OSError, ValueError):
        return {}
    if began.get("boot_id") != boot_id() or not nft.there():
        return {}
    return {
        "packets": nft.counts(),
        "contacted": nft.contacted(),
        "ruleset_sha256": nft.fingerprint(),
        "started_ruleset_sha256": began["ruleset_sha256"],
        "allowed": began["allowed"],
        "began_at": began["began_at"],
        "seconds": round(time.monotonic() - began["monotonic_seconds"], 1),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "checked", "absent"], "default": "checked"},
            "allowed": {"type": "list", "elements": "str", "default": []},
            "record": {"type": "path", "default": "/var/lib/gpufleet/egress.json"},
        },
        supports_check_mode=True,
    )
    state, path = module.params["state"], str(module.params["record"])
    nft = egress.Nft(LocalRunner())
    result: t.Dict[str, t.Any] = {"changed": False, "findings": [], "egress": {}}
    try:
        if state == "started":
            egress.rules([], [], module.params["allowed"])
            result["changed"] = True
            if not module.check_mode:
                start(nft, module.params["allowed"], path)
        elif state == "absent":
            result["changed"] = nft.there() or os.path.exists(path)
            if result["changed"] and not module.check_mode:
                if nft.there():
                    nft.run("delete", "table", "inet", egress.TABLE)
                if os.path.exists(path):
                    os.unlink(path)
        else:
            record = check(nft, path)
            result["egress"] = record
            result["findings"] = egress.findings(record) if record else [egress.not_counted()]
    except (OSError, ValueError) as exc:
        module.fail_json(msg="egress_proof: %s" % exc)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
