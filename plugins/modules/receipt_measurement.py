#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: receipt_measurement
short_description: Add a measurement to a host's receipt
description:
  - Adds what was measured of a deployment to the receipt of that deployment, on the host and in the copy on the control
    node. What the receipt proves stays as it is. The next receipt is of another deployment and begins without it.
  - A measurement has its time, so adding one is always a change.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Says that it would be added.
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
  name:
    description: Kind of the measurement.
    type: str
    required: true
  subject:
    description: What was measured, a model for one.
    type: str
    required: true
  value:
    description: What was measured.
    type: dict
    required: true
  path:
    description: The receipt.
    type: path
    default: /var/lib/gpufleet/receipt.json
  control_dir:
    description: Directory on the control node that has the copy. Left out, no copy is written.
    type: path
"""

EXAMPLES = r"""
- name: Write down which context is served
  gpufleet.llm.receipt_measurement:
    host: "{{ inventory_hostname }}"
    name: context
    subject: smollm2
    value: "{{ measured.measurement }}"
    control_dir: /srv/fleet/receipts
"""

RETURN = r"""
path:
  description: The receipt.
  returned: always
  type: str
control_path:
  description: The copy on the control node, null where none was written.
  returned: always
  type: str
"""

import datetime
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _receipt


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "subject": {"type": "str", "required": True},
            "value": {"type": "dict", "required": True},
            "path": {"type": "path", "default": "/var/lib/gpufleet/receipt.json"},
            "control_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params: t.Dict[str, t.Any] = module.params
    when = datetime.datetime.now(datetime.timezone.utc)
    try:
        change = _receipt.add_measurement(
            params["path"], params["name"], params["subject"], params["value"], when, write=not module.check_mode
        )
    except _receipt.NoReceipt:
        module.fail_json(
            msg="%s: found no receipt, expected the one of this deployment. Remedy: run the role gpu_validate first."
            % params["path"]
        )
    except OSError as exc:
        module.fail_json(
            msg="The receipt: found %s, expected a file that can be written. Remedy: free or repair %s."
            % (exc, params["path"])
        )
    result: t.Dict[str, t.Any] = {
        "changed": True,
        "path": params["path"],
        "control_path": None,
        "kept": change.receipt,
    }
    if module._diff:
        result["diff"] = {
            "before": change.before,
            "after": change.after,
            "before_header": change.path,
            "after_header": change.path,
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
