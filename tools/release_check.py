#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove every release consistent, offline: each link of the chain from the driver to the engine's wheels.

Prints a line per release, every link that is broken with its remedy, what isn't known, and the support matrix.
Exit status: 0, every release holds; 1, one doesn't; 2, there is none to check.

Usage: tools/release_check.py [--directory DIR] [--release ID]... [--all-links]
"""

from __future__ import annotations

import argparse
import importlib
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE_UTILS = "ansible_collections.gpufleet.llm.plugins.module_utils."


def modules() -> tuple[t.Any, t.Any, t.Any, t.Any]:
    """Return the collection's modules _release, _release_check and _finding, and tools/docs.py."""
    for place in (ROOT / "collections", ROOT / "tools"):
        if str(place) not in sys.path:
            sys.path.insert(0, str(place))
    names = [MODULE_UTILS + "_release", MODULE_UTILS + "_release_check", MODULE_UTILS + "_finding", "docs"]
    release, check, finding, docs = (importlib.import_module(name) for name in names)
    return release, check, finding, docs


def check_one(directory: str, release_id: str, all_links: bool) -> bool:
    """Print what holds in one release and what doesn't; return whether all of it holds."""
    releasing, checking, findings, docs = modules()
    try:
        release = releasing.load(directory, release_id, "releases/%s.yml" % release_id)
    except releasing.ReleaseError as exc:
        print("%s: can't be used\n%s\n" % (release_id, exc))
        return False
    links = checking.check_consistency(release)
    broken, unsure = findings.refusals(links), findings.warnings(links)
    held = len(links) - len(broken) - len(unsure)
    print("%s: %d links hold, %d broken, %d unsure" % (release_id, held, len(broken), len(unsure)))
    for link in links:
        if link in broken:
            print("  BROKEN %s" % findings.describe(link))
        elif link in unsure:
            print("  unsure %s" % findings.describe(link))
        elif all_links:
            print("  holds  %s: %s" % (link["check"], link["found"]))
    if not broken:
        print("\n" + docs.matrix(release_id, release, release["facts"]))
    return not broken


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--directory", default=str(ROOT / "releases"), help="where the releases are")
    parser.add_argument("--release", action="append", help="check this one; may be given again")
    parser.add_argument("--all-links", action="store_true", help="print the links that hold, too")
    options = parser.parse_args()
    directory = str(Path(options.directory).resolve())
    ids = options.release or modules()[0].known_ids(directory)
    if not ids:
        print("%s: no release there" % directory, file=sys.stderr)
        return 2
    held = [check_one(directory, release_id, options.all_links) for release_id in ids]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
