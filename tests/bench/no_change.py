#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks and seconds of a run that changes nothing: our whole site beside one role of another collection.

Usage: tests/bench/no_change.py [RUNS], RUNS is 3 by default. Needs a running demo (`make demo`).

Both run over ssh to a booted lab host, one after the other in every round, with the same ansible-core and the same ssh
settings. The peer is community.zabbix.zabbix_agent: one package, one configuration file, one service.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = Path(__file__).resolve().parent
STATE = ROOT / ".cache" / "bench"
COLLECTIONS = STATE / "collections"
MAX_TASKS, MAX_SECONDS = 40, 15.0

Run = dict[str, float]


def play(arguments: list[str], env: dict[str, str]) -> Run:
    """Run one play; return its tasks (ok + skipped), changes and wall seconds. Exits when a host failed."""
    began = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    recap = re.findall(r": ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)", done.stdout)
    if done.returncode != 0 or not recap:
        sys.exit(done.stdout + done.stderr)
    ok, changed, _unreachable, _failed, skipped = (sum(int(row[column]) for row in recap) for column in range(5))
    return {"ok": ok, "skipped": skipped, "tasks": ok + skipped, "changed": changed, "seconds": seconds}


def peer_host(state: str) -> None:
    play(
        ["-i", "inventories/lab", str(BENCH / "peer_host.yml"), "-e", f"peer_state={state}"],
        {"GPUFLEET_CONTROL_DIR": str(STATE / "control")},
    )


def peer_inventory() -> Path:
    """Write the peer's inventory, with the ssh settings that the lab's inventory has."""
    shown = subprocess.run(
        ["ansible-inventory", "-i", "inventories/lab", "--host", "lab1"],
        cwd=ROOT, env={**os.environ, "GPUFLEET_CONTROL_DIR": str(STATE / "control")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    kept = ("ansible_user", "ansible_python_interpreter", "ansible_ssh_common_args", "ansible_ssh_private_key_file",
            "gpufleet_control_dir")  # fmt: skip
    variables = {name: value for name, value in json.loads(shown.stdout).items() if name in kept}
    variables.update(ansible_host="198.18.77.91", gpufleet_control_dir=str(STATE / "control"))
    path = STATE / "peer.json"
    path.write_text(json.dumps({"all": {"hosts": {"peer": variables}}}), encoding="utf-8")
    return path


def summary(name: str, runs: list[Run]) -> dict[str, float | str]:
    return {
        "play": name,
        "ok": runs[-1]["ok"],
        "skipped": runs[-1]["skipped"],
        "changed": max(run["changed"] for run in runs),
        "seconds_median": round(statistics.median(run["seconds"] for run in runs), 2),
        "seconds_min": round(min(run["seconds"] for run in runs), 2),
        "seconds_max": round(max(run["seconds"] for run in runs), 2),
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    STATE.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "tools/fetch_collections.py", str(BENCH / "requirements.yml"), str(COLLECTIONS)],
        cwd=ROOT,
        check=True,
    )
    ours: list[Run] = []
    theirs: list[Run] = []
    try:
        peer_host("present")
        peer = ["-i", str(peer_inventory()), str(BENCH / "peer.yml"), "-e", "peer_role=community.zabbix.zabbix_agent"]
        peer_env = {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_INJECT_FACT_VARS": "true"}
        play(peer, peer_env)  # the run that changes things is not measured
        load = os.getloadavg()[0]
        for number in range(rounds):
            ours.append(play(["-i", "inventories/lab", "site.yml"], {}))
            theirs.append(play(peer, peer_env))
            print(
                f"round {number + 1}: site {ours[-1]['seconds']:.1f} s, peer {theirs[-1]['seconds']:.1f} s", flush=True
            )
    finally:
        peer_host("absent")
    rows = [summary("site.yml", ours), summary("community.zabbix.zabbix_agent, 1 role", theirs)]
    core = subprocess.run(["ansible-playbook", "--version"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[0]
    print(f"\n{core}, Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.2f}, {rounds} rounds")
    for row in rows:
        print("{play}: {ok:.0f} ok + {skipped:.0f} skipped, changed {changed:.0f}, median {seconds_median} s "
              "({seconds_min}-{seconds_max})".format(**row))  # fmt: skip
    print(
        f"ratio of seconds, site over peer: {float(rows[0]['seconds_median']) / float(rows[1]['seconds_median']):.2f}"
    )
    print(json.dumps({"rounds": rounds, "load": load, "rows": rows}))
    if rows[0]["changed"]:
        sys.exit("the site changed something on a run that should change nothing")
    if ours[-1]["tasks"] > MAX_TASKS or float(rows[0]["seconds_median"]) > MAX_SECONDS:
        sys.exit(f"over the budget of {MAX_TASKS} tasks and {MAX_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
