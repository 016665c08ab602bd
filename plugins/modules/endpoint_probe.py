#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_probe
short_description: Prove endpoints with real requests
description:
  - Calls every endpoint as a client does and reports findings - the list of models, a completion, a streamed
    completion that must arrive piece by piece
    and end with C([DONE]), the time to the first token, and the refusals (no certificate, foreign certificate, no key,
    wrong key, forbidden paths).
  - With O(host) it also proves the host behind them - units, engine sockets that ask for a key, modes of secret files,
    exposure of the units,
    and that nothing of ours listens on TCP but the proxy.
  - It doesn't fail because a finding failed. M(gpufleet.llm.receipt) records the findings, and says the refusal.
  - Nothing is tried twice but connecting. No secret gets into a result, an argument list or an environment.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Proves what is there, as otherwise, for it changes nothing. Where nothing is deployed yet it says so
      (RV(deployed)).
  diff_mode:
    support: none
    description: There is nothing to show, for nothing is changed.
notes:
  - Needs the openssl program, or the cryptography package, where it runs, to make a foreign certificate.
options:
  vantage:
    description: From where this is; the names of the checks begin with it.
    type: str
    choices: [host, control]
    required: true
  models:
    description: The served models, as in C(gpufleet_models). Keys used are C(name) and C(port); others are left alone.
    type: list
    elements: dict
    required: true
  address:
    description: Name or address to connect to.
    type: str
    required: true
  server_name:
    description: Name the server's certificate must carry.
    type: str
    required: true
  ca:
    description: The CA of the server's certificate, PEM. Nothing else is trusted.
    type: str
    required: true
  client_certificate:
    description: The client's certificate, PEM.
    type: str
    required: true
  client_key:
    description: The key of O(client_certificate), PEM.
    type: str
    required: true
  client_api_key:
    description: The client's API key.
    type: str
    required: true
  client_name:
    description: Subject of the foreign certificate; the name of the real client, so that the issuer alone tells them
      apart.
    type: str
    default: gpu-validate
  prompt:
    description: What the model is asked.
    type: str
    default: Write a short sentence about a cat.
  completion_tokens:
    description: Length of the plain completion in tokens.
    type: int
    default: 4
  stream_tokens:
    description: Length of the streamed completion in tokens.
    type: int
    default: 16
  request_extra:
    description: Further fields of both requests.
    type: dict
    default: {temperature: 0, ignore_eos: true}
  forbidden:
    description: What must be 404 for an authenticated client, each C(METHOD /path).
    type: list
    elements: str
    default: [GET /metrics, POST /invocations, GET /v1/../metrics, GET /docs, POST /tokenize]
  connect_timeout_seconds:
    description: Limit of connecting, tries included, and of the TLS handshake, in seconds.
    type: float
    default: 10
  request_timeout_seconds:
    description: Limit of one request in seconds.
    type: float
    default: 120
  first_token_limit_seconds:
    description: Longest accepted time to the first token in seconds; V(0) accepts any.
    type: float
    default: 0
  host:
    description: What to prove of the host itself. Only where O(vantage=host).
    type: dict
    suboptions:
      units:
        description: Units that must be active and running.
        type: list
        elements: str
        default: []
      sockets:
        description: Unix sockets of engines.
        type: list
        elements: str
        default: []
      secrets:
        description: Glob patterns of secret files; each must match, each match must be of mode 0600 and root's.
        type: list
        elements: str
        default: []
      exposure_limits:
        description: Unit pattern to the highest exposure level accepted from C(systemd-analyze security). Empty
          analyses nothing.
        type: dict
        default: {}
      our_units:
        description: Patterns of the units whose TCP listeners are ours.
        type: list
        elements: str
        default: ["vllm@*.service", llm-proxy.service]
      instances:
        description: Engines whose KV cache is held against the plan that is placed for them.
        type: list
        elements: str
        default: []
      plan_dir:
        description: Directory with C(INSTANCE/plan.json) below it.
        type: path
        default: /etc/gpufleet/vllm
      calibration_dir:
        description: Where M(gpufleet.llm.vllm_startup_info) keeps what starts on this host measured.
        type: path
        default: /var/lib/gpufleet/calibration
      proxy_unit:
        description: The unit that listens on the ports of O(models) and on O(host.proxy_ports), and on nothing else.
        type: str
        default: llm-proxy.service
      proxy_ports:
        description: Ports beside those of O(models) on which the proxy must listen.
        type: list
        elements: int
        default: []
      tls_dir:
        description: Directory with the proxy's C(server.crt), C(ca.crt) and C(crl.pem), whose ends are looked at. None
          are looked at if left out.
        type: path
      tls_warning_days:
        description: Days before its end at which the server's certificate or a revocation list is warned of.
        type: int
        default: 15
      tls_authority_warning_days:
        description: Days before its end at which an authority is warned of.
        type: int
        default: 90
"""

EXAMPLES = r"""
- name: Prove the endpoint from the control node
  gpufleet.llm.endpoint_probe:
    vantage: control
    models:
      - name: smollm2
        port: 8443
    address: llm1.example.com
    server_name: llm1
    ca: "{{ lookup('ansible.builtin.file', 'pki/ca.crt') }}"
    client_certificate: "{{ lookup('ansible.builtin.file', 'pki/clients/gpu-validate/client.crt') }}"
    client_key: "{{ lookup('ansible.builtin.file', 'pki/clients/gpu-validate/client.key') }}"
    client_api_key: "{{ lookup('ansible.builtin.file', 'pki/clients/gpu-validate/api_key') }}"
  delegate_to: localhost
  become: false
  register: proof
"""

RETURN = r"""
deployed:
  description: Whether there was anything to prove. False only in check mode, on a host that has none of O(host.units).
  returned: always
  type: bool
findings:
  description: What was found, each with C(check), C(ok), C(severity), C(expected), C(found), C(detail) and C(remedy).
  returned: always
  type: list
  elements: dict
timings:
  description: Model to C(time_to_first_token_seconds) and C(stream_total_seconds), both counted from sending the
    request.
  returned: always
  type: dict
memory:
  description: >-
    Instance to C(planned) (of its plan.json, null where nothing was planned), C(state), C(measured) (what the running
    engine says, and its start as far as that was read), and C(start_read).
  returned: always
  type: dict
planned:
  description: Instance to the plan that is placed for it.
  returned: always
  type: dict
units:
  description: Unit to C(active_state) and C(invocation_id).
  returned: always
  type: dict
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _endpoint_host,
    _memory_proof,
    _tls_expiry,
    _tls_findings,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._calibration import CALIBRATION_DIR
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import (
    Endpoint,
    Identity,
    make_foreign_identity,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_probe import Settings, probe_endpoint
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding
from ansible_collections.gpufleet.llm.plugins.module_utils._host_read import LocalHost

FORBIDDEN = ["GET /metrics", "POST /invocations", "GET /v1/../metrics", "GET /docs", "POST /tokenize"]
HOST_SPEC = {
    "units": {"type": "list", "elements": "str", "default": []},
    "sockets": {"type": "list", "elements": "str", "default": []},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "exposure_limits": {"type": "dict", "default": {}},
    "our_units": {"type": "list", "elements": "str", "default": ["vllm@*.service", "llm-proxy.service"]},
    "instances": {"type": "list", "elements": "str", "default": []},
    "plan_dir": {"type": "path", "default": "/etc/gpufleet/vllm"},
    "calibration_dir": {"type": "path", "default": CALIBRATION_DIR},
    "proxy_unit": {"type": "str", "default": "llm-proxy.service"},
    "proxy_ports": {"type": "list", "elements": "int", "default": []},
    "tls_dir": {"type": "path"},
    "tls_warning_days": {"type": "int", "default": 15},
    "tls_authority_warning_days": {"type": "int", "default": 90},
}


def prove_endpoints(params: t.Mapping[str, t.Any]) -> t.Tuple[t.List[Finding], t.Dict[str, t.Dict[str, float]]]:
    """Return the findings of every endpoint, and the timings by model."""
    settings = Settings(
        vantage=params["vantage"],
        connect_seconds=params["connect_timeout_seconds"],
        request_seconds=params["request_timeout_seconds"],
        first_token_limit_seconds=params["first_token_limit_seconds"],
        prompt=params["prompt"],
        completion_tokens=params["completion_tokens"],
        stream_tokens=params["stream_tokens"],
        request_extra=params["request_extra"],
        forbidden=params["forbidden"],
    )
    identity = Identity(params["client_certificate"], params["client_key"], params["client_api_key"].strip())
    foreign = make_foreign_identity(LocalHost(), params["client_name"], identity.api_key)
    findings: t.List[Finding] = []
    timings: t.Dict[str, t.Dict[str, float]] = {}
    for model in params["models"]:
        endpoint = Endpoint(str(model["name"]), params["address"], int(model["port"]), params["server_name"])
        found, took = probe_endpoint(endpoint, params["ca"], identity, foreign, settings)
        findings.extend(found)
        timings[endpoint.model] = took
    return findings, timings


def prove_host(params: t.Mapping[str, t.Any], state: _endpoint_host.State) -> t.List[Finding]:
    """Return the findings about the host itself."""
    host = params["host"]
    findings = _endpoint_host.decide_state(
        state,
        units=host["units"],
        exposure_limits=host["exposure_limits"],
        proxy_unit=host["proxy_unit"],
        ports=[int(model["port"]) for model in params["models"]] + host["proxy_ports"],
    )
    if host["tls_dir"]:
        warning_days = dict.fromkeys((kind for kind, _file in _tls_expiry.FILES), float(host["tls_warning_days"]))
        warning_days["authority"] = float(host["tls_authority_warning_days"])
        ends = _tls_expiry.read_ends(host["tls_dir"])
        findings.extend(_tls_findings.decide_ends(ends, time.time(), warning_days))
    return findings


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "vantage": {"type": "str", "choices": ["host", "control"], "required": True},
            "models": {"type": "list", "elements": "dict", "required": True},
            "address": {"type": "str", "required": True},
            "server_name": {"type": "str", "required": True},
            "ca": {"type": "str", "required": True},
            "client_certificate": {"type": "str", "required": True},
            "client_key": {"type": "str", "required": True, "no_log": True},
            "client_api_key": {"type": "str", "required": True, "no_log": True},
            "client_name": {"type": "str", "default": "gpu-validate"},
            "prompt": {"type": "str", "default": "Write a short sentence about a cat."},
            "completion_tokens": {"type": "int", "default": 4, "no_log": False},
            "stream_tokens": {"type": "int", "default": 16, "no_log": False},
            "request_extra": {"type": "dict", "default": {"temperature": 0, "ignore_eos": True}},
            "forbidden": {"type": "list", "elements": "str", "default": FORBIDDEN},
            "connect_timeout_seconds": {"type": "float", "default": 10},
            "request_timeout_seconds": {"type": "float", "default": 120},
            "first_token_limit_seconds": {"type": "float", "default": 0, "no_log": False},
            "host": {"type": "dict", "options": HOST_SPEC},
        },
        supports_check_mode=True,
    )
    params: t.Dict[str, t.Any] = module.params
    for index, model in enumerate(params["models"]):
        if not model.get("name") or not isinstance(model.get("port"), int):
            module.fail_json(
                msg="gpu_validate_models[%d]: found %s, expected name and port. Remedy: state both." % (index, model)
            )
    wanted = params["host"]
    host = LocalHost()
    if module.check_mode and wanted:
        units = _endpoint_host.read_units(host, wanted["units"])
        if not _endpoint_host.is_deployed(units, wanted["units"]):
            module.exit_json(changed=False, deployed=False, findings=[], timings={}, units={}, memory={}, planned={})
    findings: t.List[Finding] = []
    units_found: t.Dict[str, t.Dict[str, str]] = {}
    memory: t.Dict[str, t.Dict[str, t.Any]] = {}
    if wanted:
        state = _endpoint_host.read_state(
            host,
            units=wanted["units"],
            sockets=wanted["sockets"],
            secrets=wanted["secrets"],
            exposure_limits=wanted["exposure_limits"],
            our_units=wanted["our_units"],
            connect_seconds=params["connect_timeout_seconds"],
            request_seconds=params["request_timeout_seconds"],
        )
        findings.extend(prove_host(params, state))
        memory = _memory_proof.read_memory(
            wanted["instances"],
            {
                one: state["units"].get("vllm@%s.service" % one, {}).get("InvocationID", "")
                for one in wanted["instances"]
            },
            plan_dir=wanted["plan_dir"],
            calibration_dir=wanted["calibration_dir"],
        )
        findings.extend(_memory_proof.decide_memory(memory))
        units_found = {
            unit: {"active_state": found.get("ActiveState", ""), "invocation_id": found.get("InvocationID", "")}
            for unit, found in state["units"].items()
        }
    proved, timings = prove_endpoints(params)
    findings.extend(proved)
    module.exit_json(
        changed=False,
        deployed=True,
        findings=findings,
        timings=timings,
        units=units_found,
        memory=memory,
        planned={name: one["planned"] for name, one in memory.items()},
    )


if __name__ == "__main__":
    main()
