# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What fits on which GPUs, at which context, for how many users.

    python -m ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_cli \
      /path/to/model --gpu "RTX 4090=23.57" --gpu "H100=79.19x2" --context 8192 --users 16

MODEL is a directory with config.json and safetensors files; of those, only the headers are read.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_model as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_view as view
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import GIB, READ
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError

GPU = re.compile(r"(?P<name>[^=]+)=(?P<size>\d+(?:\.\d+)?)(?:x(?P<number>\d+))?(?:@(?P<capability>\d+\.\d+))?")


def gpu_of(text: str) -> t.Dict[str, t.Any]:
    """Return the GPUs that ``NAME=GIB[xCOUNT][@CAPABILITY]`` names.

    Raises:
        argparse.ArgumentTypeError: it doesn't look like that.
    """
    match = GPU.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError("%r isn't NAME=GIB[xCOUNT][@CAPABILITY], such as 'H100=79.19x2@9.0'" % text)
    return {
        "name": match.group("name"),
        "total_bytes": int(float(match.group("size")) * GIB),
        "count": int(match.group("number") or 1),
        "compute_capability": match.group("capability") or "",
    }


def main(arguments: t.Optional[t.Sequence[str]] = None) -> int:
    """Print the plan; 0: it fits somewhere, 3: nowhere, 2: the question is wrong."""
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(prog="memory_plan", description=lines[0])
    parser.add_argument("model", metavar="MODEL", help="directory with config.json and safetensors files")
    parser.add_argument("--gpu", action="append", type=gpu_of, required=True, metavar="NAME=GIB[xCOUNT][@CAPABILITY]")
    parser.add_argument("--vllm", default=READ[-1], metavar="VERSION", help="engine's version, default %(default)s")
    parser.add_argument("--context", type=int, default=0, help="max_model_len in tokens, default the model's own")
    parser.add_argument("--users", type=int, help="requests of that length at once")
    parser.add_argument("--tensor-parallel-size", type=int, help="default all GPUs of --gpu")
    parser.add_argument("--utilization", type=float, help="gpu_memory_utilization, default the engine's")
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--mode", choices=("pin", "estimate"), default="pin")
    parser.add_argument("--json", action="store_true", help="print the whole plan as JSON")
    options = parser.parse_args(arguments)
    engine = {"name": "vllm", "version": options.vllm}
    try:
        found = reading.read(options.model)
    except ModelError as exc:
        sys.stderr.write("%s can't be planned: %s\n" % (options.model, exc))
        return 2
    plans = []
    for gpu in options.gpu:
        want = {
            "max_model_len": options.context,
            "concurrent_users": options.users,
            "gpu_memory_utilization": options.utilization,
            "kv_cache_dtype": options.kv_cache_dtype,
            "tensor_parallel_size": options.tensor_parallel_size or gpu["count"],
        }
        plans.append((gpu["name"], reading.plan_model(found, gpu, engine, want, options.mode)))
    if options.json:
        sys.stdout.write(json.dumps(dict(plans), indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(view.table(plans)) + "\n")
    return 0 if any(plan["fits"] for _name, plan in plans) else 3


if __name__ == "__main__":
    raise SystemExit(main())
