# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.lookup.pki_outputs import read_outputs
from ansible_collections.gpufleet.llm.plugins.module_utils import _proxy_plan


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
            "instance": "smollm2-a",
            "port": 8443,
            "socket": "/run/gpufleet/smollm2-a/engine.sock",
            "authorization_include": "/etc/gpufleet/credentials/smollm2-a.authorization.conf",
        }
    ]
    assert [(c["name"], c["subject_dn"], len(c["api_key_sha256"])) for c in plan["clients"]] == [
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
    assert _proxy_plan.quote_subject('CN=a\\,b,O="x"') == 'CN=a\\\\,b,O=\\"x\\"'


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
