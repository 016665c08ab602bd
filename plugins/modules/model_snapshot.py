#!/usr/bin/python
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_snapshot
short_description: Keep verified, pinned versions of models on a host
version_added: 0.1.0
description:
  - Brings the files of models onto a host, hashes every byte, and only then switches an atomic link to them.
  - A model comes from a directory on the control node, from an HTTPS server with a sha256 for each file, or from a
    commit of a model hub.
  - Downloads and shipping resume where they were cut. A file that another version has is not sent again.
  - A run that changes nothing reads no file's content. It trusts a record that binds each file's sha256 to its size,
    modification time and inode. O(verify=always) and O(state=verified) read all of it.
  - One call handles all the models of a host, with a single module start where nothing has to change.
author:
  - gpufleet.llm maintainers (!UNKNOWN)
options:
  directory:
    description: Directory of the store on the host. Each model gets a directory below it.
    type: path
    required: true
  models:
    description:
      - The models, one dictionary each. Other keys are ignored.
      - C(name) is the model's name, of lower-case letters, digits, dots and dashes.
      - C(source) is C(file:/directory/on/the/control/node), C(https://host/base/) or
        C(huggingface:organisation/repository).
      - C(revision) is the commit, 40 hex digits. Required for C(huggingface:).
      - C(manifest) maps paths to a sha256, or to a dictionary of C(sha256) and C(size) in bytes. For C(https://).
      - C(manifest_file) is a file on the control node in the format of sha256sum(1), instead of C(manifest).
      - C(include) and C(exclude) are lists of globs on the paths; C(*) matches slashes too.
      - C(engine) says who reads the model. C(config.json) is required but for C(llama_cpp) and C(ollama).
    type: list
    elements: dict
    required: true
  state:
    description:
      - V(present) brings what is missing.
      - V(verified) hashes every file of the current versions, changes none, and fails naming those that differ.
    type: str
    choices: [present, verified]
    default: present
  verify:
    description: Whether V(present) trusts the record of files that didn't change, or hashes them again.
    type: str
    choices: [recorded, always]
    default: recorded
  keep_versions:
    description: How many previous versions of a model stay beside the current one.
    type: int
    default: 2
  fetch_on:
    description:
      - Where downloads run.
      - V(control) downloads once to the control node and ships to each host.
      - V(host) downloads on each host, which then needs a way to the source, and huggingface_hub for C(huggingface:).
      - Has no effect on C(file:), which is always shipped.
    type: str
    choices: [control, host]
    default: control
  cache_dir:
    description: Directory on the control node for downloads and remembered hashes. Can be removed at any time.
    type: path
  allow_pickle:
    description: Accept weights that run code when they are loaded.
    type: bool
    default: false
  allow_http:
    description: Accept C(http://) sources, and a hub on C(http://) of this very machine.
    type: bool
    default: false
  disk_margin_mib:
    description: Space in MiB that must stay free beyond the model's files.
    type: int
    default: 512
  hf_endpoint:
    description: The hub's base URL.
    type: str
    default: https://huggingface.co
  hf_token:
    description: A read token for the hub. It is written to no file, log, argument list or result.
    type: str
  reference_globs:
    description: Files on the host that may name a version's directory. A version named in one of them is not pruned.
    type: list
    elements: path
    default: []
  step:
    description: Set by the action plugin, don't use it.
    type: str
    choices: [inspect, resolve, fetch, seal, commit]
    default: inspect
  plan:
    description: Set by the action plugin, don't use it.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    support: full
    description: Says what would be fetched, in files and bytes, and fetches nothing.
  diff_mode:
    support: full
    description: Shows the version id and the list of files, before and after.
notes:
  - Runs as an action plugin on the control node and starts its module on the host.
  - With O(fetch_on=host) and O(hf_token) the connection must have pipelining, so that the token touches no disk there.
"""

EXAMPLES = r"""
- name: Keep a model from the control node's disk
  gpufleet.llm.model_snapshot:
    directory: /var/lib/gpufleet/models
    cache_dir: /var/cache/gpufleet/models
    models:
      - name: smollm2
        source: file:/srv/models/smollm2

- name: Hash every file of the current version again
  gpufleet.llm.model_snapshot:
    directory: /var/lib/gpufleet/models
    state: verified
    models:
      - name: smollm2
"""

RETURN = r"""
models:
  description: One record for each model, in the order of O(models).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The model.
      type: str
    version_id:
      description: First 16 hex digits of the manifest's sha256. Null where check mode can't know it.
      type: str
    previous_version_id:
      description: The version that was current before. Null where there was none.
      type: str
    manifest_sha256:
      description: The sha256 over the sorted lines C(<sha256>  <path>).
      type: str
    path:
      description: The version's own directory.
      type: str
    link:
      description: The link that always names the current version.
      type: str
    bytes_total:
      description: Size of all files in bytes.
      type: int
    files:
      description: How many files.
      type: int
    bytes_to_fetch:
      description: Bytes that were, or in check mode would be, brought to the host.
      type: int
    files_to_fetch:
      description: The paths that were, or would be, brought to the host.
      type: list
      elements: str
    repaired:
      description: Files of the current version that were replaced because they weren't what was verified.
      type: list
      elements: str
    pruned:
      description: Versions that were, or would be, removed.
      type: list
      elements: str
    changed:
      description: Whether this model changed.
      type: bool
findings:
  description: What was refused or is worth a look.
  returned: always
  type: list
  elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_hub
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusal_message
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError
from ansible_collections.gpufleet.llm.plugins.module_utils._model_spec import ARGUMENT_SPEC
from ansible_collections.gpufleet.llm.plugins.module_utils._model_steps import run_step


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params: t.Dict[str, t.Any] = module.params
    library = None
    if params["step"] == "resolve" or any(item.get("hub") for item in params["plan"] if params["step"] == "fetch"):
        library = _model_hub.hub_library()
        if library is None:
            module.fail_json(
                msg=missing_required_lib("huggingface_hub", reason="with model_store_fetch_on: host"),
                exception=_model_hub.HUB_IMPORT_ERROR,
            )
    try:
        result = run_step(params, module.check_mode, library)
    except ModelError as exc:
        message = refusal_message(exc.findings, "The model store")
        module.fail_json(msg=_model_hub.scrub(message, params["hf_token"]), findings=exc.findings)
    except OSError as exc:
        module.fail_json(msg="The model store at %s: %s" % (params["directory"], exc), findings=[])
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
