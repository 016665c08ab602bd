# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stub of NVML, built once a run."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the libraries of this run are built, each once."""
    return tmp_path_factory.mktemp("nvml")


@pytest.fixture
def stub(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> t.Any:
    """Reads scenarios: see ``nvml.in_process.Stub``."""
    from nvml.in_process import Stub  # the collection can't be imported yet when pytest reads this file

    return Stub(libraries, monkeypatch)
