# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's half of engine_ready: starts what must be started, waits in short steps, and says how far it is."""

from __future__ import annotations

import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

STEP_SECONDS = 10


class ActionModule(ActionBase):
    """Have every instance serve, one after the other."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._engine = str(self._task.args.get("engine") or "vllm")
        self._host = str(self._vars.get("inventory_hostname", "the host"))
        instances = [
            {key: str(one.get(key, "")) for key in ("name", "model", "credential")}
            for one in self._task.args.get("instances") or []
        ]
        looked = self._call("look", instances)
        if looked.get("failed"):
            result.update(looked)
            return result
        states = looked["states"]
        due = [one for one in instances if not settled(states[one["name"]])]
        result.update(
            changed=any(changes(states[one["name"]]) for one in due),
            states=states,
            started={},
            unlisted=looked["unlisted"],
        )
        if self._task.check_mode:
            return result
        for one in due:
            if not self._serve(one, result):
                break
        return result

    def _serve(self, one: t.Dict[str, str], result: t.Dict[str, t.Any]) -> bool:
        """Have one instance serve; if new files stopped it from serving, put back what it served with."""
        timeout = int(self._task.args.get("timeout_seconds") or 600)
        name = one["name"]
        state = result["states"][name]
        if state["ready"] and not state["stale"]:
            return self._enable(one, result)
        must_start = starts(state)
        if state["starting"]:
            display.display(
                "  engine: %s@%s on %s is starting already" % (self._engine, name, self._host), color="cyan"
            )
        if must_start:
            display.display(
                "  engine: starting %s@%s on %s (about a minute)" % (self._engine, name, self._host), color="cyan"
            )
        # A start of ours sets systemd's count of restarts to 0; one that is under way goes on from where it is.
        before = 0 if must_start else int(state["unit"].get("NRestarts") or 0)
        failure = self._start_and_wait("start" if must_start else "wait", one, timeout, result, before)
        if not failure:
            return must_start or bool(state["enabled"]) or self._enable(one, result)
        if not state["stale"]:
            result.update(failed=True, journal=failure["journal"])
            result["msg"] = (
                "%s@%s on %s doesn't serve: %s. Its files are those with which it served. Remedy: see the last "
                "lines of its journal in this result." % (self._engine, name, self._host, failure["reason"])
            )
            return False
        result["failed"] = True
        display.display(
            "  engine: %s@%s: %s; going back to what it served with" % (self._engine, name, failure["reason"]),
            color="red",
        )
        back = self._call("restore", [one])
        restored = back.get("restored") or []
        if not restored:
            after = "There was no configuration before with which it served, so the unit was stopped."
        else:
            again = self._wait(one, timeout, result)
            after = (
                "The files with which it last served were put back and it serves with them again: %s."
                % ", ".join(restored)
                if not again
                else "The files with which it last served were put back, but it doesn't serve with them either: %s."
                % again["reason"]
            )
        result["journal"] = failure["journal"]
        result["msg"] = (
            "%s@%s on %s doesn't serve: %s. %s Remedy: see the last lines of its journal in this result; correct the "
            "model or its engine_config and run again." % (self._engine, name, self._host, failure["reason"], after)
        )
        return False

    def _enable(self, one: t.Dict[str, str], result: t.Dict[str, t.Any]) -> bool:
        """Have the instance started at boot, too."""
        answer = self._call("enable", [one])
        result.update({key: answer[key] for key in ("failed", "msg") if key in answer})
        return not answer.get("failed")

    def _start_and_wait(
        self, operation: str, one: t.Dict[str, str], timeout: int, result: t.Dict[str, t.Any], before: int
    ) -> t.Optional[t.Dict[str, t.Any]]:
        started = self._call(operation, [one], wait_seconds=1, restarts_before=before)
        if started.get("failed"):
            return {"reason": started.get("msg", "it could not be started"), "journal": []}
        return self._wait(one, timeout, result, before)

    def _wait(
        self, one: t.Dict[str, str], timeout: int, result: t.Dict[str, t.Any], before: int = 0
    ) -> t.Optional[t.Dict[str, t.Any]]:
        """Return None once the instance gives a token, else ``{reason, journal}``."""
        name = one["name"]
        began = time.monotonic()
        while True:
            left = timeout - (time.monotonic() - began)
            seconds = max(1, min(STEP_SECONDS, int(left)))
            answer = self._call("wait", [one], wait_seconds=seconds, restarts_before=before)
            if answer.get("failed"):
                return {"reason": answer.get("msg", "the host gave no answer"), "journal": []}
            state = answer["states"][name]
            result["states"][name] = state
            took = time.monotonic() - began
            if state["ready"]:
                result["started"][name] = round(took, 1)
                display.display(
                    "  engine: %s@%s gave its first token after %d s" % (self._engine, name, took), color="cyan"
                )
                return None
            if state.get("hopeless") or left <= 0:
                reason = state.get("hopeless") or "no token within %d s: %s" % (timeout, state["reason"])
                return {"reason": reason, "journal": state.get("journal") or []}
            last = (state.get("journal") or [""])[-1].strip()[:100]
            display.display(
                "  engine: %s@%s has been starting for %d s: %s" % (self._engine, name, took, last), color="cyan"
            )

    def _call(self, operation: str, instances: t.List[t.Dict[str, str]], **step: int) -> t.Dict[str, t.Any]:
        args = dict(self._task.args, operation=operation, instances=instances, **step)
        answer: t.Dict[str, t.Any] = self._execute_module(
            module_name="gpufleet.llm.engine_ready", module_args=args, task_vars=self._vars
        )
        return answer


def starts(state: t.Mapping[str, t.Any]) -> bool:
    """Return whether an instance that isn't settled has to be started, in place of waited for."""
    running = state["unit"].get("ActiveState") in ("active", "activating", "reloading")
    return not state["starting"] and bool(state["stale"] or not running)


def changes(state: t.Mapping[str, t.Any]) -> bool:
    """Return whether having an instance serve changes the host: to wait for one that comes back doesn't."""
    return bool(state["stale"] or not state["enabled"] or (not state["ready"] and starts(state)))


def settled(state: t.Mapping[str, t.Any]) -> bool:
    """Return whether an instance serves with the files that are there, and will after a boot."""
    return bool(state["ready"] and state["enabled"] and not state["stale"])
