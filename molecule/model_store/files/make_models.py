# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make two tiny models and their checksums below the directory given: no sense in them, but every file well formed."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path

SIZE = 4 * 1024 * 1024


def make(folder: Path, seed: str) -> None:
    """Write a model's files and ``<folder>.sums``."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    files = {
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "seed": seed}).encode(),
        "sub/vocab.txt": b"a\nb\n",
        "model.safetensors": struct.pack("<Q", len(header)) + header + hashlib.shake_256(seed.encode()).digest(SIZE),
    }
    sums = ""
    for path, data in sorted(files.items()):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.write_bytes(data)
        sums += "%s  %s\n" % (hashlib.sha256(data).hexdigest(), path)
    Path("%s.sums" % folder).write_text(sums)


if __name__ == "__main__":
    for name in ("remote", "local"):
        make(Path(sys.argv[1]) / name, name)
