# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM's own arithmetic, asked by the tests: runs in the engine's interpreter, one JSON question a line.

``{"ask": "layout", ...}`` calls ``vllm.v1.core.kv_cache_utils`` with specs and a stand-in for the configuration.
``{"ask": "layers", ...}`` makes the model that a ``config.json`` names, without memory for its weights, and asks each
of its layers what it caches. ``{"ask": "registry"}`` names the architectures that this vLLM has.
Nothing of the collection is imported here.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import types
import typing as t

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def _specs(layers: t.Sequence[t.Mapping[str, t.Any]]) -> t.Dict[str, t.Any]:
    import torch
    from vllm.v1 import kv_cache_interface as interface

    sizes = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}
    made = {}
    for number, layer in enumerate(layers):
        name = layer.get("name", "layers.%d.attn" % number)
        kind, block = layer["kind"], layer["block_size"]
        if kind == "mamba":
            made[name] = interface.MambaSpec(
                block_size=block,
                shapes=((layer["state_bytes"],),),
                dtypes=(torch.uint8,),
                page_size_padded=layer.get("page_bytes"),
                mamba_cache_mode=layer.get("mode", "none"),
                num_speculative_blocks=layer.get("speculative", 0),
                num_prefill_checkpoint_blocks=layer.get("checkpoints", 0),
            )
            continue
        common = {
            "block_size": block,
            "num_kv_heads": layer["heads"],
            "head_size": layer["head_k"],
            "dtype": sizes[layer["width"]],
        }
        if kind == "mla":
            made[name] = interface.MLAAttentionSpec(**common)
        else:
            common["head_size_v"] = layer["head_v"]
            if kind == "sliding":
                made[name] = interface.SlidingWindowSpec(sliding_window=layer["window"], **common)
            elif kind == "chunked":
                made[name] = interface.ChunkedLocalAttentionSpec(attention_chunk_size=layer["window"], **common)
            elif kind == "cross":
                made[name] = interface.CrossAttentionSpec(**common)
            else:
                made[name] = interface.FullAttentionSpec(**common)
    return made


def _stand_in(question: t.Mapping[str, t.Any]) -> t.Any:
    """Return what the functions read of vLLM's configuration."""
    from vllm.v1.kv_cache_layout import KVCacheLayout

    layout = KVCacheLayout[question.get("layout", "LBHNC")]
    length = question["max_model_len"]
    return types.SimpleNamespace(
        model_config=types.SimpleNamespace(
            max_model_len=length, original_max_model_len=-1 if question.get("auto_fit") else length
        ),
        scheduler_config=types.SimpleNamespace(
            disable_hybrid_kv_cache_manager=question.get("disable_hybrid", False),
            max_num_encoder_input_tokens=question.get("encoder_tokens", 0),
            max_num_batched_tokens=question["inflight_tokens"],
        ),
        cache_config=types.SimpleNamespace(
            num_gpu_blocks_override=None,
            prefix_cache_retention_interval=None,
            mamba_cache_mode=question.get("mamba_mode", "none"),
            get_resolved_kv_cache_layout=lambda: layout,
        ),
        parallel_config=types.SimpleNamespace(
            decode_context_parallel_size=1, tensor_parallel_size=1, prefill_context_parallel_size=1
        ),
        attention_config=types.SimpleNamespace(hisparse_config=None),
        device_config=types.SimpleNamespace(device_type="cuda"),
        speculative_config=None,
        num_prefill_lookahead_tokens=0,
        max_in_flight_tokens=question["inflight_tokens"],
    )


def layout(question: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return blocks, tokens and concurrency, or the text with which vLLM refuses."""
    from vllm.v1.core import kv_cache_utils

    config = _stand_in(question)
    specs = _specs(question["layers"])
    names = list(specs)
    workers = [{names[index]: specs[names[index]] for index in stage} for stage in question["stages"]]
    try:
        made = kv_cache_utils.get_kv_cache_configs(config, workers, list(question["available"]))
        merged = kv_cache_utils.generate_scheduler_kv_cache_config(made)
        tokens, users = kv_cache_utils.get_kv_cache_capacity(config, merged)
    except (ValueError, NotImplementedError, AssertionError) as exc:
        return {"error": str(exc)}
    return {
        "num_blocks": merged.num_blocks,
        "tokens": tokens,
        "concurrency": users,
        # A stage has its part of each group.
        "groups": sorted(
            sum(map(len, parts)) for parts in zip(*([g.layer_names for g in one.kv_cache_groups] for one in made))
        ),
        "max_model_len": config.model_config.max_model_len,
        "block_bytes": [
            kv_cache_utils._pool_bytes_per_block(config, one.kv_cache_groups) for one in made if one.kv_cache_groups
        ],
    }


def _kind(spec: t.Any) -> str:
    from vllm.v1 import kv_cache_interface as interface

    for cls, name in (
        (interface.MambaSpec, "mamba"),
        (interface.SlidingWindowMLASpec, "sliding_mla"),
        (interface.MLAAttentionSpec, "mla"),
        (interface.SlidingWindowSpec, "sliding"),
        (interface.ChunkedLocalAttentionSpec, "chunked"),
        (interface.CrossAttentionSpec, "cross"),
        (interface.FullAttentionSpec, "full"),
    ):
        if isinstance(spec, cls):
            return name
    return type(spec).__name__


def _start() -> None:
    """Have one process that is a group of its own, as the configuration that is current wants it: layers ask."""
    from vllm.distributed import parallel_state

    if not parallel_state.model_parallel_is_initialized():
        parallel_state.init_distributed_environment(1, 0, "tcp://127.0.0.1:0", 0, "gloo")
    else:
        parallel_state.destroy_model_parallel()
    parallel_state.ensure_model_parallel_initialized(1, 1)


def layers(question: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return what each layer of the model of a ``config.json`` caches."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.config.vllm import get_layers_from_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.platforms import current_platform

    with tempfile.TemporaryDirectory() as place:
        with open(os.path.join(place, "config.json"), "w", encoding="utf-8") as file:
            json.dump(question["config"], file)
        flags = dict(question.get("flags") or {})
        arguments = EngineArgs(
            model=place,
            tokenizer=place,
            skip_tokenizer_init=True,
            load_format="dummy",
            enforce_eager=True,
            dtype=question.get("dtype", "bfloat16"),
            limit_mm_per_prompt=question.get("limit", None) or {},
            **flags,
        )
        config = arguments.create_engine_config()
        with set_current_vllm_config(config):
            _start()
            with torch.device("cpu"):
                initialize_model(config)
            current_platform.update_block_size_for_backend(config)
            found = []
            for name, layer in get_layers_from_vllm_config(config, AttentionLayerBase).items():
                spec = layer.get_kv_cache_spec(config)
                if spec is None or getattr(layer, "kv_sharing_target_layer_name", None):
                    continue
                found.append(
                    {
                        "name": name,
                        "kind": _kind(spec),
                        "block_size": spec.block_size,
                        "page_bytes": spec.page_size_bytes,
                        "window": getattr(spec, "sliding_window", None)
                        or getattr(spec, "attention_chunk_size", None)
                        or 0,
                        "checkpoints": getattr(spec, "num_prefill_checkpoint_blocks", 0),
                    }
                )
        return {
            "layers": found,
            "block_size": config.cache_config.block_size,
            "max_model_len": config.model_config.max_model_len,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "mamba_mode": config.cache_config.mamba_cache_mode,
            "kv_heads": config.model_config.get_total_num_kv_heads(),
            "head_size": config.model_config.get_head_size(),
        }


def registry(_question: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return the names of all architectures, and what transformers fills in for some model types."""
    from transformers import CONFIG_MAPPING
    from vllm.model_executor.models.registry import ModelRegistry

    filled = {}
    for name in _question.get("model_types") or []:
        if name in CONFIG_MAPPING:
            filled[name] = {
                key: value
                for key, value in CONFIG_MAPPING[name]().to_dict().items()
                if isinstance(value, (int, float, bool)) or value is None
            }
    return {"architectures": sorted(ModelRegistry.get_supported_archs()), "defaults": filled}


VERBS = {"layout": layout, "layers": layers, "registry": registry}


def main() -> int:
    """Answer until there are no more questions. What vLLM itself prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import vllm

    out.write(json.dumps({"vllm": vllm.__version__}) + "\n")
    out.flush()
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = VERBS[question["ask"]](question)
        except Exception as exc:  # noqa: BLE001 - whatever vLLM raises is its answer
            answer = {"fault": "%s: %s" % (type(exc).__name__, exc)}
        out.write(json.dumps(answer) + "\n")
        out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
