# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One engine watched: asks it, decides, acts, and remembers."""

from __future__ import annotations

import asyncio
import os
import time
import typing as t

from llm_watchdog import decide, engine, host, report

TICK_SECONDS = 0.2
METRICS_SECONDS = 0.5
PROBE_SECONDS = 2.0
# Out of service, tokens are asked for more often: it comes back sooner.
PROBE_SECONDS_OUT = 0.5
UNIT_SECONDS = 2.0
# From here on a silence is looked at closely: systemd's word and the processes' labour.
SUSPICION_SECONDS = 0.3
REQUEST_SECONDS = 30.0
KEPT = ("trusted_from", "invocation", "ready", "kills", "exhausted")


class Paths(t.NamedTuple):
    """Where things are."""

    breakers: str
    maintenance: str
    credentials: str


class Watch:
    """Watches one instance until the program ends."""

    def __init__(
        self,
        instance: t.Mapping[str, str],
        settings: decide.Settings,
        paths: Paths,
        reload_owed: t.Callable[[], None],
        save: t.Callable[[], None],
        changed: t.Callable[[], None],
    ) -> None:
        self.name, self.model, self.unit_name = instance["name"], instance["model"], instance["unit"]
        self.socket = instance["socket"]
        self.credential = instance.get("credential", "")
        self.breaker = os.path.join(paths.breakers, instance["breaker"] + ".conf") if instance.get("breaker") else ""
        self.marker = os.path.join(paths.maintenance, self.name)
        self.settings, self.paths = settings, paths
        self.reload_owed, self.save, self.changed = reload_owed, save, changed
        self.evidence = engine.Evidence(settings.deadline)
        self.labour = host.Labour()
        self.state = decide.State()
        self.unit = host.Unit()
        self.unit_at = 0.0
        self.out_at: t.Optional[float] = None
        self.ticked_at = time.monotonic()
        self.counts = {"kills_total": 0, "taken_out_total": 0, "put_back_total": 0}
        self.said_status = 0  # of the last probe that was answered; another one is said
        self.unauthorised = 0  # probes in a row that were answered with 401

    def key(self) -> str:
        if not self.credential:
            return ""
        with open(os.path.join(self.paths.credentials, self.credential), encoding="ascii") as handle:
            return handle.read().strip()

    def restore(self, kept: t.Mapping[str, t.Any]) -> None:
        """Take up what the watchdog before this one remembered."""
        known = {name: kept[name] for name in KEPT if name in kept}
        known["kills"] = tuple(known.get("kills", ()))
        self.state = decide.State(**known)._replace(trusted_from=time.monotonic(), looked_at=None)

    def kept(self) -> t.Dict[str, t.Any]:
        return {name: getattr(self.state, name) for name in KEPT if name != "trusted_from"}

    async def probe(self) -> None:
        """Ask for one token, again and again."""
        body = {"model": self.model, "prompt": "a", "max_tokens": 1, "temperature": 0}
        while True:
            began = time.monotonic()
            found = await self._request("probe", "POST", "/v1/completions", body)
            if found == "silent":
                self.unit_at = 0.0
            pause = PROBE_SECONDS_OUT if self.out_at is not None or not self.state.ready else PROBE_SECONDS
            await asyncio.sleep(max(pause / 4, pause - (time.monotonic() - began)))

    async def measure(self) -> None:
        """Read the counters, again and again."""
        while True:
            began = time.monotonic()
            await self._request("metrics", "GET", "/metrics", None)
            await asyncio.sleep(max(METRICS_SECONDS / 4, METRICS_SECONDS - (time.monotonic() - began)))

    async def _request(self, what: str, method: str, url: str, body: t.Optional[t.Mapping[str, t.Any]]) -> str:
        """Ask, and note the answer; a request to a process that is gone is given up."""
        if self.unit.active_state != "active":
            return ""
        began = self.evidence.ask(what)
        try:
            asked = engine.ask(self.socket, method, url, self.key(), body)
            answer = await asyncio.wait_for(asked, REQUEST_SECONDS)
        except asyncio.TimeoutError:
            answer = engine.Answer(0, b"", "no answer in %d s" % REQUEST_SECONDS)
        if what == "probe":
            self.unauthorised = self.unauthorised + 1 if answer.status == 401 else 0
        found = self.evidence.answered(what, began, answer)
        news = what == "probe" and bool(answer.status) and answer.status != self.said_status
        if what == "probe" and answer.status:
            self.said_status = answer.status
        if news and found in ("refused", "busy", "wrong"):
            said = answer.body[:200].decode("utf-8", "replace").replace("\n", " ")
            report.say("warning", "%s: a probe was answered with %d: %s" % (self.name, answer.status, said))
        return found

    async def watch(self) -> None:
        """Look, decide and act, again and again."""
        while True:
            await self.look()
            self.ticked_at = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)

    async def look(self) -> None:
        if time.monotonic() - self.unit_at >= UNIT_SECONDS:
            await self._ask_systemd()
        now = time.monotonic()
        suspicious = max(decide.silence(self.seen(), self.state, now)) >= SUSPICION_SECONDS
        if suspicious:
            self.labour.note(now, *host.usage(host.processes(self.unit.control_group)))
        else:
            self.labour.forget()
        actions, state = decide.decide(self.settings, self.seen(), self.state, now)
        if actions:
            # Nothing is done on old news.
            await self._ask_systemd()
            now = time.monotonic()
            actions, state = decide.decide(self.settings, self.seen(), self.state, now)
        before, self.state = self.state, state
        if actions:
            # Remembered before it is done: a watchdog that dies in between has used up its budget, not got a new one.
            self.save()
        for action in actions:
            await self._act(action)
        if actions or any(getattr(before, name) != getattr(state, name) for name in (*KEPT, "phase")):
            self.changed()
        self._tell(before)

    def seen(self) -> decide.Seen:
        out, held = host.breaker_state(self.breaker) if self.breaker else (self.out_at is not None, False)
        if out and self.out_at is None:
            self.out_at = time.monotonic()
        elif not out:
            self.out_at = None
        return self.evidence.seen(
            active_state=self.unit.active_state,
            invocation=self.unit.invocation,
            started_at=self.unit.started_at,
            working=self.labour.working(),
            out=out,
            held=held,
            maintenance=host.in_maintenance(self.marker, self.settings.marker),
        )

    async def _ask_systemd(self) -> None:
        before = self.unit
        self.unit = (await host.units([self.unit_name]))[self.unit_name]
        self.unit_at = time.monotonic()
        if (before.invocation, before.active_state) != (self.unit.invocation, self.unit.active_state):
            self.evidence.forget()
            self.labour.forget()

    async def _act(self, action: decide.Action) -> None:
        if action.kind == "out":
            self._take_out(action.reason)
        elif action.kind == "back":
            self._put_back(action.reason)
        elif action.kind == "kill":
            why_not = await host.kill(self.unit_name, action.invocation)
            if why_not:
                report.say("warning", "%s: not killed: %s" % (self.name, why_not))
                self.state = self.state._replace(kills=self.state.kills[:-1])
            else:
                self.counts["kills_total"] += 1
                report.say(
                    "error",
                    "%s: killed, every process of %s (invocation %s): %s; restart %d of %d within %d s"
                    % (self.name, self.unit_name, action.invocation, action.reason, len(self.state.kills),
                       self.settings.restarts, self.settings.window),
                )  # fmt: skip
            self.unit_at = 0.0
        else:
            report.say(
                "alert",
                "%s: %s. Remedy: journalctl -u %s, then systemctl restart %s."
                % (self.name, action.reason, self.unit_name, self.unit_name),
            )

    def _take_out(self, reason: str) -> None:
        self.out_at = time.monotonic()
        self.counts["taken_out_total"] += 1
        if not self.breaker:
            report.say("error", "%s: hangs: %s" % (self.name, reason))
            return
        try:
            host.write_breaker(self.breaker, "%s at %d: %s" % (self.name, time.time(), reason))
        except OSError as exc:
            self.out_at = None
            report.say("error", "%s: can't be taken out: %s" % (self.name, exc))
            return
        report.say(
            "error",
            "%s: taken out: %s; its processes %s. New requests go to the fallback, or get 503"
            % (self.name, reason, "compute" if self.labour.working() else "don't compute"),
        )
        self.reload_owed()

    def _put_back(self, reason: str) -> None:
        seconds = time.monotonic() - self.out_at if self.out_at is not None else 0.0
        self.counts["put_back_total"] += 1
        self.out_at = None
        if self.breaker:
            host.remove_breaker(self.breaker)
            self.reload_owed()
        report.say("notice", "%s: put back after %.1f s: %s" % (self.name, seconds, reason))

    def _tell(self, before: decide.State) -> None:
        """Say a change that no action has said."""
        if self.state.phase != before.phase and self.state.phase not in ("out", "killed", "exhausted"):
            report.say("info", "%s: %s" % (self.name, self.state.phase))

    def status(self) -> t.Dict[str, t.Any]:
        """Return the instance's part of the status."""
        now, token_at = time.monotonic(), self.evidence.token_at
        in_time = self.evidence.verdict == "token" and self.evidence.probe_seconds <= self.settings.deadline
        return dict(
            self.counts,
            name=self.name,
            model=self.model,
            unit=self.unit_name,
            phase=self.state.phase,
            verdict=self.evidence.verdict,
            serving=int(self.state.phase == "serving" and in_time),
            breaker_open=int(self.out_at is not None and bool(self.breaker)),
            budget_exhausted=int(self.state.exhausted),
            probe_seconds=round(self.evidence.probe_seconds, 4),
            probes_refused=int(self.evidence.verdict == "refused"),
            last_token_age_seconds=round(now - token_at, 1) if token_at is not None else -1,
            running=self.evidence.running,
        )
