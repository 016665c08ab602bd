# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller's half of engine_ready asks of the host, with the host's answers given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.gpufleet.llm.plugins.action import engine_ready as action

ONE = {"name": "m-a", "model": "m"}


@pytest.fixture
def run(monkeypatch):
    """Run the action against a list of answers of the host; return its result and what it asked."""

    def run(*answers):
        asked = []
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = SimpleNamespace(
            args={"instances": [ONE], "timeout_seconds": 60}, check_mode=False, async_val=0, environment=None
        )
        monkeypatch.setattr(action.ActionBase, "run", lambda _self, _tmp, _vars: {})

        def execute(module_name, module_args, task_vars):
            asked.append((module_args["operation"], module_args.get("restarts_before")))
            return answers[len(asked) - 1]

        plugin._execute_module = execute
        return plugin.run(None, {"inventory_hostname": "h"}), asked

    return run


def state(**more):
    unit = {"LoadState": "loaded", "ActiveState": "activating", "NRestarts": "3"}
    whole = {"unit": unit, "stale": False, "starting": False, "enabled": True, "ready": False, "reason": "activating"}
    return {"states": {"m-a": {**whole, **more}}, "unlisted": []}


def test_a_wait_begins_to_count_where_it_begins(run):
    ready = state(ready=True)
    result, asked = run(state(), state(), ready)
    assert not result.get("failed")
    assert not result["changed"]
    assert asked == [("look", None), ("wait", 3), ("wait", 3)]


def test_a_start_of_its_own_counts_from_zero(run):
    result, asked = run(state(stale=True), {"states": {}}, state(ready=True))
    assert not result.get("failed")
    assert result["changed"]
    assert asked == [("look", None), ("start", 0), ("wait", 0)]


def test_an_engine_that_dies_again_and_again_fails_with_the_reason(run):
    dead = state(hopeless="the engine died 2 times while it started (exit status 1)", journal=["out of memory"])
    result, asked = run(state(), state(), dead)
    assert result["failed"]
    assert "died 2 times" in result["msg"]
    assert result["journal"] == ["out of memory"]
    assert len(asked) == 3


def test_one_that_comes_back_is_enabled_too(run):
    result, asked = run(state(enabled=False), state(), state(ready=True), {"states": {}})
    assert not result.get("failed")
    assert result["changed"]
    assert asked[-1] == ("enable", None)
