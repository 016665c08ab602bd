# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployed host does, seen from outside and from inside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
UNIT = "vllm@smollm2-a.service"


def exposure(host, unit: str) -> float:
    """Return the overall exposure level that systemd-analyze measures of a started unit."""
    text = host.check_output("systemd-analyze --no-pager security %s", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    assert found, text
    return float(found.group(1))


def test_the_units_run_and_start_at_boot(host):
    for unit in (UNIT, "llm-proxy.service"):
        service = host.service(unit)
        assert service.is_running, unit
        assert service.is_enabled, unit
    assert not host.service("nginx.service").is_running


def test_the_engine_is_hardened(host):
    measured = exposure(host, UNIT)
    print(f"measured exposure of {UNIT}: {measured}")
    assert measured <= 1.6


def test_the_proxy_is_hardened(host):
    measured = exposure(host, "llm-proxy.service")
    print(f"measured exposure of llm-proxy.service: {measured}")
    assert measured <= 2.7


def test_the_engine_has_no_network_but_its_own_loopback(host):
    pid = host.check_output("systemctl show --property=MainPID --value %s", UNIT)
    links = host.check_output("nsenter --target %s --net ip -brief link", pid).splitlines()
    assert [line.split()[0] for line in links] == ["lo"]


def test_nothing_listens_on_tcp_but_ssh_and_the_proxy(host):
    ports = {line.split()[3].rsplit(":", 1)[1] for line in host.check_output("ss -Hltn").splitlines()}
    assert ports == {"22", "8443", "9180"}


def test_every_case_of_the_proxy_table(site):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "proxy_check.py")],
        env=site.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_openai_client_streams(site):
    began = time.monotonic()
    arrivals, text, finish = [], "", None
    stream = site.openai().chat.completions.create(
        model=site.model,
        messages=[{"role": "user", "content": "Write a short sentence about a cat."}],
        max_tokens=32,
        temperature=0,
        stream=True,
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            arrivals.append(time.monotonic() - began)
            text += chunk.choices[0].delta.content
        finish = (chunk.choices and chunk.choices[0].finish_reason) or finish
    print(f"measured time to first token {arrivals[0]:.3f} s, {len(arrivals)} chunks in {arrivals[-1]:.2f} s: {text!r}")
    assert finish in ("stop", "length")
    assert len(arrivals) >= 4
    assert arrivals[-1] - arrivals[0] > 0.05  # spread over time: nothing between engine and client collects it


def test_no_secret_is_readable_by_others(host):
    raw = host.check_output("cat /etc/gpufleet/credentials/smollm2-a.api_key")
    assert len(raw) >= 32
    places = {
        "argv": "ps -eo args",
        "journal": "journalctl --no-pager",
        "units": "systemctl show --all",
        "receipts": "cat /var/lib/gpufleet/receipt.json",
        "logs": "cat /var/log/gpufleet/proxy/*.log",
        "world-readable configuration": (
            "find /etc /opt/gpufleet/libexec /var/lib/gpufleet -xdev -type f -perm /o=r -size -1M -exec cat {} +"
        ),
        "environment of every process": "sh -c 'cat /proc/[0-9]*/environ 2>/dev/null; true'",
    }
    found = [name for name, command in places.items() if raw in host.run(command).stdout]
    assert found == []
    for path in ("smollm2-a.api_key", "smollm2-a.authorization.conf"):
        secret = host.file(f"/etc/gpufleet/credentials/{path}")
        assert (secret.user, secret.mode) == ("root", 0o600)


def test_what_ansible_said_holds_no_secret(host, site):
    """The log is of `--check --diff` on virgin hosts, of the first real run and of the second one."""
    said = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "ansible.log").read_text(encoding="utf-8")
    assert "+++ after: /etc/gpufleet/proxy/nginx.conf" in said
    texts = {str(path): path.read_text(encoding="utf-8") for path in sorted(site.pki.rglob("*")) if path.is_file()}
    keys = ("api_key", "passphrase")
    secret = {name: text for name, text in texts.items() if "PRIVATE KEY" in text or name.endswith(keys)}
    secret["the engine's key"] = host.check_output("cat /etc/gpufleet/credentials/smollm2-a.api_key")
    lines = {name: [line for line in text.split() if len(line) >= 16] for name, text in secret.items()}
    assert len([name for name in lines if lines[name]]) >= 5, sorted(lines)
    assert [name for name in lines if any(line in said for line in lines[name])] == []
    assert "PRIVATE KEY-----" not in said


def test_the_receipt_says_what_was_proved(host, receipts):
    receipt = json.loads(host.check_output("cat /var/lib/gpufleet/receipt.json"))
    assert receipt["release"] == "2026.11.0"
    assert receipt["findings"]
    assert [f["check"] for f in receipt["findings"] if not f["ok"] and f["severity"] == "error"] == []
    name = host.backend.get_hostname()
    assert json.loads((receipts / f"{name}.json").read_text(encoding="utf-8")) == receipt


def test_the_engine_prints_what_was_planned(host):
    """The plan was made on the control node by the headers of the weights, before anything was sent."""
    document = json.loads(host.check_output("cat /etc/gpufleet/vllm/smollm2-a/plan.json"))
    planned = document["planned"]
    assert (planned["mode"], planned["confidence"]) == ("pin", "exact")
    said = host.check_output("journalctl --no-pager -o cat -u %s", UNIT)
    printed = re.findall(
        r"KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens[^:]*: ([\d.]+)x", said
    )
    print(f"measured: planned {planned['kv_tokens']:,} tokens, {planned['max_concurrency']}x; printed {printed}")
    assert printed
    for tokens, length, concurrency in printed:
        assert int(tokens.replace(",", "")) == planned["kv_tokens"] == 23296
        assert int(length.replace(",", "")) == planned["max_model_len"] == 2048
        assert float(concurrency) == planned["max_concurrency"] == 11.38
    config = host.check_output("cat /etc/gpufleet/vllm/smollm2-a/config.yaml")
    assert f"kv-cache-memory-bytes: {planned['kv_bytes']}\n" in config
    assert "VLLM_CPU_KVCACHE_SPACE" not in host.check_output("systemctl show --property=Environment %s", UNIT)


def test_the_receipt_holds_planned_against_measured(host):
    receipt = json.loads(host.check_output("cat /var/lib/gpufleet/receipt.json"))
    memory = receipt["measurements"]["memory"]["smollm2-a"]
    assert receipt["plan"]["memory"]["smollm2-a"] == memory["planned"]
    assert memory["start_read"]
    for name in ("kv_tokens", "num_blocks", "block_size"):
        assert memory["measured"][name] == memory["planned"][name], name
    checks = {finding["check"]: finding["ok"] for finding in receipt["findings"]}
    assert checks["memory.plan.smollm2-a"] and checks["host.memory.smollm2-a"]
