# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wheel directory with an engine of a few lines, and the lock file for it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

PARSER = """
import argparse
def make_arg_parser(parser):
    parser.add_argument("--dtype")
    parser.add_argument("--max-model-len")
    return parser
"""
FILES = {
    "vllm_tiny": {
        "vllm/__init__.py": "",
        "vllm/entrypoints/__init__.py": "",
        "vllm/entrypoints/openai/__init__.py": "",
        "vllm/entrypoints/openai/cli_args.py": PARSER,
        "vllm/utils/__init__.py": "from argparse import ArgumentParser as FlexibleArgumentParser\n",
    },
    "torch": {
        "torch/__init__.py": "__version__ = '2.0+cpu'\n",
        "torch/tests/test_it.py": "",
        "torch/_C.pyi": "x: int\n",
    },
}


def make_wheel(directory: Path, name: str, version: str, files: dict[str, str]) -> str:
    """Write a wheel; return its line of a lock file."""
    info = "%s-%s.dist-info" % (name, version)
    members = dict(files)
    members[info + "/METADATA"] = "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version)
    members[info + "/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if name == "vllm_tiny":
        members[info + "/entry_points.txt"] = "[console_scripts]\nvllm = vllm:main\n"
    members[info + "/RECORD"] = "".join("%s,,\n" % member for member in [*members, info + "/RECORD"])
    path = directory / ("%s-%s-py3-none-any.whl" % (name, version))
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in members.items():
            wheel.writestr(member, text)
    return "%s==%s \\\n    --hash=sha256:%s\n" % (name, version, hashlib.sha256(path.read_bytes()).hexdigest())


def make_wheels(directory: Path) -> str:
    """Fill a wheel directory; return the text of the lock file that pins all of it."""
    directory.mkdir()
    return "".join(make_wheel(directory, name, "1.0", files) for name, files in FILES.items())
