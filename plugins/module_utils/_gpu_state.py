# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Decide whether a host's GPUs are as they are expected to be: a record of `_gpu_info` in, findings out."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info import name_gpu, remedy_of
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info_record import Record
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_state_rules import RULES, Expect, Rule

# What is expected of every host that nobody says otherwise of: what a person can say, and these are health.
HEALTH: t.Dict[str, t.Any] = {
    "no_pending_modes": True,
    "no_pending_remap": True,
    "no_retired_pages_pending": True,
    "recovery_action_none": True,
    "fabric_completed": True,
    "temperature_below_slowdown": True,
    "no_slowdown": True,
}


def decide(record: Record, expect: Expect) -> t.List[Finding]:
    """Return the findings: one for a check that every GPU passes, one for each GPU that fails it.

    Args:
        record: what `_gpu_info.read_gpu_info` returns.
        expect: what is expected, by the names of the module gpu_state's option; HEALTH holds where it is silent.
    """
    expect = dict(HEALTH, **{key: value for key, value in expect.items() if value is not None})
    driver, gpus = record["driver"], record["gpus"]
    broken = [gpu for gpu in gpus if gpu["error"]]
    readable = driver["state"] == "ok" or bool(broken)
    findings = [
        finding(
            "gpu.driver",
            readable,
            expected="ok",
            found="ok" if readable else driver["state"],
            detail=driver["message"]
            if not readable
            else "Driver %s, read by %s." % (driver["version"], driver["source"]),
            remedy="" if readable else remedy_of(driver["state"], []),
        )
    ]
    if not readable:
        return findings
    findings += [
        finding(
            "gpu.answers",
            False,
            expected="ok",
            found=gpu["state"],
            detail="%s: %s." % (name_gpu(gpu), gpu["error"].rstrip(".")),
            remedy=remedy_of(gpu["state"], [gpu["index"]]),
        )
        for gpu in broken
    ]
    findings += _of_the_host(driver, gpus, broken, expect)
    whole = [gpu for gpu in gpus if not gpu["error"]]
    for rule in RULES:
        findings += _apply(rule, whole, expect)
    return findings


def _of_the_host(
    driver: Record, gpus: t.Sequence[Record], broken: t.Sequence[Record], expect: Expect
) -> t.Iterator[Finding]:
    version = expect.get("driver_version")
    if version is not None:
        same = driver["version"] == version
        yield finding(
            "gpu.driver_version",
            same,
            expected=version,
            found=driver["version"],
            remedy=""
            if same
            else "Install the driver that the release pins (role gpufleet.llm.nvidia_driver), or reboot if it is "
            "installed and the older module is still loaded.",
        )
    count = expect.get("count")
    answering = len(gpus) - len(broken)
    fits = answering == count if count is not None else answering > 0
    yield finding(
        "gpu.count",
        fits,
        expected="at least 1" if count is None else count,
        found=answering,
        detail="GPUs that answer; the driver counts %d." % len(gpus),
        remedy=""
        if fits
        else "Compare with 'lspci -d 10de:'. A GPU on the bus that isn't counted failed to start: 'dmesg' says why "
        "under NVRM, a wrong flavour of the kernel module (open or proprietary) for one. A GPU that isn't on the bus: "
        "its seat, its power. If the inventory is wrong, mend that.",
    )


def _apply(rule: Rule, gpus: t.Sequence[Record], expect: Expect) -> t.Iterator[Finding]:
    expected = rule.expected(expect)
    if expected is None or not gpus:
        return
    failed = False
    for gpu in gpus:
        problem = rule.judge(gpu, expect)
        if problem is not None:
            failed = True
            yield finding(
                rule.check,
                False,
                expected=expected,
                found=problem.found,
                detail="%s, %s." % (name_gpu(gpu), gpu["name"] or "of an unknown model"),
                remedy=problem.remedy,
                severity=problem.severity,
            )
    if not failed:
        everyone = "GPU %d" % gpus[0]["index"] if len(gpus) == 1 else "all %d GPUs that answer" % len(gpus)
        yield finding(rule.check, True, expected=expected, found=expected, detail="So it is on %s." % everyone)
