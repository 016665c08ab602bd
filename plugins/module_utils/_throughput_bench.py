# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""One level of a throughput sweep: ``vllm bench serve`` of the engine's own environment, and the power it takes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import typing as t

Record = t.Dict[str, t.Any]
#: Fields of the result, by the names that we give them, with their units.
FIELDS = {
    "completed": "completed",
    "failed": "failed",
    "duration_seconds": "duration",
    "requests_per_second": "request_throughput",
    "output_tokens_per_second": "output_throughput",
    "total_tokens_per_second": "total_token_throughput",
    "input_tokens": "total_input_tokens",
    "output_tokens": "total_output_tokens",
}
LATENCIES = ("ttft", "tpot", "itl", "e2el")
STATISTICS = ("mean", "p50", "p90", "p99")
SAMPLE_SECONDS = 2.0


class BenchError(Exception):
    """The load generator gave no result."""


class Load(t.NamedTuple):
    """What is asked of the load generator."""

    model: str
    tokenizer: str  # directory of the model
    concurrency: int
    prompts: int
    input_tokens: int
    output_tokens: int
    max_seconds: float


def arguments(interpreter: str, load: Load, url: str, directory: str, seed: int) -> t.List[str]:
    """Return the command; there is no secret in it."""
    return [
        *(interpreter, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai"),
        *("--base-url", url, "--endpoint", "/v1/completions", "--model", load.model, "--tokenizer", load.tokenizer),
        *("--dataset-name", "random", "--random-input-len", str(load.input_tokens)),
        *("--random-output-len", str(load.output_tokens), "--num-prompts", str(load.prompts)),
        *("--max-concurrency", str(load.concurrency), "--seed", str(seed), "--ignore-eos", "--temperature", "0"),
        *("--disable-tqdm", "--percentile-metrics", ",".join(LATENCIES), "--metric-percentiles", "50,90,99"),
        *("--save-result", "--save-detailed", "--result-dir", directory, "--result-filename", "result.json"),
    ]


def environment(home: str, stand_in: str) -> t.Dict[str, str]:
    """Return the load generator's environment: nothing of the caller's, no network but the relay, no secret."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "OPENAI_API_KEY": stand_in,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def run(interpreter: str, load: Load, url: str, stand_in: str) -> Record:
    """Run the load generator and return its result's JSON.

    Raises:
        BenchError: it failed, or took too long; then its whole process group is gone.
    """
    directory = tempfile.mkdtemp(prefix="llm-bench-")
    try:
        # Other prompts each time: a cache of prefixes would answer for the engine.
        argv = arguments(interpreter, load, url, directory, random.SystemRandom().randrange(1 << 31))
        with open(os.path.join(directory, "log"), "w+b") as log:
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    env=environment(directory, stand_in),
                    start_new_session=True,
                )
            except OSError as exc:
                raise BenchError("%s: %s" % (interpreter, exc)) from exc
            try:
                status: t.Optional[int] = process.wait(load.max_seconds)
            except subprocess.TimeoutExpired:
                status = None
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            log.seek(0)
            said = log.read().decode("utf-8", "replace").replace(stand_in, "(a stand-in)")
        if status is None:
            raise BenchError("no end in %s s; it last said: %s" % (load.max_seconds, last_lines(said)))
        try:
            with open(os.path.join(directory, "result.json"), encoding="utf-8") as handle:
                result = json.load(handle)
        except (OSError, ValueError) as exc:
            raise BenchError("exit status %d, no result: %s" % (status, last_lines(said))) from exc
        if not isinstance(result, dict):
            raise BenchError("exit status %d, the result is no mapping" % status)
        return result
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def last_lines(text: str) -> str:
    """Return the end of what was said, in one line."""
    return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-4:])[-600:]


def errors_of(result: t.Mapping[str, t.Any]) -> str:
    """Return what the requests that failed said, each once; of a traceback, its last line."""
    said = result.get("errors")
    texts = set()
    for one in said if isinstance(said, list) else []:
        lines = [line.strip() for line in str(one or "").splitlines() if line.strip()]
        if lines:
            texts.add((lines[-1] if lines[0].startswith("Traceback") else " ".join(lines))[:200])
    return "; ".join(sorted(texts)[:3])


def _number(value: t.Any) -> t.Optional[float]:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def level_of(load: Load, result: t.Mapping[str, t.Any]) -> Record:
    """Return a level's record: what was asked, throughput, and latencies in milliseconds; None for what isn't said."""
    level: Record = {
        "concurrency": load.concurrency,
        "prompts": load.prompts,
        "input_tokens_each": load.input_tokens,
        "output_tokens_each": load.output_tokens,
    }
    for name, field in FIELDS.items():
        value = _number(result.get(field))
        level[name] = int(value) if value is not None and name in ("completed", "failed") else value
    if level["failed"] is None and level["completed"] is not None:
        level["failed"] = load.prompts - level["completed"]
    for latency in LATENCIES:
        said = {}
        for statistic in STATISTICS:
            value = _number(result.get("%s_%s_ms" % (statistic, latency)))
            said[statistic] = None if value is None else round(value, 2)
        level[latency + "_ms"] = said
    return level


class PowerMeter:
    """Samples the power of all GPUs of a host while the context lasts.

    Args:
        read: returns the watts of each GPU, None for one that doesn't say; an empty list where there is no GPU.
    """

    def __init__(self, read: t.Callable[[], t.Sequence[t.Optional[float]]], seconds: float = SAMPLE_SECONDS) -> None:
        self.read = read
        self.seconds = seconds
        self.samples: t.List[float] = []
        self.reason = "no sample was taken"
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PowerMeter:
        self.thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.ending.set()
        self.thread.join(30)

    def _run(self) -> None:
        while not self.ending.is_set():
            try:
                watts = self.read()
            except (OSError, ValueError, KeyError, TypeError) as exc:
                self.reason = "NVML couldn't be read: %s" % exc
                return
            if not watts:
                self.reason = "the host has no GPU whose power NVML reads"
                return
            if any(value is None for value in watts):
                self.reason = "a GPU doesn't say its power"
                return
            self.samples.append(sum(value for value in watts if value is not None))
            self.ending.wait(self.seconds)

    def record(self) -> Record:
        """Return the mean power of all GPUs together in watts, or None with the reason."""
        if not self.samples:
            return {"watts": None, "samples": 0, "reason": self.reason}
        mean = sum(self.samples) / len(self.samples)
        return {"watts": round(mean, 1), "samples": len(self.samples), "reason": "mean of NVML's readings"}
