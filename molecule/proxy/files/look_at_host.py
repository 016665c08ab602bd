# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a proxy's host: key closed, logs sound, engine sees constants, unit hardened, distribution's unit off."""

from __future__ import annotations

import json
import os
import re
import subprocess

MAXIMUM_EXPOSURE = 2.7
FIELDS = {"time", "request_id", "client", "status", "first_byte_seconds", "end_of_stream", "route", "model", "fallback"}
ENGINE_HEADERS = {"host", "x-request-id", "content-type", "content-length"}


def run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def as_nobody(path: str) -> bool:
    """Say whether a stranger can read a file."""
    return (
        subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "cat", path], capture_output=True).returncode == 0
    )


for name in ("server.key", "server.crt"):
    assert not as_nobody("/etc/gpufleet/proxy/tls/" + name), name
assert os.stat("/etc/gpufleet/proxy/tls/server.key").st_mode & 0o777 == 0o600
assert not as_nobody("/etc/gpufleet/proxy/clients.map")

with open("/var/log/gpufleet/proxy/access.log", encoding="ascii") as handle:
    text = handle.read()
lines = [json.loads(line) for line in text.splitlines()]
for word in ("sk-", "elsewhere", "api_key=", "Bearer", "..", "%"):
    assert word not in text, "what a client wrote is in the log: %s" % word
assert all(set(line) >= FIELDS for line in lines)
streams = [line for line in lines if line["route"] == "/v1/completions" and line["status"] == 200]
assert streams, "no completion in the log"
assert {line["client"] for line in streams} <= {"demo", "other"}
cut = [line for line in streams if not line["end_of_stream"]]
assert cut, "no stream whose engine died in the middle is told apart"
counted = [line for line in streams if line["prompt_tokens"] == 3 and line["completion_tokens"]]
assert counted, "no tokens were counted"
answered = [line for line in streams if line["fallback"]]
assert answered, "no answer of the fallback is marked"
assert all("mock-fallback" in line["engine"] for line in answered)
print("log: %d cut, %d with tokens, %d by the fallback" % (len(cut), len(counted), len(answered)))
assert os.path.getsize("/var/log/gpufleet/proxy/error.log") == 0, "nginx had something to say"
streams = [line for line in streams if line["end_of_stream"]]
longest = max(streams, key=lambda line: line["seconds"])
assert 0 < longest["first_byte_seconds"] < longest["seconds"] / 2, longest
print(
    "log: %d lines, a stream of %.3f s gave its first byte after %.3f s"
    % (len(lines), longest["seconds"], longest["first_byte_seconds"])
)

seen = set()
with open("/var/log/mock-a.jsonl", encoding="utf-8") as handle:
    for head in map(json.loads, handle):
        seen.add(head[0])
        assert "Host: engine" in head, head
        assert {line.split(":")[0].lower() for line in head[1:]} <= ENGINE_HEADERS, head
served = {"GET /v1/models HTTP/1.1", "POST /v1/completions HTTP/1.1", "POST /v1/chat/completions HTTP/1.1"}
assert seen <= served | {"GET /metrics HTTP/1.1"}, seen
assert {line["port"] for line in lines if line["route"].startswith("/metrics")} == {9180}, "metrics at a model's port"
print("the engine saw: %s" % sorted(seen))

assert run("systemctl", "is-active", "llm-proxy-metrics.service") == "active"
for unit in ("llm-proxy-metrics.service", "llm-proxy.service"):
    print(run("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1])
security = run("systemd-analyze", "security", "--no-pager", "llm-proxy.service").splitlines()[-1]
exposure = float(re.search(r": ([0-9.]+) ", security).group(1))
assert exposure <= MAXIMUM_EXPOSURE, security
assert run("systemctl", "is-enabled", "nginx.service") == "disabled"
assert run("systemctl", "is-active", "nginx.service") == "inactive"
listening = run("ss", "-Hltn")
assert ":80 " not in listening, listening
print("rotation of logs: %s" % run("logrotate", "--force", "/etc/logrotate.d/llm-proxy"))
