# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Finds what in facts.yml doesn't fit together: names that nothing defines, numbers that contradict each other."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._release import numbers

Facts = t.Dict[str, t.Any]


def check_facts(facts: Facts) -> t.List[Finding]:
    """Return one finding per link within the facts."""
    return [
        _link(
            "facts.gpus.architecture",
            _gpus_of_no_architecture(facts),
            "an architecture with the GPU's compute capability",
        ),
        _link(
            "facts.gpus.fabric", _boards_without_fabric(facts), "a first branch for each fabric manager, and no other"
        ),
        _link(
            "facts.gpus.pci_ranges",
            _overlaps(facts),
            "ranges apart from the GPUs that are named, of known architectures",
        ),
        _link("facts.architectures.driver", _unknown_branches(facts), "branches that driver_branches has"),
        _link("facts.architectures.modules", _undriven(facts), "at least one flavour of kernel modules"),
        _link(
            "facts.cuda.floor", _floors(facts), "the floor of its major version, no higher than the toolkit's driver"
        ),
        _link(
            "facts.driver_branches.cuda", _branch_levels(facts), "a CUDA level whose toolkit shipped with the branch"
        ),
        _link("facts.driver_branches.status", _statuses(facts), "a last month for every branch with support"),
        _link("facts.forward_compatibility", _matrix(facts), "levels of cuda, columns of driver_branches"),
        _link("facts.container_toolkit", _container(facts), "a newest version at or above the safe one"),
    ]


def _link(check: str, wrong: t.List[str], expected: str) -> Finding:
    return finding(
        check,
        not wrong,
        expected=expected,
        found=", ".join(wrong) or "all so",
        detail="releases/facts.yml.",
        remedy="Mend the entry.",
    )


def _gpus_of_no_architecture(facts: Facts) -> t.List[str]:
    return [
        device_id
        for device_id, gpu in sorted(facts["gpus"].items())
        if gpu["compute_capability"]
        not in facts["architectures"].get(gpu["architecture"], {}).get("compute_capabilities", [])
    ]


def _boards_without_fabric(facts: Facts) -> t.List[str]:
    boards = {device_id for device_id, gpu in facts["gpus"].items() if gpu["fabric"] in ("nvswitch", "nvlink5")}
    return sorted(boards ^ set(facts["fabric_manager_minimum_branch"]))


def _overlaps(facts: Facts) -> t.List[str]:
    return [
        "%s-%s" % (span["first"], span["last"])
        for span in facts["pci_ranges"]
        if span["first"] > span["last"]
        or set(span["architectures"]) - set(facts["architectures"])
        or any(span["first"] <= device_id <= span["last"] for device_id in facts["gpus"])
    ]


def _unknown_branches(facts: Facts) -> t.List[str]:
    return [
        name
        for name, entry in sorted(facts["architectures"].items())
        if {entry["first_driver"], entry["last_driver"]} - {None} - set(facts["driver_branches"])
    ]


def _undriven(facts: Facts) -> t.List[str]:
    return [
        name
        for name, entry in sorted(facts["architectures"].items())
        if not entry["open_module"] and not entry["proprietary_module"]
    ]


def _floors(facts: Facts) -> t.List[str]:
    majors = facts["minor_version_compatibility"]
    return [
        level
        for level, entry in sorted(facts["cuda"].items())
        if majors.get(level.split(".", maxsplit=1)[0], {}).get("minimum_driver") != entry["mvc_floor"]
        or (entry["toolkit_driver"] and numbers(entry["toolkit_driver"]) < numbers(entry["mvc_floor"]))
    ]


def _branch_levels(facts: Facts) -> t.List[str]:
    wrong = []
    for branch, entry in sorted(facts["driver_branches"].items()):
        level = facts["cuda"].get(entry["cuda"]) if entry["cuda"] else None
        driver = level["toolkit_driver"] if level else None
        if (entry["cuda"] and not level) or (driver and driver.split(".")[0] != branch):
            wrong.append(branch)
    return wrong


def _statuses(facts: Facts) -> t.List[str]:
    """Return supported branches without a last month; whether it is over is decided on a release's day."""
    return [
        branch
        for branch, entry in sorted(facts["driver_branches"].items())
        if entry["status"] == "supported" and entry["end_of_life"] is None
    ]


def _matrix(facts: Facts) -> t.List[str]:
    return [
        level
        for level, row in sorted(facts["forward_compatibility"]["matrix"].items())
        if level not in facts["cuda"] or set(row) - set(facts["driver_branches"])
    ]


def _container(facts: Facts) -> t.List[str]:
    entry = facts["container_toolkit"]
    return [entry["newest_seen"]] if numbers(entry["newest_seen"]) < numbers(entry["minimum_safe"]) else []
