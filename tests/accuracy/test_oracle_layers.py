# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the planner says each layer of a ``config.json`` caches is what vLLM's own class of that architecture makes.

Models are made with random weights on a CPU, so what a CPU's engine can't make isn't compared: see ``NOT_MADE``.
"""

from __future__ import annotations

import typing as t

import oracle
import pytest
import tiny_configs
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_config as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_families as families
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_rules as ruling
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_want as wanting

VERSION = "0.32.0"

#: Architectures that aren't compared here, each with the reason why the engine at hand can't make them.
NOT_MADE: t.Dict[str, str] = {
    "InternLM2ForCausalLM": "its configuration class comes with the checkpoint",
    "ExaoneForCausalLM": "its configuration class comes with the checkpoint",
    "MiniCPMForCausalLM": "its configuration class comes with the checkpoint",
    "BailingMoeForCausalLM": "its configuration class comes with the checkpoint",
    "BailingMoeV2ForCausalLM": "its configuration class comes with the checkpoint",
    "TeleChat3ForCausalLM": "its configuration class comes with the checkpoint; served by the class of Llama",
    "IQuestCoderForCausalLM": "its configuration class comes with the checkpoint; served by the class of Llama",
    "HunYuanMoEV1ForCausalLM": "not tried",
    "Qwen3_5ForCausalLM": "its module needs torchvision, which an engine for CPUs doesn't have",
    "Qwen3_5MoeForCausalLM": "its module needs torchvision, which an engine for CPUs doesn't have",
    "KimiLinearForCausalLM": "its class refuses a CPU's defaults; public logs confirm its layout",
    "DeepseekV32ForCausalLM": "sparse attention isn't there on a CPU",
    "GlmMoeDsaForCausalLM": "sparse attention isn't there on a CPU",
    "WhisperForConditionalGeneration": "needs the checkpoint's processor",
}

FLAGS = {"max_model_len": 2048, "mamba_ssm_cache_dtype": "float32"}

pytestmark = pytest.mark.oracle


def ask(questions: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[oracle.Answer]:
    """Return the engine's answers, or skip where there is no engine."""
    try:
        return oracle.ask(VERSION, questions)
    except oracle.NoEngine as exc:
        pytest.skip(str(exc))


def test_registry_and_defaults() -> None:
    """Every architecture of the lists is one of vLLM's, and what is filled in is what transformers fills in."""
    (answer,) = ask([{"ask": "registry", "model_types": sorted(families.DEFAULTS)}])
    known = set(answer["architectures"])
    missing = (set(families.ARCHITECTURES) | set(families.ENCODERS)) - known
    assert not missing, "vLLM %s has no %s" % (VERSION, ", ".join(sorted(missing)))
    wrong = []
    for model_type, values in families.DEFAULTS.items():
        theirs = answer["defaults"].get(model_type, {})
        for key, value in values.items():
            if theirs.get(key, value) != value:
                wrong.append((model_type, key, value, theirs[key]))
    assert not wrong


def test_every_architecture_is_compared_or_has_a_reason() -> None:
    """Nothing is left out silently."""
    assert set(tiny_configs.TINY) | set(NOT_MADE) >= set(families.ARCHITECTURES)


def cases() -> t.List[t.Tuple[str, t.Dict[str, t.Any]]]:
    """Return the configurations that are compared, each with its name."""
    return [(name, config) for name, config in tiny_configs.all_configs() if config["architectures"][0] not in NOT_MADE]


def questions(asked: t.Sequence[t.Tuple[str, t.Dict[str, t.Any]]]) -> t.List[t.Dict[str, t.Any]]:
    """Return what the engine is asked of them."""
    return [{"ask": "layers", "config": config, "flags": FLAGS} for _name, config in asked]


def compact(theirs: oracle.Answer) -> oracle.Answer:
    """Return what is compared of an answer: ``{layers: [[kind, block, bytes, window]], defaults}``, or its fault."""
    if "fault" in theirs:
        return {"fault": theirs["fault"][:200]}
    made = [[one["kind"], one["block_size"], one["page_bytes"], one["window"]] for one in theirs["layers"]]
    return {
        "layers": made,
        "defaults": [theirs["max_num_batched_tokens"], theirs["max_num_seqs"], theirs["mamba_mode"]],
    }


def planned(config: t.Mapping[str, t.Any]) -> oracle.Answer:
    """Return the same of the planner."""
    want = wanting.want_of(dict(FLAGS, accelerator="cpu"))
    laid = planning.laid_out(
        reading.read_model(config), want, wanting.gpu_of({"total_bytes": 1 << 34}), ruling.rules_for(VERSION)
    )
    return {
        "layers": [[spec.kind, spec.block_size, spec.page_bytes, spec.window] for spec in laid.laid.specs],
        "defaults": [laid.want.max_num_batched_tokens, laid.want.max_num_seqs, laid.laid.request.mamba_mode],
    }


@pytest.mark.slow
def test_layers_are_those_of_the_class() -> None:
    """Kind, block, bytes and window of each layer, in order; and what the engine takes by default."""
    asked = cases()
    wrong = []
    for (name, config), theirs in zip(asked, ask(questions(asked))):
        mine, made = planned(config), compact(theirs)
        if mine != made:
            wrong.append((name, mine, made))
    assert not wrong, "%d of %d differ: %r" % (len(wrong), len(asked), wrong[:3])
