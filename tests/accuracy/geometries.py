# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts of layers to compare with vLLM's own arithmetic: those of real families, and random ones."""

from __future__ import annotations

import random
import typing as t

GIB = 1 << 30
Layer = t.Dict[str, t.Any]


def attention(kind: str, heads: int, head: int, width: int = 2, block: int = 16, window: int = 0) -> Layer:
    """Return one layer with keys and values."""
    value = 0 if kind == "mla" else head
    return {
        "kind": kind,
        "block_size": block,
        "heads": heads,
        "head_k": head,
        "head_v": value,
        "width": width,
        "window": window,
    }


def mamba(
    state: int, page: t.Optional[int], block: int, mode: str, speculative: int = 0, checkpoints: int = 0
) -> Layer:
    """Return one recurrent layer; ``page``: what its state is padded to."""
    return {
        "kind": "mamba",
        "block_size": block,
        "state_bytes": state,
        "page_bytes": page,
        "mode": mode,
        "speculative": speculative,
        "checkpoints": checkpoints,
    }


def page_of(layer: t.Mapping[str, t.Any]) -> int:
    """Return the bytes of one block of one layer."""
    if layer["kind"] == "mamba":
        return int(layer["page_bytes"] or layer["state_bytes"])
    return int(layer["block_size"] * layer["heads"] * (layer["head_k"] + layer["head_v"]) * layer["width"])


def case(
    name: str, layers: t.Sequence[Layer], length: int = 8192, batch: int = 8192, **more: t.Any
) -> t.Dict[str, t.Any]:
    """Return a geometry under flags."""
    return dict(
        {"name": name, "layers": list(layers), "max_model_len": length, "inflight_tokens": batch, "pipeline": 1}, **more
    )


def _pattern(count: int, every: int, full: Layer, other: Layer) -> t.List[Layer]:
    return [full if (index + 1) % every == 0 else other for index in range(count)]


def _hybrid(
    full: int,
    linear: int,
    heads: int,
    head: int,
    state: int,
    block: int,
    mode: str,
    width: int = 2,
    speculative: int = 0,
    checkpoints: int = 0,
) -> t.List[Layer]:
    attend = attention("full", heads, head, width, block)
    recur = mamba(state, page_of(attend), block if mode != "none" else 1 << 18, mode, speculative, checkpoints)
    return _pattern(full + linear, (full + linear) // full, attend, recur)


def families() -> t.List[t.Dict[str, t.Any]]:
    """Return the geometries of families of models, by the names of ones that have them."""
    found = [
        case(name, [attention("full", heads, head, width)] * layers, length)
        for name, layers, heads, head, width, length in (
            ("Llama-3.1-8B", 32, 8, 128, 2, 131072),
            ("Llama-3.1-8B fp8", 32, 8, 128, 1, 131072),
            ("Llama-3.1-70B TP4", 80, 2, 128, 2, 8192),
            ("Llama-3.1-70B TP8", 80, 1, 128, 2, 131072),
            ("Llama-3.1-405B TP8", 126, 1, 128, 1, 32768),
            ("Qwen2.5-7B", 28, 4, 128, 2, 32768),
            ("Qwen2.5-7B TP8, heads copied", 28, 1, 128, 2, 32768),
            ("Qwen3-235B-A22B TP4", 94, 1, 128, 2, 40960),
            ("Qwen3-Coder-480B TP8", 62, 1, 128, 1, 262144),
            ("Mixtral-8x7B TP2", 32, 4, 128, 2, 32768),
            ("phi-2", 32, 32, 80, 2, 2048),
            ("phi-4 TP5", 40, 2, 128, 2, 16384),
            ("SmolLM2-135M float32", 30, 3, 64, 4, 2048),
            ("Gemma-7B", 28, 16, 256, 2, 8192),
            ("MiniMax-M2 TP2", 62, 4, 128, 2, 196608),
            ("GLM-4 TP2", 40, 1, 128, 2, 32768),
        )
    ]
    for name, layers, length in (("DeepSeek-V2-Lite", 27, 32768), ("DeepSeek-V3", 61, 163840), ("Kimi-K2", 61, 131072)):
        found.append(case(name, [attention("mla", 1, 576, 2, 64)] * layers, length))
    found.append(case("DeepSeek-V3 blocks of 16", [attention("mla", 1, 576)] * 61, 65536))
    for name, count, every, heads, head, window, length in (
        ("Gemma-2-2B", 26, 2, 4, 256, 4096, 8192),
        ("Gemma-2-27B TP2", 46, 2, 8, 128, 4096, 8192),
        ("Gemma-3-4B", 34, 6, 4, 256, 1024, 131072),
        ("Gemma-3-12B", 48, 6, 8, 256, 1024, 131072),
        ("Gemma-3-27B", 62, 6, 16, 128, 1024, 32768),
        ("gpt-oss-20b", 24, 2, 8, 64, 128, 131072),
        ("gpt-oss-120b TP8", 36, 2, 1, 64, 128, 131072),
        ("Command-R7B", 32, 4, 8, 128, 4096, 131072),
        ("Olmo-3-7B", 32, 4, 32, 128, 4096, 65536),
        ("Exaone-4-32B", 64, 4, 8, 128, 4096, 131072),
    ):
        full, slide = attention("full", heads, head), attention("sliding", heads, head, window=window)
        found.append(case(name, _pattern(count, every, full, slide), length))
        found.append(case(name + ", two batches in flight", _pattern(count, every, full, slide), length, 16384))
    found.append(
        case(
            "gpt-oss-20b and a draft layer",
            _pattern(24, 2, attention("full", 8, 64), attention("sliding", 8, 64, window=128))
            + [attention("full", 8, 64)],
            32768,
        )
    )
    slide = attention("sliding", 8, 128, window=4096)
    found.append(case("Mistral-7B-v0.1, all slide", [slide] * 32, 32768))
    chunk = attention("chunked", 2, 128, window=8192)
    found.append(case("Llama-4-Scout TP4", _pattern(48, 4, attention("full", 2, 128), chunk), 131072))
    found.append(
        case(
            "Llama-4-Scout TP4, no hybrid manager",
            _pattern(48, 4, attention("full", 2, 128), chunk),
            131072,
            disable_hybrid=True,
        )
    )
    found.append(
        case(
            "Gemma-3-12B, no hybrid manager",
            _pattern(48, 6, attention("full", 8, 256), attention("sliding", 8, 256, window=1024)),
            32768,
            disable_hybrid=True,
        )
    )
    wide, near = attention("full", 2, 512), attention("sliding", 8, 256, window=1024)
    found.append(case("Gemma-4-26B", _pattern(30, 6, wide, near), 262144))
    found.append(
        case(
            "Gemma-4-26B TP2",
            _pattern(30, 6, attention("full", 1, 512), attention("sliding", 4, 256, window=1024)),
            131072,
        )
    )
    found.append(
        case(
            "Gemma-4-E2B",
            [
                attention("full", 1, 512) if index in (4, 9, 14) else attention("sliding", 1, 256, window=512)
                for index in range(15)
            ],
            8192,
            2048,
        )
    )
    for mode in ("none", "align"):
        found.append(case("Qwen3.5-27B " + mode, _hybrid(16, 48, 4, 256, 3207168, 784, mode), 262144, mamba_mode=mode))
        found.append(
            case(
                "Qwen3.6-35B-A3B fp8 " + mode, _hybrid(10, 30, 2, 256, 2146304, 2096, mode, 1), 131072, mamba_mode=mode
            )
        )
        found.append(
            case(
                "Kimi-Linear " + mode,
                [
                    attention("mla", 1, 576, 2, 960)
                    if (index + 1) % 4 == 0 or index == 26
                    else mamba(1085440, 960 * 1152, 960 if mode == "align" else 1 << 20, mode)
                    for index in range(27)
                ],
                120000,
                mamba_mode=mode,
            )
        )
    found.append(
        case(
            "Qwen3.5-27B align, drafts", _hybrid(16, 48, 4, 256, 3227648, 800, "align", 2, 1), 65536, mamba_mode="align"
        )
    )
    found.append(
        case("Granite-4-H align", _hybrid(4, 36, 8, 128, 1600000, 400, "align", 2, 0, 1), 131072, mamba_mode="align")
    )
    found.append(case("Mamba-2.8B, no attention", [mamba(430080, None, 4096, "none")] * 64, 4096))
    found.append(
        case(
            "Whisper-large",
            [attention(kind, 20, 64) for _layer in range(32) for kind in ("full", "cross")],
            448,
            2048,
            encoder_tokens=1500,
        )
    )
    found.append(case("full and latent together", [attention("full", 1, 128), attention("mla", 1, 576)] * 4, 8192))
    found.append(
        case(
            "latent, and a draft that slides",
            [attention("mla", 1, 576)] * 20 + [attention("sliding", 8, 64, window=1024)] * 2,
            8192,
        )
    )
    return found


def random_case(seed: int) -> t.Dict[str, t.Any]:
    """Return a geometry that no model has."""
    dice = random.Random(seed)
    block = dice.choice((16, 16, 16, 32, 64, 128))
    width = dice.choice((1, 2, 2, 4))
    base = attention(
        "full", dice.choice((1, 2, 3, 4, 5, 8, 10, 16)), dice.choice((64, 80, 96, 128, 192, 256)), width, block
    )
    kinds = [base]
    for _more in range(dice.randint(0, 2)):
        shape = dice.choice(("window", "chunk", "heads", "mamba", "window"))
        if shape == "mamba":
            state = dice.randint(1000, 3 * page_of(base))
            if dice.random() < 0.7:
                state = min(state, page_of(base))
                kinds.append(mamba(state, page_of(base), 1 << 20, "none"))
            else:
                kinds.append(mamba(state, None, block, "none"))
        elif shape == "heads":
            kinds.append(attention("full", dice.choice((1, 2, 4, 8)), dice.choice((64, 128, 256, 512)), width, block))
        else:
            heads, head = (base["heads"], base["head_k"]) if dice.random() < 0.7 else (dice.choice((1, 2, 4)), 128)
            kind = "sliding" if shape == "window" else "chunked"
            kinds.append(attention(kind, heads, head, width, block, dice.choice((1, 17, 128, 512, 1024, 4096, 8192))))
    layers = [dict(dice.choice(kinds)) for _layer in range(dice.randint(1, 64))]
    if dice.random() < 0.5:
        layers.sort(key=lambda layer: (str(layer["kind"]), page_of(layer)))
    length = dice.choice((1, 15, 16, 17, 1000, 4096, 8192, 32768, 131072, 1000000))
    batch = dice.choice((256, 2048, 8192, 16384, 32768))
    made = case("random %d" % seed, layers, length, batch, disable_hybrid=dice.random() < 0.15)
    made["pipeline"] = dice.choice((1, 1, 1, 2, 3, 4)) if len(layers) >= 8 else 1
    made["auto_fit"] = dice.random() < 0.2
    return made


def memories(made: t.Mapping[str, t.Any], dice: random.Random) -> t.List[int]:
    """Return sizes of the cache to try: none, less than a request needs, about that, and plenty."""
    sizes = [0, dice.randint(1, 1 << 20), dice.randint(1 << 20, 1 << 30), dice.randint(1 << 30, 80 * GIB)]
    full = sum(page_of(layer) for layer in made["layers"])
    near = full * (made["max_model_len"] // made["layers"][0]["block_size"] + 2)
    if near < 1 << 44:
        sizes.append(int(near * dice.uniform(0.2, 1.2)))
    return sizes
