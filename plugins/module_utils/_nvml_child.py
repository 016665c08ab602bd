# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Run what may hang, or take the process with it, in a child with a deadline."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import time
import typing as t

PR_SET_PDEATHSIG = 1
READ_BYTES = 65536
# How long a killed child may take to go. One that hangs inside the kernel never does.
REAP_SECONDS = 1.0

Send = t.Callable[[t.Any], None]
Produce = t.Callable[[Send], None]


class Answer(t.NamedTuple):
    """What a child sent, and how it ended."""

    parts: t.List[t.Any]
    end: str  # done, timeout, died
    detail: str  # a sentence unless done


def run_in_child(produce: Produce, timeout_seconds: float) -> Answer:
    """Call ``produce(send)`` in a forked child; return what it sent, also when it never ended.

    The child has no standard streams and no descriptor of ours but its pipe, so that one which can't even be killed
    keeps nobody waiting.

    Args:
        produce: sends JSON-serialisable values, each as soon as it is known.
        timeout_seconds: after that long the child is killed.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        child_main(produce, writer)
    os.close(writer)
    try:
        text, in_time = read_until(reader, time.monotonic() + timeout_seconds)
    finally:
        os.close(reader)
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    status = reap(pid, REAP_SECONDS)
    return judge(text, in_time, status, pid, timeout_seconds)


def child_main(produce: Produce, writer: int) -> t.NoReturn:
    """Be the child: cut off from the parent, send, leave without its exit handlers."""
    code = 1
    try:
        detach(writer)
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:

            def send(value: t.Any) -> None:
                pipe.write(json.dumps({"part": value}) + "\n")
                pipe.flush()

            try:
                produce(send)
                last: t.Dict[str, t.Any] = {"done": True}
            except Exception as exc:  # noqa: BLE001 - whatever it is, the parent tells it
                last = {"failed": "%s: %s" % (type(exc).__name__, exc)}
            pipe.write(json.dumps(last) + "\n")
        code = 0
    finally:
        os._exit(code)


def detach(keep: int) -> None:
    """Die with the parent, and close every descriptor but one; the standard streams lead nowhere."""
    os.setsid()
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        pass  # not glibc: the deadline still holds
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number != keep:
            try:
                os.close(number)
            except OSError:
                pass  # the descriptor of this very listing


def read_until(reader: int, deadline: float) -> t.Tuple[str, bool]:
    """Read to the end of a pipe; return the text, and whether the end came before the deadline."""
    chunks: t.List[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return b"".join(chunks).decode("utf-8", "replace"), False
        chunk = os.read(reader, READ_BYTES)
        if not chunk:
            return b"".join(chunks).decode("utf-8", "replace"), True
        chunks.append(chunk)


def reap(pid: int, seconds: float) -> t.Optional[int]:
    """Return a child's wait status, None when it hasn't ended by then."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > deadline:
            return None
        time.sleep(0.001)


def judge(text: str, in_time: bool, status: t.Optional[int], pid: int, timeout_seconds: float) -> Answer:
    """Return what a child's text and its end mean."""
    parts: t.List[t.Any] = []
    end, detail = "", ""
    for line in text.split("\n"):
        try:
            message = json.loads(line)
        except ValueError:
            continue  # the child was stopped within a line, or this is the empty one after the last
        if "part" in message:
            parts.append(message["part"])
        elif "failed" in message:
            end, detail = "died", message["failed"]
        else:
            end = "done"
    if not end and not in_time:
        end, detail = "timeout", "no answer in %g s" % timeout_seconds
        if status is None:
            detail += "; process %d hangs inside the kernel and can't be killed" % pid
    elif not end:
        signal_number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else 0
        how = "signal %s" % signal.Signals(signal_number).name if signal_number else "status %s" % status
        end, detail = "died", "the reading process ended by %s" % how
    return Answer(parts, end, detail)
