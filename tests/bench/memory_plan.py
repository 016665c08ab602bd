#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time and memory of planning a model of 70 B parameters from its headers, with a peer's estimate beside it.

Usage: tests/bench/memory_plan.py [ROUNDS], ROUNDS is 9 by default.

The model is a Llama of 80 layers in 30 files whose weights are holes: headers and sizes are those of a real one. Each
round runs, one after the other and each in a process of its own: Python that does nothing, the plan, and vramscout on
the same directory. The peer reads config.json alone; the plan reads config.json, the index and 30 headers.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".cache" / "bench"
PEER = STATE / "peer"
MAX_SECONDS, MAX_MIB = 0.300, 60.0
GIB = 1 << 30
SEVENTY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def timed(argv: list[str]) -> tuple[float, float, str]:
    """Run a process; return its seconds, its largest resident memory in MiB, and what it printed."""
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, env=environment())
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    if process.returncode not in (0, 3):  # 3: it fits nowhere
        sys.exit("%s\nended with %d:\n%s" % (" ".join(argv), process.returncode, text))
    return seconds, usage.ru_maxrss / 1024, text


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "collections"), "HF_HUB_OFFLINE": "1"}


def write_model(directory: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "unit" / "memory_headers"))
    import weight_files

    (directory / "config.json").write_text(json.dumps(SEVENTY), encoding="utf-8")
    weight_files.write_shards(directory, weight_files.llama(80, 8192, 28672, 64, 8, 128256), 30)


def peer() -> list[str]:
    """Return the peer's command; it is installed into a directory of its own the first time."""
    if not (PEER / "vramscout").is_dir():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--target", str(PEER),
             "-r", str(ROOT / "tests/bench/memory_plan_peer.txt")],
            check=True,
        )  # fmt: skip
    code = "import sys; sys.path.insert(0, %r); from vramscout.cli import main; sys.exit(main())" % str(PEER)
    return [sys.executable, "-c", code]


def row(name: str, runs: list[tuple[float, float, str]]) -> dict[str, float | str]:
    seconds = [run[0] for run in runs]
    return {
        "what": name,
        "seconds_median": round(statistics.median(seconds), 4),
        "seconds_min": round(min(seconds), 4),
        "seconds_max": round(max(seconds), 4),
        "mib_max": round(max(run[1] for run in runs), 1),
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    command = "ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_cli"
    bare: list[tuple[float, float, str]] = []
    ours: list[tuple[float, float, str]] = []
    theirs: list[tuple[float, float, str]] = []
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "llama-70b"
        model.mkdir()
        write_model(model)
        asked = [str(model), "--gpu", "H100=79.19x4@9.0", "--context", "8192", "--users", "8", "--json"]
        other = [*peer(), str(model), "--engine", "vllm", "--tp", "4", "--context", "8192", "--batch-size", "8",
                 "--vram-gib", "79.19", "--json"]  # fmt: skip
        load = os.getloadavg()[0]
        for _round in range(rounds):
            bare.append(timed([sys.executable, "-c", "pass"]))
            ours.append(timed([sys.executable, "-m", command, *asked]))
            theirs.append(timed(other))
    plan = json.loads(ours[-1][2])["H100"]
    rows = [row("Python alone", bare), row("plan of 70 B, 30 headers", ours), row("vramscout, config.json", theirs)]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.2f}, {rounds} rounds")
    for one in rows:
        print(
            "{what:26} median {seconds_median:.3f} s ({seconds_min:.3f}-{seconds_max:.3f}), {mib_max} MiB".format(**one)
        )
    beyond = float(rows[1]["seconds_median"]) - float(rows[0]["seconds_median"])
    print(f"plan beyond Python's start: {beyond * 1000:.0f} ms, {rows[1]['mib_max']} MiB at most")
    print(f"planned: weights {plan['per_gpu']['weights'] / GIB:.2f} GiB on each of 4 GPUs, from "
          f"{plan['sources']['weights']}, {plan['kv']['tokens_reported']:,} tokens")  # fmt: skip
    print(json.dumps({"rounds": rounds, "load": load, "beyond_ms": round(beyond * 1000, 1), "rows": rows}))
    if plan["sources"]["weights"] != "safetensors headers":
        sys.exit("the weights weren't read from headers")
    if beyond > MAX_SECONDS or float(rows[1]["mib_max"]) > MAX_MIB:
        sys.exit(f"over the budget of {MAX_SECONDS * 1000:.0f} ms and {MAX_MIB:.0f} MiB")


if __name__ == "__main__":
    main()
