# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of identities on a booted host, in the order in which it happens; one caller calls all the while."""

from __future__ import annotations

import datetime
import re
import time
import typing as t

import pytest
from control_node import PKI, ROOT, Caller, Calls, clients, end, play, short_list, start

REFUSED = "401 client_certificate"
WRONG_KEY = "401 invalid_api_key"
Callers = t.Callable[[str], Caller]
UNITS = "systemctl show -p MainPID --value mock-a.service llm-proxy.service"


def secrets() -> list[str]:
    """Everything of the directory that no output may hold."""
    files = [*PKI.glob("clients/*/api_key"), PKI / "ca.passphrase"]
    keys = [path.read_text().split("\n")[1] for path in PKI.rglob("*.key")]
    return [path.read_text().strip() for path in files] + keys


@pytest.fixture(scope="module")
def calls(callers: Callers) -> t.Iterator[Calls]:
    demo = callers("demo")
    demo.take("demo")
    with Calls(demo) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def processes(host: t.Any, calls: Calls) -> str:
    """Main processes before anything happened. Every test depends on the host by it, so that their order stays."""
    return str(host.check_output(UNITS))


def test_list_asks_no_host_and_names_who_may_call() -> None:
    done = clients("list")
    said = " ".join(done.output.split())
    assert re.search(r"demo: active; certificate [0-9a-f]{30,40}, 90\.0 days left; keys [0-9a-f]{12} without", said)
    assert done.changed() == 0
    assert "clients-bookworm] =>" in done.output and "Look at the platform" not in done.output


def test_issue(callers: Callers) -> None:
    check = clients("issue", "batch", "--check", "--diff")
    assert "+  key: a new one" in check.output and not (PKI / "clients/batch").exists()
    done = clients("issue", "batch", "--diff")
    batch = callers("batch")
    batch.take("batch")
    assert batch.call() == "200"
    assert batch.call(tokens=5) == "200"
    assert [secret for secret in secrets() if secret in check.output + done.output] == []
    assert clients("issue", "batch").changed() == 0


def test_a_key_counts_only_with_its_certificate(callers: Callers) -> None:
    mixed = callers("mixed")
    mixed.take("batch")
    mixed.take("demo", "api_key")
    assert mixed.call() == WRONG_KEY


def test_rotate_keeps_the_old_until_its_end_and_the_host_enforces_it(callers: Callers) -> None:
    old, new = callers("batch"), callers("batch-new")
    clients("rotate", "batch", parts=["key"], keep_seconds=30, pause_seconds=0)
    new.take("batch")
    assert old.call() == new.call() == "200"
    line = (PKI / "clients/batch/api_key.sha256").read_text().splitlines()[1]
    until = datetime.datetime.strptime(line.split()[1], "%Y-%m-%dT%H:%M:%S%z")
    left = (until - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    assert 0 < left <= 30
    time.sleep(left + 1)
    assert old.call() == WRONG_KEY
    assert new.call() == "200"
    old.take("batch")


def test_what_leaked_ends_with_the_run(callers: Callers) -> None:
    old = callers("batch")
    done = clients("rotate", "batch", "--diff", keep_seconds=0)
    assert old.call() == REFUSED
    old.take("batch", "client.crt", "client.key")
    assert old.call() == WRONG_KEY
    old.take("batch")
    assert old.call() == "200"
    assert [secret for secret in secrets() if secret in done.output] == []


def test_rotate_who_calls_all_the_while(calls: Calls, callers: Callers) -> None:
    clients("rotate", "demo", pause_seconds=0)
    time.sleep(2)
    callers("demo").take("demo")
    time.sleep(2)
    assert calls.failures == []


def test_two_at_once() -> None:
    running = [
        start("manage_clients", llm_pki_client_action="issue", llm_pki_client_names=name) for name in ("one", "two")
    ]
    done = [end(process) for process in running]
    assert [run.rc for run in done] == [0, 0], [run.output for run in done]
    for name in ("one", "two"):
        assert (PKI / "clients" / name / "api_key").exists()


def test_revoke(callers: Callers) -> None:
    batch = callers("batch")
    check = clients("revoke", "batch", "--check", "--diff")
    assert "+batch: revoked" in check.output and batch.call() == "200"
    clients("revoke", "batch")
    assert batch.call() == REFUSED
    assert clients("revoke", "batch").changed() == 0
    issued = play("manage_clients", llm_pki_client_action="issue", llm_pki_client_names="batch")
    assert issued.rc != 0 and "llm_pki_client_reinstate" in issued.output


def test_an_authority_follows_another(calls: Calls, callers: Callers) -> None:
    demo, batch, late = callers("demo"), callers("batch"), callers("late")
    late.take("demo")
    for step in ("add", "switch", "drop"):
        done = play("rotate_authority", llm_pki_rotation_step=step)
        assert done.rc == 0, done.output
        demo.take("demo")
        assert demo.call() == "200"
        assert batch.call() != "200", "a revoked client stays refused"
        if step == "add":
            late.take("demo", "ca.crt")
        if step == "switch":
            assert late.call() == "200", "the old pair counts as long as its authority is trusted"
    assert late.call() == REFUSED
    again = play("rotate_authority", llm_pki_rotation_step="drop")
    assert again.rc == 0 and again.changed() == 0, again.output
    assert calls.failures == []


def test_nothing_was_lost_and_nothing_restarted(host: t.Any, calls: Calls, processes: str) -> None:
    calls.__exit__()
    print("measured: %s, lost %d" % (calls.counts, len(calls.failures)))
    assert calls.failures == []
    assert calls.counts["requests"] > 100 and calls.counts["streams"] > 50
    assert host.check_output(UNITS) == processes, "neither the engine nor nginx's master was started anew"


def test_a_list_that_ends_soon_is_said_ahead(host: t.Any, callers: Callers) -> None:
    assert play("renew_crl").changed() == 0
    assert host.run("systemctl start llm-proxy-expiry.service").rc == 0
    (PKI / "crl.pem").unlink()
    done = play("renew_crl", llm_pki_crl_days=1, llm_pki_crl_renew_before_days=0)
    assert done.rc == 0, done.output
    assert callers("demo").call() == "200"
    assert host.run("systemctl start llm-proxy-expiry.service").rc != 0
    journal = host.check_output("journalctl -u llm-proxy-expiry.service -p warning -o cat -n 5")
    assert re.search(r"revocation list of CN=gpufleet CA.* ends in 1\.0 days.*renew_crl\.yml", journal), journal
    metrics = host.check_output("cat /var/lib/gpufleet/metrics/llm_proxy_expiry.prom")
    assert re.search(r'gpufleet_tls_ends_soon\{kind="revocation_list",name="CN=gpufleet CA [^"]*"\} 1', metrics)
    assert re.search(r'gpufleet_tls_ends_soon\{kind="server",[^}]*\} 0', metrics)


def test_a_list_that_has_ended_refuses_everybody_until_it_is_renewed(host: t.Any, callers: Callers) -> None:
    host.check_output("printf %s '" + short_list(8) + "' >/etc/gpufleet/proxy/tls/crl.pem")
    host.check_output("systemctl reload llm-proxy.service")
    time.sleep(1)
    demo = callers("demo")
    assert demo.call() == "200"
    time.sleep(10)
    assert demo.call() == REFUSED
    assert host.run("systemctl start llm-proxy-expiry.service").rc != 0
    journal = host.check_output("journalctl -u llm-proxy-expiry.service -p err -o cat -n 5")
    assert re.search(r"revocation list of .* ended 20", journal), journal
    began = time.monotonic()
    done = play("renew_crl")
    assert done.rc == 0, done.output
    assert demo.call() == "200"
    print("measured: renewed and served again %.1f s after the start of renew_crl.yml" % (time.monotonic() - began))
    assert host.run("systemctl start llm-proxy-expiry.service").rc == 0
    assert host.run("systemctl is-failed llm-proxy-expiry.service").stdout.strip() != "failed"


def test_the_timer_of_the_control_node_is_sound(host: t.Any) -> None:
    for unit in sorted((ROOT / "docs/renew-crl").iterdir()):
        host.check_output("mkdir -p /run/units && cat >/run/units/%s <<'EOF'\n%sEOF" % (unit.name, unit.read_text()))
    done = host.run("systemd-analyze verify /run/units/gpufleet-renew-crl.timer /run/units/gpufleet-renew-crl.service")
    assert done.rc == 0 and "gpufleet-renew-crl" not in done.stderr, done.stderr
    assert "gpufleet.llm.renew_crl" in host.check_output("cat /run/units/gpufleet-renew-crl.service")


def test_no_output_and_no_host_file_holds_a_key(host: t.Any) -> None:
    keys = [path.read_text().strip() for path in PKI.glob("clients/*/api_key")]
    assert len(keys) >= 4
    found = host.run("grep -rlE 'sk-[0-9a-f]{64}' /etc /var/log /var/lib/gpufleet /run/gpufleet /opt/gpufleet")
    assert found.stdout == ""
