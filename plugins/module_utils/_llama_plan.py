# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What an inventory asks of llama.cpp, as instances with their configuration, or all reasons why it can't be."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _finding

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,58}[a-z0-9])?")
DEFAULTS = {"context_length": 2048, "parallel": 2, "threads": 2}
MODELS_DIR = "/var/lib/gpufleet/models"

Mapping = t.Mapping[str, t.Any]


def plan(
    models: t.Sequence[Mapping],
    served: t.Sequence[Mapping],
    drain_seconds: int = 30,
    files: t.Optional[t.Mapping[str, str]] = None,
) -> t.Dict[str, t.Any]:
    """Return ``{instances, names}``. Raises ValueError with all that is wrong with the inputs.

    Args:
        models: those that llama.cpp serves: ``name``, which is the instance's too, ``fallback_for``, the name of the
            model whose key it takes, and ``context_length`` (tokens of one request), ``parallel`` (requests at once),
            ``threads``.
        served: the inventory's models, for the slot of the one that it stands in for.
        drain_seconds: how long running requests may take to end after a stop.
        files: GGUF file by model name; a model without one is named by its ``current`` link.
    """
    findings: t.List[_finding.Finding] = []
    slots = {str(model.get("name")): str(model.get("slot", "a")) for model in served}
    instances: t.List[t.Dict[str, t.Any]] = []
    for number, model in enumerate(models):
        where = "llama_cpp_models[%d]" % number
        name, other = str(model.get("name")), str(model.get("fallback_for"))
        once = name not in [one["name"] for one in instances]
        findings.append(
            _finding.finding(
                where + ".name",
                bool(NAME.fullmatch(name)) and once and not re.search(r"-[ab]$", name),
                expected="at most 60 of a-z 0-9 . -, once, and not like another engine's instance (name-a)",
                found=repr(model.get("name")),
                remedy="set it to something like smollm2-fallback",
            )
        )
        findings.append(
            _finding.finding(
                where + ".fallback_for",
                other in slots,
                expected="the name of a model of gpufleet_models",
                found=repr(model.get("fallback_for")),
                detail="It takes that model's engine key.",
                remedy="name the model that it stands in for",
            )
        )
        config: t.Dict[str, t.Any] = {}
        for key, default in DEFAULTS.items():
            value = model.get(key, default)
            good = isinstance(value, int) and not isinstance(value, bool) and value > 0
            findings.append(
                _finding.finding(
                    "%s.%s" % (where, key), good, expected="a number above 0", found=repr(value), remedy="correct it"
                )
            )
            config[key] = value
        link = "%s/%s/current" % (MODELS_DIR, name)
        config["drain_seconds"] = drain_seconds
        config["model_file"] = (files or {}).get(name, link + "/model.gguf")
        credential = "%s-%s" % (other, slots.get(other, "a"))
        instances.append({"name": name, "model": name, "model_link": link, "credential": credential, "config": config})
    refusal = _finding.refusal_message(findings, "The llama_cpp role")
    if refusal:
        raise ValueError(refusal)
    return {"instances": instances, "names": [one["name"] for one in instances]}


def placed(instances: t.Sequence[Mapping], config_dir: str, system_dir: str) -> t.Dict[str, t.List[t.Dict[str, t.Any]]]:
    """Return the directories and files of each instance, as the action place_files takes them."""
    directories: t.List[t.Dict[str, t.Any]] = []
    files: t.List[t.Dict[str, t.Any]] = []
    for one in instances:
        own, drop_ins = "%s/%s" % (config_dir, one["name"]), "%s/llama_cpp@%s.service.d" % (system_dir, one["name"])
        directories += [{"path": own, "mode": "0755"}, {"path": drop_ins, "mode": "0755"}]
        variables = {"__llama_cpp_instance": dict(one)}
        files.append({"dest": own + "/config.json", "template": "config.json.j2", "vars": variables})
        files.append({"dest": drop_ins + "/10-instance.conf", "template": "10-instance.conf.j2", "vars": variables})
    return {"directories": directories, "files": files}
