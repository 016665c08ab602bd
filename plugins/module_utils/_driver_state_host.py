# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""This very host, as ``_driver_state_read`` looks at it."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._host_read import LocalHost


class LocalDriverHost(LocalHost):
    """A DriverHost over this very host."""

    def bytes(self, path: str) -> t.Optional[bytes]:
        try:
            with open(path, "rb") as handle:
                return handle.read()
        except OSError:
            return None

    def modified(self, path: str) -> t.Optional[float]:
        try:
            return os.stat(path).st_mtime
        except OSError:
            return None
