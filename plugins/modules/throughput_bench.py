#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: throughput_bench
short_description: Measure throughput and latency of an endpoint at a concurrency
description:
  - Runs C(vllm bench serve) of the engine's own environment on the host, with random prompts, through the proxy, as a
    client does. The load generator gets no secret; a relay on loopback adds certificate and key.
  - While it runs the power of the host's GPUs is read by NVML. Where none says it, it's null, with the reason.
  - The load generator runs on the same host and takes its part of the host's CPU.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Puts no load on the endpoint and returns no level.
  diff_mode:
    support: none
    description: There is nothing to show, for nothing is changed.
options:
  model:
    description: Served name of the model.
    type: str
    required: true
  model_dir:
    description: Directory with the model's tokenizer.
    type: path
    required: true
  interpreter:
    description: Python of the engine's environment.
    type: path
    required: true
  address:
    description: Name or address of the proxy.
    type: str
    default: 127.0.0.1
  port:
    description: Port of the proxy.
    type: int
    required: true
  server_name:
    description: Name the proxy's certificate must carry.
    type: str
    required: true
  ca:
    description: The CA of the proxy's certificate, PEM.
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
  concurrency:
    description: Requests at the same time.
    type: int
    default: 1
  prompts:
    description: Requests in all.
    type: int
    required: true
  input_tokens:
    description: Tokens of each prompt.
    type: int
    default: 128
  output_tokens:
    description: Tokens of each answer.
    type: int
    default: 32
  max_seconds:
    description: Limit of this level in seconds. What isn't done then is ended.
    type: float
    default: 300
  library_path:
    description: Directory of C(pynvml.py) on the host, as M(gpufleet.llm.gpu_info) has it.
    type: path
    default: /usr/local/lib/gpufleet/python
"""

EXAMPLES = r"""
- name: Measure it with 8 requests at once
  gpufleet.llm.throughput_bench:
    model: smollm2
    model_dir: /var/lib/gpufleet/models/smollm2/current
    interpreter: /opt/gpufleet/engines/vllm/current/bin/python3
    port: 8443
    server_name: llm1
    ca: "{{ lookup('ansible.builtin.file', 'pki/ca.crt') }}"
    client_certificate: "{{ lookup('ansible.builtin.file', 'pki/clients/gpu-validate/client.crt') }}"
    client_key: "{{ lookup('ansible.builtin.file', 'pki/clients/gpu-validate/client.key') }}"
    client_api_key: "{{ lookup('ansible.builtin.file', 'pki/clients/gpu-validate/api_key') }}"
    concurrency: 8
    prompts: 32
  register: level
"""

RETURN = r"""
level:
  description:
    - What was measured, with C(concurrency), C(prompts), C(completed), C(failed), C(duration_seconds),
      C(requests_per_second), C(output_tokens_per_second), C(total_tokens_per_second), and C(ttft_ms), C(tpot_ms),
      C(itl_ms) and C(e2el_ms), each with C(mean), C(p50), C(p90) and C(p99); C(power) with C(watts) of all GPUs
      together, C(samples) and C(reason).
    - Null in check mode.
  returned: always
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_info, _throughput_bench
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import Endpoint, Identity
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_probe import redact
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import LocalRunner
from ansible_collections.gpufleet.llm.plugins.module_utils._throughput_relay import Relay


def watts_of(library: str) -> t.List[t.Optional[float]]:
    """Return the power of each GPU of this host in watts."""
    return [gpu["power_watts"]["draw"] for gpu in _gpu_info.read_gpu_info(library, LocalRunner())["gpus"]]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "model": {"type": "str", "required": True},
            "model_dir": {"type": "path", "required": True},
            "interpreter": {"type": "path", "required": True},
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "required": True},
            "server_name": {"type": "str", "required": True},
            "ca": {"type": "str", "required": True},
            "client_certificate": {"type": "str", "required": True},
            "client_key": {"type": "str", "required": True, "no_log": True},
            "client_api_key": {"type": "str", "required": True, "no_log": True},
            "concurrency": {"type": "int", "default": 1},
            "prompts": {"type": "int", "required": True},
            "input_tokens": {"type": "int", "default": 128, "no_log": False},
            "output_tokens": {"type": "int", "default": 32, "no_log": False},
            "max_seconds": {"type": "float", "default": 300},
            "library_path": {"type": "path", "default": _gpu_info.LIBRARY_PATH},
        },
        supports_check_mode=True,
    )
    params: t.Dict[str, t.Any] = module.params
    for name in ("concurrency", "prompts", "input_tokens", "output_tokens", "max_seconds"):
        if params[name] <= 0:
            module.fail_json(msg="%s: found %s, expected more than 0. Remedy: state it." % (name, params[name]))
    if module.check_mode:
        module.exit_json(changed=False, level=None)
    identity = Identity(params["client_certificate"], params["client_key"], params["client_api_key"].strip())
    endpoint = Endpoint(params["model"], params["address"], params["port"], params["server_name"])
    load = _throughput_bench.Load(
        model=params["model"],
        tokenizer=params["model_dir"],
        concurrency=params["concurrency"],
        prompts=params["prompts"],
        input_tokens=params["input_tokens"],
        output_tokens=params["output_tokens"],
        max_seconds=params["max_seconds"],
    )
    meter = _throughput_bench.PowerMeter(lambda: watts_of(params["library_path"]))
    secrets = [secret for secret in (identity.api_key, identity.key.strip()) if secret]
    try:
        with Relay(endpoint, params["ca"], identity) as relay, meter:
            result = _throughput_bench.run(params["interpreter"], load, relay.url, relay.stand_in)
    except (_throughput_bench.BenchError, OSError, ValueError) as exc:
        module.fail_json(
            msg=redact(
                "throughput_bench: %d requests at once, found %s, expected a result of vllm bench serve. Remedy: see "
                "the engine's journal and the proxy's log, or give it more time." % (load.concurrency, exc),
                secrets,
            )
        )
    level = dict(_throughput_bench.level_of(load, result), power=meter.record())
    if level["failed"] or not level["completed"]:
        said = "; ".join(filter(None, [*relay.errors[:2], _throughput_bench.errors_of(result)]))
        said = redact(said, secrets) or "the load generator doesn't say why; the proxy's log does"
        module.fail_json(
            msg="throughput_bench: %d requests at once, found %s of %d that failed, expected none: %s. Remedy: lower "
            "the concurrency, or raise llm_proxy_client_concurrent_requests and llm_proxy_client_requests_per_second "
            "for this client." % (load.concurrency, level["failed"], load.prompts, said),
            level=level,
        )
    module.exit_json(changed=False, level=level)


if __name__ == "__main__":
    main()
