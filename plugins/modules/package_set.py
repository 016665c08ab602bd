#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_set
short_description: Have a family of packages at exact versions, in one transaction, and hold it
description:
  - Installs, upgrades or downgrades all packages of a list together by one transaction of apt or dnf, removes what must
    not be there, and holds the result (apt holds, dnf version locks).
  - The transaction is simulated before. It's refused when it would remove a package that isn't asked for, or change one
    that somebody else holds.
  - Asks only dpkg's or rpm's own data, and runs neither apt nor dnf, when nothing has to change.
  - Goes on where a run was cut. What a killed transaction left half done is mended first. A transaction that has begun
    ends by itself when the module is killed; the next run waits for it.
  - Waits for cloud-init and for whoever has the package manager's locks, up to a limit, then says who has them.
  - Recommended packages aren't installed, and configuration files that were edited are kept.
  - Dependencies that aren't listed come at the version that the package manager prefers. Where a repository has several
    versions of a family, pin the whole family by an apt preferences file as well; apt refuses to mix them otherwise.
version_added: 0.1.0
author:
  - gpufleet.llm maintainers (!UNKNOWN)
attributes:
  check_mode:
    support: full
    description:
      - The transaction is simulated with the lists the host has. A version that isn't in them is shown as it was asked
        for, with a warning, as on a host that gets its repository in the same run.
  diff_mode:
    support: full
    description: Versions and holds before and after.
options:
  packages:
    description: Packages to have.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the package., type: str, required: true}
      version:
        description:
          - Its exact version, or a glob pattern of it. Of several that fit, the newest is taken unless one is there.
          - An epoch that isn't named is left out of the comparison.
        type: str
        default: "*"
  remove:
    description: Names of packages that must not be there, nor their configuration.
    type: list
    elements: str
    default: []
  hold:
    description:
      - Whether O(packages) and O(hold_also) are held at the end, even after a failed transaction. Otherwise holds are
        left as the package manager leaves them; it drops those of packages that it changes.
    type: bool
    default: true
  hold_also:
    description:
      - Names and glob patterns of further packages of the family, as libraries, and the kernel with its headers. Those
        that are installed are held. They may change and go with the family; all others that are held may not.
    type: list
    elements: str
    default: []
  allow_downgrade:
    description: Whether packages may go back to an older version.
    type: bool
    default: true
  update_cache:
    description:
      - Whether the repositories' lists are read again before a transaction. They always are when a wanted version isn't
        in them.
    type: bool
    default: false
  module_streams:
    description: Module streams to enable before, as C(name:stream). Only for dnf.
    type: list
    elements: str
    default: []
  lock_timeout_seconds:
    description: How long cloud-init and the locks of the package manager may be waited for in all, in seconds.
    type: int
    default: 300
  manager:
    description: The package manager; V(auto) takes the one that the host has.
    type: str
    choices: [auto, apt, dnf]
    default: auto
seealso:
  - module: gpufleet.llm.package_hold
  - module: gpufleet.llm.package_source
"""

EXAMPLES = r"""
- name: Have the family at one version, held together with the kernel
  gpufleet.llm.package_set:
    packages:
      - {name: example-driver, version: "1.2.3-*"}
      - {name: example-dkms, version: "1.2.3-*"}
    hold_also: ["libexample*", "linux-image-{{ ansible_facts.kernel }}"]
    remove: [example-legacy]
    lock_timeout_seconds: 300
"""

RETURN = r"""
packages:
  description:
    - By name, C(from) and C(to) (null where it isn't installed) and C(action), which is none, install, upgrade,
      downgrade or remove. Every package that was asked for is in it, and every other one that changed.
  returned: always
  type: dict
held:
  description: Names of the packages of the set that are held at the end.
  returned: always
  type: list
  elements: str
not_installed:
  description: Names in O(hold_also) that aren't installed, patterns aside.
  returned: always
  type: list
  elements: str
waited_for:
  description: Who had the locks.
  returned: always
  type: list
  elements: str
findings:
  description: What was found wrong, or worth saying.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llm.plugins.module_utils import _finding, _package_managers, _package_run
from ansible_collections.gpufleet.llm.plugins.module_utils import _package_plan as planning


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "version": {"type": "str", "default": "*"},
                },
            },
            "remove": {"type": "list", "elements": "str", "default": []},
            "hold": {"type": "bool", "default": True},
            "hold_also": {"type": "list", "elements": "str", "default": []},
            "allow_downgrade": {"type": "bool", "default": True},
            "update_cache": {"type": "bool", "default": False},
            "module_streams": {"type": "list", "elements": "str", "default": []},
            "lock_timeout_seconds": {"type": "int", "default": 300},
            "manager": {"type": "str", "choices": ["auto", "apt", "dnf"], "default": "auto"},
        },
        supports_check_mode=True,
    )
    given = module.params
    request = planning.Request(
        packages={package["name"]: package["version"] for package in given["packages"]},
        remove=tuple(given["remove"]),
        hold=given["hold"],
        hold_also=tuple(given["hold_also"]),
        allow_downgrade=given["allow_downgrade"],
    )
    backend = _package_managers.backend(given["manager"], given["module_streams"])
    result = _package_run.run(
        backend,
        request,
        check=module.check_mode,
        timeout_seconds=given["lock_timeout_seconds"],
        update=given["update_cache"],
    )
    if "msg" in result:
        module.fail_json(**result)
    for finding in _finding.warnings(result["findings"]):
        module.warn(_finding.describe(finding))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
