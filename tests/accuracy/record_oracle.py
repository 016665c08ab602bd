#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the built engine what the oracle's tests ask, and keep its answers: test_oracle_recorded.py needs no engine.

tests/accuracy/record_oracle.py     writes recorded/layers.json and recorded/layout.json (minutes)
"""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded"


def write(name: str, content: t.Mapping[str, t.Any]) -> None:
    """Write a line for each answer."""
    lines = ",\n".join("  %s" % json.dumps(answer, sort_keys=True) for answer in content["answers"])
    (RECORDED / name).write_text('{"vllm": %s, "answers": [\n%s\n]}\n' % (json.dumps(content["vllm"]), lines))


def main() -> None:
    """Ask and write."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import conftest

    conftest.pytest_configure()
    import oracle
    import test_oracle_layers
    import test_oracle_layout

    RECORDED.mkdir(exist_ok=True)
    cases = test_oracle_layers.cases()
    answers = oracle.ask(test_oracle_layers.VERSION, test_oracle_layers.questions(cases))
    kept = [dict(test_oracle_layers.compact(answer), name=name) for (name, _config), answer in zip(cases, answers)]
    write("layers.json", {"vllm": test_oracle_layers.VERSION, "answers": kept})
    asked = test_oracle_layout.questions()[:: test_oracle_layout.RECORDED_EVERY]
    told = oracle.ask(test_oracle_layout.VERSION, asked)
    write("layout.json", {"vllm": test_oracle_layout.VERSION, "answers": told})


if __name__ == "__main__":
    main()
