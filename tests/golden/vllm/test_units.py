# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's unit, drop-ins and configuration as a CPU host and a GPU host get them, byte for byte.

To take over a change on purpose: ``GPUFLEET_GOLDEN_WRITE=1 pytest tests/golden/vllm``, and read the difference.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible.plugins.filter.core import to_nice_yaml
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_plan

ROLE = Path(__file__).parents[3] / "roles" / "vllm"
EXPECTED = Path(__file__).parent / "expected"
TEMPLATES = ("vllm@.service", "10-instance.conf", "20-accelerator.conf", "config.yaml")


PLANNED = {
    "name": "smollm2-a",
    "arguments": {"kv-cache-memory-bytes": 1073479680, "max-num-batched-tokens": 2048, "max-num-seqs": 128},
    "document": {"schema": 1, "instance": "smollm2-a"},
}


def render(accelerator, memory=(PLANNED,)):
    """Return text by file name, rendered as place_files does, with a memory plan or without."""
    role = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    model = {"name": "smollm2", "slot": "a", "context_length": 2048, "engine_config": {"max_num_seqs": 8}}
    plan = _engine_plan.plan(
        [dict(model, gpus=[0, 1])] if accelerator == "cuda" else [model],
        accelerator=accelerator,
        drain_seconds=60,
        paths={"smollm2": "/var/lib/gpufleet/models/smollm2/versions/v1"},
        memory=memory,
    )
    variables = {
        **role,
        **yaml.safe_load((ROLE / "defaults" / "main.yml").read_text()),
        "vllm_accelerator": accelerator,
        "vllm_environment": {"VLLM_LOGGING_LEVEL": "INFO"},
        "vllm_cpu_kv_cache_gib": 1,
        "__vllm_tree": {"path": "/opt/gpufleet/engines/vllm/1.0-0123456789ab"},
        "__vllm_instance": plan["instances"][0],
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(ROLE / "templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["to_nice_yaml"] = to_nice_yaml
    return {name: environment.get_template(name + ".j2").render(variables) for name in TEMPLATES}


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_host_gets(accelerator, name):
    text = render(accelerator)[name]
    path = EXPECTED / accelerator / name
    if os.environ.get("GPUFLEET_GOLDEN_WRITE") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_the_plan_sizes_the_cache_and_without_one_the_role_does():
    planned, bare = render("cpu"), render("cpu", memory=())
    assert "VLLM_CPU_KVCACHE_SPACE" not in planned["20-accelerator.conf"]  # it would take the place of the flag
    assert "Environment=VLLM_CPU_KVCACHE_SPACE=1" in bare["20-accelerator.conf"]
    config = yaml.safe_load(planned["config.yaml"])
    assert config["kv-cache-memory-bytes"] == 1073479680
    assert config["max-num-seqs"] == 8  # the inventory's
    assert "kv-cache-memory-bytes" not in yaml.safe_load(bare["config.yaml"])


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_a_running_instance_is_pinned_to_full_paths(accelerator):
    files = render(accelerator)
    start = re.findall(r"^ExecStart=(.*)$", "".join(files.values()), re.M)
    assert len(start) == 1
    assert start[0].startswith("/opt/gpufleet/engines/vllm/1.0-0123456789ab/bin/python3 ")
    assert "current" not in start[0]
    assert yaml.safe_load(files["config.yaml"])["model"] == "/var/lib/gpufleet/models/smollm2/versions/v1"


def test_systemd_waits_longer_than_the_engine_drains():
    files = render("cpu")
    stop = int(re.findall(r"^TimeoutStopSec=(\d+)$", files["vllm@.service"], re.M)[0])
    assert stop >= yaml.safe_load(files["config.yaml"])["shutdown-timeout"] + 10


def test_a_gpu_host_sees_its_devices_and_a_cpu_host_none():
    gpu, cpu = render("cuda")["20-accelerator.conf"], render("cpu")["20-accelerator.conf"]
    assert "PrivateDevices=no" in gpu
    assert {"char-nvidia-uvm", "char-nvidiactl"} <= set(re.findall(r"^DeviceAllow=(\S+)", gpu, re.M))
    assert "After=nvidia-persistenced.service" in gpu
    assert "PrivateDevices=yes" in cpu
    assert "DeviceAllow" not in cpu


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize(("accelerator", "most"), [("cpu", 1.6), ("cuda", 1.6)])
def test_exposure_stays_below_the_limit(tmp_path, accelerator, most):
    files = render(accelerator)
    service = files["vllm@.service"].replace("[Service]\n", "[Service]\nExecStart=/bin/true\n", 1)
    body = files["20-accelerator.conf"].split("[Service]\n", 1)[1]
    unit = tmp_path / "vllm-test.service"
    unit.write_text(service.replace("[Install]", body + "\n[Install]").replace("%i", "x"))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    if found is None:
        pytest.skip("this systemd-analyze has no offline mode: %s" % done.stderr.strip()[:200])
    assert float(found.group(1)) <= most
