#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the generated parts of the READMEs, each between its markers in the file:

  roles/<role>/README.md  <!-- inputs:begin --> ... <!-- inputs:end -->        the inputs, from meta/argument_specs.yml
  docs/support-matrix.md  <!-- support-matrix:begin --> ... <!-- support-matrix:end -->  of the newest release of each
                          series, from releases/; tools/release_check.py prints the same
  README.md               <!-- support-summary:begin --> ... <!-- support-summary:end -->  those releases in a line
                          each, and what was run on each platform

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
# The same in few words, for the summary.
PROVEN_BRIEFLY = {"run": "served real requests", "rendered": "rendered only", "resolved": "pins resolved only"}
STACK_PROVEN_BRIEFLY = {
    "run": "run on a host with a GPU",
    "mirror": "run on booted hosts, from stand-in packages",
    "resolved": "resolved by the package manager only",
    "rendered": "rendered only",
}
STACK_PROVEN = {
    "run": "run: installed on a host with a GPU",
    "mirror": "installed, upgraded and held on booted hosts from a mirror with stand-ins for NVIDIA's packages",
    "resolved": "resolved by the platform's package tools, not installed",
    "rendered": "package lists and commands rendered and checked, not run",
}
SECTIONS = {"inputs": "## Inputs", "support-matrix": "## Releases", "support-summary": "## Platforms"}


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


def releases(directory: Path | None = None) -> dict[str, dict[str, t.Any]]:
    """Return the releases of a directory by their ids, oldest first."""
    found = (directory or ROOT / "releases").glob("*.yml")
    paths = [path for path in found if re.fullmatch(r"\d{4}\.\d{2}\.\d+", path.stem)]
    paths.sort(key=lambda path: [int(part) for part in path.stem.split(".")])
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}


def newest_releases(known: dict[str, dict[str, t.Any]]) -> list[str]:
    """Return the ids of the newest release of each series, the main series first."""
    newest = {release["series"]: release_id for release_id, release in known.items()}
    return [newest[series] for series in sorted(newest, key=lambda name: (name != "main", name))]


def platforms() -> str:
    """Return the support matrix of the newest release of each series."""
    known = releases()
    facts = yaml.safe_load((ROOT / "releases/facts.yml").read_text(encoding="utf-8"))
    return "\n".join(matrix(release_id, known[release_id], facts) for release_id in newest_releases(known))


def summary() -> str:
    """Return the newest release of each series in a line each, and for each platform what was run.

    A cell is one claim where the releases agree; otherwise each claim has the ids of its releases behind it.
    """
    known = releases()
    newest = {release_id: known[release_id] for release_id in newest_releases(known)}
    rows = []
    for release_id, release in newest.items():
        engines = [
            "%s %s (%s)" % (engine, build["version"], accelerator)
            for engine, builds in release["engines"].items()
            for accelerator, build in builds.items()
        ]
        versions = [release[part]["version"] if part in release else "none" for part in ("driver", "cuda")]
        rows.append(["`%s`" % release_id, release["series"], ", ".join(engines), *versions])
    lines = table(["release", "series", "engine", "driver", "CUDA"], rows)
    rows = []
    for name in dict.fromkeys(name for release in newest.values() for name in release["platforms"]):
        claims: list[dict[str, str]] = [{}, {}, {}]
        for release_id, release in newest.items():
            platform = release["platforms"].get(name, {"accelerators": {}})
            for claim, accelerator in ((claims[0], "cpu"), (claims[2], "cuda")):
                if any(accelerator in builds for builds in release["engines"].values()):
                    support = platform["accelerators"].get(accelerator)
                    claim[release_id] = PROVEN_BRIEFLY[support["proven"]] if support else "no"
            if "driver" in release:
                claims[1][release_id] = (
                    STACK_PROVEN_BRIEFLY[platform["nvidia"]["proven"]] if "nvidia" in platform else "no"
                )
        title = next(release["platforms"][name]["title"] for release in newest.values() if name in release["platforms"])
        rows.append([title, *(agreed(claim) for claim in claims)])
    lines += table(["platform", "engine on CPU", "driver, toolkits", "engine on CUDA"], rows)
    return "\n".join(lines[1:]) + "\n"


def agreed(claims: dict[str, str]) -> str:
    """Return what the releases claim, given by release id: once where they agree, otherwise each with its ids."""
    said: dict[str, list[str]] = {}
    for release_id, claim in claims.items():
        said.setdefault(claim, []).append(release_id)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join("%s (%s)" % (claim, ", ".join(ids)) for claim, ids in said.items()) or "no"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table, with an empty line before it."""
    lines = ["", "| %s |" % " | ".join(head), "|%s" % ("---|" * len(head))]
    return lines + ["| %s |" % " | ".join(cell(text) for text in row) for row in rows]


def matrix(release_id: str, release: dict[str, t.Any], facts: dict[str, t.Any]) -> str:
    """Return one release's support matrix: platforms, engines, GPU stack, GPUs, and what each claim rests on."""
    lines = [
        "Release `%s` (%s, %s series): %s" % (release_id, release["status"], release["series"], release["summary"])
    ]
    accelerators = sorted({name for platform in release["platforms"].values() for name in platform["accelerators"]})
    rows = []
    for platform in release["platforms"].values():
        row = [platform["title"], ", ".join(platform["architectures"])]
        for name in accelerators:
            support = platform["accelerators"].get(name)
            row.append(support.get("note") or PROVEN[support["proven"]] if support else "no")
        rows.append(row)
    lines += table(["platform", "architecture", *("`%s`" % name for name in accelerators)], rows)
    rows = []
    for engine, builds in release["engines"].items():
        for accelerator, build in builds.items():
            needs = ["glibc %s" % build["minimum_glibc"]]
            if build["minimum_driver"]:
                needs.append("driver %s" % build["minimum_driver"])
            if build["minimum_compute_capability"]:
                needs.append("compute capability %s" % build["minimum_compute_capability"])
            rows.append([engine, "`%s`" % accelerator, build["version"], build["python"], ", ".join(needs)])
    lines += table(["engine", "accelerator", "version", "Python", "needs"], rows)
    if "driver" in release:
        lines += gpu_stack(release, facts)
    return "\n".join(lines) + "\n"


def gpu_stack(release: dict[str, t.Any], facts: dict[str, t.Any]) -> list[str]:
    """Return the lines on one release's GPU stack."""
    driver, branch = release["driver"], facts["driver_branches"][release["driver"]["branch"]]
    lines = [
        "",
        "GPU stack: driver %s (branch %s, %s, support until %s), CUDA %s, cuDNN %s, container toolkit %s."
        % (
            driver["version"],
            driver["branch"],
            branch["type"],
            branch["end_of_life"] or "an unknown month",
            release["cuda"]["version"],
            release["cudnn"]["version"],
            release["container_toolkit"]["version"],
        ),
    ]
    rows = []
    for platform in release["platforms"].values():
        if "nvidia" not in platform:
            continue
        nvidia = platform["nvidia"]
        package_set = release["package_sets"][nvidia["package_set"]]
        repository = release["repositories"].get(nvidia["driver_repository"])
        fabrics = [name for name, packages in package_set["fabric_manager"].items() if packages]
        rows.append(
            [
                platform["title"],
                ", ".join(repository["paths"].values()) if repository else "the distribution's archive",
                ", ".join(package_set["packages"]),
                nvidia["mechanism"].replace("_", " "),
                ", ".join(fabrics) or "none",
                STACK_PROVEN[nvidia["proven"]],
            ]
        )
    lines += table(["platform", "driver repository", "kernel modules", "pinned by", "fabric manager", "claim"], rows)
    least = [int(part) for part in release["cuda"]["minimum_compute_capability"].split(".")]
    rows = []
    for name, architecture in facts["architectures"].items():
        capabilities = [
            text for text in architecture["compute_capabilities"] if [int(part) for part in text.split(".")] >= least
        ]
        flavours = [flavour for flavour in ("open", "proprietary") if architecture[flavour + "_module"]]
        known = sorted({gpu["name"] for gpu in facts["gpus"].values() if gpu["architecture"] == name})
        if capabilities:
            rows.append([name.capitalize(), ", ".join(capabilities), " or ".join(flavours), ", ".join(known)])
    lines += table(["GPU architecture", "compute capability", "kernel modules", "known by PCI id"], rows)
    return lines


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
    wanted: list[tuple[Path, str, str]] = [
        (ROOT / "README.md", "support-summary", summary()),
        (ROOT / "docs/support-matrix.md", "support-matrix", platforms()),
    ]
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
