#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: receipt
short_description: Write what was proved of a host
description:
  - Writes a receipt to the host and a copy of it to the control node, RV(receipt) says what is in it. There is no
    secret in it.
  - A receipt that says the same as the last one isn't written; times, timings, and what a check measured don't count.
    What counts is the release, what is deployed by its hashes, the units with their invocation ids, and which checks
    hold.
  - The file O(path) is the last good receipt. A failed proof leaves it alone and is written into O(history_dir) with
    C(-failed) in its name.
  - It doesn't fail because a finding failed, so that what follows can act on RV(ok).
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Says whether a receipt would be written.
  diff_mode:
    support: full
    description: Shows the receipt before and after.
notes:
  - The action plugin of the same name runs on the control node and writes the copy there.
options:
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
  release:
    description: Id of the release that is deployed.
    type: str
    required: true
  accelerator:
    description: What the engines compute with.
    type: str
    required: true
  findings:
    description: What was checked, each with C(check), C(ok), C(severity), C(expected), C(found), C(detail), C(remedy).
    type: list
    elements: dict
    required: true
  plan:
    description: What was planned.
    type: dict
  engines:
    description: Name of an engine to the link to its tree.
    type: dict
    default: {}
  models:
    description: Name of a model to the link to its version.
    type: dict
    default: {}
  configuration:
    description: Glob patterns of configuration files whose sha256 goes into the receipt. V(**) goes down.
    type: list
    elements: str
    default: []
  units:
    description: Unit to its C(active_state) and C(invocation_id).
    type: dict
    default: {}
  timings:
    description: Seconds, by vantage and model.
    type: dict
    default: {}
  measurements:
    description: Measurements that later runs may use again.
    type: dict
    default: {}
  path:
    description: The receipt.
    type: path
    default: /var/lib/gpufleet/receipt.json
  history_dir:
    description: Directory of the previous receipts and the failed ones.
    type: path
    default: /var/lib/gpufleet/receipts
  keep:
    description: How many receipts stay in O(history_dir).
    type: int
    default: 10
  control_dir:
    description: Directory on the control node for the copy, C(HOST.json) for the last good receipt,
      C(HOST.failed.json) while the proof fails.
      Left out, no copy is written.
    type: path
"""

EXAMPLES = r"""
- name: Write the receipt
  gpufleet.llm.receipt:
    host: "{{ inventory_hostname }}"
    release: "{{ gpufleet_release }}"
    accelerator: cpu
    engines:
      vllm: /opt/gpufleet/engines/vllm/current
    findings: "{{ proof.findings }}"
    units: "{{ proof.units }}"
    timings:
      host: "{{ proof.timings }}"
    control_dir: /srv/fleet/receipts
  register: result
"""

RETURN = r"""
ok:
  description: Whether every finding of severity C(error) holds.
  returned: always
  type: bool
path:
  description: File on the host that holds this receipt.
  returned: always
  type: str
receipt:
  description: The receipt of this run.
  returned: always
  type: dict
summary:
  description: The receipt as lines for a person.
  returned: always
  type: list
  elements: str
refusal:
  description: All findings that failed as one message, empty when none did.
  returned: always
  type: str
control_path:
  description: File on the control node, null without O(control_dir).
  returned: always
  type: str
"""

import datetime
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _receipt
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import describe, refusals


def failure_message(host: str, findings: t.Sequence[t.Dict[str, t.Any]]) -> str:
    """Return one message that holds every failed finding, or an empty string."""
    failed = refusals(findings)
    if not failed:
        return ""
    lines = ["%s isn't proved, %d of %d checks failed:" % (host, len(failed), len(findings))]
    lines.extend("%d. %s" % (number, describe(f)) for number, f in enumerate(failed, 1))
    return "\n".join(lines)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "accelerator": {"type": "str", "required": True},
            "findings": {"type": "list", "elements": "dict", "required": True},
            "plan": {"type": "dict"},
            "engines": {"type": "dict", "default": {}},
            "models": {"type": "dict", "default": {}},
            "configuration": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "dict", "default": {}},
            "timings": {"type": "dict", "default": {}},
            "measurements": {"type": "dict", "default": {}},
            "path": {"type": "path", "default": "/var/lib/gpufleet/receipt.json"},
            "history_dir": {"type": "path", "default": "/var/lib/gpufleet/receipts"},
            "keep": {"type": "int", "default": 10},
            "control_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params: t.Dict[str, t.Any] = module.params
    receipt = _receipt.make(
        host=params["host"],
        release=params["release"],
        accelerator=params["accelerator"],
        when=datetime.datetime.now(datetime.timezone.utc),
        findings=params["findings"],
        plan=params["plan"],
        hashes={
            "engines": {n: _receipt.read_artifact(p, _receipt.ENGINE_RECORDS) for n, p in params["engines"].items()},
            "models": {n: _receipt.read_artifact(p, _receipt.MODEL_RECORDS) for n, p in params["models"].items()},
            "configuration": _receipt.read_digests(params["configuration"]),
        },
        units=params["units"],
        timings=params["timings"],
        measurements=params["measurements"],
    )
    try:
        change = _receipt.keep_receipt(
            receipt, params["path"], params["history_dir"], params["keep"], write=not module.check_mode
        )
    except OSError as exc:
        module.fail_json(
            msg="The receipt: found %s, expected a directory that can be written. Remedy: free or repair %s."
            % (exc, params["path"])
        )
    result: t.Dict[str, t.Any] = {
        "changed": change.changed,
        "ok": receipt["ok"],
        "path": change.path,
        "receipt": receipt,
        "kept": change.receipt,
        "summary": _receipt.summary_lines(receipt),
        "refusal": failure_message(params["host"], params["findings"]),
        "control_path": None,
    }
    if module._diff and change.changed:
        result["diff"] = {
            "before": change.before,
            "after": change.after,
            "before_header": change.path,
            "after_header": change.path,
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
