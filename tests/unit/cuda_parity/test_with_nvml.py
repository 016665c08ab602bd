# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules over what the real nvidia-ml-py reads of the stub libnvidia-ml: the shapes of both sides fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity
from nvml import build
from parity_chain import PINNED
from support import ROOT


@pytest.mark.parametrize(
    ("scenario", "broken"),
    [
        ("h100x8", []),
        ("mig_on", []),
        ("fabric_not_ready", ["fabric"]),
        ("gpu_lost", ["gpu"]),
        ("no_driver", ["driver"]),
        ("no_permission", ["driver"]),
        ("version_mismatch", ["driver_library"]),
    ],
)
def test_a_scenario_breaks_its_link(record, release, options, tmp_path, scenario, broken):
    build.install(tmp_path, scenario)
    told = subprocess.run(
        [sys.executable, str(ROOT / "tests/nvml/show.py"), "--read"],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    record["gpu"] = json.loads(told.stdout)
    seen = record["gpu"]["gpus"]
    if seen:
        record["pci"]["gpus"] = [
            {"pci_address": "0000:%02x:00.0" % number, "pci_device_id": one["pci_device_id"] or "2330"}
            for number, one in enumerate(seen)
        ]
    record["engine"]["compute"] = None
    assert record["module"]["version"] == PINNED
    assert _cuda_parity.broken_links(_cuda_parity.decide(record, release, options)) == broken
