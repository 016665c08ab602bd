#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the stand-in for libnvidia-ml.so.1, for the tests or to be installed on a lab host.

Usage: tests/nvml/build.py --out DIR [--scenario NAME | --scenario-file FILE] [--include DIR]

DIR gets ``libnvidia-ml.so.1`` and ``scenario.json``, which the library reads anew by every nvmlInit: replace the file
and the host has other GPUs. On a host, copy DIR there, name it in ``/etc/ld.so.conf.d/`` and run ldconfig; a test says
``LD_LIBRARY_PATH=DIR``. ``GPUFLEET_NVML_SCENARIO`` names another file than the one beside the library.

A scenario is a JSON file: see ``profiles.json`` and ``scenarios/``. ``profile`` names what a GPU starts from, ``count``
makes several of it; whatever else stands beside them replaces the profile's values. ``symbols_missing`` lists functions
that this driver's library doesn't have, ``library_missing`` says that there is none at all. ``expect`` is what show.py
and the tests ask the module gpu_state to assert.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCENARIOS = HERE / "scenarios"
SOURCES = ("stub.c", "stub_health.c", "scenario.c")
LIBRARY = "libnvidia-ml.so.1"

Scenario = t.Dict[str, t.Any]


def names() -> list[str]:
    """Return the names of the scenarios."""
    return sorted(path.stem for path in SCENARIOS.glob("*.json"))


def merge(base: t.Any, over: t.Any) -> t.Any:
    """Return base with over's values put in, dict by dict; null takes a value away."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return copy.deepcopy(over)
    merged = copy.deepcopy(base)
    for key, value in over.items():
        merged[key] = merge(merged.get(key), value)
    return merged


def expand(scenario: Scenario) -> Scenario:
    """Return a scenario with the profiles filled in and each GPU written out: what the library reads."""
    profiles = json.loads((HERE / "profiles.json").read_text(encoding="utf-8"))
    whole = merge(
        dict(profiles["host"], expect=profiles["expect"]),
        {key: value for key, value in scenario.items() if key != "gpus"},
    )
    gpus: list[t.Any] = []
    for entry in scenario.get("gpus", []):
        base = profiles["gpus"][entry["profile"]] if "profile" in entry else {}
        for _number in range(entry.get("count", 1)):
            index = len(gpus)
            own = {
                "uuid": "GPU-%08x-0000-4000-8000-%012x" % (index + 1, index + 1),
                "minor": index,
                "pci": {"bus_id": "%08X:%02X:00.0" % (0, 0x1B + 0x11 * index)},
            }
            over = {key: value for key, value in entry.items() if key not in ("profile", "count")}
            gpus.append(merge(merge(base, own), over))
    whole["gpus"] = gpus
    return t.cast(Scenario, whole)


def load(name_or_path: str) -> Scenario:
    """Return a scenario by its name or file, expanded."""
    path = Path(name_or_path)
    if not path.suffix:
        path = SCENARIOS / (name_or_path + ".json")
    return expand(json.loads(path.read_text(encoding="utf-8")))


def include_directory() -> str:
    """Return where ``nvml.h`` of the Python package nvidia-nvml-dev is.

    Raises:
        FileNotFoundError: it isn't installed.
    """
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for header in sorted(Path(place).glob("*/include/nvml.h"), reverse=True):
            return str(header.parent)
    raise FileNotFoundError("nvml.h isn't here: install nvidia-nvml-dev (requirements/dev.in), or name its directory")


def build(out: Path, symbols_missing: t.Sequence[str] = (), include: str | None = None) -> Path:
    """Compile the library into a directory; return its path.

    ``symbols_missing`` are not exported, as in the library of a driver that is older than they are.
    """
    out.mkdir(parents=True, exist_ok=True)
    library = out / LIBRARY
    hidden = "".join(" %s;" % name for name in sorted(symbols_missing))
    with tempfile.TemporaryDirectory() as scratch:
        exports = Path(scratch) / "exports.map"
        exports.write_text("{ global: nvml*; local:%s *; };\n" % hidden, encoding="utf-8")
        fresh = Path(scratch) / LIBRARY
        command = [
            os.environ.get("CC", "gcc"), "-std=gnu11", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror",
            "-Wno-deprecated-declarations", "-I%s" % (include or include_directory()), "-Wl,-soname,%s" % LIBRARY,
            "-Wl,--version-script,%s" % exports, "-o", str(fresh), *SOURCES, "-ldl",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError("%s failed:\n%s" % (" ".join(command), done.stderr))
        # A library that is mapped by a process must not be written to: the new one takes its name.
        staged = out / (LIBRARY + ".new")
        staged.write_bytes(fresh.read_bytes())
        staged.chmod(0o755)
        staged.replace(library)
    return library


def write_scenario(out: Path, scenario: Scenario) -> Path:
    """Write the file that the library beside it reads."""
    path = out / "scenario.json"
    path.write_text(json.dumps(scenario, indent=1) + "\n", encoding="utf-8")
    return path


def install(out: Path, name_or_path: str, include: str | None = None) -> Scenario:
    """Build the library and write the scenario into a directory; without a library where the scenario has none."""
    scenario = load(name_or_path)
    out.mkdir(parents=True, exist_ok=True)
    write_scenario(out, scenario)
    if scenario.get("library_missing"):
        (out / LIBRARY).unlink(missing_ok=True)
    else:
        build(out, scenario.get("symbols_missing", ()), include)
    return scenario


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, type=Path, help="directory to write to")
    parser.add_argument("--scenario", default="h100x8", choices=names(), help="one of scenarios/, h100x8 by default")
    parser.add_argument("--scenario-file", help="a scenario of your own instead")
    parser.add_argument("--include", help="directory of nvml.h; that of the package nvidia-nvml-dev by default")
    given = parser.parse_args()
    try:
        scenario = install(given.out, given.scenario_file or given.scenario, given.include)
    except (OSError, RuntimeError) as exc:
        sys.exit(str(exc))
    print("%s: %d GPUs in %s" % (given.out / LIBRARY, len(scenario["gpus"]), given.out / "scenario.json"))


if __name__ == "__main__":
    main()
