# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixture of these tests."""

from __future__ import annotations

import pytest
from driver_support import FakeHost


@pytest.fixture
def host() -> FakeHost:
    """Return an empty host."""
    return FakeHost()
