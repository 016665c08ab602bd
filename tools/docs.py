#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the generated parts of the READMEs, each between its markers in the file:

  roles/<role>/README.md  <!-- inputs:begin --> ... <!-- inputs:end -->        the inputs, from meta/argument_specs.yml
  README.md               <!-- support-matrix:begin --> ... <!-- support-matrix:end -->  of the newest release

Usage: tools/docs.py [--check] [--add]
  --check  write nothing; exit with 1 if something would change or a marker is missing
  --add    append a section with markers to a README that has none
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PROVEN = {
    "run": "run: a real host served real requests",
    "rendered": "rendered and checked, not run",
    "resolved": "pins resolved, not deployed yet",
}
SECTIONS = {"inputs": "## Inputs", "support-matrix": "## Platforms"}


def plain(text: str | list[str]) -> str:
    """Return an Ansible description as Markdown in one line."""
    joined = " ".join(text) if isinstance(text, list) else text
    joined = re.sub(r"\b[CVOEP]\(((?:\\.|[^)\\])*)\)", lambda found: "`%s`" % found.group(1).replace("\\", ""), joined)
    joined = re.sub(r"\bI\(([^)]*)\)", r"*\1*", joined)
    joined = re.sub(r"\bB\(([^)]*)\)", r"**\1**", joined)
    joined = re.sub(r"\bM\(([^)]*)\)", r"`\1`", joined)
    joined = re.sub(
        r"\b[LU]\(([^,)]*)(?:,([^)]*))?\)", lambda found: (found.group(2) or found.group(1)).strip(), joined
    )
    return " ".join(joined.split())


def cell(text: str) -> str:
    """Return text that may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def shown_default(option: dict[str, t.Any]) -> str:
    """Return an option's default as it stands in a table: code, or what its absence means."""
    if option.get("required"):
        return "**required**"
    if "default" not in option or option["default"] is None:
        return "none"
    value = option["default"]
    text = value if isinstance(value, str) else json.dumps(value)
    return "`%s`" % text if text else "empty"


def rows_of(options: dict[str, t.Any], prefix: str = "") -> list[str]:
    """Return the rows of a table of inputs, those of sub-options after their parent's."""
    rows = []
    for name, option in options.items():
        kind = option["type"] + (" of %s" % option["elements"] if "elements" in option else "")
        described = plain(option["description"])
        if "choices" in option:
            described += " One of %s." % ", ".join("`%s`" % choice for choice in option["choices"])
        rows.append("| `%s` | %s | %s | %s |" % (prefix + name, kind, cell(shown_default(option)), cell(described)))
        below = prefix + name + ("[]." if option["type"] == "list" else ".")
        rows.extend(rows_of(option.get("options", {}), below))
    return rows


def inputs(role: Path) -> str:
    """Return the tables of a role's inputs, one per entry point."""
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    parts = []
    for entry, spec in specs.items():
        if len(specs) > 1:
            parts.append("Entry point `%s`: %s.\n" % (entry, plain(spec["short_description"]).rstrip(".")))
        rows = rows_of(spec.get("options", {}))
        if rows:
            head = ["| input | type | default | what it is |", "|---|---|---|---|"]
            parts.append("\n".join(head + rows) + "\n")
    return "\n".join(parts)


def newest_release() -> tuple[str, dict[str, t.Any]]:
    """Return the id and the content of the newest release."""
    paths = [path for path in (ROOT / "releases").glob("*.yml") if re.fullmatch(r"\d{4}\.\d{2}\.\d+", path.stem)]
    path = max(paths, key=lambda found: [int(part) for part in found.stem.split(".")])
    return path.stem, yaml.safe_load(path.read_text(encoding="utf-8"))


def platforms() -> str:
    """Return the support matrix: a row per platform, a column per accelerator, and what each cell's claim rests on."""
    release_id, release = newest_release()
    accelerators = sorted({name for platform in release["platforms"].values() for name in platform["accelerators"]})
    lines = [
        "Release `%s` (%s):" % (release_id, release["status"]),
        "",
        "| platform | architecture | %s |" % " | ".join("`%s`" % name for name in accelerators),
        "|---|---|%s" % ("---|" * len(accelerators)),
    ]
    for platform in release["platforms"].values():
        cells = []
        for name in accelerators:
            support = platform["accelerators"].get(name)
            cells.append(support.get("note") or PROVEN[support["proven"]] if support else "no")
        lines.append("| %s | %s | %s |" % (platform["title"], ", ".join(platform["architectures"]), " | ".join(cells)))
    lines += ["", "| engine | accelerator | version | Python | needs |", "|---|---|---|---|---|"]
    for engine, builds in release["engines"].items():
        for accelerator, build in builds.items():
            needs = ["glibc %s" % build["minimum_glibc"]]
            if build["minimum_driver"]:
                needs.append("driver %s" % build["minimum_driver"])
            if build["minimum_compute_capability"]:
                needs.append("compute capability %s" % build["minimum_compute_capability"])
            lines.append(
                "| %s | `%s` | %s | %s | %s |"
                % (engine, accelerator, build["version"], build["python"], ", ".join(needs))
            )
    return "\n".join(lines) + "\n"


def written(text: str, name: str, body: str, add: bool) -> str:
    """Return a README with one generated part put in.

    Raises:
        LookupError: the markers aren't there, and weren't to be added.
    """
    begin, end = "<!-- %s:begin -->" % name, "<!-- %s:end -->" % name
    if begin not in text or end not in text:
        if not add:
            raise LookupError("no markers %s and %s; put them in, or run tools/docs.py --add" % (begin, end))
        text = text.rstrip("\n") + "\n\n%s\n\n%s\n%s\n" % (SECTIONS[name], begin, end)
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    return "%s%s\n\n%s\n%s%s" % (before, begin, body, end, after)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if something would change")
    parser.add_argument("--add", action="store_true", help="append a section with markers where there is none")
    options = parser.parse_args()
    wanted: list[tuple[Path, str, str]] = [(ROOT / "README.md", "support-matrix", platforms())]
    for specs in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        role = specs.parent.parent
        wanted.append((role / "README.md", "inputs", inputs(role)))
    failed = False
    for path, name, body in wanted:
        where = path.relative_to(ROOT)
        if not path.exists():
            print("%s: no such file" % where, file=sys.stderr)
            failed = True
            continue
        old = path.read_text(encoding="utf-8")
        try:
            new = written(old, name, body, options.add and not options.check)
        except LookupError as exc:
            print("%s: %s" % (where, exc), file=sys.stderr)
            failed = True
            continue
        if new == old:
            continue
        if options.check:
            failed = True
            sys.stderr.writelines(
                difflib.unified_diff(old.splitlines(True), new.splitlines(True), str(where), "%s (generated)" % where)
            )
        else:
            path.write_text(new, encoding="utf-8")
            print("%s: written" % where)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
