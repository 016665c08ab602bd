# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The hash-locked requirements of an engine, and the pip that installs them into its tree.

Shared by the build on the control node and the one on a host; targets have Python 3.9 or newer.
"""

from __future__ import annotations

import re
import subprocess
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_python as pythons

Progress = t.Callable[[str], None]


class Pip(t.NamedTuple):
    """With what the locked distributions are installed.

    Attributes:
        python: the interpreter whose pip installs; it isn't the tree's.
        env: its whole environment, see :func:`pip_environment`.
        log: where its output goes, without passwords.
        where: what a failure calls this machine.
        keep_open: a file descriptor that it inherits, such as that of a lock which must outlive an interrupted run.
    """

    python: str
    env: t.Mapping[str, str]
    log: str
    where: str = pythons.CONTROL_NODE
    keep_open: t.Optional[int] = None


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
        raise pythons.EngineError(
            "The engine's lock file %s: found %s, expected every requirement pinned with == and a sha256 hash. "
            "Remedy: resolve it again with hashes (uv pip compile --generate-hashes)."
            % (where, "no requirement" if not requirements else "without pin or hash: " + ", ".join(bad[:5]))
        )


def pip_environment(
    find_links: t.Sequence[str], index_url: t.Optional[str], extra_index_urls: t.Sequence[str]
) -> t.Dict[str, str]:
    """Return the environment for pip: this machine's own configuration, and above it what the inputs say.

    Addresses go by environment and not by argument, because they may hold a password.

    Args:
        find_links: directories or pages with wheels.
        index_url: package index; None leaves that of the configuration, an empty string takes none at all.
        extra_index_urls: further package indexes.
    """
    env = pythons.clean_environment(
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
    elif index_url is not None:
        env["PIP_NO_INDEX"] = "1"
    if extra_index_urls:
        env["PIP_EXTRA_INDEX_URL"] = " ".join(extra_index_urls)
    return env


def redact_urls(text: str) -> str:
    """Return ``text`` with the user part of every address in it replaced."""
    return re.sub(r"(\w+://)[^/\s]+@", r"\1****@", text)


def pip_command(python: str, tree: str, lock_file: str) -> t.List[str]:
    """Return the command by which the pip of one interpreter installs a lock file into a tree."""
    return [
        python,
        "-m",
        "pip",
        "--python",
        pythons.tree_python(tree),
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


def check_pip(pip: Pip) -> None:
    """Refuse an interpreter whose pip is missing, or too old to install into another one's tree."""
    done = subprocess.run(
        [pip.python, "-m", "pip", "--python", pip.python, "--version"],
        env=dict(pip.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        last = redact_urls(done.stdout.decode("utf-8", "replace")).strip().splitlines()[-1:]
        raise pythons.EngineError(
            "vllm_engine_python: found %s without a pip that can install for another interpreter (%s), on %s. Remedy: "
            "install the pip package of that Python, of a version that knows the option --python."
            % (pip.python, " ".join(last), pip.where)
        )


def install_lock(tree: str, lock_file: str, pip: Pip, progress: Progress) -> None:
    """Install the locked distributions into a tree; say how far it is every ten seconds."""
    with open(lock_file, encoding="utf-8") as handle:
        total = len(locked_names(handle.read()))
    seen = 0
    said = started = time.monotonic()
    tail: t.List[str] = []
    with open(pip.log, "w", encoding="utf-8") as out:
        child = subprocess.Popen(
            pip_command(pip.python, tree, lock_file),
            env=dict(pip.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=() if pip.keep_open is None else (pip.keep_open,),
            text=True,
            errors="replace",
        )
        output = t.cast("t.IO[str]", child.stdout)
        try:
            for line in output:
                clean = redact_urls(line)
                out.write(clean)
                if clean.strip() and not clean.startswith("WARNING: "):
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
        raise pythons.EngineError(
            "pip could not install the engine's lock file on %s (exit %d): %s. Remedy: see %s there; if a package was "
            "not found, name the index or wheel directory that has it in vllm_engine_index_url, "
            "vllm_engine_extra_index_urls or vllm_engine_find_links, or in the pip configuration of %s; if a hash "
            "doesn't match, that place has another file than the release was locked to."
            % (pip.where, code, " | ".join(tail)[-900:], pip.log, pip.where)
        )
