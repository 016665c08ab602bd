#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the summary of receipts: receipt_summary.py RECEIPT.json…"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(paths: list[str]) -> int:
    """Print one summary per file; return 1 when a file is no receipt or says that its host isn't proved."""
    # The script's own directory goes, for a name in it must not hide a module of the standard library.
    sys.path[0] = str(ROOT / "collections")
    receipts = importlib.import_module("ansible_collections.gpufleet.llm.plugins.module_utils._receipt")
    status = 0
    for path in paths:
        receipt = receipts.parse(receipts.read_text(path))
        if receipt is None:
            print("%s: found no receipt, expected one as the role gpu_validate writes it." % path, file=sys.stderr)
            status = 1
            continue
        print("\n".join(receipts.summary_lines(receipt)))
        if not receipt["ok"]:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
