# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What a watchdog has to watch on a host, from the inventory's models; or all reasons why it can't."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _finding

ENGINES = ("vllm", "llama_cpp")
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,58}[a-z0-9])?")

Mapping = t.Mapping[str, t.Any]

#: The least that a limit may be, in its own unit. Below it a healthy engine would be killed.
LEAST = {
    "deadline": 0.5, "kill_after": 0.0, "busy": 1.0, "start": 10.0, "restarts": 0, "window": 1.0, "timely": 1,
}  # fmt: skip


def plan(
    models: t.Sequence[Mapping],
    settings: Mapping,
    runtime_dir: str = "/run/gpufleet",
    fallbacks: t.Sequence[Mapping] = (),
) -> t.Dict[str, t.Any]:
    """Return ``{instances, settings}``. Raises ValueError with all that is wrong with the inputs.

    Args:
        models: the inventory's models; those of an engine that isn't watched are left out. Read are ``name``, ``slot``,
            ``engine``, ``socket``, and ``authorization_include``: empty says that the engine asks for no key.
        settings: limits by the names of ``llm_watchdog.decide.Settings``.
        runtime_dir: directory on the host below which each engine has its socket.
        fallbacks: what llama.cpp serves in their stead: ``name`` and ``fallback_for``. They have no breaker.
    """
    findings: t.List[_finding.Finding] = []
    for name, least in sorted(LEAST.items()):
        value = settings.get(name, least)
        findings.append(
            _finding.finding(
                "llm_watchdog_%s" % name,
                isinstance(value, (int, float)) and not isinstance(value, bool) and value >= least,
                expected="a number, %g or more" % least,
                found=repr(value),
                remedy="correct it, or leave it out",
            )
        )
    instances: t.List[t.Dict[str, str]] = []
    for number, model in enumerate(models):
        engine, name, slot = model.get("engine", "vllm"), str(model.get("name")), model.get("slot", "a")
        if engine not in ENGINES:
            continue
        good = bool(NAME.fullmatch(name)) and slot in ("a", "b")
        once = not any(one["breaker"] == name for one in instances)
        findings.append(
            _finding.finding(
                "llm_watchdog_models[%d].name" % number,
                good and once,
                expected="at most 60 of a-z 0-9 . -, once, and slot a or b",
                found="name %r, slot %r" % (name, slot),
                remedy="set them as the role of the engine wants them",
            )
        )
        if good and once:
            instances.append(instance(name, str(slot), str(engine), model, runtime_dir))
    keys = {one["model"]: one["credential"] for one in instances}
    for model in fallbacks:
        name = str(model.get("name"))
        other = str(model.get("fallback_for"))
        instances.append(
            {
                "name": name,
                "model": name,
                "unit": "llama_cpp@%s.service" % name,
                "socket": "%s/%s/engine.sock" % (runtime_dir, name),
                "credential": keys.get(other, ""),
                "breaker": "",
            }
        )
    refusal = _finding.refusal_message(findings, "The llm_watchdog role")
    if refusal:
        raise ValueError(refusal)
    return {"instances": instances, "settings": dict(settings)}


def instance(name: str, slot: str, engine: str, model: Mapping, runtime_dir: str) -> t.Dict[str, str]:
    """Return one instance as the watchdog's configuration has it."""
    full = "%s-%s" % (name, slot)
    return {
        "name": full,
        "model": name,
        "unit": "%s@%s.service" % (engine, full),
        "socket": str(model.get("socket") or "%s/%s/engine.sock" % (runtime_dir, full)),
        "credential": "" if model.get("authorization_include") == "" else full + ".api_key",
        "breaker": name,
    }
