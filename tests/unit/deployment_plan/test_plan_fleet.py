# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""plan_fleet as a person runs it: of a directory and of a hub, for hosts that don't exist yet."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import plan_models as make
import pytest
import weight_files
import yaml
from support import ROOT

_SPEC = importlib.util.spec_from_file_location("hub_server", ROOT / "tests/servers/hub_server.py")
hub_server = importlib.util.module_from_spec(_SPEC)
sys.modules.setdefault("hub_server", hub_server)
_SPEC.loader.exec_module(hub_server)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HOSTS = {
    "two-h100": {
        "gpufleet_accelerator": "cuda",
        "gpufleet_gpus": [{"name": "NVIDIA H100", "count": 2, "memory_gib": 79.19, "compute_capability": "9.0"}],
    },
    "four-l40s": {
        "gpufleet_accelerator": "cuda",
        "gpufleet_gpus": [{"name": "L40S", "count": 4, "memory_gib": 44.39, "compute_capability": "8.9"}],
    },
    "one-cpu": {"gpufleet_accelerator": "cpu", "gpufleet_memory_gib": 24},
}


@pytest.fixture
def plan(tmp_path):
    """Run the playbook; return what it printed, and the JSON that it wrote."""

    def run(hosts=None, **variables):
        inventory = tmp_path / "hosts.yml"
        common = {"gpufleet_release": "2026.11.0", "gpufleet_control_dir": str(tmp_path / "control")}
        common.update({key: value for key, value in variables.items() if key.startswith("gpufleet_")})
        inventory.write_text(yaml.safe_dump({"gpufleet": {"hosts": hosts or HOSTS, "vars": common}}), encoding="utf-8")
        extra = {key: value for key, value in variables.items() if not key.startswith(("gpufleet_", "env"))}
        done = subprocess.run(
            ["ansible-playbook", "-i", str(inventory), "playbooks/plan_fleet.yml", "-e", json.dumps(extra)],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORKS": "3", **variables.get("env", {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        path = tmp_path / "control" / "plan_fleet.json"
        return done.stdout, json.loads(path.read_text(encoding="utf-8"))["hosts"]

    return run


def test_what_fits_where_and_what_would_make_it_fit(plan, tmp_path):
    model = tmp_path / "Llama-70B"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(make.SEVENTY), encoding="utf-8")
    weight_files.write_shards(model, weight_files.llama(80, 8192, 28672, 64, 8, 128256), 30)
    said, hosts = plan(model=str(model), context=8192, users=4)
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith(tuple(HOSTS))}
    assert "host   " in said and set(HOSTS) <= set(rows)
    for host in HOSTS:
        (one,) = hosts[host]["instances"]
        assert one["state"] == "planned" and not one["plan"]["fits"]
        assert hosts[host]["refusal"].startswith("This deployment is refused")
        assert hosts[host]["components"]["vllm"]["action"] == "install"
    assert "model needs 131.45 GiB of weights on each of 1 GPUs" in said
    best = [one for one in hosts["four-l40s"]["instances"][0]["plan"]["suggestions"] if one["fits"]]
    assert best[0]["flags"] == {"tensor_parallel_size": 4} and best[0]["frees_bytes"] > 100 * make.GIB
    assert "spread over 4 GPUs (tensor-parallel-size 4): frees 105.91 GiB on a GPU, fits: the smallest change" in said
    (best,) = [one for one in hosts["two-h100"]["instances"][0]["plan"]["suggestions"] if one["fits"]]
    assert len(best["flags"]) > 1 and best["flags"]["tensor_parallel_size"] == 2
    assert "of memory are needed, the host has 24.00 GiB" in said
    # The answer is taken: it fits, and says for how many.
    want = {key.replace("_", "-"): value for key, value in best["flags"].items()}
    said, hosts = plan(model=str(model), context=8192, users=4, want=want)
    (one,) = hosts["two-h100"]["instances"]
    assert one["plan"]["fits"] and not hosts["two-h100"]["refusal"]
    assert one["plan"]["kv"]["max_concurrency"] >= 4
    assert one["plan"]["sources"]["weights"] == "safetensors headers"


TINY = dict(
    make.EIGHT,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=4000,
)


@pytest.fixture
def tiny(tmp_path):
    """The files of a model of 3 M parameters, as bytes by name."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    weight_files.write_shards(folder, weight_files.llama(4, 256, 512, 4, 2, 4000), 2)
    (folder / "config.json").write_text(json.dumps(TINY), encoding="utf-8")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_hub_is_asked_for_headers_alone_and_once(plan, tmp_path, tiny):
    with hub_server.HubServer() as server:
        server.add_repository("org/tiny", COMMIT, tiny)
        asked = {"model": "huggingface:org/tiny", "revision": COMMIT, "context": 4096}
        asked.update(gpufleet_cache_dir=str(tmp_path / "cache"), env={"HF_ENDPOINT": server.url, "NO_PROXY": "*"})
        hosts = {"h100": HOSTS["two-h100"]}
        _said, first = plan(hosts, **asked)
        shards = [name for name in tiny if name.endswith(".safetensors")]
        sent = sum(server.sent(name) for name in shards)
    assert first["h100"]["instances"][0]["plan"]["fits"]
    assert 0 < sent <= 2 * 65536 < sum(len(tiny[name]) for name in shards) / 20
    # The commit can't change: the server isn't needed again, and the plan is the same.
    _said, second = plan(hosts, **asked)
    assert second == first


def test_a_source_that_can_t_be_read_is_said(plan, tmp_path):
    said, hosts = plan({"h100": HOSTS["two-h100"]}, model=str(tmp_path / "nothing"))
    assert "h100: warning: nothing-a: weights.config: found no such file" in said
    (one,) = hosts["h100"]["instances"]
    assert one["state"] == "unread" and "Point the source at the directory" in one["why"]


def test_gpus_that_nobody_knows_are_said(plan, tmp_path):
    model = make.write_model(tmp_path / "eight")
    said, _hosts = plan({"h": {"gpufleet_accelerator": "cuda", "gpufleet_gpus": []}}, model=str(model))
    assert "no GPU was declared" in said and "gpufleet_gpus" in said
