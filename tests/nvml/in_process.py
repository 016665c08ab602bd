# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real nvidia-ml-py over the stub library, in the process of the tests."""

from __future__ import annotations

import ctypes
import json
import typing as t
from pathlib import Path

import pynvml
import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_info, _nvml, _nvml_child
from nvml import build


class Silent:
    """A Runner over a host that has nothing but the files given."""

    def __init__(self, files: dict[str, str] | None = None) -> None:
        self.files = files or {}
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: t.Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(tuple(argv))
        return 127, "", "no such command"

    def read(self, path: str) -> str | None:
        return self.files.get(path)


class Stub:
    """Reads scenarios through the library of this test run."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.monkeypatch = monkeypatch
        self.log = directory / "calls.log"
        self.log.unlink(missing_ok=True)

    def load(self, name_or_scenario: str | build.Scenario) -> build.Scenario:
        """Make pynvml answer by a scenario, with a library that lacks what the scenario's lacks."""
        scenario = build.load(name_or_scenario) if isinstance(name_or_scenario, str) else build.expand(name_or_scenario)
        missing = sorted(scenario.get("symbols_missing", ()))
        library = self.directory / ("old" if missing else "new")
        if not (library / build.LIBRARY).exists():
            build.build(library, missing)
        path = self.directory / "scenario.json"
        path.write_text(json.dumps(scenario), encoding="utf-8")
        self.monkeypatch.setenv("GPUFLEET_NVML_SCENARIO", str(path))
        self.monkeypatch.setenv("GPUFLEET_NVML_LOG", str(self.log))
        self.monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library / build.LIBRARY)))
        self.monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return scenario

    def read(self, name_or_scenario: str | build.Scenario, files: dict[str, str] | None = None) -> dict[str, t.Any]:
        """Return what is read of a scenario in this very process."""
        self.load(name_or_scenario)
        sent: list[t.Any] = []
        _nvml.produce("", sent.append)
        record = _gpu_info.assemble(_nvml_child.Answer(json.loads(json.dumps(sent)), "done", ""))
        _gpu_info.settle(record, Silent(files))
        return record

    def calls(self) -> list[str]:
        """Return the names of the functions that the library was asked, in order."""
        return self.log.read_text(encoding="utf-8").split() if self.log.exists() else []
