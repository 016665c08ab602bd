# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Decide whether an inventory makes sense and whether a host can carry it. Pure: no I/O.

``decide_inventory(wanted)`` and ``decide_host(record, wanted)`` return findings. A rule yields what fails; a rule that
yields nothing becomes one finding that's ok, so that a receipt shows what was looked at.
"""

from __future__ import annotations

import contextlib
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _host_proc
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_flags import whole_number
from ansible_collections.gpufleet.llm.plugins.module_utils._preflight_source import dtype_bytes

GIB = 1024**3
MODEL_NAME = re.compile(r"^[a-z0-9]([a-z0-9.]*[a-z0-9])?(-[a-z0-9]([a-z0-9.]*[a-z0-9])?)*$")
MODEL_NAME_LIMIT = 62  # an instance is the name, a dash and the slot, 64 characters at most
CLIENT_NAME = re.compile(r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")
CLIENT_NAME_LIMIT = 64  # X.509's limit of a common name
COMMIT = re.compile(r"^[0-9a-f]{40}$")
SHA256 = re.compile(r"^[0-9a-f]{64}$")
HUB_REPOSITORY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
SOURCES = "file:/…, https://… or huggingface:organisation/repository"
SLOTS = ("a", "b")
FACTS = "__facts"  # where a wanted model carries the facts of its source
# LoadCredential= came with 247; nothing older was looked at.
MINIMUM_SYSTEMD = 247
MINIMUM_PYTHON = (3, 9)
# What an engine process takes beside weights and KV cache: interpreter, libraries, activations. SmolLM2-135M in float32
# (0.54 GB) with 1 GiB of KV cache was measured at 2.7 GB resident: 1.1 GB beside them. Rounded up.
ENGINE_OVERHEAD_BYTES = 3 * GIB // 2

Wanted = t.Mapping[str, t.Any]
Record = t.Mapping[str, t.Any]
Rule = t.Callable[[Wanted], t.Iterator[Finding]]
HostRule = t.Callable[[Record, Wanted], t.Iterator[Finding]]


def shown_bytes(count: float) -> str:
    """Return a number of bytes for a person, in GiB or MiB."""
    return "%.1f GiB" % (count / GIB) if count >= GIB else "%.0f MiB" % (count / 1048576)


def is_integer(value: t.Any) -> bool:
    """Tell whether a value is a whole number; true and false aren't."""
    return isinstance(value, int) and not isinstance(value, bool)


def valid_model_name(name: t.Any) -> bool:
    """Tell whether a name can be a directory, a part of a unit's name and a served model's name as it stands."""
    return isinstance(name, str) and len(name) <= MODEL_NAME_LIMIT and bool(MODEL_NAME.fullmatch(name))


def _models(wanted: Wanted) -> t.Iterator[t.Tuple[str, t.Mapping[str, t.Any]]]:
    """Yield each model with the name of the variable it stands in."""
    for index, model in enumerate(wanted["models"]):
        yield "gpufleet_models[%d]" % index, model


def _engine(wanted: Wanted, model: t.Mapping[str, t.Any]) -> t.Mapping[str, t.Any]:
    """Return the release's build of a model's engine, empty when it has none."""
    builds = (wanted["release"].get("engines") or {}).get(str(model.get("engine"))) or {}
    return builds.get(wanted["accelerator"]) or {}


def _facts(model: t.Mapping[str, t.Any]) -> t.Mapping[str, t.Any]:
    """Return what the control node found at a model's source."""
    return t.cast("t.Mapping[str, t.Any]", model.get(FACTS) or {})


def build_wanted(
    models: t.Sequence[t.Mapping[str, t.Any]], sources: t.Sequence[t.Mapping[str, t.Any]], **others: t.Any
) -> t.Dict[str, t.Any]:
    """Return what is wanted as one mapping, each model with the facts of its source beside it.

    Args:
        models: ``gpufleet_models``.
        sources: what :func:`_preflight_source.source_facts` said of each, in the same order.
        others: the other keys :func:`decide_host` names.
    """
    wanted = dict(others)
    facts = list(sources) + [{}] * (len(models) - len(sources))
    wanted["models"] = [dict(model, **{FACTS: facts[index]}) for index, model in enumerate(models)]
    return wanted


# -- the inventory -----------------------------------------------------------------------------------------------------


def rule_release(wanted: Wanted) -> t.Iterator[Finding]:
    """A release that was withdrawn isn't deployed."""
    release = wanted["release"]
    if release.get("status") == "withdrawn":
        yield finding(
            "inventory.release",
            False,
            expected="a release that wasn't withdrawn",
            found="%s, withdrawn" % release.get("id"),
            detail="Variable gpufleet_release.",
            remedy="Set gpufleet_release to another release; its file says why this one was withdrawn.",
        )


def rule_accelerator(wanted: Wanted) -> t.Iterator[Finding]:
    """The accelerator is one the release builds engines for."""
    engines = wanted["release"].get("engines") or {}
    known = sorted({accelerator for builds in engines.values() for accelerator in builds})
    if wanted["accelerator"] not in known:
        yield finding(
            "inventory.accelerator",
            False,
            expected="one of %s" % ", ".join(known),
            found=wanted["accelerator"],
            detail="Variable gpufleet_accelerator.",
            remedy="Set gpufleet_accelerator to what the host computes with.",
        )


def rule_models(wanted: Wanted) -> t.Iterator[Finding]:
    """There is at least one model."""
    if not wanted["models"]:
        yield finding(
            "inventory.models",
            False,
            expected="at least one model",
            found="none",
            detail="Variable gpufleet_models.",
            remedy="State the models to serve in gpufleet_models: name, slot, engine, port, source.",
        )


def rule_model_name(wanted: Wanted) -> t.Iterator[Finding]:
    """Model names can be parts of unit names, and no two models share one."""
    seen: t.Dict[str, str] = {}
    for variable, model in _models(wanted):
        name = model.get("name")
        if not valid_model_name(name):
            yield finding(
                "inventory.model_name",
                False,
                expected="lower-case letters, digits, dots and dashes, a letter or digit at both ends of every part, "
                "at most %d characters" % MODEL_NAME_LIMIT,
                found=name,
                detail="Variable %s.name: with the slot it becomes a systemd instance name and a directory." % variable,
                remedy="Choose such a name, as in smollm2 or qwen2.5-7b.",
            )
        elif name in seen:
            yield finding(
                "inventory.model_name",
                False,
                expected="a name no other model has",
                found=name,
                detail="Variables %s.name and %s.name are the same." % (seen[str(name)], variable),
                remedy="Give each model its own name, or take one of the two out of gpufleet_models.",
            )
        seen.setdefault(str(name), variable)


def rule_slot(wanted: Wanted) -> t.Iterator[Finding]:
    """The slot is a or b."""
    for variable, model in _models(wanted):
        if model.get("slot") not in SLOTS:
            yield finding(
                "inventory.slot",
                False,
                expected="a or b",
                found=model.get("slot"),
                detail="Variable %s.slot." % variable,
                remedy="Set it to the slot that serves: a for a first deployment.",
            )


def rule_engine(wanted: Wanted) -> t.Iterator[Finding]:
    """The release has the engine for the accelerator."""
    engines = wanted["release"].get("engines") or {}
    for variable, model in _models(wanted):
        engine = model.get("engine")
        if not isinstance(engine, str) or engine not in engines:
            yield finding(
                "inventory.engine",
                False,
                expected="one of %s" % ", ".join(sorted(engines)),
                found=engine,
                detail="Variable %s.engine: release %s has no such engine." % (variable, wanted["release"].get("id")),
                remedy="Set it to an engine of the release, or gpufleet_release to a release that has it.",
            )


def rule_port(wanted: Wanted) -> t.Iterator[Finding]:
    """Ports are in range and no two models share one."""
    seen: t.Dict[int, str] = {}
    for variable, model in _models(wanted):
        port = model.get("port")
        if not is_integer(port) or not 1 <= t.cast(int, port) <= 65535:
            yield finding(
                "inventory.port",
                False,
                expected="a whole number from 1 to 65535",
                found=port,
                detail="Variable %s.port." % variable,
                remedy="Set it to the TCP port the proxy is to serve this model on, without quotes, as in 8443.",
            )
            continue
        if port in seen:
            yield finding(
                "inventory.port",
                False,
                expected="a port no other model uses",
                found=port,
                detail="Variables %s.port and %s.port are the same." % (seen[t.cast(int, port)], variable),
                remedy="Give each model its own port.",
            )
        seen.setdefault(t.cast(int, port), variable)


def rule_context_length(wanted: Wanted) -> t.Iterator[Finding]:
    """The context length is a positive whole number of tokens."""
    for variable, model in _models(wanted):
        length = model.get("context_length")
        if not is_integer(length) or t.cast(int, length) <= 0:
            yield finding(
                "inventory.context_length",
                False,
                expected="a positive whole number of tokens",
                found=length,
                detail="Variable %s.context_length." % variable,
                remedy="Set it to the longest prompt and answer together to be served, as in 2048, without quotes.",
            )


def rule_engine_config(wanted: Wanted) -> t.Iterator[Finding]:
    """Extra engine settings are a mapping."""
    for variable, model in _models(wanted):
        if not isinstance(model.get("engine_config", {}), t.Mapping):
            yield finding(
                "inventory.engine_config",
                False,
                expected="a mapping of engine settings",
                found=model.get("engine_config"),
                detail="Variable %s.engine_config." % variable,
                remedy="Write it as key: value lines, or leave it out.",
            )


def _source_failure(variable: str, found: t.Any, expected: str, remedy: str) -> Finding:
    return finding(
        "inventory.source",
        False,
        expected=expected,
        found=found,
        detail="Variable %s." % variable,
        remedy=remedy,
    )


def rule_source(wanted: Wanted) -> t.Iterator[Finding]:
    """The source has a known scheme and what that scheme needs; a local one is there."""
    for variable, model in _models(wanted):
        source = model.get("source")
        if isinstance(source, str) and source.startswith("file:"):
            yield from _rule_file_source(variable, model, source)
        elif isinstance(source, str) and re.match(r"^https://[^/\s]+", source):
            yield from _rule_https_source(variable, model)
        elif isinstance(source, str) and source.startswith("huggingface:"):
            yield from _rule_hub_source(variable, model, source)
        else:
            yield _source_failure(
                "%s.source" % variable,
                source,
                SOURCES,
                "State where the model comes from. Plain http isn't taken: nobody would vouch for what arrives.",
            )


def _rule_file_source(variable: str, model: t.Mapping[str, t.Any], source: str) -> t.Iterator[Finding]:
    if not source.startswith("file:/"):
        yield _source_failure(
            "%s.source" % variable,
            source,
            "file: and an absolute path",
            "Write the whole path, as in file:/srv/models/x.",
        )
        return
    facts = _facts(model)
    if facts.get("exists") is False:
        yield _source_failure(
            "%s.source" % variable,
            "%s, which isn't on the control node" % source,
            "a model directory on the control node",
            "Put the model there or correct the path.",
        )
    elif facts.get("is_directory") and not facts.get("has_config"):
        yield _source_failure(
            "%s.source" % variable,
            "%s without config.json" % source,
            "a model directory with config.json",
            "Point to the directory that holds config.json, the tokenizer and the weights.",
        )


def _rule_https_source(variable: str, model: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    manifest = model.get("manifest")
    if manifest is None and not model.get("manifest_file"):
        yield _source_failure(
            "%s.manifest" % variable,
            "none",
            "the sha256 of every file of an https source",
            "State manifest (a mapping of file to sha256) or manifest_file (the path of a sha256sum file).",
        )
    elif manifest is not None and (
        not isinstance(manifest, t.Mapping)
        or not manifest
        or not all(isinstance(digest, str) and SHA256.fullmatch(digest) for digest in manifest.values())
    ):
        yield _source_failure(
            "%s.manifest" % variable,
            manifest,
            "a mapping of file to sha256, 64 lower-case hex digits each",
            "Make it with sha256sum over the model's files.",
        )


def _rule_hub_source(variable: str, model: t.Mapping[str, t.Any], source: str) -> t.Iterator[Finding]:
    if not HUB_REPOSITORY.fullmatch(source[len("huggingface:") :]):
        yield _source_failure(
            "%s.source" % variable,
            source,
            "huggingface:organisation/repository",
            "Write organisation and repository as the hub shows them.",
        )
    revision = model.get("revision")
    if not isinstance(revision, str) or not COMMIT.fullmatch(revision):
        yield _source_failure(
            "%s.revision" % variable,
            revision,
            "a commit of the repository, 40 hex digits",
            "Take the commit from the repository's history; a branch or tag can move.",
        )


def rule_clients(wanted: Wanted) -> t.Iterator[Finding]:
    """There is at least one client, and each can be named in a certificate."""
    if not wanted["clients"]:
        yield finding(
            "inventory.clients",
            False,
            expected="at least one client",
            found="none",
            detail="Variable gpufleet_clients: without one nobody could call what is deployed.",
            remedy="Name who may call in gpufleet_clients, as in [{name: demo}].",
        )
    seen: t.Dict[str, str] = {}
    for index, client in enumerate(wanted["clients"]):
        variable = "gpufleet_clients[%d].name" % index
        name = client.get("name")
        problem = ""
        if not isinstance(name, str) or len(name) > CLIENT_NAME_LIMIT or not CLIENT_NAME.fullmatch(name):
            problem = (
                "lower-case letters, digits, dots, underscores and dashes, a letter or digit at both ends, "
                "at most %d characters" % CLIENT_NAME_LIMIT
            )
        elif name in wanted["reserved_clients"]:
            problem = "a name the collection doesn't use itself (%s)" % ", ".join(wanted["reserved_clients"])
        elif name in seen:
            problem = "a name no other client has (%s has it)" % seen[name]
        if problem:
            yield finding(
                "inventory.clients",
                False,
                expected=problem,
                found=name,
                detail="Variable %s: it becomes the subject of the client's certificate." % variable,
                remedy="Give each client one such name of its own.",
            )
        seen.setdefault(str(name), variable)


INVENTORY_RULES: t.Tuple[t.Tuple[str, str, Rule], ...] = (
    ("inventory.release", "a release that wasn't withdrawn", rule_release),
    ("inventory.accelerator", "an accelerator of the release", rule_accelerator),
    ("inventory.models", "at least one model", rule_models),
    ("inventory.model_name", "names that can be instance names, each once", rule_model_name),
    ("inventory.slot", "a or b", rule_slot),
    ("inventory.engine", "engines of the release", rule_engine),
    ("inventory.port", "ports in range, each once", rule_port),
    ("inventory.context_length", "positive whole numbers", rule_context_length),
    ("inventory.engine_config", "mappings", rule_engine_config),
    ("inventory.source", "known schemes with what they need", rule_source),
    ("inventory.clients", "at least one client, valid names, each once", rule_clients),
)


def decide_inventory(wanted: Wanted) -> t.List[Finding]:
    """Judge what the inventory asks for by itself.

    Args:
        wanted: ``release`` (as the release lookup gives it), ``accelerator``, ``models``, ``clients``,
            ``reserved_clients``; made by :func:`build_wanted`.

    Returns:
        Every failure of every rule, and one ok finding per rule without failure.
    """
    findings: t.List[Finding] = []
    for check, expected, rule in INVENTORY_RULES:
        failures = list(rule(wanted))
        findings.extend(failures or [finding(check, True, expected=expected, found="as expected")])
    return findings


# -- the host ----------------------------------------------------------------------------------------------------------


def decide_platform(record: Record, wanted: Wanted) -> t.Iterator[Finding]:
    """The release knows the platform, its architecture, and the accelerator on it."""
    platforms = wanted["release"].get("platforms") or {}
    found = record["platform"]
    key = found["key"]
    names = [name for name in sorted(platforms) if key == name or key in platforms[name].get("aliases", [])]
    if not names:
        yield finding(
            "host.platform",
            False,
            expected="one of %s" % ", ".join(sorted(platforms)),
            found="%s (%s)" % (key, found["name"]),
            detail="Release %s (gpufleet_release) has no such platform." % wanted["release"].get("id"),
            remedy="Install one of these, or set gpufleet_release to a release that knows this one.",
        )
        return
    platform = platforms[names[0]]
    architectures = platform.get("architectures") or [found["architecture"]]
    yield finding(
        "host.platform",
        found["architecture"] in architectures,
        expected="%s on %s" % (key, " or ".join(architectures)),
        found="%s on %s, kernel %s" % (key, found["architecture"], found["kernel"]),
        detail="Release %s (gpufleet_release)." % wanted["release"].get("id"),
        remedy="Use a host of an architecture the release has packages for.",
    )
    accelerators = platform.get("accelerators")
    if accelerators is not None and wanted["accelerator"] not in accelerators:
        yield finding(
            "host.platform_accelerator",
            False,
            expected="one of %s" % ", ".join(sorted(accelerators)),
            found=wanted["accelerator"],
            detail="Release %s has no %s on %s (gpufleet_accelerator)."
            % (wanted["release"].get("id"), wanted["accelerator"], key),
            remedy="Set gpufleet_accelerator to one the platform has, or choose another platform.",
        )


def decide_system(record: Record, wanted: Wanted) -> t.Iterator[Finding]:
    """systemd runs the host, Python and the C library are new enough, limits are enforced."""
    systemd = record["systemd"]
    yield finding(
        "host.systemd",
        bool(systemd["is_pid_1"]) and (systemd["version"] or 0) >= MINIMUM_SYSTEMD,
        expected="systemd %d or newer as process 1" % MINIMUM_SYSTEMD,
        found="%s, process 1 %s systemd" % (systemd["version"], "is" if systemd["is_pid_1"] else "isn't"),
        remedy="Use a host that boots with systemd; an application container won't do.",
    )
    yield finding(
        "host.python",
        _host_proc.parse_version(record["python"]) >= MINIMUM_PYTHON,
        expected="Python %d.%d or newer" % MINIMUM_PYTHON,
        found=record["python"],
        detail="The interpreter Ansible uses on the host.",
        remedy="Install a newer python3 and set ansible_python_interpreter to it.",
    )
    needed = max(
        (_engine(wanted, m).get("minimum_glibc") or "0" for _v, m in _models(wanted)), default="0", key=_version
    )
    yield finding(
        "host.glibc",
        _version(record["glibc"]) >= _version(needed),
        expected="glibc %s or newer" % needed,
        found=record["glibc"] or "no glibc",
        detail="What the engines of release %s were built against." % wanted["release"].get("id"),
        remedy="Use a newer platform of the release; other C libraries can't run these engines.",
    )
    yield finding(
        "host.cgroup",
        record["cgroup_version"] == 2,
        severity="warning",
        expected="cgroup version 2",
        found=record["cgroup_version"],
        detail="On version 1 systemd's memory and task limits of our units may be accepted and not enforced.",
        remedy="Boot with systemd.unified_cgroup_hierarchy=1.",
    )


def _version(text: str) -> t.Tuple[int, ...]:
    return _host_proc.parse_version(text)


def decide_cpu(record: Record, wanted: Wanted) -> t.Iterator[Finding]:
    """A CPU that computes has the features the engine needs; one that is known to crash an engine is said."""
    cpu = record["cpu"]
    computes = wanted["accelerator"] == "cpu" and record["platform"]["architecture"] == "x86_64"
    needed = list(wanted["cpu_features"]) if computes else []
    missing = [feature for feature in needed if feature not in cpu["features"]]
    yield finding(
        "host.cpu",
        not missing,
        expected=", ".join(needed) or "any",
        found="%s, %d threads%s"
        % (cpu["model"], cpu["threads"], ", without %s" % ", ".join(missing) if missing else ""),
        detail="Features of /proc/cpuinfo that the CPU engine is built with (gpu_preflight_cpu_features).",
        remedy="Use another CPU, or pass the host's features through to the virtual machine.",
    )
    if wanted["accelerator"] != "cpu":
        return
    amx_in_vm = "amx_bf16" in cpu["features"] and "hypervisor" in cpu["features"]
    for variable, model in _models(wanted):
        dtype = _engine_config(model).get("dtype", "auto")
        if amx_in_vm and dtype not in ("float32", "float"):
            yield finding(
                "host.cpu_amx",
                False,
                severity="warning",
                expected="dtype float32",
                found=dtype,
                detail="Variable %s.engine_config.dtype. A virtual machine with AMX: in bfloat16 the engine takes a "
                "kernel that was seen to die of an illegal instruction on very short prompts." % variable,
                remedy="Set %s.engine_config.dtype to float32." % variable,
            )


def _engine_config(model: t.Mapping[str, t.Any]) -> t.Mapping[str, t.Any]:
    config = model.get("engine_config") or {}
    return config if isinstance(config, t.Mapping) else {}


def memory_of_model(
    model: t.Mapping[str, t.Any], facts: t.Mapping[str, t.Any], kv_cache_bytes: int
) -> t.Optional[t.Dict[str, int]]:
    """Return what one CPU engine takes: weights in the engine's dtype, KV cache, a fixed overhead; None when unknown.

    ``weights = size on disk * engine dtype / stored dtype``; a dtype that isn't stated is the stored one, and a stored
    one that isn't known is taken as two bytes, which is how models are published.
    """
    size = facts.get("size_bytes")
    if size is None:
        return None
    stored = dtype_bytes(facts.get("stored_dtype")) or 2
    served = dtype_bytes(_engine_config(model).get("dtype")) or stored
    given = {str(key).replace("_", "-"): value for key, value in _engine_config(model).items()}
    with contextlib.suppress(ValueError, TypeError):
        kv_cache_bytes = int(whole_number("kv_cache_memory_bytes", given.get("kv-cache-memory-bytes", kv_cache_bytes)))
    return {
        "weights": int(size * max(1.0, served / stored)),
        "kv_cache": kv_cache_bytes,
        "overhead": ENGINE_OVERHEAD_BYTES,
    }


def decide_memory(record: Record, wanted: Wanted) -> t.Iterator[Finding]:
    """A host that computes on its CPU has the memory for every model.

    Counted: memory available now, and what engines of ours hold already, for those are replaced.
    """
    memory = record["memory"]
    usable = memory["available_bytes"] + memory["held_by_engines_bytes"]
    if wanted["accelerator"] != "cpu":
        yield finding(
            "host.memory",
            True,
            severity="info",
            expected="recorded",
            found="%s of %s available" % (shown_bytes(usable), shown_bytes(memory["total_bytes"])),
            detail="The models live in the accelerator's memory.",
        )
        return
    total = 0
    parts = []
    unknown = []
    for _variable, model in _models(wanted):
        need = memory_of_model(model, _facts(model), wanted["kv_cache_bytes"])
        least = int(_engine(wanted, model).get("minimum_memory_bytes") or 0)
        if need is None:
            unknown.append(str(model.get("name")))
            total += least
            continue
        total += max(sum(need.values()), least)
        parts.append(
            "%s: weights %s + KV cache %s + engine %s"
            % (model.get("name"), *(shown_bytes(need[k]) for k in ("weights", "kv_cache", "overhead")))
        )
    if unknown:
        parts.append("size unknown, not counted: %s (state size_bytes in gpufleet_models)" % ", ".join(unknown))
    yield finding(
        "host.memory",
        usable >= total,
        expected="%s of memory" % shown_bytes(total),
        found="%s usable of %s" % (shown_bytes(usable), shown_bytes(memory["total_bytes"])),
        detail="For gpufleet_models. %s. Usable is what is available now and what our engines hold (%s)."
        % ("; ".join(parts), shown_bytes(memory["held_by_engines_bytes"])),
        remedy="Take models out of gpufleet_models, serve smaller ones, or give the host more memory.",
    )


def disk_needs(record: Record, wanted: Wanted) -> t.List[t.Tuple[str, str, t.Optional[int]]]:
    """Return ``(place, what, bytes)`` of everything that has still to be written; None where the size is unknown.

    A model whose current version on the host came from the same source and revision is taken as there; should its
    source hold something else by now, the model store checks the room again before it writes. An engine counts as there
    when a tree of its version is.
    """
    needs: t.List[t.Tuple[str, str, t.Optional[int]]] = []
    versions: t.Set[str] = set()
    for _variable, model in _models(wanted):
        name = str(model.get("name"))
        size = _facts(model).get("size_bytes")
        held = record["held"]["models"].get(name) or {}
        if held.get("source") != model.get("source") or held.get("revision") != model.get("revision"):
            needs.append(("models", "model %s" % name, size))
        build = _engine(wanted, model)
        version = build.get("version")
        if version and version not in versions:
            versions.add(version)
            if not any(held.startswith("%s-" % version) for held in record["held"]["engines"]):
                size = build.get("disk_bytes")
                allowance = wanted["engine_bytes"].get(wanted["accelerator"])
                needs.append(("engines", "engine %s" % model.get("engine"), allowance if size is None else size))
    return needs


def decide_disk(record: Record, wanted: Wanted) -> t.Iterator[Finding]:
    """Each filesystem has room for what comes onto it, a reserve, and inodes."""
    by_device: t.Dict[str, t.Dict[str, t.Any]] = {}
    for place in ("models", "engines"):
        disk = record["disks"][place]
        by_device.setdefault(disk["device"], {"disk": disk, "places": [], "bytes": 0, "parts": []})["places"].append(
            place
        )
    for place, what, size in disk_needs(record, wanted):
        entry = by_device[record["disks"][place]["device"]]
        entry["bytes"] += size or 0
        entry["parts"].append("%s %s" % (what, "of unknown size, not counted" if size is None else shown_bytes(size)))
    for entry in by_device.values():
        disk = entry["disk"]
        need = entry["bytes"] + wanted["disk_reserve_bytes"]
        yield finding(
            "host.disk_%s" % "_".join(entry["places"]),
            disk["free_bytes"] >= need,
            expected="%s free" % shown_bytes(need),
            found="%s free at %s" % (shown_bytes(disk["free_bytes"]), disk["path"]),
            detail="To be written: %s; kept free: %s (gpu_preflight_disk_reserve_bytes)."
            % ("; ".join(entry["parts"]) or "nothing", shown_bytes(wanted["disk_reserve_bytes"])),
            remedy="Free disk there, put a larger filesystem under it, or take models out of gpufleet_models.",
        )
        yield finding(
            "host.inodes_%s" % "_".join(entry["places"]),
            not disk["total_inodes"] or disk["free_inodes"] >= wanted["minimum_free_inodes"],
            expected="%d free inodes" % wanted["minimum_free_inodes"],
            found="%d" % disk["free_inodes"] if disk["total_inodes"] else "a filesystem that doesn't count them",
            detail="At %s (gpu_preflight_minimum_free_inodes): an engine is tens of thousands of files." % disk["path"],
            remedy="Remove small files there, or make the filesystem with more inodes.",
        )


def decide_read_rate(record: Record, wanted: Wanted) -> t.Iterator[Finding]:
    """The disk under the models reads fast enough; not known is said and doesn't stop."""
    read = record["disks"]["models"].get("read") or {}
    rate = read.get("mib_per_second")
    size = sum(_facts(model).get("size_bytes") or 0 for _variable, model in _models(wanted))
    if rate is None:
        yield finding(
            "host.read_rate_mib_per_second",
            True,
            severity="info",
            expected="measured",
            found="unknown",
            detail="Not measured: %s." % (read.get("reason") or "nobody asked"),
        )
        return
    yield finding(
        "host.read_rate_mib_per_second",
        rate >= wanted["minimum_read_mib_per_second"],
        severity="warning",
        expected="at least %s" % wanted["minimum_read_mib_per_second"],
        found=rate,
        detail="Sequential, %s, %s old; the models take about %.0f s to read."
        % (read.get("method"), "%d s" % read.get("age_seconds", 0), size / 1048576 / rate),
        remedy="Put the models on a faster disk, or lower gpu_preflight_minimum_read_mib_per_second and wait longer.",
    )


def decide_ports(record: Record, wanted: Wanted) -> t.Iterator[Finding]:
    """Nobody but our own proxy listens where the models are to be served."""
    taken = False
    for variable, model in _models(wanted):
        for listener in record["ports"]:
            if listener["port"] != model.get("port") or listener["unit"] == wanted["proxy_unit"]:
                continue
            taken = True
            yield finding(
                "host.port",
                False,
                expected="port %s free, or held by %s" % (model.get("port"), wanted["proxy_unit"]),
                found="%s listens on %s"
                % (listener["unit"] or listener["process"] or "another program", listener["address"]),
                detail="Variable %s.port; process %s." % (variable, listener["pid"] or "unknown"),
                remedy="Stop that program, or choose another port for the model.",
            )
    if not taken:
        yield finding(
            "host.port", True, expected="ports free, or held by %s" % wanted["proxy_unit"], found="as expected"
        )


def decide_time(record: Record, wanted: Wanted) -> t.Iterator[Finding]:
    """The clock is synchronised: certificates and receipts depend on it. A container can only be warned."""
    del wanted
    time = record["time"]
    in_container = bool(record["platform"]["container"])
    yield finding(
        "host.time",
        time["synchronised"] is True,
        severity="warning" if in_container or time["synchronised"] is None else "error",
        expected="a synchronised clock",
        found={True: "synchronised", False: "not synchronised", None: "unknown"}[time["synchronised"]],
        detail="%s. Time daemon: %s." % (time["detail"], time["daemon"] or "none seen"),
        remedy="Install and start chrony or systemd-timesyncd and wait until timedatectl says synchronised"
        "%s." % (", on the machine this container runs on" if in_container else ""),
    )


# Whoever reads more of a host (its GPUs, for one) puts what is read into the record and adds the decision here.
HOST_RULES: t.Tuple[HostRule, ...] = (
    decide_platform,
    decide_system,
    decide_cpu,
    decide_memory,
    decide_disk,
    decide_read_rate,
    decide_ports,
    decide_time,
)


def decide_host(record: Record, wanted: Wanted) -> t.List[Finding]:
    """Judge whether a host can carry what is wanted.

    Args:
        record: what :func:`_host_read.read_host` returned, with the read rate at ``disks.models.read``.
        wanted: as for :func:`decide_inventory`, and ``cpu_features``, ``kv_cache_bytes``, ``engine_bytes``
            (accelerator -> bytes where the release doesn't say), ``disk_reserve_bytes``, ``minimum_free_inodes``,
            ``minimum_read_mib_per_second``, ``proxy_unit``.

    Returns:
        At least one finding per rule.
    """
    findings: t.List[Finding] = []
    for rule in HOST_RULES:
        findings.extend(rule(record, wanted))
    return findings
