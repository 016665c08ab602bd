# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A child that answers, hangs, dies, or can't be killed."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _nvml_child as child


def test_what_is_sent_arrives_in_order():
    def produce(send):
        for number in range(3):
            send({"number": number, "text": "é" * 40000})

    answer = child.run_in_child(produce, 10)
    assert [part["number"] for part in answer.parts] == [0, 1, 2]
    assert (answer.end, answer.detail) == ("done", "")


def test_one_that_hangs_is_killed_and_what_it_sent_is_kept():
    def produce(send):
        send(os.getpid())
        time.sleep(3600)

    began = time.monotonic()
    # Long enough for a child that starts on a busy machine to have sent what it sends first.
    answer = child.run_in_child(produce, 3)
    assert time.monotonic() - began < 60
    assert (answer.end, answer.detail) == ("timeout", "no answer in 3 s")
    with pytest.raises(ProcessLookupError):
        os.kill(answer.parts[0], 0)


def test_one_that_dies_by_a_signal():
    def produce(send):
        send("before")
        os.kill(os.getpid(), signal.SIGSEGV)

    answer = child.run_in_child(produce, 10)
    assert answer == (["before"], "died", "the reading process ended by signal SIGSEGV")


def test_one_that_leaves():
    answer = child.run_in_child(lambda send: os._exit(3), 10)
    assert answer == ([], "died", "the reading process ended by status 768")


def test_an_exception_is_told():
    def produce(send):
        raise KeyError("gone")

    assert child.run_in_child(produce, 10) == ([], "died", "KeyError: 'gone'")


def test_it_holds_nothing_of_ours():
    """Else a child that can't be killed would keep the module's caller waiting for the end of its output."""
    reader, writer = os.pipe()

    def produce(send):
        send([os.readlink("/proc/self/fd/%d" % number) for number in (0, 1, 2)])
        send(sorted(map(int, os.listdir("/proc/self/fd"))))
        send(os.getsid(0) == os.getpid())

    streams, numbers, own_session = child.run_in_child(produce, 10).parts
    os.close(reader)
    os.close(writer)
    assert streams == ["/dev/null"] * 3
    assert len(numbers) == 5  # those three, its pipe, and the listing itself
    assert own_session


def test_one_that_cannot_be_killed_is_left_alone(monkeypatch):
    monkeypatch.setattr(child, "REAP_SECONDS", 0.05)
    monkeypatch.setattr(child.os, "waitpid", lambda _pid, _options: (0, 0))
    answer = child.run_in_child(lambda send: send(os.getpid()), 10)
    assert answer.end == "done"
    text = json.dumps({"part": 7})
    answer = child.judge(text + '\n{"par', False, None, 4711, 2.0)
    assert answer.parts == [7]
    assert answer.detail == "no answer in 2 s; process 4711 hangs inside the kernel and can't be killed"


class ExitedError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("fails", [False, True])
def test_the_childs_own_steps(monkeypatch, fails):
    """The same code without the fork, where it can be looked into."""
    monkeypatch.setattr(child, "detach", lambda keep: None)

    def leave(code):
        raise ExitedError(code)

    monkeypatch.setattr(child.os, "_exit", leave)

    def produce(send):
        send(1)
        if fails:
            raise ValueError("no")

    reader, writer = os.pipe()
    with pytest.raises(ExitedError) as ended:
        child.child_main(produce, writer)
    assert ended.value.args == (0,)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        lines = [json.loads(line) for line in pipe]
    assert lines == [{"part": 1}, {"failed": "ValueError: no"} if fails else {"done": True}]


def test_the_steps_of_cutting_off(monkeypatch):
    """In this process nothing may really be closed: the calls are taken down."""
    calls = []
    monkeypatch.setattr(child.os, "setsid", lambda: calls.append("setsid"))
    monkeypatch.setattr(child.os, "open", lambda path, flags: calls.append(path) or 99)
    monkeypatch.setattr(child.os, "dup2", lambda source, target: calls.append((source, target)))
    monkeypatch.setattr(child.os, "listdir", lambda path: ["0", "1", "2", "7", "8", "9"])

    def close(number):
        if number == 9:
            raise OSError("it was the listing")
        calls.append("close %d" % number)

    monkeypatch.setattr(child.os, "close", close)

    class NoPrctl:
        def __init__(self, name):
            pass

    monkeypatch.setattr(ctypes, "CDLL", NoPrctl)
    child.detach(8)
    monkeypatch.undo()
    assert calls == ["setsid", "/dev/null", (99, 0), (99, 1), (99, 2), "close 7"]
