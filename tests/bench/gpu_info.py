#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module gpu_info costs over one that does nothing: 8 GPUs of the stub library, read by the real nvidia-ml-py.

Usage: tests/bench/gpu_info.py [ROUNDS] [MICROSECONDS], 15 rounds and no latency by default. MICROSECONDS is how long
each of NVML's calls takes: the stub alone answers at once, a real driver doesn't.

Both are the files that ansible sends to a host and runs there; in each round one runs after the other.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import conftest
from nvml import build, payload

MAX_MILLISECONDS = 150.0
EMPTY = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(changed=False)
"""


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    latency = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    conftest.pytest_configure()
    milliseconds: dict[str, list[float]] = {"gpu_info": [], "empty": []}
    inside: list[float] = []
    calls = 0
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        scenario = build.install(here, "h100x8")
        build.write_scenario(here, {**scenario, "latency_microseconds": latency})
        (here / "empty_module.py").write_text(EMPTY, encoding="utf-8")
        programs = {
            "gpu_info": payload.write(here / "gpu_info.bin", "gpu_info"),
            "empty": payload.write(here / "empty.bin", "empty_module", here / "empty_module.py"),
        }
        env = {**os.environ, "LD_LIBRARY_PATH": scratch}
        payload.run(programs["gpu_info"], {**env, "GPUFLEET_NVML_LOG": str(here / "calls")})
        calls = len((here / "calls").read_text(encoding="utf-8").split())
        load = os.getloadavg()[0]
        for _round in range(rounds):
            for name, program in programs.items():
                began = time.perf_counter()
                result = payload.run(program, env)
                milliseconds[name].append((time.perf_counter() - began) * 1000)
                if name == "gpu_info":
                    inside.append(result["took_ms"])
                    if [gpu["state"] for gpu in result["gpus"]] != ["ok"] * 8:
                        sys.exit("not 8 GPUs: %s" % result["driver"])
    ours, empty = (statistics.median(milliseconds[name]) for name in ("gpu_info", "empty"))
    over = statistics.median(a - b for a, b in zip(milliseconds["gpu_info"], milliseconds["empty"]))
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.2f}, {rounds} rounds, "
        f"{calls} NVML calls, {latency} us each"
    )
    for name, values in milliseconds.items():
        print(f"{name}: median {statistics.median(values):.0f} ms ({min(values):.0f}-{max(values):.0f})")
    print(f"over the empty module: {over:.0f} ms; the reading itself {statistics.median(inside):.0f} ms")
    print(f"ratio: {ours / empty:.2f}")
    print(json.dumps({"load": load, "over_ms": round(over, 1), "ratio": round(ours / empty, 2), **milliseconds}))
    if over > MAX_MILLISECONDS:
        sys.exit(f"over the budget of {MAX_MILLISECONDS:.0f} ms")


if __name__ == "__main__":
    main()
