#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions of package_set's code with real package managers: record them on a throw-away host, replay them in tests.

  package_sessions.py record MANAGER FILE JSON    JSON: {packages, remove, hold_also, check, update, hold_only, ...}
  package_sessions.py result FILE...              write the results anew after a change of texts; the calls stay

Needs ``ansible_collections/gpufleet/llm/plugins/module_utils`` on its path. Of the lists of all packages only the rows
that matter are kept. A session's calls are the command lines as they were run, in their order: a replay that runs
others fails.
"""

from __future__ import annotations

import json
import re
import sys
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _package_managers, _package_run
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils._package_host import LocalPackageHost

KEPT = re.compile(r"nvidia|cuda|^dpkg\t|^hello|^libc6\t|^kernel|^foreign|^linux-(headers|image)")
LISTS = ("dpkg-query", "rpm")


class RecordingHost(LocalPackageHost):
    """This host; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: t.List[t.Dict[str, t.Any]] = []

    def _keep(self, kind: str, asked: t.Any, answer: t.Any) -> t.Any:
        self.calls.append({"kind": kind, "asked": asked, "answer": answer})
        return answer

    def run(self, argv: t.Sequence[str]) -> t.Tuple[int, str, str]:
        status, out, err = super().run(argv)
        if argv[0] in LISTS:
            out = "".join(line for line in out.splitlines(keepends=True) if KEPT.search(line))
        return tuple(self._keep("run", list(argv), [status, out, err]))

    def read(self, path: str) -> t.Optional[str]:
        return self._keep("read", path, super().read(path))

    def names(self, path: str) -> t.List[str]:
        found = super().names(path)
        if path == "/usr/bin":
            found = [name for name in found if name in ("apt-get", "dnf", "cloud-init")]
        return self._keep("names", path, found)

    def lock_holder(self, path: str) -> t.Optional[int]:
        return self._keep("lock_holder", path, super().lock_holder(path))

    def monotonic(self) -> float:
        return 0.0


class ReplayHost:
    """A host that answers as a recorded one did, and insists on the same commands in the same order."""

    def __init__(self, calls: t.Sequence[t.Mapping[str, t.Any]]) -> None:
        self.commands = [call for call in calls if call["kind"] == "run"]
        self.others: t.Dict[t.Tuple[str, str], t.List[t.Any]] = {}
        for call in calls:
            if call["kind"] != "run":
                self.others.setdefault((call["kind"], call["asked"]), []).append(call["answer"])

    def run(self, argv: t.Sequence[str]) -> t.Tuple[int, str, str]:
        assert self.commands, "no more commands were recorded, and now: %s" % " ".join(argv)
        call = self.commands.pop(0)
        assert list(argv) == call["asked"]
        return tuple(call["answer"])

    def _next(self, kind: str, path: str) -> t.Any:
        answers = self.others.get((kind, path))
        assert answers, "%s of %s wasn't recorded (again)" % (kind, path)
        return answers.pop(0)

    def read(self, path: str) -> t.Optional[str]:
        return self._next("read", path)

    def names(self, path: str) -> t.List[str]:
        return self._next("names", path)

    def lock_holder(self, path: str) -> t.Optional[int]:
        return self._next("lock_holder", path)

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing was waited for")


def act(manager: str, host: t.Any, given: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Do what a session does; return its result."""
    backend = _package_managers.backend(manager, given.get("module_streams", ()), host)
    check = given.get("check", False)
    if "hold_only" in given:
        held = given["hold_only"] == "held"
        outcome = _package_run.set_hold(backend, given["hold_also"], held=held, check=check, timeout_seconds=5)
        return {"changed": outcome.changed, "held": sorted(outcome.after.held)}
    request = planning.Request(
        dict(given.get("packages", {})),
        tuple(given.get("remove", ())),
        given.get("hold", True),
        tuple(given.get("hold_also", ())),
        given.get("allow_downgrade", True),
    )
    return _package_run.run(backend, request, check=check, timeout_seconds=5, update=given.get("update", False))


def load(path: t.Any) -> t.Dict[str, t.Any]:
    """Return a session."""
    with open(path, encoding="utf-8") as handle:
        return json.load(handle)


def store(path: str, session: t.Mapping[str, t.Any]) -> None:
    """Write a session."""
    with open(path, "w", encoding="utf-8") as handle:
        json.dump(session, handle, indent=1)
        handle.write("\n")


def main() -> None:
    if sys.argv[1] == "record":
        manager, path, text = sys.argv[2:5]
        host = RecordingHost()
        given = json.loads(text)
        result = act(manager, host, given)
        store(path, {"manager": manager, "given": given, "calls": host.calls, "result": result})
        print("%s: changed %s, %s" % (path, result["changed"], result.get("msg", "")[:150]))
    for path in sys.argv[2:] if sys.argv[1] == "result" else ():
        session = load(path)
        result = act(session["manager"], ReplayHost(session["calls"]), session["given"])
        store(path, {**session, "result": result})


if __name__ == "__main__":
    main()
