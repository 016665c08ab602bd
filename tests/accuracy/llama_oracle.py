#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the llama.cpp planner with llama-server's own dry run: ``llama_oracle.py --server FILE [--model GGUF]``.

Every case starts a server over a GGUF file, reads what it would hold, and ends it before it loads a byte. KV cache and
weights must be what it prints, to its last digit; with --rpc, layers go to a device that an RPC server on loopback
stands for. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).resolve().parent))


def _load():
    """Make the plugins importable by their collection's name, without Ansible."""
    base = "ansible_collections.gpufleet.llm.plugins.module_utils"
    parts = base.split(".")
    for number in range(1, len(parts) + 1):
        module = types.ModuleType(".".join(parts[:number]))
        module.__path__ = [str(ROOT / "plugins" / "module_utils")] if number == len(parts) else []
        sys.modules[module.__name__] = module


_load()
import gguf_models  # noqa: E402 - after the path is set
from ansible_collections.gpufleet.llm.plugins.module_utils import _gguf_header as header  # noqa: E402 - as above
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_llama as plan  # noqa: E402 - as above
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_llama_dry as dry  # noqa: E402 - as above
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_llama_layers as layered  # noqa: E402 - as above

MIB = 1 << 20
W = dict
#: Over the real model: the cases with public figures first.
REAL = [
    W(ctx_size=4096),
    W(ctx_size=4096, parallel=2, cache_type_k="q8_0", cache_type_v="q8_0"),
    W(ctx_size=8192, parallel=4, cache_type_k="q8_0", cache_type_v="q8_0"),
    W(ctx_size=4096, parallel=2, kv_unified=True),
    W(ctx_size=4096, ubatch_size=256),
    W(ctx_size=8192),
    W(ctx_size=2048, parallel=1, cache_type_k="q4_0", cache_type_v="q4_0"),
    W(ctx_size=3000, parallel=1),
    W(ctx_size=5000, parallel=3),
    W(ctx_size=4096, cache_type_k="q5_1", cache_type_v="q4_1"),
    W(ctx_size=4096, cache_type_k="f32", cache_type_v="f32"),
    W(ctx_size=4096, cache_type_k="bf16", cache_type_v="q8_0"),
    W(ctx_size=6144, parallel=6, kv_unified=True, cache_type_k="q5_0", cache_type_v="q5_0"),
]
MADE = [
    W(ctx_size=4096),
    W(ctx_size=8192, parallel=2),
    W(ctx_size=8192, parallel=4, kv_unified=True),
    W(ctx_size=16384, ubatch_size=256),
    W(ctx_size=16384, parallel=2, swa_full=True),
    W(ctx_size=2048, parallel=1, cache_type_k="q8_0", cache_type_v="q8_0"),
]
OFFLOAD = [W(ctx_size=4096, n_gpu_layers=count) for count in (0, 1, 2, 3, 99)]


def flags(want):
    """Return llama-server's flags."""
    made = ["-c", str(want["ctx_size"]), "-np", str(want.get("parallel", 1)), "-ub", str(want.get("ubatch_size", 512))]
    made += ["-ctk", want.get("cache_type_k", "f16"), "-ctv", want.get("cache_type_v", "f16"), "-fa", "on"]
    made += ["--kv-unified"] if want.get("kv_unified") else ["--no-kv-unified"]
    if "n_gpu_layers" in want:
        made += ["-ngl", str(want["n_gpu_layers"])]
    return made + (["--swa-full"] if want.get("swa_full") else [])


def compare(path, want, server, more=()):
    """Return one row: what was planned and what the server says, in MiB, and what differs."""
    model = header.read_gguf(str(path))
    found = dry.dry_run([server, "-m", str(path), *flags(want), *more])
    devices = 1 if more else 0
    made = plan.plan_llama(
        model,
        {"total_bytes": 10**12, "count": devices},
        {},
        want,
        compute=dry.compute_of(found, want.get("ubatch_size", 512)),
    )
    wrong = [] if not found.error else ["server: " + found.error]
    wrong += ["plan: " + text for text in made["errors"]]
    row = {"model": path.stem, "want": want, "wrong": wrong}
    if wrong:
        return row
    planned = made["kv"]["available"] / MIB
    printed = sum(item[0] for item in found.kv) + sum(item[0] for item in found.recurrent)
    row.update(kv_planned=round(planned, 2), kv_printed=round(printed, 2))
    if abs(planned - printed) > 0.0051 * max(1, len(found.kv) + len(found.recurrent)):
        wrong.append("KV cache")
    cells = layered.cells_of(model, plan.want_of(want))
    streams = 1 if want.get("kv_unified") else want.get("parallel", 1)
    row["cells"] = [item[1] for item in found.kv]
    if sorted({item[1] for item in found.kv}) != sorted(
        {cells[layer.kind] // streams for layer in layered.layers_of(model) if layer.kind in ("full", "sliding")}
    ):
        wrong.append("cells")
    if abs(made["host"]["output"] / MIB - found.output_mib) > 0.0051:
        wrong.append("output buffer")
    host = [found.breakdown_mib[name] for name in ("Host", "CPU_REPACK") if name in found.breakdown_mib]
    gpu = [size for name, size in found.breakdown_mib.items() if name not in ("Host", "CPU_REPACK")]
    # The breakdown has whole MiB, cut off, in one or two lines.
    for name, mine, theirs in (
        ("host weights", made["host"]["weights"], sum(item[0] for item in host)),
        ("device weights", made["per_gpu"]["weights"], sum(item[0] for item in gpu)),
        ("device cache", made["per_gpu"]["kv"], sum(item[1] for item in gpu)),
    ):
        row[name] = [round(mine / MIB, 1), theirs]
        if not theirs - 0.01 <= mine / MIB < theirs + max(1, len(host)) + 0.01:
            wrong.append(name)
    row["compute"] = found.compute_mib
    return row


def rpc_server(server):
    """Start an RPC server beside the server's program; return its process and its address."""
    program = Path(server).with_name("ggml-rpc-server")
    process = subprocess.Popen(
        [str(program), "-H", "127.0.0.1", "-p", "50952", "-d", "CPU"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1.5)
    return process, "127.0.0.1:50952"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", help="a real GGUF file")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = [(Path(arguments.model), want, ()) for want in REAL] if arguments.model else []
        paths = {}
        for name in gguf_models.MODELS:
            paths[name] = Path(folder) / (name + ".gguf")
            gguf_models.write(paths[name], name)
            cases += [(paths[name], want, ()) for want in MADE if not (want.get("swa_full") and name == "mamba")]
        process, address = rpc_server(arguments.server)
        try:
            cases += [
                (paths[name], want, ("--rpc", address))
                for name in ("llama", "llama-tied", "gemma3")
                for want in OFFLOAD
            ]
            for path, want, more in cases:
                row = compare(path, want, arguments.server, more)
                rows.append(row)
                text = " ".join("%s=%s" % item for item in sorted(want.items()))
                said = ", ".join(row["wrong"]) or "ok"
                line = (row["model"][:12], text, row.get("kv_planned"), row.get("kv_printed"), said)
                print("%-12s %-70s KV %8s planned %8s printed  %s" % line)
        finally:
            process.kill()
            process.wait()
    bad = [row for row in rows if row["wrong"]]
    wrong = [[row["model"], row["want"], row["wrong"]] for row in bad]
    print(json.dumps({"cases": len(rows), "right": len(rows) - len(bad), "wrong": wrong}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
