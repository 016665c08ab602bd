#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_plan_report
short_description: Print the plans of several hosts as one table, and keep them as JSON on the control node
description:
  - Prints what fits on which host, at which context, for how many requests at once, and what would make it fit
    elsewhere, as lines that a person reads.
  - Everything is done on the control node; no host is touched.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Prints the same, and doesn't write the file.
  diff_mode:
    support: none
    description: The file is the output.
options:
  plans:
    description: By host, what the filter P(gpufleet.llm.deployment_plan#filter) returned.
    type: dict
    required: true
  path:
    description: File on the control node for the JSON. Empty writes none.
    type: str
    default: ""
  question:
    description: One line above the table that says what was asked.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Say what fits where
  gpufleet.llm.fleet_plan_report:
    plans: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'plan'))) }}"
    path: /tmp/plan.json
  run_once: true
"""

RETURN = r"""
table:
  description: The lines that were printed.
  returned: always
  type: list
  elements: str
path:
  description: The file that holds the plans, empty where none was asked for.
  returned: always
  type: str
fits:
  description: Hosts that can serve all that was asked of them.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "plans": {"type": "dict", "required": True},
            "path": {"type": "str", "default": ""},
            "question": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    module.fail_json(msg="fleet_plan_report runs as an action on the control node only.")


if __name__ == "__main__":
    main()
