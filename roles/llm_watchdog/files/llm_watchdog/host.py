# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host around the engines: systemd's units, the processes of a unit, the breaker files of the proxy."""

from __future__ import annotations

import asyncio
import json
import os
import time
import typing as t

COMMAND_SECONDS = 10.0
PROPERTIES = ("Id", "ActiveState", "InvocationID", "ControlGroup", "ExecMainStartTimestampMonotonic")
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
TICKS = float(os.sysconf("SC_CLK_TCK"))
MARK = "# llm_watchdog: "
DOWN = '"" down;\n'


class Unit(t.NamedTuple):
    """What systemd says of a unit; ``started_at`` in seconds of CLOCK_MONOTONIC."""

    active_state: str = "unknown"
    invocation: str = ""
    control_group: str = ""
    started_at: float = 0.0


async def command(*argv: str) -> t.Tuple[int, str]:
    """Run a command; return exit status and what it said, 124 after COMMAND_SECONDS."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as exc:
        return 127, str(exc)
    try:
        out, _err = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        return 124, "%s gave no answer in %d s" % (argv[0], COMMAND_SECONDS)
    return process.returncode or 0, out.decode("utf-8", "replace").strip()


def parse_units(text: str) -> t.Dict[str, Unit]:
    """Return units by name from the output of ``systemctl show`` with PROPERTIES."""
    found = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id"):
            found[values["Id"]] = Unit(
                values.get("ActiveState", "unknown"),
                values.get("InvocationID", ""),
                values.get("ControlGroup", ""),
                int(values.get("ExecMainStartTimestampMonotonic") or 0) / 1e6,
            )
    return found


async def units(names: t.Sequence[str]) -> t.Dict[str, Unit]:
    """Ask systemd; a unit that it says nothing about is ``unknown``, and nothing is done about such a one."""
    rc, out = await command("systemctl", "show", "--property=" + ",".join(PROPERTIES), "--", *names)
    found = parse_units(out) if rc == 0 else {}
    return {name: found.get(name, Unit()) for name in names}


async def kill(unit: str, invocation: str) -> str:
    """Kill every process of a unit if it is still that invocation, and active; return why not, or an empty string."""
    now = (await units([unit]))[unit]
    if (now.active_state, now.invocation) != ("active", invocation):
        return "%s is %s, invocation %s" % (unit, now.active_state, now.invocation or "none")
    rc, out = await command("systemctl", "kill", "--signal=SIGKILL", "--", unit)
    return "" if rc == 0 else "systemctl kill exited with %d: %s" % (rc, out)


class Labour:
    """Whether the processes of a control group compute or wait for a processor; a stopped one does neither.

    A sample is kept for ``span`` seconds. It works if it used ``share`` of a processor over the samples, or if a thread
    of it was runnable (or in uninterruptible sleep) in half of them.
    """

    def __init__(self, span: float = 2.0, share: float = 0.2) -> None:
        self.span = span
        self.share = share
        self.samples: t.List[t.Tuple[float, float, bool]] = []

    def forget(self) -> None:
        self.samples = []

    def note(self, now: float, seconds: float, runnable: bool) -> None:
        """Keep a sample: processor seconds used so far, and whether a thread is runnable."""
        self.samples = [one for one in self.samples if now - one[0] <= self.span] + [(now, seconds, runnable)]

    def working(self) -> bool:
        if len(self.samples) < 2:
            return False
        (began, used, _first), (ended, used_at_end, _last) = self.samples[0], self.samples[-1]
        if ended > began and (used_at_end - used) / (ended - began) >= self.share:
            return True
        return sum(one[2] for one in self.samples) * 2 >= len(self.samples)


def processes(control_group: str, roots: t.Sequence[str] = CGROUPS) -> t.List[int]:
    """Return the processes of a control group and those below it."""
    for root in roots:
        top = root + control_group
        if not control_group or not os.path.isdir(top):
            continue
        found = []
        for directory, _below, names in os.walk(top):
            if "cgroup.procs" in names:
                try:
                    with open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as handle:
                        found += [int(line) for line in handle]
                except OSError:
                    continue
        return found
    return []


def parse_stat(text: str) -> t.Tuple[str, float]:
    """Return state and processor seconds of a process or thread, from its /proc stat line."""
    fields = text.rpartition(")")[2].split()
    return fields[0], (int(fields[11]) + int(fields[12])) / TICKS


def usage(pids: t.Sequence[int], proc: str = "/proc") -> t.Tuple[float, bool]:
    """Return (processor seconds used so far, whether a thread is runnable) of processes; one that is gone counts 0."""
    seconds, runnable = 0.0, False
    for pid in pids:
        try:
            with open("%s/%d/stat" % (proc, pid), encoding="ascii", errors="replace") as handle:
                seconds += parse_stat(handle.read())[1]
            for thread in [] if runnable else os.listdir("%s/%d/task" % (proc, pid)):
                with open("%s/%d/task/%s/stat" % (proc, pid, thread), encoding="ascii", errors="replace") as handle:
                    runnable = runnable or parse_stat(handle.read())[0] in "RD"
        except (OSError, ValueError, IndexError):
            continue
    return seconds, runnable


def breaker_state(path: str) -> t.Tuple[bool, bool]:
    """Return (the file is there, somebody else than the watchdog wrote it)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return True, not handle.readline().startswith(MARK)
    except FileNotFoundError:
        return False, False
    except OSError:
        return True, True


def write_breaker(path: str, reason: str) -> None:
    """Take a model out: the proxy's contract wants this line; the comment says whose it is."""
    replace(path, MARK + " ".join(reason.split()) + "\n" + DOWN, 0o644)


def remove_breaker(path: str) -> None:
    """Put a model back."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def replace(path: str, text: str, mode: int = 0o644) -> None:
    """Replace a small file atomically."""
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as handle:
        os.fchmod(handle.fileno(), mode)
        handle.write(text)
    os.replace(temporary, path)


def in_maintenance(path: str, seconds: float) -> bool:
    """Return whether somebody put a marker there, younger than this many seconds."""
    try:
        return time.time() - os.stat(path).st_mtime < seconds
    except OSError:
        return False


def boot_id() -> str:
    """Return what tells this boot from another: monotonic times of another one mean nothing."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def load(path: str) -> t.Dict[str, t.Any]:
    """Return what was remembered in this boot, or nothing."""
    try:
        with open(path, encoding="utf-8") as handle:
            kept = json.load(handle)
        return kept if isinstance(kept, dict) and kept.get("boot_id") == boot_id() else {}
    except (OSError, ValueError):
        return {}


def save(path: str, content: t.Mapping[str, t.Any]) -> None:
    """Remember it, for this boot."""
    replace(path, json.dumps(dict(content, boot_id=boot_id()), sort_keys=True), 0o600)
