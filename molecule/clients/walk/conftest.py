# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the walk."""

from __future__ import annotations

import typing as t

import pytest
from control_node import EPHEMERAL, Caller


@pytest.fixture(scope="session")
def address() -> str:
    text = (EPHEMERAL / "inventory" / "lab_hosts.yml").read_text()
    return next(line.split()[-1].strip('"') for line in text.splitlines() if "ansible_host:" in line)


@pytest.fixture(scope="session")
def callers(address: str, tmp_path_factory: pytest.TempPathFactory) -> t.Callable[[str], Caller]:
    folder = tmp_path_factory.mktemp("callers")
    return lambda name: Caller(address, folder / name)
