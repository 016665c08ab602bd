# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be watched, and whether the watchdog runs with what is there."""

from __future__ import annotations

import hashlib
import json

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _watchdog_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _watchdog_ready as ready
from llm_watchdog import __main__ as program
from llm_watchdog import decide

GOOD = {"deadline": 2.0, "busy": 20, "kill_after": 3.0, "start": 660, "restarts": 3, "window": 900, "timely": 2}


def test_an_instance_is_named_as_its_engine_is():
    models = [
        {"name": "smollm2", "slot": "b"},
        {"name": "small", "engine": "llama_cpp", "authorization_include": "", "socket": "/run/x.sock"},
        {"name": "other", "engine": "tgi"},
    ]
    assert planning.plan(models, GOOD)["instances"] == [
        {
            "name": "smollm2-b", "model": "smollm2", "unit": "vllm@smollm2-b.service",
            "socket": "/run/gpufleet/smollm2-b/engine.sock", "credential": "smollm2-b.api_key", "breaker": "smollm2",
        },
        {
            "name": "small-a", "model": "small", "unit": "llama_cpp@small-a.service", "socket": "/run/x.sock",
            "credential": "", "breaker": "small",
        },
    ]  # fmt: skip


def test_everything_wrong_is_said_at_once():
    with pytest.raises(ValueError, match="5 reasons") as refused:
        planning.plan(
            [{"name": "Big Model"}, {"name": "a", "slot": "c"}, {"name": "b"}, {"name": "b", "slot": "b"}],
            dict(GOOD, deadline="soon", kill_after=-1),
        )
    assert "llm_watchdog_deadline" in str(refused.value)


def test_the_settings_are_the_programs_own():
    assert set(GOOD) <= set(decide.Settings._fields)
    assert decide.Settings(**planning.plan([], GOOD)["settings"]) == decide.Settings()


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "watchdog.json"
    paths = [str(path), str(tmp_path / "unit")]
    path.write_text(json.dumps({"runs_from": paths}))
    (tmp_path / "unit").write_text("unit")
    return path


class Systemd:
    """Answers `systemctl show`."""

    def __init__(self, **more):
        self.properties = dict(
            {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"},
            **more,
        )

    def run(self, argv):
        return 0, "".join("%s=%s\n" % one for one in self.properties.items()), ""


def test_both_sides_take_the_same_digest(config):
    paths = json.loads(config.read_text())["runs_from"]
    assert ready.digest(str(config)) == program.digest(paths)
    assert ready.digest(str(config)) != hashlib.sha256().hexdigest()
    assert ready.digest(str(config) + ".none") == ""


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({}, ""),
        ({"LoadState": "not-found"}, "isn't there"),
        ({"ActiveState": "failed"}, "failed"),
        ({"UnitFileState": "disabled"}, "disabled"),
        ({"NeedDaemonReload": "yes"}, "unit's file changed"),
    ],
)
def test_why_it_is_started(config, properties, reason):
    status = {"digest": ready.digest(str(config))}
    said = ready.due(Systemd(**properties), "u", str(config), status)
    assert bool(said) == bool(reason)
    assert reason in said


def test_a_file_that_changed_has_it_restarted(config, tmp_path):
    status = {"digest": ready.digest(str(config)), "instances": {"a": {"phase": "serving"}}}
    assert ready.looked(Systemd(), "u", str(config), status) == ({"a": "serving"}, "")
    (tmp_path / "unit").write_text("another")
    assert ready.due(Systemd(), "u", str(config), status) == "what it runs from changed"
    assert "no status" in ready.looked(Systemd(), "u", str(config), status)[1]


def test_one_that_has_not_looked_yet_is_waited_for(config):
    status = {"digest": ready.digest(str(config)), "instances": {"a": {"phase": "unknown"}}}
    assert ready.looked(Systemd(), "u", str(config), status)[1] == "a not looked at"
