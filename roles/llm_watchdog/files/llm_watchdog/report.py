# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watchdog tells: lines in the journal, sd_notify, a status file and Prometheus' text format."""

from __future__ import annotations

import json
import os
import socket
import sys
import typing as t

from llm_watchdog import host

LEVELS = {"alert": 1, "error": 3, "warning": 4, "notice": 5, "info": 6}
PHASES = (
    "serving", "out", "killed", "returning", "starting", "exhausted", "maintenance", "held", "deactivating",
    "activating", "inactive", "failed", "away", "unknown",
)  # fmt: skip
#: name: (type, help); the value is looked up in an instance's status under the name.
METRICS = {
    "serving": ("gauge", "Whether the engine's last probe gave a token in time and it is not taken out."),
    "breaker_open": ("gauge", "Whether the model is taken out of the proxy's upstream."),
    "budget_exhausted": ("gauge", "Whether it stays out because its restarts are used up: somebody must look."),
    "kills_total": ("counter", "Engines killed because they hung, since the watchdog started."),
    "taken_out_total": ("counter", "Times the model was taken out, since the watchdog started."),
    "put_back_total": ("counter", "Times the model was put back, since the watchdog started."),
    "probe_seconds": ("gauge", "How long the last probe that was answered took."),
    "probes_refused": ("gauge", "Whether the last probe was refused: key, model name or path are wrong."),
    "last_token_age_seconds": ("gauge", "Seconds since a probe gave a token; -1 when none did."),
}


def say(level: str, text: str) -> None:
    """Write a line to the journal; a level between angle brackets is systemd's."""
    sys.stdout.write("<%d>%s\n" % (LEVELS[level], text))
    sys.stdout.flush()


def notify(*lines: str) -> None:
    """Tell systemd; nothing where it doesn't ask."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        # A systemd that reads nothing must not stop what watches the engines.
        channel.setblocking(False)
        try:
            channel.sendto("\n".join(lines).encode(), address)
        except BlockingIOError:
            return
        except OSError as exc:
            say("warning", "sd_notify: %s" % exc)


def label(value: str) -> str:
    """Return a label's value as Prometheus' text format escapes it."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def metrics(statuses: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """Return the status of every instance in Prometheus' text format."""
    lines = []
    for name, (kind, text) in METRICS.items():
        lines += ["# HELP llm_watchdog_%s %s" % (name, text), "# TYPE llm_watchdog_%s %s" % (name, kind)]
        for status in statuses:
            labels = 'instance="%s",model="%s"' % (label(status["name"]), label(status["model"]))
            lines.append("llm_watchdog_%s{%s} %g" % (name, labels, float(status[name])))
    lines += ["# HELP llm_watchdog_phase What the watchdog takes the engine for.", "# TYPE llm_watchdog_phase gauge"]
    for status in statuses:
        for phase in PHASES:
            labels = 'instance="%s",model="%s",phase="%s"' % (label(status["name"]), label(status["model"]), phase)
            lines.append("llm_watchdog_phase{%s} %d" % (labels, status["phase"] == phase))
    return "\n".join(lines) + "\n"


def publish(directory: str, statuses: t.Sequence[t.Mapping[str, t.Any]], **more: t.Any) -> None:
    """Write status.json and llm_watchdog.prom."""
    whole = dict(more, instances={status["name"]: dict(status) for status in statuses})
    host.replace(os.path.join(directory, "status.json"), json.dumps(whole, indent=1, sort_keys=True) + "\n")
    host.replace(os.path.join(directory, "llm_watchdog.prom"), metrics(statuses))
