# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Reads release files, holds them against their schema, and finds what in them doesn't fit together.

A release is ``releases/<id>.yml``; its form is ``releases/schema.json``, JSON Schema 2020-12. The few keywords
that schema uses are checked here by hand, so that a control node needs nothing for it beyond ansible-core and a
task pays some milliseconds for it; a keyword that isn't known here is an error, never ignored.
"""

from __future__ import annotations

import copy
import json
import os
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import (
    Finding,
    describe,
    finding,
    refusals,
)

try:
    import yaml

    HAS_YAML = True
except ImportError:  # pragma: no cover - ansible-core brings it on every control node
    HAS_YAML = False

Release = t.Dict[str, t.Any]

ID_PATTERN = re.compile(r"^[0-9]{4}\.[0-9]{2}\.[0-9]+$")
SCHEMA_FILE = "schema.json"

_ANNOTATIONS = frozenset(("$schema", "$defs", "title", "description"))
_TYPES: t.Dict[str, t.Tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


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
    path = os.path.join(directory, release_id + ".yml")
    with open(path, encoding="utf-8") as handle:
        text = handle.read()
    if not HAS_YAML:  # pragma: no cover
        raise ReleaseError("%s: PyYAML is missing from the control node's Python." % variable)
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as exc:
        raise ReleaseError("%s: %s is not YAML: %s. Remedy: restore the file." % (variable, path, exc)) from exc
    if not isinstance(data, dict):
        raise ReleaseError("%s: %s holds no mapping. Remedy: restore the file." % (variable, path))
    return data


def read_schema(directory: str) -> t.Dict[str, t.Any]:
    """Return the schema of the releases in a directory."""
    with open(os.path.join(directory, SCHEMA_FILE), encoding="utf-8") as handle:
        return t.cast("t.Dict[str, t.Any]", json.load(handle))


def load(directory: str, release_id: t.Any, variable: str = "gpufleet_release") -> Release:
    """Read one release, refuse it if it doesn't hold to the schema, and complete it.

    Args:
        directory: absolute path of the releases directory.
        release_id: the id somebody asked for.
        variable: the variable the id came from, for the error.

    Returns:
        The release with ``id``, and with ``lock_path`` (absolute) beside every ``lock_file``.

    Raises:
        ReleaseError: unknown id, unreadable or invalid file, missing lock file.
    """
    data = read(directory, release_id, variable)
    findings = validate(data, read_schema(directory))
    if not refusals(findings):
        data = complete(data, directory, release_id)
        findings = check_lock_files_exist(data)
    stopped = refusals(findings)
    if stopped:
        path = os.path.join(directory, release_id + ".yml")
        reasons = "\n".join("%d. %s" % (number, describe(f)) for number, f in enumerate(stopped, 1))
        raise ReleaseError("%s: found %s, whose file %s can't be used:\n%s" % (variable, release_id, path, reasons))
    return data


def complete(data: Release, directory: str, release_id: str) -> Release:
    """Return a copy of a valid release with ``id`` and the absolute ``lock_path`` of every engine."""
    release = copy.deepcopy(data)
    release["id"] = release_id
    for _name, engine in engines(release):
        engine["lock_path"] = os.path.join(directory, engine["lock_file"])
    return release


_CACHE: t.Dict[t.Tuple[t.Any, ...], Release] = {}


def load_cached(directory: str, release_id: t.Any, variable: str = "gpufleet_release") -> Release:
    """Do what :func:`load` does, once per process for each state of the two files; return a copy of one's own."""
    key: t.Tuple[t.Any, ...] = (directory, str(release_id))
    for name in (SCHEMA_FILE, "%s.yml" % release_id):
        try:
            stat = os.stat(os.path.join(directory, name))
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


# -- the schema ------------------------------------------------------------------------------------------------------


def validate(data: t.Any, schema: t.Dict[str, t.Any]) -> t.List[Finding]:
    """Hold data against a JSON Schema and return one failed finding per place that doesn't fit, none if all do.

    Raises:
        ValueError: the schema uses a keyword that isn't known here.
    """
    return list(_errors(data, schema, schema, "release"))


def _error(where: str, expected: t.Any, found: t.Any, detail: str, remedy: str) -> Finding:
    return finding(
        "release.schema", False, expected=expected, found=found, detail="At %s: %s" % (where, detail), remedy=remedy
    )


def _errors(data: t.Any, schema: t.Dict[str, t.Any], root: t.Dict[str, t.Any], where: str) -> t.Iterator[Finding]:
    for keyword, value in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword not in _KEYWORDS:
            raise ValueError("the schema uses %r at %s, which this checker doesn't know" % (keyword, where))
        for error in _KEYWORDS[keyword](data, value, schema, root, where):
            yield error


def _is(data: t.Any, name: str) -> bool:
    if isinstance(data, bool) and name != "boolean":
        return False
    return isinstance(data, _TYPES[name])


def _check_type(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    names = value if isinstance(value, list) else [value]
    if not any(_is(data, name) for name in names):
        remedy = "Quote the value." if "string" in names and isinstance(data, (int, float)) else "Mend the value."
        yield _error(where, " or ".join(names), data, "the value has another type.", remedy)


def _check_enum(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if data not in value:
        yield _error(
            where,
            "one of %s" % ", ".join(map(str, value)),
            data,
            "the value isn't listed.",
            "Use one of the listed values.",
        )


def _check_pattern(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, str) and not re.search(value, data):
        yield _error(where, value, data, "the value doesn't match.", "Write it in the form of the pattern.")


def _check_minimum(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if _is(data, "integer") and data < value:
        yield _error(where, "at least %s" % value, data, "the value is too small.", "Mend the value, or say null.")


def _check_min_length(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, str) and len(data) < value:
        yield _error(where, "at least %s characters" % value, data, "the value is too short.", "Say something.")


def _check_min_items(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, list) and len(data) < value:
        yield _error(where, "at least %s items" % value, data, "the list is too short.", "Add what is missing.")


def _check_min_properties(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, dict) and len(data) < value:
        yield _error(where, "at least %s keys" % value, data, "the mapping is too small.", "Add what is missing.")


def _check_required(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, dict):
        for name in value:
            if name not in data:
                yield _error(where, "the key %s" % name, "no such key", "a key is missing.", "Add %s." % name)


def _check_properties(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, dict):
        for name, below in value.items():
            if name in data:
                for error in _errors(data[name], below, root, "%s.%s" % (where, name)):
                    yield error


def _check_pattern_properties(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, dict):
        for pattern, below in value.items():
            for name in data:
                if isinstance(name, str) and re.search(pattern, name):
                    for error in _errors(data[name], below, root, "%s.%s" % (where, name)):
                        yield error


def _check_additional(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if value is not False:
        raise ValueError("the schema says additionalProperties: %r at %s; only false is known here" % (value, where))
    if isinstance(data, dict):
        patterns = schema.get("patternProperties", {})
        for name in data:
            known = name in schema.get("properties", {})
            if not known and not any(isinstance(name, str) and re.search(pattern, name) for pattern in patterns):
                allowed = sorted(schema.get("properties", {})) + sorted(patterns)
                yield _error(
                    where,
                    "one of the keys %s" % ", ".join(allowed),
                    name,
                    "a key isn't known.",
                    "Remove the key, or mend its spelling.",
                )


def _check_items(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    if isinstance(data, list):
        for index, item in enumerate(data):
            for error in _errors(item, value, root, "%s[%d]" % (where, index)):
                yield error


def _check_any_of(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    tried = [list(_errors(data, below, root, where)) for below in value]
    if all(tried):
        yield tried[0][0]


def _check_ref(data: t.Any, value: t.Any, schema: t.Any, root: t.Any, where: str) -> t.Iterator[Finding]:
    target = root
    for part in value.replace("#/", "", 1).split("/"):
        target = target[part]
    return _errors(data, target, root, where)


_KEYWORDS: t.Dict[str, t.Callable[[t.Any, t.Any, t.Any, t.Any, str], t.Iterator[Finding]]] = {
    "type": _check_type,
    "enum": _check_enum,
    "pattern": _check_pattern,
    "minimum": _check_minimum,
    "minLength": _check_min_length,
    "minItems": _check_min_items,
    "minProperties": _check_min_properties,
    "required": _check_required,
    "properties": _check_properties,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_additional,
    "items": _check_items,
    "anyOf": _check_any_of,
    "$ref": _check_ref,
}


# -- what fits together ----------------------------------------------------------------------------------------------


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


def check_consistency(release: Release) -> t.List[Finding]:
    """Return every finding on how the parts of one completed release (see :func:`load`) fit together.

    The links that are checked: driver to CUDA, engine to CUDA, engine to driver, lock file to engine (version,
    interpreter, hashes, CUDA of torch), platform to engine (glibc, packages). Lock files are read.
    """
    findings = _check_driver(release) + check_lock_files_exist(release)
    for name, engine in engines(release):
        findings.extend(_check_engine_limits(release, name, engine))
        if os.path.isfile(engine["lock_path"]):
            with open(engine["lock_path"], encoding="utf-8") as handle:
                findings.extend(_check_lock(release, name, engine, parse_lock(handle.read())))
    findings.extend(_check_platforms(release))
    return findings


def _check_driver(release: Release) -> t.List[Finding]:
    if "driver" not in release:
        return []
    driver, needed = release["driver"], release["cuda"]["minimum_driver"]
    version = driver.get("version")
    pinned = version or driver["branch"]
    enough = numbers(pinned) >= numbers(needed)[: len(numbers(pinned))]
    findings = [
        finding(
            "release.driver.cuda",
            enough,
            expected="%s or newer" % needed,
            found=pinned,
            detail="The pinned driver against what CUDA %s needs." % release["cuda"]["version"],
            remedy="Pin a newer driver branch, or an older CUDA level with engines to match.",
        )
    ]
    if version:
        findings.append(
            finding(
                "release.driver.branch",
                version.split(".")[0] == driver["branch"],
                expected="a version of branch %s" % driver["branch"],
                found=version,
                detail="The driver's version against its branch.",
                remedy="Mend driver.version or driver.branch.",
            )
        )
    return findings


def _check_engine_limits(release: Release, name: str, engine: t.Dict[str, t.Any]) -> t.List[Finding]:
    tag = "py" + engine["python"].replace(".", "")
    findings = [
        finding(
            "release.%s.python" % name,
            engine["lock_file"].endswith("-%s.txt" % tag),
            expected="a lock file whose name ends -%s.txt" % tag,
            found=engine["lock_file"],
            detail="The interpreter of the engine against the one its lock file was resolved for.",
            remedy="Resolve the lock file for Python %s (tools/lock.sh), or mend python." % engine["python"],
        )
    ]
    if not name.endswith(".cuda"):
        return findings
    for key in ("minimum_driver", "minimum_compute_capability"):
        found, needed = engine[key], release["cuda"][key]
        findings.append(
            finding(
                "release.%s.%s" % (name, key),
                found is not None and numbers(found) >= numbers(needed),
                expected="%s or newer" % needed,
                found=found,
                detail="What the engine says it needs against what CUDA %s needs." % release["cuda"]["version"],
                remedy="Set %s to the CUDA level's, or higher." % key,
            )
        )
    version = release.get("driver", {}).get("version")
    if version and engine["minimum_driver"]:
        findings.append(
            finding(
                "release.%s.driver" % name,
                numbers(version) >= numbers(engine["minimum_driver"]),
                expected="%s or newer" % engine["minimum_driver"],
                found=version,
                detail="The pinned driver against what the engine needs.",
                remedy="Pin a newer driver, or an older engine.",
            )
        )
    return findings


def _check_lock(release: Release, name: str, engine: t.Dict[str, t.Any], lock: t.List[Requirement]) -> t.List[Finding]:
    pins = {requirement.name: requirement.version for requirement in lock}
    loose = ["line %d (%s)" % (r.line, r.name) for r in lock if not r.version or not r.hashes]
    shims = sorted(shim["name"] for shim in engine["distributions"] if shim["name"] in pins)
    relock = "Resolve the lock file again (tools/lock.sh), or mend the release."
    return [
        finding(
            "release.%s.lock.hashes" % name,
            bool(lock) and not loose,
            expected="every line pinned by == with a sha256",
            found="%d of %d lines without: %s" % (len(loose), len(lock), ", ".join(loose[:5]))
            if loose
            else "%d lines, all with" % len(lock),
            detail=engine["lock_file"] + ".",
            remedy=relock,
        ),
        finding(
            "release.%s.lock.version" % name,
            pins.get(engine["package"]) == engine["version"],
            expected="%s==%s" % (engine["package"], engine["version"]),
            found="%s==%s" % (engine["package"], pins.get(engine["package"], "(absent)")),
            detail=engine["lock_file"] + ".",
            remedy=relock,
        ),
        finding(
            "release.%s.distributions" % name,
            not shims,
            expected="no metadata-only distribution that the lock file installs for real",
            found=", ".join(shims) or "none",
            detail=engine["lock_file"] + ".",
            remedy="Remove the metadata-only distribution.",
        ),
        _check_lock_cuda(release, name, engine, pins),
    ]


def _check_lock_cuda(release: Release, name: str, engine: t.Dict[str, t.Any], pins: t.Dict[str, str]) -> Finding:
    torch = pins.get("torch", "(absent)")
    runtime = pins.get("nvidia-cuda-runtime", "")
    found = ".".join(runtime.split(".")[:2])
    if name.endswith(".cuda"):
        wanted = release["cuda"]["version"]
        return finding(
            "release.%s.lock.cuda" % name,
            "torch" in pins and found == wanted and not torch.endswith("+cpu"),
            expected="CUDA %s" % wanted,
            found="torch %s with CUDA %s" % (torch, found or "none"),
            detail="The CUDA runtime that torch brings, in %s, against the release's." % engine["lock_file"],
            remedy="Choose an engine version whose torch is built for CUDA %s, or change cuda.version." % wanted,
        )
    return finding(
        "release.%s.lock.cuda" % name,
        "torch" in pins and not runtime,
        expected="torch without a CUDA runtime",
        found="torch %s with CUDA %s" % (torch, found or "none"),
        detail="The CUDA runtime that torch brings, in %s." % engine["lock_file"],
        remedy="Resolve the lock file against PyTorch's index for the CPU.",
    )


def _check_platforms(release: Release) -> t.List[Finding]:
    findings: t.List[Finding] = []
    for key in sorted(release["platforms"]):
        platform = release["platforms"][key]
        for name, engine in engines(release):
            if name.split(".")[1] not in platform["accelerators"]:
                continue
            findings.append(
                finding(
                    "release.%s.glibc.%s" % (name, key),
                    numbers(platform["glibc"]) >= numbers(engine["minimum_glibc"]),
                    expected="glibc %s or newer" % engine["minimum_glibc"],
                    found=platform["glibc"],
                    detail="The platform %s against what the engine's wheels were linked with." % key,
                    remedy="Drop the platform's accelerator, or choose an engine whose wheels fit.",
                )
            )
            findings.append(
                finding(
                    "release.%s.packages.%s" % (name, key),
                    platform["os_family"] in engine["packages"],
                    expected="a package list for %s (it may be empty)" % platform["os_family"],
                    found="lists for %s" % ", ".join(sorted(engine["packages"])),
                    detail="The platform %s against the engine's packages." % key,
                    remedy="Add packages.%s to the engine." % platform["os_family"],
                )
            )
    return findings
