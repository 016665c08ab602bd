# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module driver_switch in this process, over a host in a directory: switch_child.py ROOT JSON-ARGUMENTS."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "collections"))

from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_host
from ansible_collections.gpufleet.llm.plugins.modules import driver_switch

ROOT = sys.argv[1]


class HostInDirectory(_driver_state_host.LocalDriverHost):
    """Files are looked for below the directory; commands are real ones, found by PATH; the journal is where it is."""

    def read(self, path: str) -> str | None:
        return super().read(self._below(path))

    def names(self, path: str) -> list[str]:
        return super().names(self._below(path))

    def link(self, path: str) -> str:
        return super().link(self._below(path))

    def modified(self, path: str) -> float | None:
        return super().modified(self._below(path))

    def machine(self) -> dict[str, str]:
        return dict(super().machine(), kernel="6.1.0-50-amd64")

    @staticmethod
    def _below(path: str) -> str:
        return path if path.startswith(ROOT) else os.path.join(ROOT, path.lstrip("/"))


_driver_state_host.LocalDriverHost = HostInDirectory
with patch_module_args(json.loads(sys.argv[2])):
    driver_switch.main()
