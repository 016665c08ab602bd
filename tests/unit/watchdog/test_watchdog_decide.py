# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a watchdog acts, and when it must not."""

from __future__ import annotations

import pytest
from llm_watchdog import decide as watch

SETTINGS = watch.Settings()
READY = watch.State(looked_at=100.0, trusted_from=99.0, invocation="one", ready=True, phase="serving")


def live(seen_at, until, state=READY, step=0.25):
    """Look every 0.25 s from 100 s on; an action out or back shows in the next look. Return [(time, kind)]."""
    done, now, out = [], 100.0, False
    while now <= until:
        actions, state = watch.decide(SETTINGS, seen_at(now)._replace(out=out), state, now)
        done += [(now, action.kind) for action in actions]
        for action in actions:
            out = {"out": True, "back": False}.get(action.kind, out)
        now += step
    return done, state


def hung(_now):
    return watch.Seen(pending_since=101.0, token_at=99.9)


def test_a_hung_engine_is_out_within_5_and_killed_within_10_seconds():
    done, state = live(hung, 107.0)
    assert [kind for _at, kind in done] == ["out", "kill"]
    assert done[0][0] - 100 <= 4
    assert done[1][0] - 100 <= 9
    assert state.kills == (done[1][0],)


def test_the_budget_ends_and_it_is_said_once():
    done, state = live(hung, 160.0)
    assert [kind for _at, kind in done] == ["out", "kill", "kill", "kill", "say"]
    assert state.exhausted


def test_the_budget_comes_back_with_the_window():
    old = READY._replace(kills=(100.0 - SETTINGS.window,) * 3)
    assert [kind for _at, kind in live(hung, 107.0, old)[0]] == ["out", "kill"]


@pytest.mark.parametrize(
    ("why", "seen"),
    [
        ("it starts", lambda now: watch.Seen(invocation="two", started_at=100.0, pending_since=100.0)),
        ("it drains", lambda now: watch.Seen(active_state="deactivating", pending_since=100.0)),
        ("it was stopped", lambda now: watch.Seen(active_state="inactive", pending_since=100.0)),
        ("somebody works on it", lambda now: watch.Seen(maintenance=True, pending_since=100.0)),
        (
            "the queue is long, tokens move",
            lambda now: watch.Seen(pending_since=100.0, running=256, moved_at=now - 0.5),
        ),
        ("it computes a long prompt", lambda now: watch.Seen(pending_since=100.0, running=1, working=True)),
        ("it is idle and answers", lambda now: watch.Seen(token_at=now - 1.0, timely=9)),
    ],
)
def test_nothing_is_done_when(why, seen):
    assert live(seen, 115.0)[0] == [], why


def test_patience_with_an_engine_that_computes_ends():
    done, _state = live(lambda now: watch.Seen(pending_since=100.0, working=True), 130.0)
    assert done[0] == (120.0, "out")


def test_a_watchdog_that_was_away_blames_nobody():
    actions, state = watch.decide(SETTINGS, hung(0), READY, 160.0)
    assert actions == []
    assert watch.decide(SETTINGS, hung(0), state, 160.25)[0] == []


def test_running_requests_without_progress_are_a_hang():
    seen = watch.Seen(running=3, running_since=90.0, moved_at=100.0, token_at=99.0)
    done, _state = live(lambda now: seen._replace(measured_at=now), 104.0)
    assert done[0] == (102.0, "out")


def test_what_runs_is_not_held_against_it_when_it_said_so_before_its_last_token():
    seen = watch.Seen(running=1, running_since=100.4, measured_at=100.4, token_at=100.5)
    assert live(lambda now: seen, 110.0)[0] == []


def test_answers_without_tokens_are_no_life():
    actions, _state = watch.decide(SETTINGS, watch.Seen(wrong=3, token_at=99.0), READY, 100.25)
    assert [action.kind for action in actions] == ["out"]


def test_it_is_put_back_after_two_tokens_in_time():
    seen = watch.Seen(out=True, token_at=100.0, timely=1)
    actions, state = watch.decide(SETTINGS, seen, READY, 100.25)
    assert actions == []
    actions, _state = watch.decide(SETTINGS, seen._replace(timely=2), state, 100.5)
    assert [action.kind for action in actions] == ["back"]


def test_a_kill_names_the_invocation_that_was_seen():
    state = READY._replace(out_since=96.0, trusted_from=0.0)
    actions, _state = watch.decide(SETTINGS, watch.Seen(out=True, pending_since=90.0), state, 100.25)
    assert [(action.kind, action.invocation) for action in actions] == [("kill", "one")]


def test_a_new_process_is_not_killed_for_the_old_ones_silence():
    state = READY._replace(out_since=90.0)
    actions, state = watch.decide(SETTINGS, hung(0)._replace(invocation="two", started_at=100.0), state, 100.25)
    assert actions == []
    assert (state.phase, state.ready) == ("starting", False)


def test_an_engine_that_never_gives_its_first_token_is_restarted():
    seen = watch.Seen(invocation="one", started_at=100.0 - SETTINGS.start, pending_since=1.0)
    done, _state = live(lambda now: seen, 106.0, READY._replace(ready=False))
    assert [kind for _at, kind in done] == ["out", "kill"]
