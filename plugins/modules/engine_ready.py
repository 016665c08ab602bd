#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_ready
short_description: Have engines serve with the files that are there, and prove it by a token
description:
  - An engine is ready when a request without its key gets 401 and a one-token completion with it gives a token, over
    its unix socket. A port that is open, or C(/health), is no proof.
  - An instance is started if it doesn't run, and restarted if its unit, configuration or key changed since it last
    served; one that serves with the files that are there is left alone.
  - If a restarted instance doesn't come to serve, the files with which it last served are put back, it is started with
    them, and the task fails with the reason. So a failed change leaves the host serving what it served.
  - It says how far an engine is while it waits, and doesn't wait for one that has failed.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  action:
    support: full
    description: The waiting is done on the controller, so that progress is seen.
  check_mode:
    support: full
    description: Says which instances would be started.
  diff_mode:
    support: none
    description: Files are placed by others.
options:
  engine:
    description: What the instances' units are called, C(<engine>@<name>.service).
    type: str
    choices: [vllm, llama_cpp]
    default: vllm
  instances:
    description: >-
      Instances, each with C(name) and C(model) (the served name), and C(credential) where it takes the key of another
      instance.
    type: list
    elements: dict
    required: true
  timeout_seconds:
    description: How long an instance may take from start to its first token.
    type: int
    default: 600
  request_timeout_seconds:
    description: How long one probing request may take.
    type: int
    default: 30
  runtime_dir:
    description: Directory below which each instance has its own with C(engine.sock).
    type: path
    default: /run/gpufleet
  config_dir:
    description: Directory below which each instance has its own with C(config.yaml).
    type: path
    default: /etc/gpufleet/vllm
  credentials_dir:
    description: Directory of the keys.
    type: path
    default: /etc/gpufleet/credentials
  system_dir:
    description: Directory of the units.
    type: path
    default: /etc/systemd/system
  known_good_dir:
    description: Directory, for root only, of the files with which each instance last served.
    type: path
    default: /var/lib/gpufleet/known-good/vllm
  common_files:
    description: Files that all instances run with.
    type: list
    elements: path
    default: []
  operation:
    description: Set by the action, one step of what it does; never set it yourself.
    type: str
    choices: [look, enable, start, wait, restore]
    default: look
  wait_seconds:
    description: Set by the action, how long this step may wait; never set it yourself.
    type: int
    default: 0
  restarts_before:
    description: Set by the action, how often systemd had restarted the unit when the wait began; never set it yourself.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Have the engine serve
  gpufleet.llm.engine_ready:
    instances:
      - {name: smollm2-a, model: smollm2}
    timeout_seconds: 300
"""

RETURN = r"""
states:
  description:
    - By instance, C(ready), C(stale) (its files aren't those with which it last served), C(starting) (a start with its
      files is under way), C(enabled), C(reason) (why it isn't ready), C(unit) (systemd's properties).
  returned: always
  type: dict
unlisted:
  description: Names of the instances that are on the host and not in O(instances).
  returned: always
  type: list
  elements: str
started:
  description: Seconds from start to first token, by instance that was started.
  returned: always
  type: dict
"""

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_credential as credential
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_unit as engine
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner

POLL_SECONDS = 1.0


class Instance:
    """One instance on this host, and what the operations do to it."""

    def __init__(self, params: t.Dict[str, t.Any], record: t.Dict[str, t.Any]) -> None:
        self.name: str = record["name"]
        self.model: str = record["model"]
        self.engine: str = params["engine"]
        self.unit = "%s@%s.service" % (self.engine, self.name)
        self.socket = os.path.join(params["runtime_dir"], self.name, "engine.sock")
        self.files = [
            *engine.own_files(self.name, params["system_dir"], params["config_dir"], self.engine),
            *params["common_files"],
        ]
        self.secrets = [credential.key_path(params["credentials_dir"], record.get("credential") or self.name)]
        self.known_good = os.path.join(params["known_good_dir"], self.name)
        self.timeout: int = params["request_timeout_seconds"]
        self.runner = LocalRunner(timeout_seconds=120)

    def key(self) -> str:
        return credential.read(self.secrets[0]) or ""

    def digest(self) -> str:
        return engine.digest([*self.files, *self.secrets])

    def look(self) -> t.Dict[str, t.Any]:
        """Return the instance's state; the engine is only asked when it runs with the files that are there."""
        unit = engine.read_unit(self.runner, self.unit)
        digest = self.digest()
        state: t.Dict[str, t.Any] = {
            "unit": unit,
            "stale": engine.read_record(self.known_good).get("digest") != digest,
            "starting": engine.on_its_way(self.known_good, unit, digest),
            "enabled": unit.get("UnitFileState") == "enabled",
            "ready": False,
        }
        if unit.get("ActiveState") != "active":
            state["reason"] = "the unit is %s" % (unit.get("ActiveState") or unit.get("LoadState"))
        else:
            state["reason"] = engine.probe(self.socket, self.model, self.key(), self.timeout, self.engine)
            state["ready"] = not state["reason"]
        return state

    def command(self, *argv: str) -> None:
        rc, out, err = self.runner.run(argv)
        if rc != 0:
            raise OSError("%s exited with %d: %s" % (" ".join(argv), rc, (err or out).strip()))

    def start(self) -> None:
        """Start or restart with the files that are there; doesn't wait."""
        self.command("systemd-sysusers")
        self.command("systemctl", "daemon-reload")
        self.command("systemctl", "enable", "--quiet", self.unit)
        self.runner.run(["systemctl", "reset-failed", self.unit])
        engine.note_start(self.known_good, self.digest())
        self.command("systemctl", "restart", "--no-block", self.unit)

    def wait(self, seconds: float, restarts_before: int) -> t.Dict[str, t.Any]:
        """Wait for the first token; keep the files once it has come."""
        until = time.monotonic() + seconds
        while True:
            state = self.look()
            if state["ready"]:
                engine.keep(self.known_good, self.files, self.secrets, state["unit"].get("InvocationID", ""))
                return state
            state["hopeless"] = engine.hopeless(state["unit"], 1, restarts_before)
            if state["hopeless"] or time.monotonic() >= until:
                state["journal"] = engine.journal(self.runner, self.unit, self.key())
                return state
            time.sleep(POLL_SECONDS)

    def restore(self) -> t.List[str]:
        """Put back the files with which it last served, and start it with them; return which files those were."""
        changed = engine.put_back(self.known_good, self.files)
        if changed:
            self.start()
        else:
            self.runner.run(["systemctl", "stop", "--no-block", self.unit])
        return changed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "engine": {"type": "str", "choices": ["vllm", "llama_cpp"], "default": "vllm"},
            "instances": {"type": "list", "elements": "dict", "required": True},
            "timeout_seconds": {"type": "int", "default": 600},
            "request_timeout_seconds": {"type": "int", "default": 30},
            "runtime_dir": {"type": "path", "default": "/run/gpufleet"},
            "config_dir": {"type": "path", "default": "/etc/gpufleet/vllm"},
            "credentials_dir": {"type": "path", "default": "/etc/gpufleet/credentials"},
            "system_dir": {"type": "path", "default": "/etc/systemd/system"},
            "known_good_dir": {"type": "path", "default": "/var/lib/gpufleet/known-good/vllm"},
            "common_files": {"type": "list", "elements": "path", "default": []},
            "operation": {"type": "str", "choices": ["look", "enable", "start", "wait", "restore"], "default": "look"},
            "wait_seconds": {"type": "int", "default": 0},
            "restarts_before": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    result: t.Dict[str, t.Any] = {"changed": False, "states": {}, "restored": []}
    names = [record["name"] for record in module.params["instances"]]
    result["unlisted"] = engine.unlisted(module.params["system_dir"], names, module.params["engine"])
    operation = module.params["operation"]
    if module.check_mode and operation != "look":
        module.exit_json(**result)
    try:
        for record in module.params["instances"]:
            instance = Instance(module.params, record)
            if operation == "enable":
                instance.command("systemctl", "enable", "--quiet", instance.unit)
            elif operation == "start":
                instance.start()
            elif operation == "restore":
                result["restored"] = instance.restore()
            elif operation == "wait":
                result["states"][instance.name] = instance.wait(
                    module.params["wait_seconds"], module.params["restarts_before"]
                )
            else:
                result["states"][instance.name] = instance.look()
    except OSError as exc:
        module.fail_json(msg="engine_ready: %s" % exc)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
