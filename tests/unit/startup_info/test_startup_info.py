# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal is asked for the start that runs, and a calibration changes when the measured terms do."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _calibration as calibrating
from ansible_collections.gpufleet.llm.plugins.module_utils import _startup_info as info
from nvml import payload

LOGS = Path(__file__).parent / "logs"
CPU = (LOGS / "vllm-0.32.0-cpu.log").read_text(encoding="utf-8")
INVOCATION = "0123456789abcdef0123456789abcdef"
GPU_LOG = """\
INFO [api_server.py:1] vLLM API server version 0.32.0
(EngineCore pid=2) INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/m'
(EngineCore pid=2) INFO [model_runner.py:425] Model loading took %.2f GiB memory and 5.420225 seconds
(EngineCore pid=2) INFO [gpu_worker.py:760] Available KV cache memory: 56.21 GiB
(EngineCore pid=2) INFO [kv_cache_utils.py:2327] GPU KV cache size: 460,496 tokens, Maximum concurrency for 131,072 \
tokens per request: 3.51x
(EngineCore pid=2) INFO [gpu_worker.py:1034] Free memory on device (78.84/79.25 GiB) on startup. Desired GPU memory \
utilization is (0.92, 72.91 GiB). Actual usage is 15.26 GiB for consumed memory (weights + non-torch), 1.44 GiB for \
peak activation, and %.2f GiB for CUDAGraph memory.
"""
H100 = {"name": "NVIDIA H100 80GB HBM3", "memory_mib": {"total": 81559}}


class Host:
    """A host with a journal; says what was asked of it."""

    def __init__(self, current="", older="", unit=None, no_grep=False):
        self.current, self.older, self.no_grep = current, older, no_grep
        self.unit = {"LoadState": "loaded", "ActiveState": "active", "InvocationID": INVOCATION}
        self.unit.update(unit or {})
        self.asked = []

    def run(self, argv):
        self.asked.append(list(argv))
        if argv[0] == "systemctl":
            return 0, "".join("%s=%s\n" % item for item in self.unit.items()), ""
        if self.no_grep and any(item.startswith("--grep") for item in argv):
            return 1, "", "Compiled without pattern matching support"
        return 0, self.current if argv[-1].startswith("_SYSTEMD_INVOCATION_ID") else self.older, ""

    def read(self, path):
        return {"/m/config.json": '{"a": 1, "b": 2}', "/n/config.json": "{}"}.get(path)


def test_the_running_start_is_read():
    host = Host(current=CPU, older=CPU.replace("23,296", "1,024"))
    text, properties = info.read_startup(host, "vllm@smollm2-a.service")
    assert info.measure(text)["kv_tokens"] == 23296
    assert properties["ActiveState"] == "active"
    (asked,) = [argv for argv in host.asked if argv[0] == "journalctl"]
    assert asked[-1] == "_SYSTEMD_INVOCATION_ID=" + INVOCATION
    assert "--lines=%d" % info.LINES_LIMIT in asked


def test_a_journal_without_pattern_matching():
    host = Host(current=CPU, no_grep=True)
    assert info.measure(info.read_startup(host, "vllm@smollm2-a.service")[0])["kv_tokens"] == 23296


def test_a_crash_loop_says_why_in_the_invocation_before():
    refusal = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.\n"
    host = Host(current="", older=refusal, unit={"ActiveState": "activating"})
    text, properties = info.read_startup(host, "vllm@big-a.service")
    record = info.measure(text)
    (found,) = info.decide(record, "vllm@big-a.service", properties)
    assert not found["ok"] and found["severity"] == "error"
    assert found["found"].startswith("No available memory for the cache blocks")


def test_a_unit_that_isn_t_there():
    class Bare(Host):
        def run(self, argv):
            return 127, "", "no such file"

    text, properties = info.read_startup(Bare(), "vllm@x-a.service")
    (found,) = info.decide(info.measure(text), "vllm@x-a.service", properties)
    assert not found["ok"] and found["severity"] == "warning"


def test_the_running_engine_says_exactly():
    metrics = 'vllm:cache_config_info{block_size="128",kv_cache_memory_bytes="1073741824",num_gpu_blocks="182"} 1.0\n'
    record = info.measure(CPU, metrics)
    assert (record["block_size"], record["num_blocks"]) == (128, 182)
    assert (record["available_kv_bytes"], record["kv_bytes_exact"]) == (1073741824, True)
    assert record["num_blocks"] * record["block_size"] == record["kv_tokens"] == 23296


def calibrated(weights=15.0, graphs=0.23, arguments=None, gpus=(H100,), path="/m"):
    record = info.measure(GPU_LOG % (weights, graphs))
    host = Host()
    return calibrating.calibration_of(
        record, arguments or {}, calibrating.model_identity(host, path), calibrating.gpu_identity(gpus, record)
    )


def test_what_a_calibration_holds():
    made = calibrated(arguments={"max_num_seqs": 256, "max_model_len": 4096, "api_key": "***", "uds": "/run/x"})
    assert made["key"] == {
        "model": {"name": "m", "sha256": calibrating.config_sha256({"b": 2, "a": 1})},
        "gpu": {"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "count": 1},
        "engine": {"name": "vllm", "version": "0.32.0"},
        "flags": {"max_num_seqs": 256},
    }
    gib = 1 << 30
    assert {name: None if v is None else round(v / gib, 2) for name, v in made["terms"].items()} == {
        "weights_bytes": 15.0,
        "activation_bytes": 1.44,
        "non_torch_bytes": 0.26,
        "graphs_bytes": 0.23,
        "graphs_estimate_bytes": None,
    }
    assert made["kv"]["kv_tokens"] == 460496
    assert calibrating.parse_calibration(calibrating.render(made)) == made
    assert calibrating.parse_calibration("{}") is None and calibrating.parse_calibration("[") is None


def test_what_makes_another_calibration():
    base = calibrated()
    name = calibrating.calibration_name(base["key"])
    assert name.startswith("m-") and name.endswith(".json")
    assert calibrating.calibration_name(calibrated(arguments={"max_model_len": 1024})["key"]) == name
    others = [
        calibrated(arguments={"max_num_seqs": 64}),
        calibrated(gpus=({"name": "NVIDIA L40S", "memory_mib": {"total": 46068}},)),
        calibrated(gpus=()),
        calibrated(path="/n"),
    ]
    assert len({calibrating.calibration_name(other["key"]) for other in others} | {name}) == 5
    assert calibrating.calibration_name(calibrated(path="/srv/models/Qwen 3!/versions/0f")["key"]).startswith("qwen-3-")


def test_rounding_is_no_change():
    base = calibrated()
    assert calibrating.is_same(base, calibrated(graphs=0.24))
    assert calibrating.is_same(base, calibrated(weights=15.01))
    assert not calibrating.is_same(base, calibrated(graphs=0.30))
    assert not calibrating.is_same(None, base)
    assert not calibrating.is_same(dict(base, terms=dict(base["terms"], graphs_bytes=None)), base)


def put(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def run(tmp_path):
    """Run the module with a journal on a host whose systemctl and journalctl are scripts."""
    programs = tmp_path / "bin"
    programs.mkdir()
    put(programs / "systemctl", "#!/bin/sh\nprintf 'LoadState=loaded\\nActiveState=active\\nInvocationID=%s\\n' 00ff\n")
    put(programs / "journalctl", '#!/bin/sh\ncat "$JOURNAL"\n')

    def runs(text, **arguments):
        journal = tmp_path / "journal"
        journal.write_text(text, encoding="utf-8")
        arguments.setdefault("instance", "smollm2-a")
        arguments.setdefault("directory", str(tmp_path / "calibration"))
        program = payload.write(tmp_path / "payload.py", "vllm_startup_info", **arguments)
        env = dict(os.environ, PATH="%s:%s" % (programs, os.environ["PATH"]), JOURNAL=str(journal))
        return payload.run(program, env)

    return runs


def test_the_module_keeps_what_was_measured_once(run, tmp_path):
    result = run(CPU, _ansible_check_mode=True, _ansible_diff=True)
    assert result["changed"] and not (tmp_path / "calibration").exists()
    assert '"kv_tokens": 23296' in result["diff"]["after"]
    result = run(CPU)
    assert result["changed"]
    path = Path(result["path"])
    assert json.loads(path.read_text()) == result["calibration"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not run(CPU)["changed"]
    assert not run(CPU.replace("25 10:56", "26 11:22"))["changed"]
    assert run(CPU.replace("23,296", "46,592").replace("(1.0/", "(2.0/"))["changed"]
    path.write_text("{}")
    assert run(CPU)["changed"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["instances", path.name]
    start = json.loads((path.parent / "instances" / "smollm2-a.json").read_text())
    assert (start["invocation"], start["calibration"]) == ("00ff", path.name)
    assert start["measured"]["kv_tokens"] == 23296


def test_the_module_writes_nothing_of_a_start_it_can_t_read(run, tmp_path):
    result = run("INFO nothing of ours\n")
    assert not result["changed"] and result["calibration"] is None
    assert result["findings"][0]["severity"] == "warning" and len(result["warnings"]) == 1
    result = run(CPU + "ValueError: No available memory for the cache blocks. Try.\n")
    assert result["findings"][0]["severity"] == "error" and result["path"] is None
    assert not (tmp_path / "calibration").exists()
    assert run(CPU, instance="../x")["failed"]
    kept = tmp_path / "kept.log"
    kept.write_text(CPU, encoding="utf-8")
    assert run("", log=str(kept), directory="")["measured"]["kv_tokens"] == 23296
