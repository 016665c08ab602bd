# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher: a key that authenticates nobody starts nothing, and a good one is in no argument of an exec."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).parents[3] / "roles" / "vllm" / "files" / "vllm_launch.py"
KEY = "sk-" + "ab" * 32

FAKE = """
import json, os, sys
def main():
    print(json.dumps({
        "argv": sys.argv,
        "os_argv": open("/proc/self/cmdline").read(),
        "environ": open("/proc/self/environ").read(),
    }))
"""


def launch(tmp_path, key):
    package = tmp_path / "site" / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    for directory in (package, package.parent, package.parent.parent):
        (directory / "__init__.py").write_text("")
    (package / "main.py").write_text(FAKE)
    if key is not None:
        (tmp_path / "api_key").write_text(key)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path), "PYTHONPATH": str(tmp_path / "site"), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, str(LAUNCHER), "/c.yaml", "/e.sock"], env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("key", [None, "", "  \n", "short", "two words that are longer than thirty-two"])
def test_a_key_that_authenticates_nobody_ends_with_78_and_a_remedy(tmp_path, key):
    done = launch(tmp_path, key)
    assert done.returncode == 78
    assert "Remedy" in done.stderr
    assert done.stdout == ""
    if key and key.strip():
        assert key not in done.stderr


def test_a_good_key_reaches_vllm_and_nobody_else(tmp_path):
    import json

    done = launch(tmp_path, KEY + "\n")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["argv"] == ["vllm", "serve", "--config", "/c.yaml", "--uds", "/e.sock", "--api-key", KEY]
    assert KEY not in seen["os_argv"]
    assert KEY not in seen["environ"]
