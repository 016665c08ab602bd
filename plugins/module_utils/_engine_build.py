# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Make the relocatable tree of an engine and its interpreter; the control node and a host do it alike.

The tree is an interpreter with its standard library and the locked distributions in its own site directory. There is
no virtual environment in it, so nothing in it names the directory it was built in, and it runs from wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_pip as pips
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_python as pythons

#: Raised by one whenever the same inputs would give another tree.
BUILDER_FORMAT = 1

#: Free space that a build takes when the release doesn't say how large the engine is, in bytes.
BUILD_BYTES = 8 << 30

MANIFEST_NAME = "engine.json"
ARGUMENTS_NAME = "serve-arguments.json"

#: What a served engine never opens: test suites, type stubs, static libraries.
STRIPPED_DIRECTORIES = frozenset(("__pycache__", "tests"))
STRIPPED_SUFFIXES = (".pyi", ".a", ".pyc", ".pyo")

#: Below these, a directory called ``tests`` is test code; elsewhere it may be a package that is imported.
TESTS_STRIPPED_UNDER = frozenset(
    ("numpy", "scipy", "pandas", "sympy", "numba", "networkx", "pyarrow", "llvmlite", "mpmath", "sklearn", "torch")
)

# Run in the finished tree. It also writes down which arguments the engine's own parser knows, so that a deployment can
# refuse a mistyped one before it touches a running engine.
SMOKE = """
import importlib, importlib.metadata as md, json, sys
import torch, vllm
def first(name, *modules):
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    sys.exit("this engine has no %s in %s" % (name, ", ".join(modules)))
make = first("make_arg_parser", "vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
parser = make(first("FlexibleArgumentParser", "vllm.utils.argparse_utils", "vllm.utils")())
names = sorted({s[2:].replace("_", "-") for a in parser._actions for s in a.option_strings if s.startswith("--")})
json.dump({"vllm": md.version("vllm"), "torch": torch.__version__, "arguments": names}, open(sys.argv[1], "w"))
"""


class Recipe(t.NamedTuple):
    """What an engine's tree is made of.

    Attributes:
        version: the engine's version, the first part of its name.
        lock_text: hash-locked requirements.
        python: what :func:`_engine_python.probe_python` said of the interpreter.
        shims: metadata-only distributions, ``{name, version}``.
        headers: whether the interpreter's C headers go along.
    """

    version: str
    lock_text: str
    python: t.Mapping[str, t.Any]
    shims: t.Sequence[t.Mapping[str, str]]
    headers: bool = False

    @property
    def key(self) -> str:
        """Return the sha256 of everything that decides the content."""
        return engine_key(self.lock_text, self.python, self.shims)

    @property
    def identity(self) -> str:
        """Return the name of the tree."""
        return engine_id(self.version, self.key)


def engine_key(lock_text: str, python: t.Mapping[str, t.Any], shims: t.Sequence[t.Mapping[str, str]]) -> str:
    """Return the sha256 (hex) of everything that decides the content of an engine tree.

    Args:
        lock_text: the lock file; comments don't count.
        python: what :func:`probe_python` said of the interpreter.
        shims: metadata-only distributions, ``{name, version}``.
    """
    facts = {
        "format": BUILDER_FORMAT,
        "lock": hashlib.sha256(pips.normalised_lock(lock_text).encode()).hexdigest(),
        "python": [python["build"], python["soabi"], python["machine"]],
        "shims": sorted([s["name"], s["version"]] for s in shims),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def engine_id(version: str, key: str) -> str:
    """Return the name of an engine tree, ``<version>-<first 12 of its key>``."""
    return "%s-%s" % (version, key[:12])


def add_shim(site: str, name: str, version: str) -> None:
    """Write a metadata-only distribution: it has a name and a version, and no code."""
    info = os.path.join(site, "%s-%s.dist-info" % (re.sub(r"[-_.]+", "_", name), version))
    os.makedirs(info, exist_ok=True)
    files = {
        "METADATA": "Metadata-Version: 2.1\nName: %s\nVersion: %s\nSummary: Metadata only; the code is in another "
        "distribution of this engine.\n" % (name, version),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: gpufleet.llm\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "INSTALLER": "gpufleet.llm\n",
    }
    for file_name, text in files.items():
        with open(os.path.join(info, file_name), "w", encoding="utf-8") as handle:
            handle.write(text)
    base = os.path.basename(info)
    with open(os.path.join(info, "RECORD"), "w", encoding="utf-8") as handle:
        handle.write("".join("%s/%s,,\n" % (base, f) for f in sorted(files)) + "%s/RECORD,,\n" % base)


def strippable(relative: str, is_dir: bool) -> bool:
    """Return whether a path (relative to the site directory) is something that no served engine opens."""
    parts = relative.split(os.sep)
    if is_dir:
        if parts[-1] == "__pycache__":
            return True
        return parts[-1] == "tests" and parts[0] in TESTS_STRIPPED_UNDER
    return relative.endswith(STRIPPED_SUFFIXES)


def strip_tree(site: str) -> int:
    """Remove what no served engine opens from a site directory; return how many bytes that was."""
    removed = 0
    for directory, names, files in os.walk(site):
        for name in list(names):
            path = os.path.join(directory, name)
            if strippable(os.path.relpath(path, site), True):
                for below, _dirs, inner in os.walk(path):
                    removed += sum(os.lstat(os.path.join(below, f)).st_size for f in inner)
                shutil.rmtree(path)
                names.remove(name)
        for name in files:
            path = os.path.join(directory, name)
            if strippable(os.path.relpath(path, site), False):
                removed += os.lstat(path).st_size
                os.unlink(path)
    return removed


def remove_scripts(tree: str) -> None:
    """Remove console scripts whose first line names the directory of the build; the units start modules instead."""
    for directory in (os.path.join(tree, "bin"), os.path.join(tree, "local", "bin")):
        if not os.path.isdir(directory):
            continue
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            with open(path, "rb") as handle:
                data = handle.read(4096)
            if data.startswith(b"#!") and os.fsencode(tree) in data.partition(b"\n")[0]:
                os.unlink(path)


def compile_tree(tree: str) -> None:
    """Write byte code that isn't checked against its source: the same bytes on every build, no slow first start."""
    subprocess.run(
        [
            pythons.tree_python(tree),
            "-I",
            "-m",
            "compileall",
            "-q",
            # Also over what importing wrote during the build: that has a time and the path of the build in it.
            "-f",
            "-j",
            str(os.cpu_count() or 1),
            "--invalidation-mode",
            "unchecked-hash",
            "-s",
            tree,
            os.path.join(tree, "lib"),
            *([os.path.join(tree, "local")] if os.path.isdir(os.path.join(tree, "local")) else []),
        ],
        env=pythons.clean_environment({"PYTHONHASHSEED": "0"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A few packages carry files for another Python on purpose; they don't compile and are never imported.
        check=False,
    )


def write_json(path: str, record: t.Mapping[str, t.Any]) -> None:
    with open(path + ".partial", "w", encoding="utf-8") as handle:
        json.dump(record, handle, indent=2, sort_keys=True)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(path + ".partial", path)


def contents_of(recipe: Recipe) -> t.Dict[str, t.Any]:
    """Return what is known of an engine before it has been tried."""
    return {
        "engine_id": recipe.identity,
        "key": recipe.key,
        "version": recipe.version,
        "python": {name: recipe.python[name] for name in ("version", "build", "soabi", "machine", "libc")},
        "packages": len(pips.locked_names(recipe.lock_text)),
        "format": BUILDER_FORMAT,
    }


def make_tree(work: str, recipe: Recipe, pip: pips.Pip, progress: pips.Progress) -> t.Dict[str, t.Any]:
    """Make the tree of an engine in ``work``/tree, try it and compile it.

    Args:
        work: an empty directory for this tree and what making it takes.
        recipe: what it is made of.
        pip: with what it is installed.
        progress: is told how far it is.

    Returns:
        The tree's manifest with ``vllm``, ``torch`` and ``arguments`` (those that the engine's own parser knows).
    """
    pips.check_pip(pip)
    tree = os.path.join(work, "tree")
    os.makedirs(tree)
    lock_file = os.path.join(work, "lock.txt")
    with open(lock_file, "w", encoding="utf-8") as handle:
        handle.write(recipe.lock_text)
    pythons.copy_interpreter(recipe.python, tree, recipe.headers)
    site = pythons.check_relocated(tree, recipe.python["executable"])
    pips.install_lock(tree, lock_file, pip, progress)
    for shim in recipe.shims:
        add_shim(site, shim["name"], shim["version"])
    remove_scripts(tree)
    removed = strip_tree(site)
    progress("removed %d MiB of tests, stubs and static libraries; trying the engine" % (removed >> 20))
    smoke = os.path.join(work, "smoke.json")
    pythons.run_in_tree(tree, ["-B", "-c", SMOKE, smoke], "Importing the engine", 600)
    with open(smoke, encoding="utf-8") as handle:
        facts = json.load(handle)
    progress("vllm %s and torch %s import; compiling to byte code (about a minute)" % (facts["vllm"], facts["torch"]))
    compile_tree(tree)
    write_json(os.path.join(tree, ARGUMENTS_NAME), {"arguments": facts["arguments"]})
    contents = dict(contents_of(recipe), vllm=facts["vllm"], torch=facts["torch"])
    write_json(os.path.join(tree, MANIFEST_NAME), contents)
    return dict(contents, arguments=facts["arguments"])
