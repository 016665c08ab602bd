#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: watchdog_ready
short_description: Have the watchdog of the engines run with the files that are there, and prove that it looks
description:
  - Enables and starts the unit, and restarts it if it runs with another configuration, program or unit than are there.
  - It ends when the watchdog has written its status with this very configuration and has looked at every instance. What
    it thinks of them is in the result; an engine that doesn't serve is no failure of the watchdog.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Says whether the unit would be started or restarted.
  diff_mode:
    support: none
    description: Files are placed by others.
options:
  unit:
    description: Name of the unit.
    type: str
    default: llm-watchdog.service
  config:
    description: Configuration that it must run with; C(runs_from) in it names all files that it runs from.
    type: path
    required: true
  status:
    description: Status file that it writes.
    type: path
    default: /run/llm-watchdog/status.json
  timeout_seconds:
    description: How long it may take to look at every instance.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Have the watchdog run
  gpufleet.llm.watchdog_ready:
    config: /etc/gpufleet/watchdog.json
"""

RETURN = r"""
phases:
  description: What the watchdog takes each instance for.
  returned: when it runs
  type: dict
  sample: {smollm2-a: serving}
reason:
  description: Why it was started or restarted; empty if it wasn't.
  returned: always
  type: str
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _watchdog_ready as ready
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner


def wait(runner: LocalRunner, unit: str, config: str, status: str, seconds: int) -> t.Tuple[t.Dict[str, str], str]:
    """Return the phases once it has looked at every instance, or what is missing after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        phases, missing = ready.looked(runner, unit, config, ready.read_status(status))
        if not missing:
            return phases, ""
        if time.monotonic() >= until:
            return phases, "%s after %d s" % (missing, seconds)
        time.sleep(0.2)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "default": "llm-watchdog.service"},
            "config": {"type": "path", "required": True},
            "status": {"type": "path", "default": "/run/llm-watchdog/status.json"},
            "timeout_seconds": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    runner = LocalRunner()
    unit, config, status = (str(module.params[name]) for name in ("unit", "config", "status"))
    result: t.Dict[str, t.Any] = {"changed": False, "reason": ""}
    try:
        reason = ready.due(runner, unit, config, ready.read_status(status))
        result.update(changed=bool(reason), reason=reason)
        if module.check_mode:
            module.exit_json(**result)
        if reason:
            ready.restart(runner, unit)
        phases, missing = wait(runner, unit, config, status, module.params["timeout_seconds"])
    except OSError as exc:
        phases, missing = {}, str(exc)
    if not missing:
        module.exit_json(phases=phases, **result)
    _rc, journal, _err = runner.run(["journalctl", "--no-pager", "-o", "cat", "-n", "15", "-u", unit])
    module.fail_json(
        msg="watchdog_ready: %s. Remedy: see the last lines of its journal in this result." % missing,
        journal=journal.splitlines(),
        **result,
    )


if __name__ == "__main__":
    main()
