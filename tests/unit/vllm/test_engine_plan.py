# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory asks of the engine: instances, or all refusals at once."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_plan

GOOD = {"name": "smollm2", "slot": "a", "engine": "vllm", "context_length": 2048}


def refusal_of(*models, **options):
    return _engine_plan.plan(list(models), **options)["refusal"]


def test_a_model_becomes_an_instance_with_its_whole_configuration():
    plan = _engine_plan.plan(
        [dict(GOOD, engine_config={"max_num_seqs": 4, "dtype": "bfloat16"})],
        defaults={"dtype": "float32", "enforce-eager": True},
        drain_seconds=20,
    )
    assert plan["refusal"] == ""
    assert plan["names"] == ["smollm2-a"]
    assert plan["instances"][0]["config"] == {
        "model": "/var/lib/gpufleet/models/smollm2/current",
        "served-model-name": "smollm2",
        "max-model-len": 2048,
        "shutdown-timeout": 20,
        "max-num-seqs": 4,
        "dtype": "bfloat16",
        "enforce-eager": True,
    }


def test_the_resolved_version_is_what_is_served():
    plan = _engine_plan.plan([GOOD], paths={"smollm2": "/var/lib/gpufleet/models/smollm2/versions/abc"})
    assert plan["instances"][0]["config"]["model"].endswith("/versions/abc")


def test_null_takes_a_default_back():
    plan = _engine_plan.plan([dict(GOOD, engine_config={"dtype": None})], defaults={"dtype": "float32"})
    assert "dtype" not in plan["instances"][0]["config"]


def test_models_of_another_engine_are_left_out():
    assert _engine_plan.plan([dict(GOOD, engine="llama_cpp")])["instances"] == []


@pytest.mark.parametrize("name", ["", "Smol", "a b", "../etc", "smollm2/x", "-x", "x" * 64, "ü", "x%i", "x\n", ".x"])
def test_a_name_that_is_no_unit_name_is_refused(name):
    assert "vllm_models[0].name" in refusal_of(dict(GOOD, name=name))


@pytest.mark.parametrize("slot", ["c", "", "A", "ab"])
def test_an_unknown_slot_is_refused(slot):
    assert "slot to a or b" in refusal_of(dict(GOOD, slot=slot))


def test_an_instance_that_is_there_twice_is_refused_and_two_slots_are_not():
    assert "instance smollm2-a, which vllm_models[0] is too" in refusal_of(GOOD, GOOD)
    assert refusal_of(GOOD, dict(GOOD, slot="b")) == ""


@pytest.mark.parametrize(
    "key", ["api-key", "api_key", "uds", "host", "port", "ssl-keyfile", "ssl_certfile", "config", "--uds", "grpc-port"]
)
def test_a_key_that_would_open_the_engine_is_refused_with_a_remedy(key):
    text = refusal_of(dict(GOOD, engine_config={key: "x"}))
    assert "vllm_models[0].engine_config.%s" % key in text
    assert "Remedy:" in text


@pytest.mark.parametrize("key", ["", "   ", "\n", "short", "x" * 31, "x" * 40 + " y", 'x" ; evil;' + "x" * 40])
def test_a_key_that_authenticates_nobody_is_refused_and_not_repeated(key):
    text = refusal_of(GOOD, api_key=key)
    assert "vllm_api_key" in text
    assert "Remedy:" in text
    if len(key.strip()) > 4:
        assert key not in text


def test_a_good_key_and_none_are_taken():
    assert refusal_of(GOOD, api_key="k" * 32) == ""
    assert refusal_of(GOOD, api_key=None) == ""


@pytest.mark.parametrize("length", [0, -1, "2048", True, 1.5])
def test_a_context_length_that_is_none_is_refused(length):
    assert "context_length" in refusal_of(dict(GOOD, context_length=length))


def test_all_reasons_come_at_once():
    text = refusal_of(
        dict(GOOD, name="A"), dict(GOOD, engine_config={"host": "0.0.0.0", "ssl-keyfile": "k"}), api_key=""
    )
    assert "refused, 4 reasons, nothing was changed" in text


def test_an_argument_that_the_engine_does_not_know_is_found():
    instances = _engine_plan.plan([dict(GOOD, engine_config={"max_num_sequences": 4})])["instances"]
    known = ["model", "served-model-name", "max-model-len", "shutdown-timeout", "max-num-seqs"]
    assert _engine_plan.unknown_arguments(instances, known) == [("smollm2-a", "max-num-sequences")]


def test_a_dotted_argument_is_known_by_its_first_part():
    instances = _engine_plan.plan([dict(GOOD, engine_config={"compilation-config.mode": 0})])["instances"]
    known = ["model", "served-model-name", "max-model-len", "shutdown-timeout", "compilation-config"]
    assert _engine_plan.unknown_arguments(instances, known) == []


def test_the_files_of_an_instance_are_its_own():
    placed = _engine_plan.files(_engine_plan.plan([GOOD])["instances"], "/etc/gpufleet/vllm", "/etc/systemd/system")
    assert [f["dest"] for f in placed["files"]] == [
        "/etc/gpufleet/vllm/smollm2-a/config.yaml",
        "/etc/systemd/system/vllm@smollm2-a.service.d/10-instance.conf",
        "/etc/systemd/system/vllm@smollm2-a.service.d/20-accelerator.conf",
    ]
    assert all(f["owner"] == "root" and f["mode"] == "0644" for f in placed["files"])


def test_an_environment_that_would_change_the_plan_is_refused():
    made = _engine_plan.plan([], environment={"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_LOGGING_LEVEL": "INFO"})
    assert "vllm_environment.VLLM_CPU_KVCACHE_SPACE" in made["refusal"]
    assert "set vllm_cpu_kv_cache_gib" in made["refusal"] and "LOGGING" not in made["refusal"]
