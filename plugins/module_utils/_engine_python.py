# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The interpreter of an engine: find one, copy it so that it leans on nothing else, run it.

Shared by the build on the control node and the one on a host; targets have Python 3.9 or newer.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import typing as t

#: Parts of the standard library that no engine imports.
STDLIB_EXCLUDED = frozenset(
    ("test", "idlelib", "tkinter", "turtledemo", "ensurepip", "__pycache__", "dist-packages", "site-packages")
)
STDLIB_EXCLUDED_FILES = frozenset(("sitecustomize.py", "usercustomize.py", "EXTERNALLY-MANAGED"))

#: Environment that would change what pip installs, or where.
PIP_ENVIRONMENT_DROPPED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "PIP_REQUIREMENT")

CONTROL_NODE = "the control node"

PROBE = """
import json, os, platform, sys, sysconfig
print(json.dumps({
    "version": platform.python_version(),
    "short": "%d.%d" % sys.version_info[:2],
    "build": sys.version,
    "soabi": sysconfig.get_config_var("SOABI") or "",
    "machine": platform.machine(),
    "libc": "-".join(platform.libc_ver()),
    "libpython": sorted({line.split()[-1] for line in open("/proc/self/maps") if "/libpython" in line}),
    "executable": os.path.realpath(sys.executable),
    "stdlib": sysconfig.get_path("stdlib"),
    "dynload": os.path.join(sysconfig.get_path("platstdlib"), "lib-dynload"),
    "include": sysconfig.get_path("include"),
}))
"""

TREE_PROBE = """
import json, os, sys, sysconfig
mapped = [line.split()[-1] for line in open("/proc/self/maps") if "libpython" in line]
print(json.dumps({
    "prefix": sys.prefix,
    "path": sys.path,
    "purelib": sysconfig.get_path("purelib", sysconfig.get_default_scheme()),
    "libpython": sorted(set(mapped)),
}))
"""


class EngineError(Exception):
    """A refusal or a failure that a person can act upon; the text says found, expected and the remedy."""


def clean_environment(extra: t.Optional[t.Mapping[str, str]] = None) -> t.Dict[str, str]:
    """Return this process's environment without what would steer another Python or redirect pip."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in PIP_ENVIRONMENT_DROPPED and name not in ("VIRTUAL_ENV",)
    }
    env.update(extra or {})
    return env


def candidate_pythons(short: str, search: t.Sequence[str] = ()) -> t.List[str]:
    """Return where an interpreter of this minor version is looked for, best first, duplicates removed.

    Args:
        short: the minor version, such as ``3.12``.
        search: glob patterns of further directories, tried after the usual ones.
    """
    name = "python" + short
    paths: t.List[t.Optional[str]] = ["/usr/bin/" + name, "/usr/local/bin/" + name, shutil.which(name)]
    for pattern in search:
        paths += sorted(glob.glob(os.path.join(pattern, name)))
    found: t.List[str] = []
    for path in paths:
        if path and os.access(path, os.X_OK) and path not in found:
            found.append(path)
    return found


def probe_python(
    short: str, wanted: t.Optional[str] = None, search: t.Sequence[str] = (), where: str = CONTROL_NODE
) -> t.Dict[str, t.Any]:
    """Return what the engine's interpreter says of itself, and its ``path``; refuse when there is none of that version.

    Args:
        short: the minor version, such as ``3.12``.
        wanted: the only interpreter that is tried; None tries those of :func:`candidate_pythons`.
        search: glob patterns of further directories.
        where: what a refusal calls this machine.
    """
    tried = []
    for path in [wanted] if wanted else candidate_pythons(short, search):
        try:
            done = subprocess.run(
                [path, "-I", "-c", PROBE],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            tried.append("%s (%s)" % (path, exc))
            continue
        if done.returncode != 0:
            tried.append("%s (exit %d)" % (path, done.returncode))
            continue
        facts: t.Dict[str, t.Any] = dict(json.loads(done.stdout), path=path)
        if facts["short"] != short:
            tried.append("%s (is Python %s)" % (path, facts["version"]))
            continue
        return facts
    raise EngineError(
        "vllm_engine_python: found %s, expected a Python %s interpreter on %s, the version that the "
        "release's lock file was resolved for. Remedy: install python%s (with its venv and standard library packages), "
        "set vllm_engine_python to the path of one, or name its directory in vllm_engine_python_search."
        % ("; ".join(tried) or "none", short, where, short)
    )


def _ignore_stdlib(directory: str, names: t.Sequence[str]) -> t.Set[str]:
    out = set()
    for name in names:
        if name in STDLIB_EXCLUDED or name in STDLIB_EXCLUDED_FILES or name.startswith("config-"):
            out.add(name)
    return out


def copy_interpreter(python: t.Mapping[str, t.Any], tree: str, headers: bool) -> None:
    """Copy an interpreter and its standard library to ``tree``/bin and ``tree``/lib."""
    short = python["short"]
    os.makedirs(os.path.join(tree, "bin"))
    binary = os.path.join(tree, "bin", "python" + short)
    shutil.copy2(python["executable"], binary)
    os.chmod(binary, 0o755)
    for link in ("python3", "python"):
        os.symlink("python" + short, os.path.join(tree, "bin", link))
    library = os.path.join(tree, "lib", "python" + short)
    shutil.copytree(python["stdlib"], library, ignore=_ignore_stdlib, symlinks=False, ignore_dangling_symlinks=True)
    dynload = os.path.join(library, "lib-dynload")
    if not os.path.isdir(dynload):
        shutil.copytree(python["dynload"], dynload)
    for shared in python["libpython"]:
        shutil.copy2(shared, os.path.join(tree, "lib", os.path.basename(shared)))
    if headers and os.path.isdir(python["include"]):
        shutil.copytree(python["include"], os.path.join(tree, "include", "python" + short))


def tree_python(tree: str) -> str:
    """Return the path of a tree's interpreter."""
    return os.path.join(tree, "bin", "python3")


def check_relocated(tree: str, source: str) -> str:
    """Return the tree's site directory; refuse an interpreter that still leans on where it came from."""
    done = subprocess.run(
        [tree_python(tree), "-I", "-c", TREE_PROBE],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    remedy = (
        "Remedy: set vllm_engine_python to an interpreter that is linked statically against libpython, such as "
        "Debian's /usr/bin/python3.X or a python-build-standalone one."
    )
    if done.returncode != 0:
        raise EngineError(
            "vllm_engine_python: %s does not start when it is moved: %s. %s"
            % (source, done.stderr.decode("utf-8", "replace").strip()[-400:], remedy)
        )
    facts = json.loads(done.stdout)
    root = os.path.realpath(tree)
    outside = [
        path
        for path in facts["path"] + facts["libpython"] + [facts["purelib"]]
        if path and not os.path.realpath(path).startswith(root + os.sep)
    ]
    if outside:
        raise EngineError(
            "vllm_engine_python: %s, when moved, still uses %s; expected everything below its own tree. %s"
            % (source, ", ".join(outside[:4]), remedy)
        )
    purelib: str = facts["purelib"]
    return purelib


def run_in_tree(tree: str, argv: t.Sequence[str], what: str, timeout: int) -> str:
    """Run the tree's Python, isolated and without network use; return its output or refuse with its last lines."""
    done = subprocess.run(
        [tree_python(tree), "-I", *argv],
        env=clean_environment({"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise EngineError(
            "%s failed in the engine tree (exit %d): %s" % (what, done.returncode, " | ".join(text.split("\n")[-8:]))
        )
    return text
