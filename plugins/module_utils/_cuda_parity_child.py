# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Run the probe in its own interpreter, with a deadline: a driver that hangs and a torch that dies are findings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_script as script

#: A process in a driver's uninterruptible sleep can't be killed; it isn't waited for longer than this.
REAP_SECONDS = 5.0
ERROR_LIMIT = 800

Record = t.Dict[str, t.Any]


class Ended(t.NamedTuple):
    """How a child ended.

    Attributes:
        status: exit status, negative for a signal; None when its time was up.
        out: what it wrote to standard output until then.
        err: likewise, standard error.
    """

    status: t.Optional[int]
    out: str
    err: str


Run = t.Callable[[t.Sequence[str], t.Mapping[str, str], float], Ended]


def source() -> str:
    """Return the text of the script, also where this collection is in an archive, as it is on a target."""
    loader: t.Any = script.__loader__
    text = loader.get_source(script.__name__)
    if not text:
        raise RuntimeError("the loader %r tells no source of %s" % (loader, script.__name__))
    # Ansible's own loader on the control node gives bytes.
    return text.decode("utf-8") if isinstance(text, bytes) else str(text)


def environment(extra: t.Mapping[str, t.Any]) -> t.Dict[str, str]:
    """Return the whole environment of a child: nothing is inherited, and what the engine is given is added."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        # The order of NVML and nvidia-smi. A launch that fails says so at once, and where. Nothing is left behind.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_LAUNCH_BLOCKING": "1",
        "CUDA_CACHE_DISABLE": "1",
        **{str(key): str(value) for key, value in extra.items()},
    }


def _text(data: t.Optional[bytes]) -> str:
    return (data or b"").decode("utf-8", "replace")


def run(argv: t.Sequence[str], env: t.Mapping[str, str], timeout_seconds: float) -> Ended:
    """Run a program in a session of its own; when its time is up, kill everything in it."""
    try:
        process = subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as exc:
        return Ended(127, "", str(exc))
    try:
        out, err = process.communicate(timeout=timeout_seconds)
        return Ended(process.returncode, _text(out), _text(err))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    try:
        out, err = process.communicate(timeout=REAP_SECONDS)
    except subprocess.TimeoutExpired as late:
        out, err = late.stdout or b"", late.stderr or b""
    return Ended(None, _text(out), _text(err))


def _cause(ended: Ended, timeout_seconds: float, stage: str) -> t.Tuple[str, t.Optional[str]]:
    where = " at the stage %r" % stage if stage else ""
    if ended.status is None:
        return "timeout", "no answer in %g s%s; it was killed" % (timeout_seconds, where)
    if ended.status < 0:
        try:
            name = signal.Signals(-ended.status).name
        except ValueError:
            name = "signal %d" % -ended.status
        return "killed", "it died of %s%s" % (name, where)
    said = " ".join(ended.err.split())[-ERROR_LIMIT:]
    return "failed", "exit status %d%s: %s" % (ended.status, where, said or "it said nothing")


def ask(
    runner: Run,
    interpreter: t.Sequence[str],
    config: t.Mapping[str, t.Any],
    env: t.Mapping[str, str],
    timeout_seconds: float,
) -> Record:
    """Run the probe and return ``{state, result, error, stage, took_ms}``.

    Args:
        runner: runs it; `run` on a real host.
        interpreter: the interpreter with its options.
        config: what `_cuda_parity_script.probe` is told.
        env: the child's whole environment.
        timeout_seconds: its time.

    ``state`` is done, timeout, killed (by a signal) or failed; ``result`` is null unless it's done.
    """
    began = time.monotonic()
    ended = runner([*interpreter, "-c", source(), json.dumps(config)], env, timeout_seconds)
    told: Record = {"state": "done", "result": None, "error": None, "stage": ""}
    told["took_ms"] = int((time.monotonic() - began) * 1000)
    for line in ended.out.splitlines():
        if line.startswith(script.MARK):
            try:
                said = json.loads(line[len(script.MARK) :])
            except ValueError:  # the child was killed in the middle of the line
                continue
            told["stage"] = said.get("stage", told["stage"])
            told["result"] = said.get("result", told["result"])
    if told["result"] is None:
        told["state"], told["error"] = _cause(ended, timeout_seconds, told["stage"])
    return told
