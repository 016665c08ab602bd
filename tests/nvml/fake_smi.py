#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for nvidia-smi, to be installed as ``nvidia-smi`` on a PATH.

It answers by ``nvidia-smi.json`` beside it, in nvidia-smi's own forms: ``fields`` are those it knows (one that it
doesn't know ends it by status 2 and the tool's own sentence), ``listed_only`` those its help lists and it refuses all
the same, ``gpus`` a list of {field: text}, ``processes`` lines for --query-compute-apps, ``header`` the plain output.
``fail`` is {status, text} for everything but the help; ``help`` false makes even that unknown.
"""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path


def ask(answers: dict[str, t.Any], arguments: list[str]) -> tuple[int, str]:
    """Return the exit status and the text for these arguments."""
    if "--help-query-gpu" in arguments:
        if not answers.get("help", True):
            return 2, "Option --help-query-gpu is not recognized.\n"
        return 0, "List of valid properties to query:\n\n" + "".join(
            '"%s"\nWhat it is about.\n\n' % name for name in answers["fields"]
        )
    if "fail" in answers:
        return answers["fail"]["status"], answers["fail"]["text"]
    for argument in arguments:
        option, _sep, names = argument.partition("=")
        if option == "--query-compute-apps":
            lines = answers.get("processes")
            return (0, "".join(line + "\n" for line in lines)) if lines is not None else (1, "")
        if option == "--query-gpu":
            asked = names.split(",")
            for name in asked:
                if name not in answers["fields"] or name in answers.get("listed_only", ()):
                    return 2, 'Field "%s" is not a valid field to query.\n\n' % name
            if not answers["gpus"]:
                return 6, "No devices were found\n"
            return 0, "".join(", ".join(gpu.get(name, "[N/A]") for name in asked) + "\n" for gpu in answers["gpus"])
    return 0, answers.get("header", "")


def main() -> None:
    answers = json.loads((Path(sys.argv[0]).parent / "nvidia-smi.json").read_text(encoding="utf-8"))
    status, text = ask(answers, sys.argv[1:])
    sys.stdout.write(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
