# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether containers get the GPUs: the specification as nvidia-ctk writes it, and what is decided of it."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _container_gpu as containers
from driver_support import FakeHost

YAML = """---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      major: 195
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/nvidia1
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  mounts:
  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.100.20.30
"""
JSON = '{"cdiVersion":"0.5.0","devices":[{"containerEdits":{"deviceNodes":[{"path":"/dev/nvidia0"}]}}]}'
SPEC = "/run/cdi/nvidia.yaml"


def ready(host: FakeHost, version: str = "100.20.30") -> dict[str, t.Any]:
    host.files.update({"/sys/module/nvidia/version": version + "\n", "/dev/nvidia0": "", "/dev/nvidia1": ""})
    host.files.update({"/dev/nvidiactl": "", SPEC: YAML})
    host.answers["nvidia-ctk --version"] = (0, "NVIDIA Container Toolkit CLI version 9.8.7\ncommit: x\n", "")
    host.answers["nvidia-ctk cdi list"] = (0, "nvidia.com/gpu=0\nnvidia.com/gpu=all\n", "INFO[0000] Found 2 devices\n")
    return containers.read(host, SPEC)


def test_the_specification_in_both_forms() -> None:
    spec = containers.parse_spec(YAML, SPEC, "100.20.30")
    assert spec == {
        "path": SPEC,
        "devices": ["/dev/nvidia0", "/dev/nvidia1"],
        "nodes": ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"],
        "text_has_driver": True,
    }
    assert (containers.parse_spec(JSON, SPEC, "1.2") or {})["devices"] == ["/dev/nvidia0"]
    assert containers.parse_spec(None, SPEC, "") is None
    assert containers.parse_spec("kind: other\n", SPEC, "") is None


def test_a_host_without_the_toolkit(host: FakeHost) -> None:
    found = containers.read(host, SPEC)
    assert found == {"driver_version": None, "devices": [], "toolkit": None, "spec": None, "cdi_devices": []}
    findings = containers.decide(found, "9.8.7", set())
    assert [(f["check"], f["ok"], f["severity"]) for f in findings] == [
        ("container.toolkit", False, "error"),
        ("container.cdi", False, "warning"),
    ]
    assert not containers.is_stale(found)


def test_a_toolkit_that_says_no_version(host: FakeHost) -> None:
    host.answers["nvidia-ctk --version"] = (1, "", "segfault")
    assert containers.read(host, SPEC)["toolkit"] == ""


def test_a_good_host(host: FakeHost) -> None:
    found = ready(host)
    assert not containers.is_stale(found)
    assert [f["ok"] for f in containers.decide(found, "9.8.7", {"/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"})] == [
        True,
        True,
    ]


def test_a_device_that_went_is_named(host: FakeHost) -> None:
    (_toolkit, cdi) = containers.decide(ready(host), "9.8.7", {"/dev/nvidia0", "/dev/nvidiactl"})
    assert not cdi["ok"] and "aren't there: /dev/nvidia1" in cdi["found"]


def test_a_toolkit_that_lists_nothing(host: FakeHost) -> None:
    ready(host)
    host.answers["nvidia-ctk cdi list"] = (1, "", "broken")
    (_toolkit, cdi) = containers.decide(containers.read(host, SPEC), "9.8.7", {"/dev/nvidia0"})
    assert not cdi["ok"] and "doesn't list nvidia.com/gpu=all" in cdi["found"]


@pytest.mark.parametrize("change", ["none", "driver", "gpu"])
def test_when_it_must_be_made_again(host: FakeHost, change: str) -> None:
    ready(host)
    if change == "none":
        del host.files[SPEC]
    if change == "driver":
        host.files["/sys/module/nvidia/version"] = "101.0\n"
    if change == "gpu":
        host.files["/dev/nvidia2"] = ""
    found = containers.read(host, SPEC)
    assert containers.is_stale(found)
    assert not containers.decide(found, "9.8.7", set())[1]["ok"]


@pytest.mark.parametrize(
    ("path", "before", "after", "same"),
    [
        ("/etc/docker/daemon.json", None, "{}", True),
        ("/etc/docker/daemon.json", '{"a": 1}', '{\n  "a": 1\n}', True),
        ("/etc/docker/daemon.json", '{"a": 1}', '{"a": 2}', False),
        ("/etc/docker/daemon.json", "{", "{}", False),
        ("/etc/containerd/config.toml", "x = 1\n", "x = 1", True),
        ("/etc/containerd/config.toml", None, "x = 1", False),
    ],
)
def test_configurations_are_compared_by_meaning(path: str, before: str | None, after: str | None, same: bool) -> None:
    assert containers.same_configuration(path, before, after) is same
