# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Build one relocatable, hashed archive of an engine and its interpreter; runs on the control node.

The tree is an interpreter with its standard library and the locked distributions in its own site directory. There is
no virtual environment in it, so nothing in it names the directory it was built in, and it runs from wherever it lies.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import typing as t

#: Raised by one whenever the same inputs would give another tree.
BUILDER_FORMAT = 1

MANIFEST_NAME = "engine.json"
ARGUMENTS_NAME = "serve-arguments.json"

#: Parts of the standard library that no engine imports.
STDLIB_EXCLUDED = frozenset(
    ("test", "idlelib", "tkinter", "turtledemo", "ensurepip", "__pycache__", "dist-packages", "site-packages")
)
STDLIB_EXCLUDED_FILES = frozenset(("sitecustomize.py", "usercustomize.py", "EXTERNALLY-MANAGED"))

#: What a served engine never opens: test suites, type stubs, static libraries.
STRIPPED_DIRECTORIES = frozenset(("__pycache__", "tests"))
STRIPPED_SUFFIXES = (".pyi", ".a", ".pyc", ".pyo")

#: Below these, a directory called ``tests`` is test code; elsewhere it may be a package that is imported.
TESTS_STRIPPED_UNDER = frozenset(
    ("numpy", "scipy", "pandas", "sympy", "numba", "networkx", "pyarrow", "llvmlite", "mpmath", "sklearn", "torch")
)

#: Environment that would change what pip installs, or where.
PIP_ENVIRONMENT_DROPPED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "PIP_REQUIREMENT")

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

Progress = t.Callable[[str], None]


class EngineError(Exception):
    """A refusal or a failure that a person can act upon; the text says found, expected and the remedy."""


def normalised_lock(text: str) -> str:
    """Return a lock file without comments and empty lines: what decides which bytes are installed."""
    lines = []
    for line in text.splitlines():
        bare = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if bare:
            lines.append(bare)
    return "".join(line + "\n" for line in lines)


def locked_names(text: str) -> t.List[str]:
    """Return the distribution names that a hash-locked requirements file pins, in its order."""
    names = []
    for line in normalised_lock(text).splitlines():
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*==", line)
        if match:
            names.append(match.group(1))
    return names


def check_lock(text: str, where: str) -> None:
    """Refuse a lock file in which any requirement is not pinned, or has no hash."""
    requirements: t.List[str] = []
    for line in normalised_lock(text).splitlines():
        if line[:1].isspace() and requirements:
            requirements[-1] += " " + line.strip()
        else:
            requirements.append(line)
    bad = [r.split()[0] for r in requirements if "==" not in r.split(";")[0] or "--hash=sha256:" not in r]
    if bad or not requirements:
        raise EngineError(
            "The engine's lock file %s: found %s, expected every requirement pinned with == and a sha256 hash. "
            "Remedy: resolve it again with hashes (uv pip compile --generate-hashes)."
            % (where, "no requirement" if not requirements else "without pin or hash: " + ", ".join(bad[:5]))
        )


def engine_key(lock_text: str, python: t.Mapping[str, t.Any], shims: t.Sequence[t.Mapping[str, str]]) -> str:
    """Return the sha256 (hex) of everything that decides the content of an engine tree.

    Args:
        lock_text: the lock file; comments don't count.
        python: what :func:`probe_python` said of the interpreter.
        shims: metadata-only distributions, ``{name, version}``.
    """
    facts = {
        "format": BUILDER_FORMAT,
        "lock": hashlib.sha256(normalised_lock(lock_text).encode()).hexdigest(),
        "python": [python["build"], python["soabi"], python["machine"]],
        "shims": sorted([s["name"], s["version"]] for s in shims),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def engine_id(version: str, key: str) -> str:
    """Return the name of an engine tree, ``<version>-<first 12 of its key>``."""
    return "%s-%s" % (version, key[:12])


def clean_environment(extra: t.Optional[t.Mapping[str, str]] = None) -> t.Dict[str, str]:
    """Return this process's environment without what would steer another Python or redirect pip."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in PIP_ENVIRONMENT_DROPPED and name not in ("VIRTUAL_ENV",)
    }
    env.update(extra or {})
    return env


def pip_environment(
    find_links: t.Sequence[str], index_url: t.Optional[str], extra_index_urls: t.Sequence[str]
) -> t.Dict[str, str]:
    """Return the environment for pip: the operator's own configuration, and above it what the inputs say.

    Addresses go by environment and not by argument, because they may hold a password.
    """
    env = clean_environment(
        {
            "PIP_REQUIRE_VIRTUALENV": "0",
            "PIP_USER": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PIP_NO_COLOR": "1",
        }
    )
    if find_links:
        env["PIP_FIND_LINKS"] = " ".join(find_links)
    if index_url:
        env["PIP_INDEX_URL"] = index_url
    if extra_index_urls:
        env["PIP_EXTRA_INDEX_URL"] = " ".join(extra_index_urls)
    return env


def redact_urls(text: str) -> str:
    """Return ``text`` with the user part of every address in it replaced."""
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1****@", text)


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


def probe_python(short: str, wanted: t.Optional[str] = None, search: t.Sequence[str] = ()) -> t.Dict[str, t.Any]:
    """Return what the engine's interpreter says of itself; refuse when there is none of that minor version."""
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
        facts: t.Dict[str, t.Any] = json.loads(done.stdout)
        if facts["short"] != short:
            tried.append("%s (is Python %s)" % (path, facts["version"]))
            continue
        return facts
    raise EngineError(
        "vllm_engine_python: found %s, expected a Python %s interpreter on the control node, the version that the "
        "release's lock file was resolved for. Remedy: install python%s (with its venv and standard library packages), "
        "set vllm_engine_python to the path of one, or name its directory in vllm_engine_python_search."
        % ("; ".join(tried) or "none", short, short)
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


def pip_command(tree: str, lock_file: str) -> t.List[str]:
    """Return the command that installs a lock file into a tree with the control node's own pip."""
    return [
        sys.executable,
        "-m",
        "pip",
        "--python",
        tree_python(tree),
        "install",
        "--require-hashes",
        "--no-deps",
        "--no-compile",
        "--no-warn-script-location",
        "--only-binary=:all:",
        "--progress-bar=off",
        "--requirement",
        lock_file,
    ]


def install_lock(tree: str, lock_file: str, env: t.Mapping[str, str], log: str, progress: Progress) -> None:
    """Install the locked distributions into a tree; say how far it is every ten seconds."""
    with open(lock_file, encoding="utf-8") as handle:
        total = len(locked_names(handle.read()))
    seen = 0
    said = started = time.monotonic()
    tail: t.List[str] = []
    with open(log, "w", encoding="utf-8") as out:
        child = subprocess.Popen(
            pip_command(tree, lock_file),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert child.stdout is not None
        try:
            for line in child.stdout:
                clean = redact_urls(line)
                out.write(clean)
                tail = (tail + [clean.rstrip()])[-12:]
                seen += line.startswith(("Collecting ", "Processing "))
                if line.startswith("Installing collected packages"):
                    progress("writing %d packages into the tree (about a minute)" % total)
                elif seen < total and time.monotonic() - said > 10:
                    said = time.monotonic()
                    progress("%d of %d packages fetched, %d s" % (seen, total, said - started))
            code = child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if code != 0:
        raise EngineError(
            "pip could not install the engine's lock file %s (exit %d): %s. Remedy: see %s; if a package was not "
            "found, name the index or wheel directory that has it in vllm_engine_extra_index_urls or "
            "vllm_engine_find_links, or in the control node's own pip configuration."
            % (lock_file, code, " | ".join(t_ for t_ in tail if t_)[-900:], log)
        )


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


def compile_tree(tree: str) -> None:
    """Write byte code that isn't checked against its source: the same bytes on every build, no slow first start."""
    subprocess.run(
        [
            tree_python(tree),
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
        env=clean_environment({"PYTHONHASHSEED": "0"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A few packages carry files for another Python on purpose; they don't compile and are never imported.
        check=False,
    )


def _normalise(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mtime = 0
    info.mode = 0o755 if info.isdir() or info.mode & stat.S_IXUSR else 0o644
    if info.issym():
        info.mode = 0o777
    return info


def pack_tree(tree: str, archive: str, progress: Progress) -> t.Dict[str, t.Any]:
    """Write ``tree`` as a zstd-compressed tar in a fixed order, owned by root, without times.

    Returns:
        ``{sha256, size_bytes, unpacked_bytes, files}``.
    """
    zstd = shutil.which("zstd")
    if zstd is None:
        raise EngineError(
            "The control node has no zstd command, which packs the engine. Remedy: install the package zstd there."
        )
    digest = hashlib.sha256()
    size = files = unpacked = 0
    with open(archive, "wb") as out:
        child = subprocess.Popen(
            [zstd, "-q", "-T0", "-6", "-c"], stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL
        )
        assert child.stdin is not None
        with tarfile.open(fileobj=child.stdin, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as tar:
            said = time.monotonic()
            for directory, names, plain in os.walk(tree):
                names.sort()
                links = [n for n in names if os.path.islink(os.path.join(directory, n))]
                relative = os.path.relpath(directory, tree)
                if relative != ".":
                    tar.add(directory, relative, recursive=False, filter=_normalise)
                for name in sorted(plain + links):
                    path = os.path.join(directory, name)
                    tar.add(path, os.path.normpath(os.path.join(relative, name)), recursive=False, filter=_normalise)
                    files += 1
                    unpacked += os.lstat(path).st_size
                    if time.monotonic() - said > 10:
                        said = time.monotonic()
                        progress("packed %d files, %d MiB" % (files, unpacked >> 20))
        child.stdin.close()
        if child.wait() != 0:
            raise EngineError("zstd could not write %s (exit %d); is the disk full?" % (archive, child.returncode))
        out.flush()
        os.fsync(out.fileno())
    with open(archive, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return {"sha256": digest.hexdigest(), "size_bytes": size, "unpacked_bytes": unpacked, "files": files}


def archive_paths(cache_dir: str, identity: str) -> t.Tuple[str, str]:
    """Return where the archive of an engine lies, and its description."""
    base = os.path.join(cache_dir, "engines", identity)
    return base + ".tar.zst", base + ".json"


def read_archive(cache_dir: str, identity: str, key: str) -> t.Optional[t.Dict[str, t.Any]]:
    """Return the description of a finished archive, or None when it must be built."""
    archive, description = archive_paths(cache_dir, identity)
    try:
        with open(description, encoding="utf-8") as handle:
            record: t.Dict[str, t.Any] = json.load(handle)
        if record.get("key") == key and os.stat(archive).st_size == record.get("size_bytes"):
            return record
    except (OSError, ValueError):
        return None
    return None


@contextlib.contextmanager
def locked(path: str, progress: Progress) -> t.Iterator[None]:
    """Hold an exclusive lock on a file; say so when somebody else has it."""
    with open(path, "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            progress("another run is building this engine; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write_json(path: str, record: t.Mapping[str, t.Any]) -> None:
    with open(path + ".partial", "w", encoding="utf-8") as handle:
        json.dump(record, handle, indent=2, sort_keys=True)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(path + ".partial", path)


def contents_of(
    identity: str, key: str, version: str, python: t.Mapping[str, t.Any], lock_text: str
) -> t.Dict[str, t.Any]:
    """Return what is known of an engine before it has been tried."""
    return {
        "engine_id": identity,
        "key": key,
        "version": version,
        "python": {name: python[name] for name in ("version", "build", "soabi", "machine", "libc")},
        "packages": len(locked_names(lock_text)),
        "format": BUILDER_FORMAT,
    }


def _finish(cache_dir: str, work: str, contents: t.Dict[str, t.Any], progress: Progress) -> t.Dict[str, t.Any]:
    """Try the tree below ``work``, compile it, write down what it is, and pack it into the archive's final place."""
    tree = os.path.join(work, "tree")
    smoke = os.path.join(work, "smoke.json")
    run_in_tree(tree, ["-B", "-c", SMOKE, smoke], "Importing the engine", 600)
    with open(smoke, encoding="utf-8") as handle:
        facts = json.load(handle)
    progress("vllm %s and torch %s import; compiling to byte code (about a minute)" % (facts["vllm"], facts["torch"]))
    compile_tree(tree)
    _write_json(os.path.join(tree, ARGUMENTS_NAME), {"arguments": facts["arguments"]})
    contents = dict(contents, vllm=facts["vllm"], torch=facts["torch"])
    _write_json(os.path.join(tree, MANIFEST_NAME), contents)
    progress("packing the tree (about a minute)")
    archive = archive_paths(cache_dir, contents["engine_id"])[0]
    packed = pack_tree(tree, archive + ".partial", progress)
    os.replace(archive + ".partial", archive)
    return dict(contents, arguments=facts["arguments"], **packed)


def build(
    cache_dir: str,
    version: str,
    lock_file: str,
    python: t.Mapping[str, t.Any],
    shims: t.Sequence[t.Mapping[str, str]],
    env: t.Mapping[str, str],
    progress: Progress,
    headers: bool = False,
) -> t.Dict[str, t.Any]:
    """Return the description of the engine's archive, building it when the cache doesn't hold it.

    An interrupted build leaves a directory that the next one removes; the archive appears by a rename at the very end.
    """
    with open(lock_file, encoding="utf-8") as handle:
        lock_text = handle.read()
    check_lock(lock_text, lock_file)
    key = engine_key(lock_text, python, shims)
    identity = engine_id(version, key)
    archive, description = archive_paths(cache_dir, identity)
    engines = os.path.dirname(archive)
    os.makedirs(engines, exist_ok=True)
    with locked(os.path.join(engines, identity + ".lock"), progress):
        record = read_archive(cache_dir, identity, key)
        if record is not None:
            return record
        free = shutil.disk_usage(engines).free
        if free < 8 << 30:
            raise EngineError(
                "gpufleet_cache_dir: %s has %d MiB free, expected at least 8192 MiB to build an engine. "
                "Remedy: free space there, or point gpufleet_cache_dir at a larger disk." % (engines, free >> 20)
            )
        work = os.path.join(engines, identity + ".building")
        shutil.rmtree(work, ignore_errors=True)
        tree = os.path.join(work, "tree")
        os.makedirs(tree)
        started = time.monotonic()
        progress("building engine %s in %s (about 5 minutes)" % (identity, engines))
        copy_interpreter(python, tree, headers)
        site = check_relocated(tree, python["executable"])
        log = os.path.join(engines, identity + ".log")
        install_lock(tree, lock_file, env, log, progress)
        for shim in shims:
            add_shim(site, shim["name"], shim["version"])
        remove_scripts(tree)
        removed = strip_tree(site)
        progress("removed %d MiB of tests, stubs and static libraries; trying the engine" % (removed >> 20))
        record = _finish(cache_dir, work, contents_of(identity, key, version, python, lock_text), progress)
        record["build_seconds"] = round(time.monotonic() - started, 1)
        _write_json(description, record)
        shutil.rmtree(work, ignore_errors=True)
        progress("engine %s built in %d s, %d MiB" % (identity, record["build_seconds"], record["size_bytes"] >> 20))
        return record
