# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""llama-server's own dry run: what it says it would hold, before it loads a byte of weights.

With ``--fit on`` a server first builds model, cache and graph without allocating them, and prints their sizes when it
is told to say much. It is ended as soon as it has: a header with a hole for the weights is enough.
"""

from __future__ import annotations

import re
import subprocess
import threading
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_llama import Compute

MIB = 1 << 20
LINES_LIMIT = 200_000
_KV = re.compile(r"llama_kv_cache: size = +([\d.]+) MiB \( *(\d+) cells, +(\d+) layers, +(\d+)/(\d+) seqs\)")
_RECURRENT = re.compile(r"llama_memory_recurrent: size = +([\d.]+) MiB \( *(\d+) cells, +(\d+) layers, +(\d+) seqs")
_OUTPUT = re.compile(r"output buffer size = +([\d.]+) MiB")
_COMPUTE = re.compile(r"(\S+?)(?:\[[^\]]*\])? +compute buffer size = +([\d.]+) MiB")
_HOST = re.compile(r"\|\s+- (Host|CPU_REPACK)\s+\|\s+(\d+) =\s+(\d+) \+\s+(\d+) \+\s+(\d+)")
_DEVICE = re.compile(r"\|\s+- (\S+).*?\|\s*\d+ = +\d+ \+ \( *(\d+) = +(\d+) \+ +(\d+) \+ +(\d+)\)")
_END = re.compile(
    r"fitting params to free memory took|failed to fit params|projected to use|failed to load|error loading"
)
_ERROR = re.compile(r"(?:error loading model|failed to|error:).*")


class DryRun(t.NamedTuple):
    """What a dry run printed. MiB as printed; ``kv`` has ``(MiB, cells, layers)`` of each cache."""

    kv: t.List[t.Tuple[float, int, int]]
    recurrent: t.List[t.Tuple[float, int, int]]
    output_mib: float
    compute_mib: t.Dict[str, float]  # by device
    breakdown_mib: t.Dict[str, t.Tuple[int, int, int]]  # device -> model, context, compute, whole MiB
    error: str


def parse_dry_run(text: str) -> DryRun:
    """Return what the first pass printed; ``error`` where it didn't come to its end."""
    kv: t.List[t.Tuple[float, int, int]] = []
    recurrent: t.List[t.Tuple[float, int, int]] = []
    compute: t.Dict[str, float] = {}
    breakdown: t.Dict[str, t.Tuple[int, int, int]] = {}
    output, error = 0.0, ""
    for line in text.splitlines():
        match = _KV.search(line)
        if match:
            kv.append((float(match.group(1)), int(match.group(2)), int(match.group(3))))
        match = _RECURRENT.search(line)
        if match:
            recurrent.append((float(match.group(1)), int(match.group(2)), int(match.group(3))))
        match = _OUTPUT.search(line)
        if match:
            output = float(match.group(1))
        match = _COMPUTE.search(line)
        if match:
            compute[match.group(1)] = float(match.group(2))
        match = _HOST.search(line)
        if match:
            breakdown[match.group(1)] = (int(match.group(3)), int(match.group(4)), int(match.group(5)))
        else:
            match = _DEVICE.search(line)
            if match:
                breakdown[match.group(1)] = (int(match.group(3)), int(match.group(4)), int(match.group(5)))
        match = _ERROR.search(line)
        if match and not error:
            error = match.group(0)[:200]
        if breakdown and _END.search(line):
            break
    return DryRun(kv, recurrent, output, compute, breakdown, error if not breakdown else "")


def dry_run(argv: t.Sequence[str], timeout_seconds: float = 60.0) -> DryRun:
    """Start a llama-server, read its dry run and end it.

    Args:
        argv: program, ``-m``, file and flags; what makes it dry is added.
        timeout_seconds: after which it is ended anyway.
    """
    command = [*argv, "--fit", "on", "--verbosity", "5", "--no-warmup", "--host", "127.0.0.1", "--port", "0"]
    lines: t.List[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        timer = threading.Timer(timeout_seconds, process.kill)
        timer.start()
        try:
            for number, raw in enumerate(t.cast("t.IO[bytes]", process.stdout)):
                line = raw.decode("utf-8", "replace")
                lines.append(line)
                if _END.search(line) or number > LINES_LIMIT:
                    break
        finally:
            timer.cancel()
            process.kill()
    return parse_dry_run("".join(lines))


def compute_of(found: DryRun, ubatch_size: int) -> t.Optional[Compute]:
    """Return the compute buffers of a dry run, None where it has none."""
    if not found.compute_mib:
        return None
    host = sum(size for name, size in found.compute_mib.items() if name.startswith("CPU") or "Host" in name)
    gpu = max([size for name, size in found.compute_mib.items() if not name.startswith("CPU")] or [0.0])
    return Compute(round(host * MIB), round(gpu * MIB), ubatch_size)
