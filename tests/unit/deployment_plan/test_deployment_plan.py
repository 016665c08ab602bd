# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory's models to plans, findings and versions: pure, so all of it is a table."""

from __future__ import annotations

import plan_models as make
import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_findings as judging
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_gpus as devices
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_merge as merging
from ansible_collections.gpufleet.llm.plugins.module_utils import _deployment_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_flags as flagging
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusals, warnings
from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_model import Read

FOUND = {"eight": Read(make.EIGHT, None, [])}
H100 = [{"name": "NVIDIA H100", "memory_gib": 79.19, "compute_capability": "9.0"}]


def planned(*models, gpus=None, mode="pin", **options):
    host = planning.Host("cuda", devices.from_declared(H100 if gpus is None else gpus))
    found = {str(model["name"]): FOUND["eight"] for model in models}
    return planning.plan_host(models, found, host, make.VERSION, mode, **options)


def stops(plan, accelerator="cuda"):
    return [(one["check"], one["found"], one["remedy"]) for one in refusals(judging.findings_of(plan, accelerator))]


def test_what_the_engine_is_given():
    (one,) = planned(make.entry())["instances"]
    assert set(one["arguments"]) == set(planning.ARGUMENTS)
    size, block = one["arguments"]["kv-cache-memory-bytes"], one["plan"]["kv"]["bytes_per_block"]
    assert size % block == 0 and size // block == one["document"]["planned"]["num_blocks"]
    # What the inventory sets, the plan takes and doesn't set again.
    (one,) = planned(make.entry(engine_config={"max_num_seqs": 64, "tool-call-parser": "hermes"}))["instances"]
    assert "max-num-seqs" not in one["arguments"]
    assert one["plan"]["vllm_args"]["max-num-seqs"] == 64
    assert one["arguments"]["kv-cache-memory-bytes"] > size
    # In estimate mode the engine finds by itself; off plans nothing.
    (one,) = planned(make.entry(memory_plan="estimate"))["instances"]
    assert one["arguments"] == {} and one["plan"]["confidence"] == "estimated"
    (one,) = planned(make.entry(), mode="off")["instances"]
    assert (one["state"], one["plan"], one["arguments"], one["document"]["state"]) == ("off", None, {}, "off")


@pytest.mark.parametrize(
    ("config", "both"),
    [
        ({"kv-cache-memory-bytes": 90 << 30}, "to 96636764160 (90.00 GiB), the plan has room for "),
        ({"kv_cache_memory_bytes": "90G"}, "to 96636764160 (90.00 GiB), the plan has room for "),
        ({"num-gpu-blocks-override": 10**6}, "to 1000000 (1953.12 GiB), the plan has room for "),
    ],
)
def test_an_inventory_beyond_the_plan_is_refused_with_both_numbers(config, both):
    plan = planned(make.entry(engine_config=config))
    ((check, found, remedy),) = stops(plan)
    room = planned(make.entry())["instances"][0]["plan"]
    assert check == "memory.contradiction.eight-a" and both in found and "leave it out" in remedy
    assert found.endswith("(%.2f GiB)" % (room["per_gpu"]["kv"] / make.GIB))


def test_an_inventory_below_the_plan_is_taken():
    assert stops(planned(make.entry(engine_config={"kv-cache-memory-bytes": 8 << 30}))) == []


def test_what_doesn_t_fit_is_refused_with_what_would():
    plan = planned(make.entry(context_length=131072, concurrent_users=16))
    ((check, found, remedy),) = stops(plan)
    assert check == "memory.plan.eight-a"
    assert found.startswith("16 concurrent requests of 131072 tokens need 131072 blocks of KV cache (256.00 GiB)")
    assert "lower max-model-len to" in remedy and "fits)" in remedy


def test_what_isn_t_known_never_goes_on_in_silence():
    unknown = {"eight": Read(dict(make.EIGHT, architectures=["NobodyForCausalLM"]), None, [])}
    host = planning.Host("cuda", devices.from_declared(H100))
    plan = planning.plan_host([make.entry()], unknown, host, make.VERSION)
    ((check, found, remedy),) = stops(plan)
    assert check == "memory.plan.eight-a" and "NobodyForCausalLM is not known" in found
    assert "memory_plan: estimate" in remedy and "off" in remedy
    for mode, severity in (("estimate", "warning"), ("off", None)):
        plan = planning.plan_host([make.entry(memory_plan=mode)], unknown, host, make.VERSION)
        findings = judging.findings_of(plan, "cuda")
        assert refusals(findings) == []
        assert [one["severity"] for one in warnings(findings)] == ([severity] if severity else [])
        assert plan["instances"][0]["arguments"] == {}
    for flag in ({"cpu-offload-gb": 4}, {"speculative_config": '{"model": "x"}'}, {"hf-overrides": {"a": 1}}):
        ((_check, found, _remedy),) = stops(planned(make.entry(engine_config=flag)))
        assert "isn't known: no estimate made" in found


def test_what_can_t_be_read_is_said_and_planned_on_the_host():
    host = planning.Host("cuda", None, "the driver says: library_not_found")
    for plan in (
        planning.plan_host([make.entry()], FOUND, host, make.VERSION),
        planning.plan_host([make.entry()], {"eight": "no way there"}, planning.Host("cpu", None), make.VERSION),
    ):
        (said,) = warnings(judging.findings_of(plan, "cuda"))
        assert said["severity"] == "warning" and "gpufleet_gpus" in said["remedy"]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"memory_plan": "maybe"}, "memory_plan is 'maybe'"),
        ({"gpus": [3]}, "placed on GPUs [3], the host has 1"),
        ({"gpus": "0"}, "gpus is '0'"),
        ({"engine_config": {"kv-cache-memory-bytes": "lots"}}, "kv_cache_memory_bytes is 'lots'"),
        ({"engine_config": {"tensor-parallel-size": 2}}, "placed on GPUs [0, 1], the host has 1"),
    ],
)
def test_what_can_t_be(model, why):
    ((check, found, _remedy),) = stops(planned(make.entry(**model)))
    assert check == "memory.plan.eight-a" and why in found


def test_instances_share_a_host_or_say_why_not():
    half = {"engine_config": {"gpu-memory-utilization": 0.45}}
    fits = planned(make.entry(**half), make.entry(name="two", **half))
    assert stops(fits) == [] and fits["placement"]["gpus"][0]["left"] > 0
    held = [one["instance"] for one in fits["placement"]["gpus"][0]["held"]]
    assert held == ["eight-a", "two-a"]
    crowded = stops(planned(make.entry(**half), make.entry(name="two")))
    assert {check for check, _found, _remedy in crowded} == {"memory.placement"}
    assert "two-a: its budget of 72.85 GiB on GPU 0 is more than the 44.16 GiB that are left" in crowded[0][1]
    apart = [dict(H100[0], count=2)]
    assert stops(planned(make.entry(gpus=[0]), make.entry(name="two", gpus=[1]), gpus=apart)) == []


def test_a_cpu_host_counts_its_memory():
    models = [make.entry(context_length=2048), make.entry(name="two", context_length=2048)]
    found = dict.fromkeys(("eight", "two"), FOUND["eight"])
    for memory, errors in ((96 << 30, 0), (64 << 30, 1)):
        plan = planning.plan_host(models, found, planning.Host("cpu", None, "", 4 << 30, memory), make.VERSION)
        assert len(stops(plan, "cpu")) == errors
    ((_check, found_text, _remedy),) = stops(plan, "cpu")
    assert "eight-a: weights 29.9" in found_text and "the host has 64.00 GiB" in found_text


def test_gpus_as_they_were_read():
    ours = {"pid": 1, "name": "vllm", "unit": "vllm@eight-a.service", "memory_mib": 70000}
    other = {"pid": 7, "name": "python3", "unit": "session-1.scope", "memory_mib": 500}
    read = dict(make.H100, memory_mib={"total": 81559, "free": 10000, "reserved": 551}, processes=[ours, other])
    (gpu,) = devices.from_gpu_info([read, {"index": 1, "name": None, "memory_mib": {"total": None}}])
    assert gpu["total_bytes"] == (81559 - 551) << 20
    assert gpu["free_bytes"] == 80000 << 20  # what our own engine holds is replaced
    assert gpu["processes"] == ["python3 (pid 7, 500 MiB)"]
    with pytest.raises(ValueError, match="expected memory_gib or memory_bytes"):
        devices.from_declared([{"name": "x"}])
    with pytest.raises(ValueError, match="expected a mapping of"):
        devices.from_declared([{"memory": 3}])


def test_flags_as_the_engine_takes_them():
    want, unplanned = flagging.want_of_config(
        {
            "max-num-batched-tokens": "8k",
            "kv-cache-memory-bytes": "2G",
            "no-enable-prefix-caching": True,
            "limit-mm-per-prompt": '{"image": 0, "video": 0}',
            "enable-lora": True,
            "max-loras": 2,
            "served-model-name": "x",
            "cpu-offload-gb": 0,
            "enforce_eager": None,
        }
    )
    assert unplanned == []
    assert want == {
        "max_num_batched_tokens": 8000,
        "kv_cache_memory_bytes": 2 << 30,
        "enable_prefix_caching": False,
        "mm_items": 0,
        "max_loras": 2,
        "max_lora_rank": 16,
    }


def test_versions_and_memory_in_one_plan():
    release = {
        "id": "r",
        "driver": {"version": "580.10.2"},
        "engines": {"vllm": {"cuda": {"version": make.VERSION}, "cpu": {"version": make.VERSION}}},
    }
    memory = planned(make.entry())
    plan = merging.deployment_plan(release, memory, found={"driver": "575.1", "engines": [make.VERSION]})
    assert plan["components"]["driver"]["action"] == "upgrade" and plan["components"]["driver"]["reboot"]
    assert plan["components"]["vllm"]["action"] == "none" and plan["refusal"] == ""
    assert plan["vllm_args"]["eight-a"] == memory["instances"][0]["arguments"]
    plan = merging.deployment_plan(release, memory, found={"driver": "590.1"}, stack={"refusal": "no such kernel"})
    assert plan["components"]["driver"]["action"] == "refuse" and plan["refusal"] == "no such kernel"
    plan = merging.deployment_plan(release, planned(make.entry(context_length=10**6)), accelerator="cuda")
    assert plan["components"]["vllm"]["reason"] == merging.NOBODY_LOOKED
    assert "max_model_len 1000000 exceeds the model's max_position_embeddings 131072" in plan["refusal"]
    assert "driver" not in merging.components(release, "cpu", None)
