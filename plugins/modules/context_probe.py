#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: context_probe
short_description: Measure the largest context that an endpoint really serves
description:
  - Sends O(concurrency) requests at the same time through the proxy, as a client does, and looks for the largest length
    of prompt and answer together with which all of them really run at once.
  - A prompt is a list of token numbers, so its length is exact, and no two have a prefix in common. An engine short of
    KV cache lets requests wait or computes them again; both are seen in when tokens arrive, and count as not served. So
    do prompts that were cut, and answers whose usage isn't what was sent.
  - It begins at O(planned_tokens), O(engine_tokens) and O(previous_tokens), each one step up, and halves what is left.
    Where the plan holds it ends after two loads; so does running it again.
  - Each load is said while it runs. It ends after O(max_requests) or O(max_seconds) with what it knows.
  - It fails where there is nothing to measure - the endpoint is down, its engine dies, a limit (429) answers for every
    try, or it refuses.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Puts no load on the endpoint and returns no measurement.
  diff_mode:
    support: none
    description: There is nothing to show, for nothing is changed.
notes:
  - Runs on the control node only, as an action.
  - What an engine read of a prompt is known from its own usage. One that cuts prompts and reports otherwise isn't found
    out by this.
  - The load is real. Requests of others are slower meanwhile, and theirs make the measurement smaller.
options:
  model:
    description: Served name of the model.
    type: str
    required: true
  address:
    description: Name or address to connect to.
    type: str
    required: true
  port:
    description: Port of the proxy.
    type: int
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
  concurrency:
    description: Requests at the same time.
    type: int
    default: 1
  findings:
    description: What was found before, M(gpufleet.llm.context_plan) for one; they come first in RV(findings).
    type: list
    elements: dict
    default: []
  planned_tokens:
    description: Tokens of each of them by the memory plan, to compare with.
    type: int
  engine_tokens:
    description: Tokens of each of them by the blocks that the engine printed, to compare with.
    type: int
  previous_tokens:
    description: Tokens that an earlier measurement found, to begin there.
    type: int
  longest_request_tokens:
    description: Longest request that the engine takes. Left out, it's asked (C(max_model_len) of C(/v1/models)).
    type: int
  step_tokens:
    description: How exact the answer is, in tokens.
    type: int
    default: 16
  batch_tokens:
    description: Tokens that the engine computes in one step (C(max_num_batched_tokens)); with fewer, answers are made
      longer so that requests overlap.
    type: int
    default: 2048
  first_token_id:
    description: Smallest token number in the prompts.
    type: int
    default: 100
  last_token_id:
    description: Largest token number in the prompts; the model's vocabulary must have it.
    type: int
    default: 1000
  request_extra:
    description: Further fields of each request. Without C(ignore_eos) an answer may end early.
    type: dict
    default: {temperature: 0, ignore_eos: true}
  max_requests:
    description: Most requests that are sent.
    type: int
    default: 400
  max_seconds:
    description: Seconds after which no load is begun.
    type: float
    default: 900
  connect_timeout_seconds:
    description: Limit of connecting, tries included, and of the TLS handshake, in seconds.
    type: float
    default: 10
  request_timeout_seconds:
    description: Limit of one request in seconds.
    type: float
    default: 300
"""

EXAMPLES = r"""
- name: Measure the context that 12 users have at once
  gpufleet.llm.context_probe:
    model: smollm2
    address: llm1.example.com
    port: 8443
    server_name: llm1
    ca: "{{ lookup('ansible.builtin.file', 'pki/ca.crt') }}"
    client_certificate: "{{ lookup('ansible.builtin.file', 'pki/clients/gpu-validate/client.crt') }}"
    client_key: "{{ lookup('ansible.builtin.file', 'pki/clients/gpu-validate/client.key') }}"
    client_api_key: "{{ lookup('ansible.builtin.file', 'pki/clients/gpu-validate/api_key') }}"
    concurrency: 12
    planned_tokens: 1920
  register: measured
"""

RETURN = r"""
findings:
  description: Whether there is a measurement, and whether the plan and the engine's own word hold.
  returned: always
  type: list
  elements: dict
ok:
  description: Whether every finding of severity C(error) holds.
  returned: always
  type: bool
summary:
  description: The findings as lines for a person.
  returned: always
  type: list
  elements: str
refusal:
  description: All findings that failed as one message, empty when none did.
  returned: always
  type: str
measurement:
  description:
    - What was measured, with C(concurrency), C(served_tokens), C(not_served_tokens) (null where the longest request is
      served), C(step_tokens), C(longest_request_tokens), C(complete), C(planned_tokens), C(engine_tokens),
      C(requests), C(seconds), and C(levels), each with C(tokens), C(served), C(reason), C(detail), C(at_once) and
      C(seconds).
    - Null in check mode.
  returned: always
  type: dict
skipped_load:
  description: Whether it was check mode, and nothing was measured.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _context_probe as probing


def main() -> None:
    module = AnsibleModule(argument_spec=probing.ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(msg="context_probe runs as an action on the control node only.")


if __name__ == "__main__":
    main()
