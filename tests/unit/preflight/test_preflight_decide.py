# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decision tables: one good inventory on one good host, and what each single change does to the findings."""

from __future__ import annotations

import copy
import json
import pathlib
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.lookup.model_sources import flat
from ansible_collections.gpufleet.llm.plugins.module_utils import _preflight
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusal_message, refusals, warnings
from ansible_collections.gpufleet.llm.plugins.module_utils._preflight_source import source_facts

GIB = 1024**3
RELEASE = {
    "id": "2000.01.0",
    "status": "candidate",
    "engines": {
        "vllm": {
            "cpu": {
                "version": "1.2.3",
                "minimum_glibc": "2.28",
                "disk_bytes": 2 * GIB,
                "minimum_memory_bytes": 3 * GIB,
            },
            "cuda": {"version": "1.2.3", "minimum_glibc": "2.28", "disk_bytes": None, "minimum_memory_bytes": None},
        }
    },
    "platforms": {"debian12": {"architectures": ["x86_64"], "accelerators": {"cpu": {}, "cuda": {}}}},
}
MODEL = {
    "name": "smollm2",
    "slot": "a",
    "engine": "vllm",
    "port": 8443,
    "source": "file:/srv/models/smollm2",
    "context_length": 2048,
    "engine_config": {"dtype": "float32"},
}
FACTS = {
    "exists": True,
    "is_directory": True,
    "has_config": True,
    "size_bytes": GIB // 4,
    "stored_dtype": "bfloat16",
}
OTHERS: dict[str, t.Any] = {
    "release": RELEASE,
    "accelerator": "cpu",
    "clients": [{"name": "demo"}],
    "reserved_clients": ["gpu-validate"],
    "proxy_unit": "llm-proxy.service",
    "cpu_features": ["avx2"],
    "kv_cache_bytes": GIB,
    "engine_bytes": {"cpu": 4 * GIB, "cuda": 16 * GIB},
    "disk_reserve_bytes": 2 * GIB,
    "minimum_free_inodes": 150000,
    "minimum_read_mib_per_second": 100,
}
DISK = {"path": "/var", "device": "8:1", "free_bytes": 50 * GIB, "free_inodes": 10**6, "total_inodes": 10**7}
RECORD: dict[str, t.Any] = {
    "platform": {"key": "debian12", "name": "Debian 12", "kernel": "6.1", "architecture": "x86_64", "container": ""},
    "python": "3.11.2",
    "glibc": "2.36",
    "systemd": {"version": 252, "is_pid_1": True},
    "cgroup_version": 2,
    "cpu": {"model": "a CPU", "threads": 2, "features": ["avx2"]},
    "memory": {"total_bytes": 24 * GIB, "available_bytes": 20 * GIB, "swap_bytes": 0, "held_by_engines_bytes": 0},
    "disks": {
        "models": dict(DISK, read={"mib_per_second": 900.0, "method": "scratch file", "age_seconds": 0}),
        "engines": dict(DISK),
    },
    "held": {"models": {"smollm2": None}, "engines": []},
    "ports": [],
    "time": {"synchronised": True, "daemon": "chronyd", "detail": "adjtimex"},
    "gpu": None,
}


def wanted(models: t.Any = None, facts: t.Any = None, **others: t.Any) -> dict[str, t.Any]:
    models = [MODEL] if models is None else models
    facts = [FACTS] * len(models) if facts is None else facts
    return _preflight.build_wanted(models, facts, **dict(OTHERS, **others))


def model(**changes: t.Any) -> dict[str, t.Any]:
    return {k: v for k, v in dict(MODEL, **changes).items() if v != "absent"}


def record(path: str, value: t.Any) -> dict[str, t.Any]:
    changed = copy.deepcopy(RECORD)
    *parents, last = path.split(".")
    place = changed
    for parent in parents:
        place = place[parent]
    place[last] = value
    return changed


def failed(findings: t.Any) -> list[str]:
    return [f["check"] for f in refusals(findings)]


def test_a_good_inventory_has_one_ok_finding_per_rule() -> None:
    findings = _preflight.decide_inventory(wanted())
    assert all(f["ok"] for f in findings)
    assert [f["check"] for f in findings] == [check for check, _e, _r in _preflight.INVENTORY_RULES]


def test_a_good_host_is_not_refused_nor_warned_about() -> None:
    findings = _preflight.decide_host(RECORD, wanted())
    assert failed(findings) == []
    assert warnings(findings) == []


SHA = "a" * 64
INVENTORY: list[tuple[str, dict[str, t.Any], str, str]] = [
    ("withdrawn", {"release": dict(RELEASE, status="withdrawn")}, "inventory.release", "gpufleet_release"),
    ("accelerator", {"accelerator": "tpu"}, "inventory.accelerator", "gpufleet_accelerator"),
    ("no model", {"models": []}, "inventory.models", "gpufleet_models"),
    ("name", {"models": [model(name="Qwen/X")]}, "inventory.model_name", "gpufleet_models[0].name"),
    ("name list", {"models": [model(name=["a"])]}, "inventory.model_name", "gpufleet_models[0].name"),
    ("name null", {"models": [model(name=None)]}, "inventory.model_name", "gpufleet_models[0].name"),
    ("name dots", {"models": [model(name="..")]}, "inventory.model_name", "gpufleet_models[0].name"),
    ("name dash", {"models": [model(name="a-")]}, "inventory.model_name", "gpufleet_models[0].name"),
    ("name newline", {"models": [model(name="a\n")]}, "inventory.model_name", "gpufleet_models[0].name"),
    ("name long", {"models": [model(name="a" * 63)]}, "inventory.model_name", "gpufleet_models[0].name"),
    ("twice", {"models": [MODEL, model(port=1)]}, "inventory.model_name", "gpufleet_models[1].name"),
    ("slot", {"models": [model(slot="c")]}, "inventory.slot", "gpufleet_models[0].slot"),
    ("slot missing", {"models": [model(slot="absent")]}, "inventory.slot", "gpufleet_models[0].slot"),
    ("engine", {"models": [model(engine="x")]}, "inventory.engine", "gpufleet_models[0].engine"),
    ("engine list", {"models": [model(engine=["vllm"])]}, "inventory.engine", "gpufleet_models[0].engine"),
    ("port twice", {"models": [MODEL, model(name="b")]}, "inventory.port", "gpufleet_models[1].port"),
    ("port 0", {"models": [model(port=0)]}, "inventory.port", "gpufleet_models[0].port"),
    ("port high", {"models": [model(port=65536)]}, "inventory.port", "gpufleet_models[0].port"),
    ("port true", {"models": [model(port=True)]}, "inventory.port", "gpufleet_models[0].port"),
    ("port text", {"models": [model(port="8443")]}, "inventory.port", "gpufleet_models[0].port"),
    ("context 0", {"models": [model(context_length=0)]}, "inventory.context_length", "context_length"),
    ("context text", {"models": [model(context_length="2048")]}, "inventory.context_length", "context_length"),
    ("config", {"models": [model(engine_config=["x"])]}, "inventory.engine_config", "engine_config"),
    ("ftp", {"models": [model(source="ftp://x/y")]}, "inventory.source", "gpufleet_models[0].source"),
    ("http", {"models": [model(source="http://x/y")]}, "inventory.source", "gpufleet_models[0].source"),
    ("no source", {"models": [model(source=None)]}, "inventory.source", "gpufleet_models[0].source"),
    ("relative", {"models": [model(source="file:x")]}, "inventory.source", "gpufleet_models[0].source"),
    ("gone", {"facts": [{"exists": False}]}, "inventory.source", "gpufleet_models[0].source"),
    ("no config.json", {"facts": [dict(FACTS, has_config=False)]}, "inventory.source", "gpufleet_models[0].source"),
    ("no manifest", {"models": [model(source="https://x/y")]}, "inventory.source", "gpufleet_models[0].manifest"),
    (
        "bad manifest",
        {"models": [model(source="https://x/y", manifest={"config.json": "1"})]},
        "inventory.source",
        "gpufleet_models[0].manifest",
    ),
    (
        "branch",
        {"models": [model(source="huggingface:o/r", revision="main")]},
        "inventory.source",
        "gpufleet_models[0].revision",
    ),
    (
        "hub name",
        {"models": [model(source="huggingface:r", revision="a" * 40)]},
        "inventory.source",
        "gpufleet_models[0].source",
    ),
    ("no client", {"clients": []}, "inventory.clients", "gpufleet_clients"),
    ("client name", {"clients": [{"name": "A B"}]}, "inventory.clients", "gpufleet_clients[0].name"),
    ("client unnamed", {"clients": [{}]}, "inventory.clients", "gpufleet_clients[0].name"),
    ("client twice", {"clients": [{"name": "x"}, {"name": "x"}]}, "inventory.clients", "gpufleet_clients[1].name"),
    ("client reserved", {"clients": [{"name": "gpu-validate"}]}, "inventory.clients", "gpufleet_clients[0].name"),
]


@pytest.mark.parametrize(("change", "check", "variable"), [row[1:] for row in INVENTORY], ids=[r[0] for r in INVENTORY])
def test_bad_inventory(change: dict[str, t.Any], check: str, variable: str) -> None:
    findings = _preflight.decide_inventory(wanted(**change))
    assert failed(findings) == [check]
    (bad,) = refusals(findings)
    assert variable in bad["detail"]
    assert bad["expected"] and bad["remedy"]
    assert "found" in bad
    # The rest of the decisions must stand a bad inventory: all reasons come at once.
    _preflight.decide_host(RECORD, wanted(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"source": "https://x/y", "manifest": {"config.json": SHA}},
        {"source": "https://x/y", "manifest_file": "/srv/sums"},
        {"source": "huggingface:org/repo", "revision": "a" * 40},
        {"name": "qwen2.5-0.5b"},
        {"name": "a" * 62},
        {"engine_config": "absent"},
        {"port": 65535},
        {"something_else": 1},
    ],
)
def test_good_inventory(change: dict[str, t.Any]) -> None:
    assert failed(_preflight.decide_inventory(wanted([model(**change)]))) == []


def test_all_reasons_come_at_once_in_one_message() -> None:
    bad = wanted([MODEL, model(slot="z", context_length=-1)], clients=[])
    message = refusal_message(_preflight.decide_inventory(bad), "This deployment is")
    assert "5 reasons, nothing was changed" in message
    for number, check in enumerate(("model_name", "slot", "port", "context_length", "clients"), 1):
        assert "%d. inventory.%s: found " % (number, check) in message
    assert message.count("Remedy: ") == 5


SMALL = dict(RECORD["memory"], available_bytes=2 * GIB)
PORT = {"address": "0.0.0.0", "port": 8443, "unit": "nginx.service", "process": "nginx", "pid": 7}
HOST: list[tuple[str, str, t.Any, str]] = [
    ("platform", "platform.key", "fedora41", "host.platform"),
    ("architecture", "platform.architecture", "aarch64", "host.platform"),
    ("no systemd", "systemd.is_pid_1", False, "host.systemd"),
    ("old systemd", "systemd.version", 241, "host.systemd"),
    ("unknown systemd", "systemd.version", None, "host.systemd"),
    ("old python", "python", "3.8.10", "host.python"),
    ("old glibc", "glibc", "2.27", "host.glibc"),
    ("musl", "glibc", "", "host.glibc"),
    ("no avx2", "cpu.features", ["sse2"], "host.cpu"),
    ("little memory", "memory", SMALL, "host.memory"),
    ("little disk", "disks.models.free_bytes", 4 * GIB, "host.disk_models_engines"),
    ("few inodes", "disks.models.free_inodes", 100, "host.inodes_models_engines"),
    ("port", "ports", [PORT], "host.port"),
    ("clock", "time.synchronised", False, "host.time"),
]


@pytest.mark.parametrize(("path", "value", "check"), [row[1:] for row in HOST], ids=[r[0] for r in HOST])
def test_bad_host(path: str, value: t.Any, check: str) -> None:
    findings = _preflight.decide_host(record(path, value), wanted())
    assert failed(findings) == [check]
    assert refusals(findings)[0]["remedy"]


def test_a_platform_without_the_accelerator() -> None:
    release = dict(RELEASE, platforms={"debian12": {"architectures": ["x86_64"], "accelerators": {"cuda": {}}}})
    assert failed(_preflight.decide_host(RECORD, wanted(release=release))) == ["host.platform_accelerator"]


def test_a_platform_by_one_of_its_other_names() -> None:
    release = copy.deepcopy(RELEASE)
    release["platforms"]["debian12"]["aliases"] = ["bookworm12"]  # type: ignore[index]
    host = record("platform.key", "bookworm12")
    assert failed(_preflight.decide_host(host, wanted(release=release))) == []
    assert failed(_preflight.decide_host(host, wanted())) == ["host.platform"]


def test_a_port_our_own_proxy_holds_is_fine() -> None:
    held = record("ports", [dict(PORT, unit="llm-proxy.service")])
    assert failed(_preflight.decide_host(held, wanted())) == []


@pytest.mark.parametrize(
    ("container", "synchronised", "severity"),
    [
        ("systemd-nspawn", False, "warning"),
        ("systemd-nspawn", None, "warning"),
        ("", None, "warning"),
        ("", False, "error"),
    ],
)
def test_time_is_only_warned_about_where_the_host_cannot_mend_it(
    container: str, synchronised: bool | None, severity: str
) -> None:
    host = record("time.synchronised", synchronised)
    host["platform"]["container"] = container
    (found,) = [f for f in _preflight.decide_host(host, wanted()) if f["check"] == "host.time"]
    assert (found["ok"], found["severity"]) == (False, severity)


def test_memory_formula() -> None:
    need = _preflight.memory_of_model(MODEL, FACTS, GIB)
    assert need == {"weights": GIB // 2, "kv_cache": GIB, "overhead": 3 * GIB // 2}
    assert _preflight.memory_of_model(model(engine_config="absent"), FACTS, GIB)["weights"] == GIB // 4  # type: ignore[index]
    assert _preflight.memory_of_model(MODEL, dict(FACTS, stored_dtype="float32"), 0)["weights"] == GIB // 4  # type: ignore[index]
    assert _preflight.memory_of_model(MODEL, {}, GIB) is None


def test_memory_of_engines_that_will_be_replaced_counts_as_usable() -> None:
    memory = dict(SMALL, held_by_engines_bytes=2 * GIB)
    assert failed(_preflight.decide_host(record("memory", memory), wanted())) == []


def test_two_models_need_twice_the_memory() -> None:
    host = record("memory", dict(SMALL, available_bytes=5 * GIB))
    two = [MODEL, model(name="b", port=8444)]
    assert failed(_preflight.decide_host(host, wanted())) == []
    assert failed(_preflight.decide_host(host, wanted(two))) == ["host.memory"]


def test_an_unknown_size_is_said_and_does_not_refuse() -> None:
    findings = _preflight.decide_host(RECORD, wanted(facts=[{}]))
    assert failed(findings) == []
    (memory,) = [f for f in findings if f["check"] == "host.memory"]
    assert "size unknown" in memory["detail"]


def test_what_is_there_already_needs_no_disk() -> None:
    host = record("disks.models.free_bytes", 2 * GIB)
    assert failed(_preflight.decide_host(host, wanted())) == ["host.disk_models_engines"]
    host["held"] = {"models": {"smollm2": {"source": MODEL["source"], "revision": None}}, "engines": ["1.2.3-abc"]}
    assert failed(_preflight.decide_host(host, wanted())) == []
    host["held"]["models"]["smollm2"]["source"] = "file:/srv/models/other"
    assert failed(_preflight.decide_host(host, wanted())) == ["host.disk_models_engines"]


def test_two_filesystems_are_judged_apart() -> None:
    host = copy.deepcopy(RECORD)
    host["disks"]["engines"].update(device="8:2", path="/opt", free_bytes=GIB)
    assert failed(_preflight.decide_host(host, wanted())) == ["host.disk_engines"]


def test_a_filesystem_that_counts_no_inodes_has_enough() -> None:
    host = record("disks.models.total_inodes", 0)
    host["disks"]["models"]["free_inodes"] = 0
    assert failed(_preflight.decide_host(host, wanted())) == []


@pytest.mark.parametrize(
    ("features", "dtype", "warned"),
    [
        (["avx2", "amx_bf16", "hypervisor"], "auto", True),
        (["avx2", "amx_bf16", "hypervisor"], "float32", False),
        (["avx2", "amx_bf16"], "auto", False),
    ],
)
def test_amx_in_a_virtual_machine(features: list[str], dtype: str, warned: bool) -> None:
    findings = _preflight.decide_host(record("cpu.features", features), wanted([model(engine_config={"dtype": dtype})]))
    assert ("host.cpu_amx" in [f["check"] for f in warnings(findings)]) is warned


def test_a_slow_disk_is_warned_about_and_an_unknown_one_is_said() -> None:
    slow = _preflight.decide_host(record("disks.models.read", {"mib_per_second": 20.0}), wanted())
    assert [f["check"] for f in warnings(slow)] == ["host.read_rate_mib_per_second"]
    unknown = _preflight.decide_host(record("disks.models.read", {"reason": "check mode"}), wanted())
    (found,) = [f for f in unknown if f["check"] == "host.read_rate_mib_per_second"]
    assert (found["ok"], found["found"], found["severity"]) == (True, "unknown", "info")


def test_cgroup_1_is_a_warning() -> None:
    assert [f["check"] for f in warnings(_preflight.decide_host(record("cgroup_version", 1), wanted()))] == [
        "host.cgroup"
    ]


def test_no_gpu_is_judged_while_nothing_reads_one() -> None:
    findings = _preflight.decide_host(RECORD, wanted(accelerator="cuda"))
    assert not [f for f in findings if "gpu" in f["check"]]


# -- sources -----------------------------------------------------------------------------------------------------------


def test_source_facts_of_a_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    facts = source_facts({"name": "m", "source": "file:%s" % tmp_path})
    assert facts["exists"] and facts["is_directory"] and facts["has_config"]
    assert facts["size_bytes"] == 100 + (tmp_path / "config.json").stat().st_size
    assert facts["stored_dtype"] == "bfloat16"


def test_source_facts_of_what_is_not_here(tmp_path: pathlib.Path) -> None:
    assert source_facts({"name": "m", "source": "file:%s/x" % tmp_path})["exists"] is False
    far = source_facts({"name": "m", "source": "https://x/y", "size_bytes": 5})
    assert (far["exists"], far["size_bytes"]) == (None, 5)
    assert source_facts({"source": ["x"], "size_bytes": "5"})["size_bytes"] is None


def test_the_lookup_takes_models_and_lists_of_them() -> None:
    assert [m["name"] for m in flat([[{"name": "a"}, {"name": "b"}], {"name": "c"}, "x"])] == ["a", "b", "c"]
