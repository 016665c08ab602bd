#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make releases for a scenario: the collection's newest of series main, with another driver.

make_releases.py DIR ID=VERSION ...    the mirror's driver versions; the branch is the version's first part
make_releases.py DIR ID=FILE.yml ...   what the file holds in the place of the release's own; platforms that it doesn't
                                       name are left out
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

RELEASES = Path(__file__).resolve().parents[3] / "releases"


def newest() -> dict[str, Any]:
    """Return the newest release of series main."""
    known = [path for path in RELEASES.glob("*.yml") if re.fullmatch(r"\d{4}\.\d{2}\.\d+", path.stem)]
    known.sort(key=lambda path: [int(part) for part in path.stem.split(".")])
    return [data for data in map(yaml.safe_load, map(Path.read_text, known)) if data["series"] == "main"][-1]


def overlay(release: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return a release with the file's parts; of a platform only the part nvidia differs."""
    platforms = {name: {**release["platforms"][name], **part} for name, part in over["platforms"].items()}
    return {**release, **over, "platforms": platforms}


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for argument in sys.argv[2:]:
        release_id, _sep, what = argument.partition("=")
        release = newest()
        if what.endswith(".yml"):
            release = overlay(release, yaml.safe_load(Path(what).read_text()))
        else:
            release["driver"].update(version=what, branch=what.split(".")[0])
        (directory / (release_id + ".yml")).write_text(yaml.safe_dump(release, sort_keys=False))
    for locks in RELEASES.iterdir():
        link = directory / locks.name
        if locks.is_dir() and not link.is_symlink():
            link.symlink_to(locks)


if __name__ == "__main__":
    main()
