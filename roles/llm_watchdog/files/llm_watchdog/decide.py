# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a watchdog does about one engine instance: (settings, what was seen, state, clock) -> (actions, state).

Pure: it reads nothing and does nothing. All times are seconds of CLOCK_MONOTONIC. Standard library only.
"""

from __future__ import annotations

import typing as t


class Settings(t.NamedTuple):
    """Limits, in seconds where nothing else is said."""

    deadline: float = 2.0  # a probe's token, a running request's progress
    kill_after: float = 3.0  # from taken out to killed
    busy: float = 20.0  # patience with an engine that computes
    start: float = 660.0  # from start to first token
    gap: float = 2.0  # longer between two looks: it was the watchdog that was away
    restarts: int = 3  # kills in a window
    window: float = 900.0
    timely: int = 2  # tokens in time before it is put back
    wrong: int = 3  # answers without a token in a row
    marker: float = 3600.0  # age at which a maintenance marker is taken for forgotten


class Seen(t.NamedTuple):
    """One look at an instance."""

    active_state: str = "active"  # systemd's
    invocation: str = "one"
    started_at: float = 0.0
    pending_since: t.Optional[float] = None  # the first request without an answer since the last answer
    token_at: t.Optional[float] = None  # the last token of a probe
    timely: int = 0  # probes in a row that gave a token within the deadline
    wrong: int = 0  # answers in a row without a token
    running: int = 0  # requests that the engine says it runs
    running_since: t.Optional[float] = None  # since when it says so without a pause
    measured_at: t.Optional[float] = None  # when it said so last
    moved_at: t.Optional[float] = None  # the last change of a progress counter
    working: bool = False  # its processes compute, or wait for a processor
    out: bool = False  # the breaker file says so now
    held: bool = False  # somebody else wrote the breaker file
    maintenance: bool = False


class State(t.NamedTuple):
    """What is remembered of an instance from look to look."""

    looked_at: t.Optional[float] = None
    trusted_from: float = 0.0  # nothing older counts as silence
    invocation: str = ""
    ready: bool = False  # this invocation gave a token
    out_since: t.Optional[float] = None
    kills: t.Tuple[float, ...] = ()
    exhausted: bool = False
    phase: str = "unknown"


class Action(t.NamedTuple):
    """``out``, ``back``, ``kill`` (of that invocation only) or ``say``."""

    kind: str
    reason: str
    invocation: str = ""


def silence(seen: Seen, state: State, now: float) -> t.Tuple[float, float]:
    """Return how long a request waits, and how long running ones stand still, in seconds; tokens that move are life."""
    life = max(seen.token_at or 0.0, seen.moved_at or 0.0, state.trusted_from)
    waited = now - max(seen.pending_since, life) if seen.pending_since is not None else 0.0
    stalled = 0.0
    if seen.running > 0 and seen.running_since is not None and seen.measured_at is not None:
        # Up to the last time that it said so: what it runs now, nobody knows.
        stalled = seen.measured_at - max(seen.running_since, life)
    return waited, stalled


def doubt(settings: Settings, seen: Seen, state: State, now: float) -> str:
    """Return why the engine doesn't live, or an empty string, however long its queue."""
    if seen.wrong >= settings.wrong:
        return "%d answers in a row without a token" % seen.wrong
    waited, stalled = silence(seen, state, now)
    if max(waited, stalled) < (settings.busy if seen.working else settings.deadline):
        return ""
    if waited >= stalled:
        return "no answer for %.1f s" % waited
    return "%d requests run and no counter moved for %.1f s" % (seen.running, stalled)


def decide(settings: Settings, seen: Seen, state: State, now: float) -> t.Tuple[t.List[Action], State]:
    """Return what is to be done now, in order, and the state to remember."""
    gap = state.looked_at is not None and now - state.looked_at > settings.gap
    state = state._replace(looked_at=now)
    if gap:
        return [], state._replace(trusted_from=now, out_since=None, phase="away")
    if seen.invocation != state.invocation:
        state = state._replace(
            invocation=seen.invocation, ready=False, out_since=None, exhausted=False, trusted_from=now
        )
    if seen.maintenance or seen.active_state != "active":
        phase = "maintenance" if seen.maintenance else seen.active_state
        return [], state._replace(trusted_from=now, out_since=None, phase=phase)
    if not state.ready:
        if seen.token_at is not None and seen.token_at >= seen.started_at:
            state = state._replace(ready=True)
        elif now - seen.started_at < settings.start:
            return [], state._replace(phase="starting")
    reason = doubt(settings, seen, state, now)
    if reason and not state.ready:
        reason = "no first token within %d s of its start, and %s" % (settings.start, reason)
    if not reason:
        state = state._replace(out_since=None, exhausted=False)
        if seen.held:
            return [], state._replace(phase="held")
        if seen.out and seen.timely >= settings.timely:
            return [Action("back", "%d tokens in time" % seen.timely)], state._replace(phase="serving")
        return [], state._replace(phase="returning" if seen.out else "serving")
    actions = [] if seen.out else [Action("out", reason)]
    if state.out_since is None:
        return actions, state._replace(out_since=now, phase="out")
    if now - state.out_since < settings.kill_after or state.exhausted:
        return actions, state
    kills = tuple(at for at in state.kills if now - at < settings.window)
    if len(kills) >= settings.restarts:
        said = "%d restarts within %d s are used up, it stays out: %s" % (len(kills), settings.window, reason)
        return [*actions, Action("say", said)], state._replace(kills=kills, exhausted=True, phase="exhausted")
    kill = Action("kill", reason, seen.invocation)
    return [*actions, kill], state._replace(kills=(*kills, now), out_since=now, phase="killed")
