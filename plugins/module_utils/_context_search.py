# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The largest context that an endpoint really serves at a concurrency: a search over loads, and what it says of a plan.

It begins where it's expected to end: at what was planned, what the engine printed and what was found before, each one
step up. A plan that holds costs two loads, and so does running it again.
"""

from __future__ import annotations

import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._context_load import ASIDE, Level, Loader
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding

#: A limit is waited for so often, and at most so long.
LIMITED_TRIES = 3
LIMITED_SECONDS = 10.0
REMEDIES = {
    "connect": "Start what is down (systemctl status llm-proxy and the engine's unit), or mend what is between.",
    "limited": "Ask for less concurrency, or raise llm_proxy_client_concurrent_requests (and requests_per_second) for "
    "the time of the measurement; nothing else may call as this client meanwhile.",
    "refused": "Compare model, certificate, key and token numbers with what the endpoint takes.",
    "down": "Read the engine's journal: it died or hangs under this load, which its memory plan should have prevented.",
}


class Stopped(Exception):
    """The search can't go on.

    Attributes:
        kind: ``connect``, ``limited``, ``refused`` or ``down``.
        levels: what was measured before.
    """

    def __init__(self, kind: str, text: str, levels: t.Sequence[Level]) -> None:
        super().__init__("%s. Remedy: %s" % (text, REMEDIES[kind]))
        self.kind = kind
        self.levels = list(levels)


class Bounds(t.NamedTuple):
    """What the search may cost, and where it looks."""

    ceiling: int  # tokens of the longest request that the engine takes
    step: int = 16  # tokens: as exact as that
    floor: int = 32
    max_requests: int = 400
    max_seconds: float = 900.0


class Found(t.NamedTuple):
    """What the search came to."""

    served: int  # tokens; 0: not even the shortest
    failed: int  # tokens of the shortest load that wasn't served; above the ceiling: there was none
    complete: bool  # whether the two are a step apart
    levels: t.Tuple[Level, ...]
    requests: int
    seconds: float


class Search:
    """Looks for the largest length that is served."""

    def __init__(
        self,
        loader: Loader,
        concurrency: int,
        bounds: Bounds,
        hints: t.Iterable[t.Optional[int]],
        say: t.Callable[[str], None],
        pause: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self.loader = loader
        self.concurrency = concurrency
        self.bounds = bounds
        self.good = 0
        self.bad = bounds.ceiling + 1
        self.waiting: t.List[int] = []
        for hint in sorted({hint for hint in hints if hint}, reverse=True):
            self.waiting.append(max(bounds.floor, min(hint, bounds.ceiling)))
        self.say = say
        self.pause = pause
        self.levels: t.List[Level] = []
        self.requests = 0
        self.began = time.monotonic()

    def _next(self) -> int:
        """Return the length to try now."""
        while self.waiting:
            length = self.waiting.pop(0)
            if self.good < length < self.bad:
                return length
        return max(self.bounds.floor, (self.good + self.bad) // 2)

    def _spent(self) -> bool:
        return (
            self.requests + self.concurrency > self.bounds.max_requests
            or time.monotonic() - self.began > self.bounds.max_seconds
        )

    def _measure(self, length: int) -> Level:
        """Load once; wait and try again where a limit answered.

        Raises:
            Stopped: what answered says nothing about the length.
        """
        level = Level(length, False, "limited", "", 0, 0.0, 0)
        for number in range(LIMITED_TRIES):
            if number:
                self.say("a limit answered (%s), waiting %.0f s" % (level.detail, level.retry_after))
                self.pause(min(LIMITED_SECONDS, max(1.0, level.retry_after)))
            level = self.loader.load(length, self.concurrency)
            self.requests += level.requests
            if level.reason != "limited":
                break
        self.levels.append(level)
        what = "%d requests of %d tokens" % (self.concurrency, length)
        self.say("%s: %s, %s, %.1f s" % (what, level.reason, level.detail, level.seconds))
        if level.reason in ASIDE:
            raise Stopped(level.reason, "%s: %s" % (what, level.detail), self.levels)
        if level.reason in ("failed", "cut", "timeout"):
            self.requests += 1
            alive = self.loader.alive()
            if alive.kind != "ok":
                text = "%s: %s; and then not even one token (%s)" % (what, level.detail, alive.detail)
                raise Stopped("down", text, self.levels)
        return level

    def run(self) -> Found:
        """Search.

        Raises:
            Stopped: the endpoint is down, limits, or refuses.
        """
        alive = self.loader.alive()
        self.requests += 1
        if alive.kind != "ok":
            # Nothing was loaded yet: what is wrong was wrong before.
            kind = alive.kind if alive.kind in REMEDIES else "connect"
            raise Stopped(kind, "one token: %s" % alive.detail, [])
        step = self.bounds.step
        complete = True
        near = set(self.waiting)
        while self.bad - max(self.good, self.bounds.floor - 1) > (step if self.good else 1) or not self.levels:
            if self._spent():
                complete = False
                break
            length = self._next()
            if self._measure(length).served:
                self.good = max(self.good, length)
                if length in near and length + step < self.bad:
                    self.waiting.insert(0, min(length + step, self.bounds.ceiling))
            else:
                self.bad = min(self.bad, length)
                if length in near and length - step > self.good:
                    self.waiting.insert(0, max(self.bounds.floor, length - step))
                if self.bad <= self.bounds.floor:
                    break
        seconds = time.monotonic() - self.began
        return Found(self.good, self.bad, complete, tuple(self.levels), self.requests, seconds)


def _explained(found: Found) -> str:
    """Return why the next longer one wasn't served."""
    level = next((level for level in found.levels if level.tokens == found.failed and not level.served), None)
    return "no longer one was asked for" if level is None else "%d: %s, %s" % (level.tokens, level.reason, level.detail)


def decide(
    model: str, concurrency: int, found: Found, bounds: Bounds, planned: t.Optional[int], engine: t.Optional[int]
) -> t.List[Finding]:
    """Return what the measurement says of the plan and of what the engine printed.

    Args:
        model: its served name.
        concurrency: requests at once.
        found: what was measured.
        bounds: of the search.
        planned: tokens by the memory plan at that concurrency; None: there was none.
        engine: tokens by the blocks that the engine printed; None: not known.
    """
    detail = "%d requests at once; next: %s." % (concurrency, _explained(found))
    made = [
        finding(
            "context.%s.measured" % model,
            found.complete and found.served > 0,
            severity="error" if not found.served else "warning",
            expected="a largest context, to %d tokens" % bounds.step,
            found="%d served, %d not, in %d requests" % (found.served, found.failed, found.requests),
            detail=detail,
            remedy="Allow more requests and time, and run it again: it begins where this ended."
            if found.served
            else "Read what the levels say: nothing was served at this concurrency.",
        )
    ]
    for name, expected in (("planned", planned), ("engine", engine)):
        if expected is None:
            continue
        wanted = min(expected, bounds.ceiling)
        short = found.failed <= wanted if not found.complete else found.served < wanted
        made.append(
            finding(
                "context.%s.%s_tokens" % (model, name),
                not short,
                expected=wanted,
                found=found.served,
                detail=detail,
                remedy="Lower the context or the concurrency to what was measured, and report the plan: it promises "
                "more than this host serves.",
            )
        )
    if planned is not None and found.complete and found.served >= min(planned, bounds.ceiling) + 2 * bounds.step:
        made.append(
            finding(
                "context.%s.plan_is_low" % model,
                False,
                severity="warning",
                expected="%d, to %d tokens" % (planned, 2 * bounds.step),
                found=found.served,
                detail="More is served than was planned.",
                remedy="Plan again with the calibration of this start; its margins are smaller.",
            )
        )
    return made


def measurement(
    concurrency: int, found: Found, bounds: Bounds, planned: t.Optional[int], engine: t.Optional[int]
) -> t.Dict[str, t.Any]:
    """Return what goes into the receipt."""
    return {
        "concurrency": concurrency,
        "served_tokens": found.served,
        "not_served_tokens": found.failed if found.failed <= bounds.ceiling else None,
        "step_tokens": bounds.step,
        "longest_request_tokens": bounds.ceiling,
        "complete": found.complete,
        "planned_tokens": planned,
        "engine_tokens": engine,
        "requests": found.requests,
        "seconds": round(found.seconds, 1),
        "levels": [level.record() for level in found.levels],
    }
