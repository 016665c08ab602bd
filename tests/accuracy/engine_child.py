# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts vLLM on a directory that holds a ``config.json`` only; its log says how many tokens its cache has.

Runs in the engine's interpreter: ``engine_child.py DIRECTORY MAX_MODEL_LEN``.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Start and end."""
    from vllm import LLM

    LLM(
        model=sys.argv[1],
        tokenizer=sys.argv[1],
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        dtype="float32",
        max_model_len=int(sys.argv[2]),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
