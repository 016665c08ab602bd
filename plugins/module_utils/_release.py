# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Reads release files and the facts beside them, and refuses those that don't hold to their schemas.

A release is ``releases/<id>.yml``, its form ``releases/schema.json``; what is true whatever the release is in
``releases/facts.yml``. Whether the parts of a release fit together is decided in ``_release_check``.
"""

from __future__ import annotations

import copy
import json
import os
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, describe, finding, refusals
from ansible_collections.gpufleet.llm.plugins.module_utils._release_schema import validate

try:
    import yaml

    HAS_YAML = True
except ImportError:  # pragma: no cover - ansible-core brings it on every control node
    HAS_YAML = False

Release = t.Dict[str, t.Any]

ID_PATTERN = re.compile(r"^[0-9]{4}\.[0-9]{2}\.[0-9]+$")
SCHEMA_FILE = "schema.json"
FACTS_FILE = "facts.yml"
FACTS_SCHEMA_FILE = "facts.schema.json"
COLLECTION_RELEASES = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir, "releases"))


class ReleaseError(ValueError):
    """A release that can't be used. The message names the variable, what was found, what was expected, the remedy."""


class Requirement(t.NamedTuple):
    """One pinned line of a lock file.

    Attributes:
        name: normalised distribution name (lower case, ``-`` for runs of ``-_.``).
        version: what follows ``==``; empty where the line pins nothing.
        hashes: how many ``--hash=sha256:`` the line carries.
        line: the number of its first line, from 1.
    """

    name: str
    version: str
    hashes: int
    line: int


# -- reading ---------------------------------------------------------------------------------------------------------


def known_ids(directory: str) -> t.List[str]:
    """Return the ids of the releases in a directory, oldest first."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    ids = [name[:-4] for name in names if name.endswith(".yml") and ID_PATTERN.match(name[:-4])]
    return sorted(ids, key=numbers)


def read(directory: str, release_id: t.Any, variable: str = "gpufleet_release") -> Release:
    """Read one release file, without judging what is in it.

    Args:
        directory: absolute path of the releases directory.
        release_id: the id somebody asked for; anything may come from an inventory.
        variable: the variable the id came from, for the error.

    Raises:
        ReleaseError: the id isn't one, isn't known, or the file isn't a YAML mapping.
    """
    ids = known_ids(directory)
    if not isinstance(release_id, str) or release_id not in ids:
        raise ReleaseError(
            "%s: found %r, expected the id of a release in %s: %s. Remedy: set %s to one of these, as a quoted string."
            % (variable, release_id, directory, ", ".join(ids) or "there is none", variable)
        )
    return read_yaml(os.path.join(directory, release_id + ".yml"), variable)


def read_yaml(path: str, variable: str) -> t.Dict[str, t.Any]:
    """Return the mapping in a YAML file.

    Raises:
        ReleaseError: the file isn't a YAML mapping.
    """
    if not HAS_YAML:  # pragma: no cover
        raise ReleaseError("%s: PyYAML is missing from the control node's Python." % variable)
    with open(path, encoding="utf-8") as handle:
        text = handle.read()
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as exc:
        raise ReleaseError("%s: %s is not YAML: %s. Remedy: restore the file." % (variable, path, exc)) from exc
    if not isinstance(data, dict):
        raise ReleaseError("%s: %s holds no mapping. Remedy: restore the file." % (variable, path))
    return data


def beside(directory: str, name: str) -> str:
    """Return the path of a file that belongs to the releases of a directory: there, or the collection's own."""
    path = os.path.join(directory, name)
    return path if os.path.isfile(path) else os.path.join(COLLECTION_RELEASES, name)


def read_schema(directory: str, name: str = SCHEMA_FILE) -> t.Dict[str, t.Any]:
    """Return the schema of the releases in a directory, or of another file there."""
    with open(beside(directory, name), encoding="utf-8") as handle:
        return t.cast("t.Dict[str, t.Any]", json.load(handle))


def read_facts(directory: str, variable: str = "gpufleet_releases_dir") -> t.Dict[str, t.Any]:
    """Return the facts that go with the releases of a directory; the collection's own where it has none.

    Raises:
        ReleaseError: the file isn't a YAML mapping, or doesn't hold to ``facts.schema.json``.
    """
    path = beside(directory, FACTS_FILE)
    data = read_yaml(path, variable)
    _refuse(variable, path, path, validate(data, read_schema(directory, FACTS_SCHEMA_FILE), "facts"))
    return data


def home_of(release_id: t.Any, directory: str) -> str:
    """Return the directory that has a release: the one that was named, else the collection's."""
    for place in (directory, COLLECTION_RELEASES):
        if release_id in known_ids(place):
            return place
    return directory


def load(directory: str, release_id: t.Any, variable: str = "gpufleet_release") -> Release:
    """Read one release, refuse it if it doesn't hold to the schema, and complete it.

    Args:
        directory: absolute path of the releases directory.
        release_id: the id somebody asked for.
        variable: the variable the id came from, for the error.

    Returns:
        The release with ``id``, with ``lock_path`` (absolute) beside every ``lock_file``, and with ``facts``.

    Raises:
        ReleaseError: unknown id, unreadable or invalid file, missing lock file.
    """
    data = read(directory, release_id, variable)
    findings = validate(data, read_schema(directory))
    if not refusals(findings):
        data = complete(data, directory, release_id)
        data["facts"] = read_facts(directory)
        findings = check_lock_files_exist(data)
    _refuse(variable, release_id, os.path.join(directory, release_id + ".yml"), findings)
    return data


def _refuse(variable: str, found: str, path: str, findings: t.List[Finding]) -> None:
    stopped = refusals(findings)
    if stopped:
        reasons = "\n".join("%d. %s" % (number, describe(f)) for number, f in enumerate(stopped, 1))
        raise ReleaseError("%s: found %s, whose file %s can't be used:\n%s" % (variable, found, path, reasons))


def complete(data: Release, directory: str, release_id: str) -> Release:
    """Return a copy of a valid release with ``id`` and the absolute ``lock_path`` of every engine."""
    release = copy.deepcopy(data)
    release["id"] = release_id
    for _name, engine in engines(release):
        engine["lock_path"] = os.path.join(directory, engine["lock_file"])
    for engine in release.get("wheel_engines", {}).values():
        engine["lock_path"] = os.path.join(directory, engine["lock_file"])
    return release


def check_lock_files_exist(release: Release) -> t.List[Finding]:
    """Return one finding per engine build: its lock file is there."""
    return [
        finding(
            "release.%s.lock_file" % name,
            os.path.isfile(engine["lock_path"]),
            expected="a file %s" % engine["lock_path"],
            found="the file" if os.path.isfile(engine["lock_path"]) else "no such file",
            remedy="Restore the file, or mend lock_file.",
        )
        for name, engine in engines(release)
    ]


_CACHE: t.Dict[t.Tuple[t.Any, ...], Release] = {}


def load_cached(directory: str, release_id: t.Any, variable: str = "gpufleet_release") -> Release:
    """Do what :func:`load` does, once per process for each state of the files; return a copy of one's own."""
    key: t.Tuple[t.Any, ...] = (directory, str(release_id))
    for name in (SCHEMA_FILE, FACTS_FILE, FACTS_SCHEMA_FILE, "%s.yml" % release_id):
        try:
            stat = os.stat(beside(directory, name))
            key += (stat.st_mtime_ns, stat.st_size)
        except OSError:
            key += (None,)
    if key not in _CACHE:
        _CACHE[key] = load(directory, release_id, variable)
    return copy.deepcopy(_CACHE[key])


def engines(release: Release) -> t.Iterator[t.Tuple[str, t.Dict[str, t.Any]]]:
    """Yield ``("<engine>.<accelerator>", build)`` for every engine build of a release."""
    for name in sorted(release["engines"]):
        for accelerator in sorted(release["engines"][name]):
            yield "%s.%s" % (name, accelerator), release["engines"][name][accelerator]


def platform_of(release: Release, key: str) -> t.Optional[t.Tuple[str, t.Dict[str, t.Any]]]:
    """Return ``(key, platform)`` of a system, by the release's key or one of the aliases; None if it has none."""
    platforms = release["platforms"]
    if key in platforms:
        return key, platforms[key]
    for name in sorted(platforms):
        if key in platforms[name].get("aliases", []):
            return name, platforms[name]
    return None


def numbers(version: str) -> t.Tuple[int, ...]:
    """Return the numbers of a dotted version, for comparing; whatever follows them is left out."""
    match = re.match(r"^[0-9]+(\.[0-9]+)*", version)
    return tuple(int(part) for part in match.group(0).split(".")) if match else ()


def parse_lock(text: str) -> t.List[Requirement]:
    """Return the requirements of a lock file in pip's ``--require-hashes`` form.

    Continuation lines are joined first; comments and blank lines are left out; a line that isn't a pin
    (an option, a URL, a range) comes back with an empty version.
    """
    requirements: t.List[Requirement] = []
    logical, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if not logical:
            start = number
        logical += " " + line.rstrip("\\").strip()
        if line.endswith("\\"):
            continue
        if logical.strip():
            requirements.append(_requirement(logical.strip(), start))
        logical = ""
    if logical.strip():
        requirements.append(_requirement(logical.strip(), start))
    return requirements


def _requirement(line: str, number: int) -> Requirement:
    hashes = re.findall(r"--hash=sha256:[0-9a-f]{64}(?=\s|$)", line)
    pin = re.match(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", line)
    if not pin:
        return Requirement(line.split(" ", 1)[0], "", len(hashes), number)
    return Requirement(re.sub(r"[-_.]+", "-", pin.group(1)).lower(), pin.group(2), len(hashes), number)
