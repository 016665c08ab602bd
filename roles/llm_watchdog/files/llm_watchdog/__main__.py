# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start: read the configuration, watch every instance, keep the proxy's reloads and systemd's watchdog going."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
import typing as t

from llm_watchdog import decide, host, report
from llm_watchdog.watch import Paths, Watch

EXIT_CONFIG = 78
PUBLISH_SECONDS = 5.0
# The key may be another one by now, and only systemd gives it to us: at a start. Not again and again.
UNAUTHORISED_PROBES = 3
REKEY_SECONDS = 300.0
# A loop that stood still for longer is no watchdog: systemd is not told that all is well.
STUCK_SECONDS = 8.0
RELOAD_AGAIN_SECONDS = 5.0


class Program:
    """All instances of this host."""

    def __init__(self, config: t.Mapping[str, t.Any]) -> None:
        settings = decide.Settings(**config.get("settings", {}))
        self.proxy_unit = str(config["proxy_unit"])
        self.state_file = os.path.join(config["state_dir"], "state.json")
        self.status_dir = str(config["status_dir"])
        self.digest = config["digest"]
        paths = Paths(
            config["breakers_dir"],
            os.path.join(self.status_dir, "maintenance"),
            os.environ.get("CREDENTIALS_DIRECTORY", ""),
        )
        self.owed = asyncio.Event()
        self.news = asyncio.Event()
        self.watches = [
            Watch(one, settings, paths, self.owe_reload, self.save, self.news.set) for one in config["instances"]
        ]
        kept = host.load(self.state_file)
        for watch in self.watches:
            watch.restore(kept.get("instances", {}).get(watch.name, {}))
        if kept.get("reload_owed"):
            self.owed.set()
        self.rekeyed_at = float(kept.get("rekeyed_at", 0.0))

    def owe_reload(self) -> None:
        self.owed.set()
        self.save()

    def save(self) -> None:
        """Remember what the next watchdog must know; a full disk doesn't stop this one."""
        kept = {
            "instances": {watch.name: watch.kept() for watch in self.watches},
            "reload_owed": self.owed.is_set(),
            "rekeyed_at": self.rekeyed_at,
        }
        try:
            host.save(self.state_file, kept)
        except OSError as exc:
            report.say("error", "%s: %s" % (self.state_file, exc))

    def publish(self) -> None:
        try:
            report.publish(self.status_dir, [watch.status() for watch in self.watches], digest=self.digest)
        except OSError as exc:
            report.say("error", "%s: %s" % (self.status_dir, exc))

    async def reload_proxy(self) -> None:
        """Have the proxy read the breaker files; its own reload proves them first."""
        said = ""
        while True:
            await self.owed.wait()
            self.owed.clear()
            unit = (await host.units([self.proxy_unit]))[self.proxy_unit]
            if unit.active_state in ("inactive", "failed", "activating"):
                continue  # it reads them when it starts
            began = time.monotonic()
            rc, out = await host.command("systemctl", "reload", "--", self.proxy_unit)
            if rc == 0:
                report.say("info", "%s: reloaded in %.2f s" % (self.proxy_unit, time.monotonic() - began))
                said = ""
                self.save()
                continue
            if out != said:
                report.say("error", "%s: reload exited with %d: %s; tried again" % (self.proxy_unit, rc, out))
                said = out
            self.owe_reload()
            await asyncio.sleep(RELOAD_AGAIN_SECONDS)

    async def live(self) -> None:
        """Tell systemd that every loop goes round, and everybody else how the engines are."""
        ready, published = False, 0.0
        while True:
            now = time.monotonic()
            stuck = [watch.name for watch in self.watches if now - watch.ticked_at > STUCK_SECONDS]
            if not stuck:
                phases = ", ".join("%s %s" % (watch.name, watch.state.phase) for watch in self.watches)
                notify = ["WATCHDOG=1", "STATUS=" + (phases or "nothing to watch")]
                report.notify(*(notify if ready else ["READY=1", *notify]))
                ready = True
            if self.wants_new_key(now):
                return
            if self.news.is_set() or now - published >= PUBLISH_SECONDS:
                if self.news.is_set():
                    self.save()
                self.news.clear()
                self.publish()
                published = now
            await asyncio.sleep(0.5)

    def wants_new_key(self, now: float) -> bool:
        """Return whether to end, so that systemd starts this again with the keys that are on the disk now."""
        refused = [one.name for one in self.watches if one.credential and one.unauthorised >= UNAUTHORISED_PROBES]
        if not refused or (self.rekeyed_at and now - self.rekeyed_at < REKEY_SECONDS):
            return False
        report.say("warning", "%s: 401, the key was refused; starting again with the one on the disk" % refused[0])
        self.rekeyed_at = now
        return True

    async def run(self) -> None:
        """Run until a signal ends it, or one of the loops fails: then all end, and systemd starts it again."""
        loops = [asyncio.ensure_future(self.reload_proxy()), asyncio.ensure_future(self.live())]
        for watch in self.watches:
            loops += [asyncio.ensure_future(loop()) for loop in (watch.watch, watch.probe, watch.measure)]
        stop = asyncio.ensure_future(stopped())
        done, _pending = await asyncio.wait([stop, *loops], return_when=asyncio.FIRST_COMPLETED)
        self.save()
        report.notify("STOPPING=1")
        for one in done:
            one.result()


async def stopped() -> None:
    """Wait for SIGTERM or SIGINT."""
    event = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    await event.wait()


async def start(config: t.Mapping[str, t.Any]) -> None:
    await Program(config).run()


def digest(paths: t.Sequence[str]) -> str:
    """Return one sha256 over the files that this runs from: who deploys sees whether they are those that are there."""
    whole = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as handle:
            whole.update(hashlib.sha256(handle.read()).digest())
    return whole.hexdigest()


def main() -> int:
    path = sys.argv[1]
    try:
        with open(path, encoding="utf-8") as handle:
            config = json.load(handle)
        config["digest"] = digest(config["runs_from"])
        names = [one["name"] for one in config["instances"]]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        report.say("error", "refused: %s: %r. Remedy: run the playbook again; it writes the file." % (path, exc))
        return EXIT_CONFIG
    report.say("info", "watches %s" % (", ".join(names) or "nothing"))
    asyncio.run(start(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
