#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_credential
short_description: Have the engine's key on a host, which never leaves it
description:
  - Makes, for each instance, a key of 32 random bytes (C(sk-) and 64 hexadecimal digits) on the host itself, unless
    there is a good one already or O(api_key) says which.
  - Two files hold it, C(<instance>.api_key) for the engine and C(<instance>.authorization.conf) for the proxy, both
    0600 in a directory of 0700. The key is in no result, difference or log.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description: Says which instances would get a key.
  diff_mode:
    support: none
    description: A secret has no difference to show.
options:
  instances:
    description: Names of the instances.
    type: list
    elements: str
    required: true
  directory:
    description: Directory of the files.
    type: path
    default: /etc/gpufleet/credentials
  api_key:
    description: Key for all O(instances); unset keeps what is there, or makes one.
    type: str
"""

EXAMPLES = r"""
- name: Have the engine's key
  gpufleet.llm.engine_credential:
    instances: [smollm2-a]
"""

RETURN = r"""
changed_instances:
  description: Instances whose key is new or other than before.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_credential as credential
from ansible_collections.gpufleet.llm.plugins.module_utils._engine_plan import api_key_fault


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "str", "required": True},
            "directory": {"type": "path", "default": "/etc/gpufleet/credentials"},
            "api_key": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    given = module.params["api_key"]
    fault = None if given is None else api_key_fault(given)
    if fault:
        module.fail_json(
            msg="vllm_api_key: found %s, expected 32 or more of letters, digits and ._~+/=-. Remedy: set it to "
            "null to have the host make one. vLLM has no authentication with an empty key. Nothing was changed." % fault
        )
    try:
        changed = credential.converge(
            module.params["directory"], module.params["instances"], given, dry=module.check_mode
        )
    except OSError as exc:
        module.fail_json(msg="engine_credential: %s" % exc)
    module.exit_json(changed=bool(changed["touched"]), changed_instances=changed["rekeyed"])


if __name__ == "__main__":
    main()
