#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves that the proxy serves what lies on the host's disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: proxy_probe
short_description: Prove that the proxy serves what lies on the host's disk
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
description:
  - Calls every port as somebody without a certificate and expects the proxy's own refusal, shown
    with the certificate on the disk.
  - Compares the age of nginx's workers with the last change of their configuration, so that a reload that was missed
    is seen.
attributes:
  check_mode:
    support: full
    description: What doesn't answer is a warning then, as the host may have nothing yet.
  diff_mode:
    support: none
    description: It only reads.
options:
  unit:
    description: Unit whose main process is nginx's master.
    type: str
    required: true
  tree:
    description: Directory of the configuration on the host.
    type: path
    required: true
  also:
    description: Further files that the configuration includes.
    type: list
    elements: path
    default: []
  certificate:
    description: Server certificate on the host, PEM.
    type: path
    required: true
  address:
    description: Address at which the host reaches its own listener.
    type: str
    default: 127.0.0.1
  ports:
    description: Ports that must answer.
    type: list
    elements: int
    required: true
  wait_for_reload:
    description: Wait for workers that are younger than the configuration; they are required then.
    type: bool
    default: false
  timeout_seconds:
    description: How long to wait, in seconds.
    type: int
    default: 15
"""

EXAMPLES = r"""
- name: Ask every port
  gpufleet.llm.proxy_probe:
    unit: llm-proxy.service
    tree: /etc/gpufleet/proxy
    certificate: /etc/gpufleet/proxy/tls/server.crt
    ports: [8443]
"""

RETURN = r"""
reload_owed:
  description: Whether the configuration on the disk is newer than the workers that serve.
  returned: always
  type: bool
workers:
  description: The workers, with pid, age in seconds, and whether they are only ending what they began.
  returned: always
  type: list
  elements: dict
findings:
  description: One record for each port, and one about the workers when O(wait_for_reload).
  returned: always
  type: list
  elements: dict
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _finding, _host_state, _proxy_probe
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner


def look(given: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """Look once; return the module's result."""
    unit = _host_state.read_units(LocalRunner(), [given["unit"]])[given["unit"]]
    master = int(unit["main_pid"] or 0)
    workers = _proxy_probe.read_workers(master) if master else []
    changed, which = _proxy_probe.newest_change([given["tree"], *given["also"]])
    owed = bool(master) and _proxy_probe.reload_owed(workers, changed, time.time())
    findings = [_proxy_probe.check_port(given["address"], port, given["certificate"], 5.0) for port in given["ports"]]
    if given["wait_for_reload"]:
        findings.append(
            _finding.finding(
                "proxy.configuration_loaded",
                bool(master) and not owed,
                expected="workers younger than %s" % which,
                found="older ones still serve" if master else "%s doesn't run" % given["unit"],
                detail="nginx keeps the old workers when it can't load the new configuration.",
                remedy="Look at /var/log/gpufleet/proxy/error.log; after an upgrade of the nginx packages the running "
                "master can't load the new module: systemctl restart %s." % given["unit"],
            )
        )
    return {"changed": False, "reload_owed": owed, "workers": [w._asdict() for w in workers], "findings": findings}


def main() -> None:
    """Look until everything holds or the time is over."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "tree": {"type": "path", "required": True},
            "also": {"type": "list", "elements": "path", "default": []},
            "certificate": {"type": "path", "required": True},
            "address": {"type": "str", "default": "127.0.0.1"},
            "ports": {"type": "list", "elements": "int", "required": True},
            "wait_for_reload": {"type": "bool", "default": False},
            "timeout_seconds": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    end = time.monotonic() + (0 if module.check_mode else module.params["timeout_seconds"])
    try:
        result = look(module.params)
        while _finding.refusals(result["findings"]) and time.monotonic() < end:
            # A stale certificate is what a reload that is owed will replace: no use in waiting for it here.
            if result["reload_owed"] and not module.params["wait_for_reload"]:
                break
            time.sleep(0.1)
            result = look(module.params)
    except _host_state.HostStateError as exc:
        module.fail_json(msg=str(exc))
    failed = _finding.refusals(result["findings"])
    refusal = "The proxy doesn't serve what lies on the disk. %s" % " ".join(map(_finding.describe, failed))
    refusal = refusal if failed else ""
    if refusal and module.check_mode:
        module.warn(refusal)
    elif refusal and not (result["reload_owed"] and not module.params["wait_for_reload"]):
        module.fail_json(msg=refusal, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
