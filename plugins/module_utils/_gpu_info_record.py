# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The shape of one GPU's record, with nothing known yet."""

from __future__ import annotations

import copy
import typing as t

Record = t.Dict[str, t.Any]

EMPTY: Record = {
    "index": None,
    "state": "ok",
    "error": None,
    "uuid": None,
    "name": None,
    "serial": None,
    "pci_address": None,
    "pci_device_id": None,
    "pci_subsystem_id": None,
    "architecture": None,
    "compute_capability": None,
    "memory_mib": dict.fromkeys(("total", "free", "used", "reserved")),
    "ecc": dict.fromkeys(
        (
            "current",
            "pending",
            "corrected_volatile",
            "uncorrected_volatile",
            "corrected_aggregate",
            "uncorrected_aggregate",
        )
    ),
    "remapped_rows": dict.fromkeys(("correctable", "uncorrectable", "pending", "failure", "histogram")),
    "retired_pages": dict.fromkeys(("single_bit", "double_bit", "pending")),
    "recovery_action": None,
    "clocks_event_reasons": None,
    "temperature_celsius": dict.fromkeys(
        (
            "gpu",
            "memory",
            "margin",
            "shutdown",
            "slowdown",
            "memory_max",
            "gpu_max",
            "shutdown_margin",
            "slowdown_margin",
            "memory_max_margin",
            "gpu_max_margin",
        )
    ),
    "power_watts": dict.fromkeys(("draw", "limit", "limit_default", "limit_min", "limit_max")),
    "pcie": dict.fromkeys(("generation", "generation_max", "generation_gpu_max", "width", "width_max")),
    "nvlink": dict.fromkeys(("links", "active", "inactive_links", "version")),
    "fabric": dict.fromkeys(("state", "status", "health", "clique_id", "cluster_uuid")),
    "mig": dict.fromkeys(("current", "pending", "devices_max", "devices")),
    "persistence": None,
    "processes": None,
}


def empty(index: int) -> Record:
    """Return the record of a GPU of which nothing is known."""
    return dict(copy.deepcopy(EMPTY), index=index)
