# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.lookup.pki_outputs import read_outputs
from ansible_collections.gpufleet.llm.plugins.module_utils import _proxy_clients, _proxy_plan


def given(**changes: t.Any) -> dict[str, t.Any]:
    base: dict[str, t.Any] = {
        "models": [{"name": "smollm2", "slot": "a", "port": 8443, "source": "file:/x"}],
        "clients": [{"name": "demo"}],
        "validate_client": "gpu-validate",
        "endpoints": [{"path": "/v1/models", "method": "GET"}],
        "authorization_include": "/etc/gpufleet/credentials/{instance}.authorization.conf",
        "server_names": ["llm1", "192.0.2.1", "localhost"],
        "listen_addresses": ["0.0.0.0"],
        "pki": {
            "path": "/pki",
            "files": {name: "/pki/" + name for name in ("ca.crt", "crl.pem", "server.crt", "server.key")},
            "clients": {"demo": ["a" * 64, "b" * 64], "gpu-validate": ["c" * 64]},
        },
        "limits": {"llm_proxy_body_bytes": 8388608},
        "check_mode": False,
    }
    return dict(base, **changes)


def test_plan_settles_instance_socket_include_and_clients() -> None:
    plan = _proxy_plan.proxy_plan(given())
    assert plan["refusal"] == ""
    assert plan["models"] == [
        {
            "name": "smollm2",
            "id": "m0",
            "instance": "smollm2-a",
            "port": 8443,
            "socket": "/run/gpufleet/smollm2-a/engine.sock",
            "fallback_socket": "",
            "authorization_include": "/etc/gpufleet/credentials/smollm2-a.authorization.conf",
        }
    ]
    assert [(c["name"], c["subject_dn"], len(c["api_keys"])) for c in plan["clients"]] == [
        ("demo", "CN=demo", 2),
        ("gpu-validate", "CN=gpu-validate", 1),
    ]
    key = next(f for f in plan["files"] if f["dest"].endswith("server.key"))
    assert (key["mode"], key["secret"]) == ("0600", True)


MODEL = {"name": "m", "slot": "a", "port": 8443}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": []}, "llm_proxy_models is empty"),
        ({"models": [MODEL, dict(MODEL, name="n")]}, "8443 for m and n"),
        ({"models": [MODEL, dict(MODEL, port=1)]}, "each name once"),
        ({"models": [dict(MODEL, name="M;}")]}, "'M;}'"),
        ({"models": [dict(MODEL, port=70000)]}, "70000"),
        ({"models": [dict(MODEL, port="8443")]}, "'8443'"),
        ({"models": [dict(MODEL, slot="c")]}, "'c'"),
        ({"models": [dict(MODEL, socket="/run/x y;")]}, "an absolute path"),
        ({"models": [dict(MODEL, authorization_include="x;")]}, "'x;'"),
        ({"clients": []}, "nobody could call"),
        ({"clients": [{"name": "unknown"}]}, "at least one SHA-256 digest"),
        ({"clients": [{"name": "demo", "api_key_sha256": ["A" * 64]}]}, "64 lower-case hexadecimal digits"),
        ({"clients": [{"name": "demo", "api_key_sha256": ["a" * 63]}]}, "64 lower-case hexadecimal digits"),
        ({"clients": [{"name": "demo", "api_key_sha256": []}]}, "at least one SHA-256 digest"),
        ({"clients": [{"name": "demo", "api_key_sha256": ["c" * 64]}]}, "one key for demo and gpu-validate"),
        ({"clients": [{"name": "demo"}, {"name": "demo"}]}, "each name once"),
        ({"clients": [{"name": "gpu-validate"}]}, "llm_proxy_validate_client"),
        ({"clients": [{"name": "De mo"}]}, "'De mo'"),
        ({"clients": [{"name": "demo", "subject_dn": 'CN="\n'}]}, "subject_dn"),
        ({"clients": [{"name": "demo", "api_key_sha256": ["a" * 64 + " tomorrow"]}]}, "then maybe an end"),
        ({"clients": [{"name": "demo", "tier": "gold"}]}, "'gold'"),
        ({"tiers": {"gold": {"requests_per_second": 0}}}, "requests_per_second of the tier gold"),
        ({"tiers": {"gold": {"rate": 1}}}, "a dictionary of"),
        ({"tiers": {"G;": {}}}, "'G;'"),
        ({"models": [dict(MODEL, fallback_socket="x")]}, "'x'"),
        ({"models": [dict(MODEL, fallback_socket="/run/gpufleet/m-a/engine.sock")]}, "another socket"),
        ({"admin_clients": ["demo"], "admin_port": 8443}, "8443, which smollm2 has"),
        ({"admin_clients": ["demo"], "admin_port": 65536}, "llm_proxy_admin_port"),
        ({"admin_clients": ["nobody"], "admin_port": 9180}, "'nobody'"),
        ({"endpoints": []}, "llm_proxy_endpoints is empty"),
        ({"endpoints": [{"path": "/v1/../metrics", "method": "GET"}]}, "/v1/../metrics"),
        ({"endpoints": [{"path": "/v1/x;return", "method": "GET"}]}, "/v1/x;return"),
        ({"server_names": ["a b"]}, "'a b'"),
        ({"listen_addresses": ["localhost"]}, "'localhost'"),
        ({"listen_addresses": []}, "llm_proxy_listen_addresses is empty"),
        ({"limits": {"llm_proxy_body_bytes": 0}}, "llm_proxy_body_bytes"),
        ({"pki": {"path": "/pki", "files": {}, "clients": {}}}, "server.key in /pki"),
    ],
)
def test_refusals_name_what_was_found(changes: dict[str, t.Any], said: str) -> None:
    refusal = _proxy_plan.proxy_plan(given(**changes))["refusal"]
    assert said in refusal
    assert "Remedy:" in refusal


def test_all_refusals_come_at_once() -> None:
    refusal = _proxy_plan.proxy_plan(given(models=[], clients=[], endpoints=[]))["refusal"]
    assert "3 reasons" in refusal


def test_check_mode_does_not_miss_what_llm_pki_has_yet_to_make() -> None:
    plan = _proxy_plan.proxy_plan(given(check_mode=True, pki={"path": "/pki", "files": {}, "clients": {}}))
    assert plan["refusal"] == ""
    assert [f["content"] for f in plan["files"] if "/tls/" in f["dest"]] == [_proxy_plan.PLACEHOLDER] * 4


def test_subject_is_quoted_for_nginx() -> None:
    assert _proxy_clients.quote_subject('CN=a\\,b,O="x"') == 'CN=a\\\\,b,O=\\"x\\"'


@pytest.mark.parametrize(
    ("listening", "probed"), [(["0.0.0.0"], "127.0.0.1"), (["[::]"], "::1"), (["192.0.2.7"], "192.0.2.7")]
)
def test_probe_address(listening: list[str], probed: str) -> None:
    assert _proxy_plan.probe_address(listening) == probed


def test_outputs_give_digests_and_never_a_key(tmp_path: t.Any) -> None:
    client = tmp_path / "clients" / "demo"
    client.mkdir(parents=True)
    (client / "api_key").write_text("sk-secret\n")
    (client / "api_key.sha256").write_text("a" * 64 + "\n" + "b" * 64 + "\n")
    (tmp_path / "ca.crt").write_text("x")
    outputs = read_outputs(str(tmp_path), "llm1")
    assert outputs["clients"] == {"demo": ["a" * 64, "b" * 64]}
    assert outputs["files"] == {"ca.crt": str(tmp_path / "ca.crt")}
    assert "sk-secret" not in repr(outputs)


def test_a_key_may_have_an_end() -> None:
    client = {"name": "demo", "api_key_sha256": ["a" * 64, "b" * 64 + " 2026-12-01T00:00:00Z"]}
    keys = _proxy_plan.proxy_plan(given(clients=[client]))["clients"][0]["api_keys"]
    assert [(key["not_before"], key["not_after"]) for key in keys] == [(None, None), (None, 1796083200)]


def test_tiers_settle_their_limits_from_the_standard_one() -> None:
    limits = {
        "llm_proxy_client_requests_per_second": 10,
        "llm_proxy_client_burst_requests": 20,
        "llm_proxy_client_concurrent_requests": 16,
    }
    clients = [{"name": "demo", "tier": "gold"}]
    tiers = _proxy_plan.proxy_plan(given(limits=limits, clients=clients, tiers={"gold": {"burst_requests": 50}}))[
        "tiers"
    ]
    assert [(tier["id"], tier["clients"], tier["burst_requests"]) for tier in tiers] == [
        ("standard", ["gpu-validate"], 20),
        ("gold", ["demo"], 50),
    ]
    assert tiers[1]["requests_per_second"] == 10


@pytest.mark.parametrize(
    "nobody", [{"admin_clients": [], "admin_port": 9180}, {"admin_clients": ["demo"], "admin_port": 0}]
)
def test_there_is_a_listener_for_metrics_only_for_somebody(nobody: dict[str, t.Any]) -> None:
    assert _proxy_plan.proxy_plan(given(**nobody))["admin"] is False
    assert _proxy_plan.proxy_plan(given(admin_clients=["demo"], admin_port=9180))["policy"]["admins"] == ["CN=demo"]


def test_what_the_control_node_keeps_is_served_and_what_it_revoked_is_not() -> None:
    pki = dict(given()["pki"], managed={"late": {"tier": "standard"}, "demo": {"state": "revoked"}})
    pki["clients"] = dict(pki["clients"], late=["d" * 64])
    clients = [{"name": "demo"}, {"name": "other", "api_key_sha256": ["e" * 64]}]
    plan = _proxy_plan.proxy_plan(given(pki=pki, clients=clients))
    assert plan["refusal"] == ""
    assert [client["name"] for client in plan["clients"]] == ["other", "late", "gpu-validate"]
