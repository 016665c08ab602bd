# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's files as it would place them, rendered by the tree's own tests/golden/proxy/render.py."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import typing as t

HERE = pathlib.Path(__file__).resolve().parents[2]
TREE = pathlib.Path(os.environ.get("PROXY_TREE") or HERE)
# What the role is asked for comes as JSON on standard input, and its files leave as JSON.
RENDER = """
import json, sys
import render
asked = json.load(sys.stdin)
given = render.inputs(**asked["inputs"])
for name, value in asked["limits"].items():
    assert name in given["limits"], "no limit is called " + name
    given["limits"][name] = value
files = render.render(given, asked["platform"], **{**given["limits"], **asked["variables"]})
json.dump(files, sys.stdout)
"""
# Limits that no trial reaches, for those that measure something else. The rules stay, and count.
UNREACHED = {
    "llm_proxy_client_requests_per_second": 100000,
    "llm_proxy_client_burst_requests": 100000,
    "llm_proxy_client_concurrent_requests": 10000,
    "llm_proxy_failed_authentications_per_second": 100000,
    "llm_proxy_failed_authentications_burst": 100000,
}


def files(
    inputs: t.Mapping[str, t.Any],
    limits: t.Optional[t.Mapping[str, int]] = None,
    platform: str = "debian12",
    variables: t.Optional[t.Mapping[str, t.Any]] = None,
) -> t.Dict[str, str]:
    """Return what the role places, by destination, for these changes of its golden test's inputs."""
    asked = {"inputs": inputs, "limits": limits or {}, "platform": platform, "variables": variables or {}}
    path = [str(TREE / "tests/golden/proxy"), str(TREE / "collections")]
    done = subprocess.run(
        [str(HERE / ".venv/bin/python"), "-c", RENDER],
        input=json.dumps(asked),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return t.cast(t.Dict[str, str], json.loads(done.stdout))


class Rule(t.NamedTuple):
    """A rule of the proxy, and how a rendered copy loses it: (file's end, regular expression, what stands there
    instead)."""

    name: str
    edits: t.Tuple[t.Tuple[str, str, str], ...]


def without(rendered: t.Mapping[str, str], *rules: Rule) -> t.Dict[str, str]:
    """Return a copy that lacks some rules. Raises LookupError where one isn't found: then the role has changed."""
    copy = dict(rendered)
    for rule in rules:
        for end, pattern, instead in rule.edits:
            changes = 0
            for name in [name for name in copy if name.endswith(end)]:
                copy[name], count = re.subn(pattern, instead, copy[name], flags=re.DOTALL)
                changes += count
            if not changes:
                raise LookupError("%s: %r isn't in any file that ends %s" % (rule.name, pattern, end))
    return copy
