# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixture of these tests."""

from __future__ import annotations

import typing as t

import pytest


@pytest.fixture
def machine(tmp_path, monkeypatch, capsys) -> t.Iterator[t.Any]:
    """A machine in a directory that can carry a lab and has none; what a test leaves must go by the module itself."""
    from lab_machine import Machine, settle

    made = Machine(tmp_path, capsys)
    settle(tmp_path, monkeypatch)
    yield made
    made.fail()
    (tmp_path / "busy").unlink(missing_ok=True)
    made.call("absent")
    assert made.processes() == []
