# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What an inventory asks of the engine, as instances with their configuration, or all reasons why it can't be."""

from __future__ import annotations

import json
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _finding

ENGINE = "vllm"
SLOTS = ("a", "b")
INSTANCE = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?-[ab]")
INSTANCE_LENGTH = 64
KEY = re.compile(r"[A-Za-z0-9._~+/=-]+")
KEY_LENGTH = 32

#: Keys of vLLM's configuration that belong to this role, each with where it is said instead.
OWNED_KEYS = {
    "model": "set the model's source",
    "served-model-name": "set the model's name",
    "max-model-len": "set the model's context_length",
    "api-key": "set vllm_api_key, or leave it null and let the host make one",
    "uds": "leave it out; the socket is /run/gpufleet/<instance>/engine.sock",
    "host": "leave it out; the engine listens on a unix socket only, and the proxy has the port",
    "port": "set the model's port, which is the proxy's",
    "grpc": "leave it out; it would open a listener without authentication",
    "grpc-port": "leave it out; it would open a listener without authentication",
    "config": "write the keys of that file into engine_config",
    "shutdown-timeout": "set vllm_drain_timeout_seconds",
    "nnodes": "leave it out; this role serves a model from one host",
    "node-rank": "leave it out; this role serves a model from one host",
    "master-addr": "leave it out; this role serves a model from one host",
    "master-port": "leave it out; this role serves a model from one host",
    "headless": "leave it out; this role serves a model from one host",
}
#: What an accelerator needs unless a model says otherwise. On a CPU: bfloat16 takes a kernel that dies of an illegal
#: instruction in virtual machines, and compiling needs a C++ compiler that a served host shouldn't have.
ACCELERATOR_DEFAULTS: t.Dict[str, t.Dict[str, t.Any]] = {
    "cpu": {"dtype": "float32", "enforce-eager": True},
    "cuda": {},
}
#: Variables that would silently change what the role plans with, each with where it is said instead.
OWNED_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "set the model's gpus",
    "VLLM_CPU_KVCACHE_SPACE": "set vllm_cpu_kv_cache_gib, or kv-cache-memory-bytes in the model's engine_config",
}
TLS_REMEDY = "leave it out; TLS ends at the proxy (role llm_proxy)"


def dashed(key: str) -> str:
    """Return a configuration key as vLLM's command line spells it."""
    return str(key).lstrip("-").replace("_", "-")


def api_key_fault(key: t.Optional[str]) -> t.Optional[str]:
    """Return what is wrong with an engine key, without repeating it; None when it is good."""
    if key is None or key == "":
        return "an empty key"
    if not key.strip():
        return "a key of nothing but white space"
    if len(key) < KEY_LENGTH:
        return "a key of %d characters" % len(key)
    if not KEY.fullmatch(key):
        return "a key with characters that a header or a proxy's file can't carry"
    return None


def _model_findings(number: int, model: t.Mapping[str, t.Any]) -> t.List[_finding.Finding]:
    where = "vllm_models[%d]" % number
    name, slot = model.get("name"), model.get("slot", "a")
    found = []
    instance = "%s-%s" % (name, slot)
    found.append(
        _finding.finding(
            where + ".name",
            bool(INSTANCE.fullmatch(instance)) and len(instance) <= INSTANCE_LENGTH,
            expected="lower case letters, digits, dots and dashes, then -a or -b, %d at most" % INSTANCE_LENGTH,
            found="instance %r" % instance,
            detail="It names a systemd unit, a directory and a socket.",
            remedy="set name to something like llama-3.1-8b and slot to a or b",
        )
    )
    length = model.get("context_length")
    if length is not None:
        good = isinstance(length, int) and not isinstance(length, bool) and length > 0
        found.append(
            _finding.finding(
                where + ".context_length",
                good,
                expected="a number of tokens above 0",
                found=repr(length),
                remedy="set context_length to the tokens that a request and its answer may have together",
            )
        )
    config = model.get("engine_config") or {}
    for key in sorted(config):
        word = dashed(key)
        remedy = TLS_REMEDY if word.startswith("ssl-") else OWNED_KEYS.get(word)
        if remedy:
            found.append(
                _finding.finding(
                    "%s.engine_config.%s" % (where, key),
                    False,
                    expected="no such key; the role sets it",
                    found="a value",
                    remedy=remedy,
                )
            )
    return found


def engine_config(
    model: t.Mapping[str, t.Any], path: str, defaults: t.Mapping[str, t.Any], drain_seconds: int
) -> t.Dict[str, t.Any]:
    """Return the whole configuration of one instance, with vLLM's own spelling of the keys.

    Args:
        model: one entry of the inventory's models.
        path: the directory that holds the model's files on the host.
        defaults: what this accelerator needs unless the model says otherwise.
        drain_seconds: how long requests that are running may take to end after a stop.
    """
    config: t.Dict[str, t.Any] = {dashed(k): v for k, v in defaults.items()}
    config.update({dashed(k): v for k, v in (model.get("engine_config") or {}).items()})
    config["model"] = path
    config["served-model-name"] = model["name"]
    config["shutdown-timeout"] = drain_seconds
    if model.get("context_length") is not None:
        config["max-model-len"] = model["context_length"]
    return {key: value for key, value in config.items() if value is not None}


def plan(
    models: t.Sequence[t.Mapping[str, t.Any]],
    *,
    api_key: t.Optional[str] = None,
    defaults: t.Optional[t.Mapping[str, t.Any]] = None,
    accelerator: str = "",
    models_dir: str = "/var/lib/gpufleet/models",
    drain_seconds: int = 60,
    paths: t.Optional[t.Mapping[str, str]] = None,
    memory: t.Optional[t.Sequence[t.Mapping[str, t.Any]]] = None,
    environment: t.Optional[t.Mapping[str, t.Any]] = None,
) -> t.Dict[str, t.Any]:
    """Return ``{instances, names, refusal}`` for the models that this engine serves.

    Args:
        models: the inventory's models; those of another engine are left out.
        api_key: the operator's key, or None to have one made on the host.
        defaults: configuration that is needed unless a model says otherwise; None: what the accelerator needs.
        accelerator: ``cpu`` or ``cuda``.
        models_dir: where the models are on the host.
        drain_seconds: how long running requests may take to end after a stop.
        paths: resolved directory by model name; a model without one is named by its ``current`` link.
        memory: the instances' memory plans, ``instances`` of the module ``memory_plan``. Their arguments are taken
            where a model's ``engine_config`` doesn't have them.
        environment: further environment of the engines.
    """
    planned = {str(one["name"]): one for one in memory or ()}
    if defaults is None:
        defaults = ACCELERATOR_DEFAULTS.get(accelerator, {})
    findings: t.List[_finding.Finding] = []
    if api_key is not None:
        fault = api_key_fault(api_key)
        findings.append(
            _finding.finding(
                "vllm_api_key",
                fault is None,
                expected="null, or %d or more of letters, digits and ._~+/=-" % KEY_LENGTH,
                found=fault or "a good key",
                detail="vLLM switches authentication off, without a word, when its key is empty.",
                remedy="set it to null to have each host make its own key, or to the output of openssl rand -hex 32",
            )
        )
    for name in sorted(set(OWNED_ENVIRONMENT) & set(environment or {})):
        findings.append(
            _finding.finding(
                "vllm_environment.%s" % name,
                False,
                expected="no such variable; it would take the place of what is planned",
                found="a value",
                remedy=OWNED_ENVIRONMENT[name],
            )
        )
    instances: t.List[t.Dict[str, t.Any]] = []
    seen: t.Dict[str, int] = {}
    for number, model in enumerate(models):
        if model.get("engine", ENGINE) != ENGINE:
            continue
        wrong = _model_findings(number, model)
        findings.extend(wrong)
        name = "%s-%s" % (model.get("name"), model.get("slot", "a"))
        if name in seen:
            findings.append(
                _finding.finding(
                    "vllm_models[%d].name" % number,
                    False,
                    expected="each instance once",
                    found="instance %s, which vllm_models[%d] is too" % (name, seen[name]),
                    remedy="give one of the two another name or slot",
                )
            )
        seen.setdefault(name, number)
        if _finding.refusals(wrong):
            continue
        link = "%s/%s/current" % (models_dir, model["name"])
        path = (paths or {}).get(model["name"], link)
        config = engine_config(model, path, defaults, drain_seconds)
        one = planned.get(name) or {}
        instances.append(
            {
                "name": name,
                "model": model["name"],
                "model_link": link,
                "config": dict(one.get("arguments") or {}, **config),
                # Where the inventory places it; elsewhere the engine takes the first GPUs by itself.
                "gpus": model.get("gpus") or [],
                "memory": one.get("document") or {},
            }
        )
    refusal = _finding.refusal_message(findings, "The vllm role")
    return {"instances": instances, "names": [i["name"] for i in instances], "refusal": refusal}


def unknown_arguments(
    instances: t.Sequence[t.Mapping[str, t.Any]], known: t.Sequence[str]
) -> t.List[t.Tuple[str, str]]:
    """Return ``(instance, key)`` for every configuration key that the engine's own parser doesn't know."""
    words = set(known)
    bad = []
    for instance in instances:
        for key in sorted(instance["config"]):
            word = dashed(key).partition(".")[0]
            if word not in words and "no-" + word not in words:
                bad.append((instance["name"], key))
    return bad


def unknown_refusal(instances: t.Sequence[t.Mapping[str, t.Any]], known: t.Sequence[str], version: str) -> str:
    """Return why the instances' configurations can't be served by this engine, empty when they can."""
    unknown = unknown_arguments(instances, known)
    if not unknown:
        return ""
    return (
        "engine_config: found %s, which vLLM %s has no argument for; expected keys of `vllm serve --help=all`. "
        "Remedy: correct or remove them."
        % (", ".join("%s in %s" % (key, instance) for instance, key in unknown), version)
    )


def files(
    instances: t.Sequence[t.Mapping[str, t.Any]], config_dir: str, system_dir: str
) -> t.Dict[str, t.List[t.Dict[str, t.Any]]]:
    """Return the directories and files of each instance, as the action place_files takes them."""
    directories: t.List[t.Dict[str, t.Any]] = []
    entries: t.List[t.Dict[str, t.Any]] = []
    root = {"owner": "root", "group": "root"}
    for instance in instances:
        own = "%s/%s" % (config_dir, instance["name"])
        drop_ins = "%s/vllm@%s.service.d" % (system_dir, instance["name"])
        directories += [dict(root, path=own, mode="0755"), dict(root, path=drop_ins, mode="0755")]
        variables = {"__vllm_instance": dict(instance)}
        for dest, template in (
            (own + "/config.yaml", "config.yaml.j2"),
            (drop_ins + "/10-instance.conf", "10-instance.conf.j2"),
            (drop_ins + "/20-accelerator.conf", "20-accelerator.conf.j2"),
        ):
            entries.append(dict(root, dest=dest, template=template, vars=variables, mode="0644"))
        if instance.get("memory"):
            text = json.dumps(instance["memory"], indent=2, sort_keys=True) + "\n"
            entries.append(dict(root, dest=own + "/plan.json", content=text, mode="0644"))
    return {"directories": directories, "files": entries}
