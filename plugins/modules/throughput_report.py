#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: throughput_report
short_description: Write a throughput sweep as JSON and as a page with plots
description:
  - Puts the levels that M(gpufleet.llm.throughput_bench) measured together, with what a million tokens cost, and writes
    C(NAME.json) and C(NAME.html). The page needs nothing else to be looked at.
  - A cost whose inputs aren't known is null, with the reason; nothing is made up.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Returns the report and writes nothing.
  diff_mode:
    support: none
    description: Measurements differ each time; there is nothing to compare.
options:
  levels:
    description: What was measured, one for each concurrency.
    type: list
    elements: dict
    required: true
  about:
    description: What was measured and with what, for the reader, C(host), C(model) and the release's id for some.
    type: dict
    required: true
  directory:
    description: Where the two files are written.
    type: path
    required: true
  name:
    description: Their name.
    type: str
    required: true
  currency:
    description: Currency of the prices, for the reader.
    type: str
    default: ""
  price_per_kwh:
    description: Price of a kilowatt-hour.
    type: float
  host_price_per_hour:
    description: Price of the host for an hour, without energy.
    type: float
  watts:
    description: Power of the host under load in watts, in place of what NVML measured of its GPUs.
    type: float
  power_usage_effectiveness:
    description: Energy of the site for each of the host's.
    type: float
    default: 1.0
"""

EXAMPLES = r"""
- name: Write the report
  gpufleet.llm.throughput_report:
    levels: "{{ measured.results | map(attribute='level') }}"
    about: {host: llm1, model: smollm2}
    directory: /srv/fleet/benchmarks
    name: llm1-smollm2
    currency: EUR
    price_per_kwh: 0.25
  delegate_to: localhost
  become: false
"""

RETURN = r"""
report:
  description: The report, with C(about), C(prices) and C(levels), each with C(cost_per_million_tokens).
  returned: always
  type: dict
best:
  description: The level with most output in a few numbers, for the receipt.
  returned: always
  type: dict
table:
  description: The sweep as lines for a person.
  returned: always
  type: list
  elements: str
files:
  description: The files, empty in check mode.
  returned: always
  type: list
  elements: str
"""

import json
import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _receipt
from ansible_collections.gpufleet.llm.plugins.module_utils import _throughput_report as reporting


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "levels": {"type": "list", "elements": "dict", "required": True},
            "about": {"type": "dict", "required": True},
            "directory": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "currency": {"type": "str", "default": ""},
            "price_per_kwh": {"type": "float"},
            "host_price_per_hour": {"type": "float"},
            "watts": {"type": "float"},
            "power_usage_effectiveness": {"type": "float", "default": 1.0},
        },
        supports_check_mode=True,
    )
    params: t.Dict[str, t.Any] = module.params
    if not params["levels"] or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", params["name"]):
        module.fail_json(
            msg="levels, name: found %d levels and %r, expected one at least and a file's name. Remedy: state both."
            % (len(params["levels"]), params["name"])
        )
    prices = reporting.Prices(
        currency=params["currency"],
        per_kwh=params["price_per_kwh"],
        host_per_hour=params["host_price_per_hour"],
        watts=params["watts"],
        power_usage_effectiveness=params["power_usage_effectiveness"],
    )
    report = reporting.report_of(params["about"], params["levels"], prices)
    texts = {
        "json": json.dumps(report, indent=2, sort_keys=True) + "\n",
        "html": reporting.page(report),
    }
    files = []
    if not module.check_mode:
        for suffix, text in texts.items():
            path = os.path.join(params["directory"], "%s.%s" % (params["name"], suffix))
            try:
                _receipt.write_text(path, text)
            except OSError as exc:
                module.fail_json(
                    msg="directory: found %s, expected one that can be written. Remedy: free or repair %s."
                    % (exc, params["directory"])
                )
            files.append(path)
    module.exit_json(
        changed=True, report=report, best=reporting.best(report), table=reporting.lines(report), files=files
    )


if __name__ == "__main__":
    main()
