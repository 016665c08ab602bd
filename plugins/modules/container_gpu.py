#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_gpu
short_description: Give containers the host's GPUs, and prove that they keep them
description:
  - Enables the toolkit's own refresh of the CDI specification, or makes one where that isn't there; makes it again when
    it's of another driver or lacks a GPU.
  - Adds the NVIDIA runtime to Docker and containerd by C(nvidia-ctk runtime configure). Podman needs the CDI
    specification alone.
  - After a change it runs C(systemctl daemon-reload), then proves that the CDI specification names every GPU and only
    devices that exist; with O(image) also that a container that was running before still sees the GPUs.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: C(nvidia-ctk) is asked for the configuration it would write. Nothing is proved of what isn't there yet.
  diff_mode:
    support: full
    description: The runtimes' configuration files.
options:
  version:
    description: The toolkit's version that is wanted.
    type: str
    required: true
  runtimes:
    description: Runtimes that are on the host; V(docker), V(containerd), V(podman).
    type: list
    elements: str
    choices: [docker, containerd, podman]
    default: []
  packages_pending:
    description: In check mode, whether the toolkit's packages would be installed, so that nothing can be asked yet.
    type: bool
    default: false
  image:
    description: Image with C(nvidia-smi) for the proof in a container. Empty proves the CDI specification alone.
    type: str
    default: ""
  timeout_seconds:
    description: How long one command may take, in seconds.
    type: float
    default: 120
"""

EXAMPLES = r"""
- name: Give containers the GPUs
  gpufleet.llm.container_gpu:
    version: "{{ lookup('gpufleet.llm.release', gpufleet_release).container_toolkit.version }}"
    runtimes: [docker]
"""

RETURN = r"""
findings:
  description: What was proved.
  returned: always
  type: list
  elements: dict
steps:
  description: What was done, in order.
  returned: always
  type: list
  elements: str
record:
  description: The driver's version, the GPUs' device nodes, and what the CDI specification says.
  returned: always
  type: dict
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _container_gpu as containers
from ansible_collections.gpufleet.llm.plugins.module_utils import _finding, _host_read, _host_state


class Run:
    """One call of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.given: t.Dict[str, t.Any] = module.params
        self.host = _host_read.LocalHost(timeout_seconds=self.given["timeout_seconds"])
        self.steps: t.List[str] = []
        self.diffs: t.List[t.Dict[str, str]] = []

    def must(self, argv: t.Sequence[str], step: str) -> str:
        """Run a command that must succeed; return what it wrote."""
        status, out, err = self.host.run(argv)
        if status != 0:
            said = (err.strip() or out.strip()).replace("\n", "; ")
            self.module.fail_json(msg="%s exited with %d: %s" % (" ".join(argv), status, said), steps=self.steps)
        self.steps.append(step)
        return out

    def unit(self, verb: str, unit: str) -> None:
        if self.module.check_mode:
            self.steps.append("would %s %s" % (verb, unit))
        else:
            self.must(["systemctl", verb, "--", unit], "%s %s" % (verb, unit))

    def specification(self) -> str:
        """Have the CDI specification made when it must be, and kept fresh; return its path."""
        units = _host_state.read_units(self.host, containers.REFRESH_UNITS)
        refreshed = all(state["load_state"] == "loaded" for state in units.values())
        for unit, state in units.items() if refreshed else ():
            if state["unit_file_state"] != "enabled":
                self.unit("enable", unit)
            if unit.endswith(".path") and state["active_state"] != "active":
                self.unit("start", unit)
        spec = containers.REFRESHED_SPEC if refreshed else containers.STATIC_SPEC
        if containers.is_stale(containers.read(self.host, spec)):
            if refreshed:
                self.unit("restart", "nvidia-cdi-refresh.service")
            elif self.module.check_mode:
                self.steps.append("would generate %s" % spec)
            else:
                os.makedirs(os.path.dirname(spec), mode=0o755, exist_ok=True)
                self.must(["nvidia-ctk", "cdi", "generate", "--output=" + spec], "generate %s" % spec)
        return spec

    def runtime(self, name: str) -> None:
        """Add the NVIDIA runtime to one engine, and have it read that."""
        files = containers.RUNTIME_FILES[name]
        argv = ["nvidia-ctk", "runtime", "configure", "--runtime=" + name, "--cdi.enabled"]
        before = {path: self.host.read(path) for path in files}
        if self.module.check_mode:
            status, out, _err = self.host.run([*argv, "--dry-run"])
            after = dict(before, **{files[-1]: out}) if status == 0 else before
        else:
            self.must(argv, "asked nvidia-ctk about %s" % name)
            self.steps.pop()
            after = {path: self.host.read(path) for path in files}
        changed = [path for path in files if not containers.same_configuration(path, before[path], after[path])]
        for path in changed:
            self.diffs.append(
                {"before_header": path, "after_header": path, "before": before[path] or "", "after": after[path] or ""}
            )
            self.steps.append("%s %s" % ("would write" if self.module.check_mode else "wrote", path))
        if (
            changed
            and _host_state.read_units(self.host, [name + ".service"])[name + ".service"]["active_state"] == "active"
        ):
            self.unit(containers.RUNTIME_VERBS[name], name + ".service")

    def container_proof(self) -> t.List[_finding.Finding]:
        """Prove that a container that runs keeps the GPUs over a daemon-reload."""
        engine = next((name for name in ("podman", "docker") if name in self.given["runtimes"]), None)
        if not self.given["image"] or engine is None:
            return []
        image, name = self.given["image"], "gpufleet-probe-%d" % os.getpid()
        argv = [engine, "run", "--detach", "--rm", "--name", name, "--network=none", "--device", "nvidia.com/gpu=all"]
        self.must([*argv, "--entrypoint", "sleep", image, "300"], "started a container of %s" % image)
        try:
            self.must(["systemctl", "daemon-reload"], "daemon-reload with a container running")
            status, out, err = self.host.run([engine, "exec", name, "nvidia-smi", "-L"])
        finally:
            self.host.run([engine, "rm", "--force", name])
        seen = len([line for line in out.splitlines() if line.startswith("GPU ")])
        wanted = len(containers.read(self.host, containers.STATIC_SPEC)["devices"])
        fits = status == 0 and seen == wanted
        return [
            _finding.finding(
                "container.probe",
                fits,
                expected="%d GPUs by nvidia-smi -L after systemctl daemon-reload" % wanted,
                found="%d GPUs" % seen if status == 0 else "exit status %d: %s" % (status, err.strip()),
                detail="In a running container of %s, by %s." % (image, engine),
                remedy="" if fits else "Give containers their GPUs by --device nvidia.com/gpu=all, not by --gpus.",
            )
        ]

    def run(self) -> None:
        if self.module.check_mode and self.given["packages_pending"]:
            self.module.exit_json(
                changed=True, findings=[], steps=["would install, then configure"], record={}, diff=[]
            )
        spec = self.specification()
        for name in self.given["runtimes"]:
            if name in containers.RUNTIME_FILES:
                self.runtime(name)
        changed = bool(self.steps)
        findings: t.List[_finding.Finding] = []
        if changed and not self.module.check_mode:
            self.must(["systemctl", "daemon-reload"], "daemon-reload")
        record = containers.read(self.host, spec)
        if not (changed and self.module.check_mode):
            nodes = record["spec"]["nodes"] if record["spec"] else []
            findings = containers.decide(
                record, self.given["version"], {node for node in nodes if os.path.exists(node)}
            )
        if changed and not self.module.check_mode and record["driver_version"]:
            findings += self.container_proof()
        for said in _finding.warnings(findings):
            self.module.warn(_finding.describe(said))
        stopped = _finding.refusals(findings)
        if stopped:
            self.module.fail_json(
                msg="Containers can't be given the GPUs:\n%s" % "\n".join(_finding.describe(f) for f in stopped),
                findings=findings,
                steps=self.steps,
            )
        self.module.exit_json(changed=changed, findings=findings, steps=self.steps, record=record, diff=self.diffs)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "runtimes": {
                "type": "list",
                "elements": "str",
                "choices": ["docker", "containerd", "podman"],
                "default": [],
            },
            "packages_pending": {"type": "bool", "default": False},
            "image": {"type": "str", "default": ""},
            "timeout_seconds": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    try:
        Run(module).run()
    except _host_state.HostStateError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
