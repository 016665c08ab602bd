# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import typing as t

import pytest


@pytest.fixture
def fleet(tmp_path: pathlib.Path) -> t.Any:
    import pki_fleet  # it imports the collection, which pytest can only once it is configured

    return pki_fleet.make(tmp_path / "pki")
