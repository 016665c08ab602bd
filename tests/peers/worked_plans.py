#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the worked plans of docs/planner.md: ours, and the same questions answered by two peers.

    tests/peers/worked_plans.py [--check]

Makes checkpoints without weights, runs the planner and the peers on them, and writes what they say between the markers,
with the accuracy that `make accuracy` measures. The peers live in .cache/peers, made from requirements.txt by hash.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = ROOT / ".cache" / "peers"
DOCUMENT = ROOT / "docs" / "planner.md"
GIB = 1 << 30
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "accuracy"), str(HERE)]


class Question(t.NamedTuple):
    """What is asked."""

    title: str
    model: str  # key of model_configs.yml
    form: str  # llama, awq, gpt_oss
    gpu: str
    total_gib: float
    capability: str
    context: int
    facts: t.Dict[str, t.Any] = {}


LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "mxfp4"},
}
EIGHT, SEVENTY = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"
QUESTIONS = (
    Question("8B on a 24 GB card, 8K context", EIGHT, "llama", "RTX 4090", 23.57, "8.9", 8192, LLAMA),
    Question("8B on a 24 GB card, 32K context", EIGHT, "llama", "RTX 4090", 23.57, "8.9", 32768, LLAMA),
    Question(
        "70B AWQ on a 48 GB card, 8K context",
        SEVENTY,
        "awq",
        "L40S",
        44.40,
        "8.9",
        8192,
        dict(LLAMA, torch_dtype="float16", quantization_config=AWQ),
    ),
    Question(
        "gpt-oss-20b on an 80 GB card, 128K context",
        "openai/gpt-oss-20b",
        "gpt_oss",
        "H100",
        79.19,
        "9.0",
        131072,
        GPT_OSS,
    ),
)


def peers_python() -> Path:
    """Return the peers' Python, after making their environment where it isn't what requirements.txt asks for."""
    text = (HERE / "requirements.txt").read_bytes()
    wanted = hashlib.sha256(text).hexdigest()
    stamp = PEERS / "requirements.sha256"
    python = PEERS / "bin" / "python"
    if not stamp.is_file() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEERS)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r"]
        subprocess.run([*install, str(HERE / "requirements.txt")], check=True)
        stamp.write_text(wanted)
    return python


def config_of(question: Question) -> t.Dict[str, t.Any]:
    """Return the config.json of a question's model: the public geometry, and what the class needs."""
    import configs
    import score

    models = score.models_of(HERE.parent / "accuracy" / "model_configs.yml")
    config = configs.config_json(question.model, models[question.model])
    if config.get("sliding_window") is None:
        config.pop("sliding_window", None)
    config.update(question.facts)
    if question.form == "gpt_oss":
        count = config["num_hidden_layers"]
        config["layer_types"] = ["full_attention" if index % 2 else "sliding_attention" for index in range(count)]
        config["num_local_experts"] = config["num_experts"]
    return config


def checkpoint(question: Question, directory: Path) -> t.Tuple[int, int]:
    """Write a question's checkpoint; return the number of its tensors and their bytes."""
    import checkpoints

    config = config_of(question)
    form = question.form
    tensors = checkpoints.gpt_oss(config) if form == "gpt_oss" else checkpoints.llama(config, form == "awq")
    return len(tensors), checkpoints.write(directory, config, tensors)


def run(*command: str) -> t.Tuple[int, str]:
    """Run a command and return its status and what it printed, without colours."""
    environment = dict(os.environ, NO_COLOR="1", TERM="dumb", COLUMNS="200", HF_HUB_OFFLINE="1")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    return done.returncode, (done.stdout + ("\n" + done.stderr if done.returncode else "")).strip()


def ours(question: Question, directory: Path) -> t.Tuple[str, t.Dict[str, t.Any]]:
    """Return what the planner's command prints, and the plan it is of."""
    from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_model as reading
    from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_view as view
    from ansible_collections.gpufleet.llm.plugins.module_utils._memory_plan_rules import READ

    gpu = {
        "name": question.gpu,
        "total_bytes": int(question.total_gib * GIB),
        "compute_capability": question.capability,
    }
    want = {"max_model_len": question.context}
    plan = reading.plan_model(reading.read(str(directory)), gpu, {"name": "vllm", "version": READ[-1]}, want)
    lines = [*view.table([(question.gpu, plan)]), "", *view.parts(plan), ""]
    lines += ["--%s %s" % pair for pair in plan["vllm_args"].items()] if plan["fits"] else []
    return "\n".join(lines).strip(), plan


def gib(value: t.Any) -> str:
    return "%.2f GiB" % (value / GIB) if isinstance(value, (int, float)) else "-"


def hf_mem(python: Path, question: Question, directory: Path) -> t.Tuple[str, ...]:
    """Return hf-mem's row of the comparison."""
    command = [str(python), str(HERE / "hf_mem_offline.py"), str(directory), "--experimental", "--json-output"]
    command += ["--max-model-len", str(question.context)]
    status, text = run(*command)
    note = ""
    if status:
        note = "fails by itself (%s); with --kv-cache-dtype bfloat16: " % last(text)
        status, text = run(*command, "--kv-cache-dtype", "bfloat16")
    if status:
        return ("-", "-", "-", "-", note + "fails too (%s)" % last(text))
    said = json.loads(text[text.index("{") :])
    fits = "fits" if said["total_memory"] <= question.total_gib * GIB else "does not fit"
    note += "knows no GPU; weights and cache are %s, which %s in the card's memory" % (gib(said["total_memory"]), fits)
    return (gib(said["memory"]), gib(said["kv_cache"]), "-", "-", note)


def vramscout(python: Path, question: Question, directory: Path) -> t.Tuple[str, ...]:
    """Return vramscout's row of the comparison."""
    command = [str(python.parent / "vramscout"), str(directory), "--engine", "vllm", "--json"]
    _status, text = run(*command, "--context", str(question.context), "--vram-gib", str(question.total_gib))
    said = json.loads(text) if text.startswith("{") else {"error": last(text)}
    if "error" in said:
        return ("-", "-", "-", "-", "could not be run on a directory: %s" % said["error"])
    parts = said["parts_gib"]
    rest = said["total_gib"] - parts["Model weights / rank"] - parts["KV cache"]
    return (
        "%.2f GiB" % parts["Model weights / rank"],
        "%.2f GiB" % parts["KV cache"],
        "%.2f GiB" % rest,
        "{:,}".format(said["max_context_usable"]),
        "fits" if said["fits"] else "does not fit",
    )


def planner(question: Question, plan: t.Mapping[str, t.Any]) -> t.Tuple[str, ...]:
    """Return our row of the comparison: of the cache, what one request of that length needs."""
    per_gpu, kv = plan["per_gpu"], plan["kv"]
    rest = sum(per_gpu[part] for part in ("activation", "non_torch", "cuda_graphs", "margin"))
    return (
        gib(per_gpu["weights"]),
        gib(kv["blocks_per_request"] * kv["bytes_per_block"]),
        gib(rest),
        "{:,}".format(kv["max_sustainable_context"]),
        "fits" if plan["fits"] else "does not fit",
    )


def last(text: str) -> str:
    """Return the error that was printed, else the last line, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    said = (errors or lines or ["it printed nothing"])[-1].rstrip(".")
    return said if len(said) < 160 else said[:157] + "..."


def versions() -> t.Dict[str, str]:
    """Return the peers' versions, from the file that pins them."""
    lines = (HERE / "requirements.in").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def section(question: Question, python: Path, directory: Path) -> str:
    """Return one worked plan with its comparison, in Markdown."""
    size = checkpoint(question, directory)
    printed, plan = ours(question, directory)
    rows = [("planner", *planner(question, plan))]
    pinned = versions()
    rows.append(("hf-mem %s" % pinned["hf-mem"], *hf_mem(python, question, directory)))
    rows.append(("vramscout %s" % pinned["vramscout"], *vramscout(python, question, directory)))
    head = ("", "weights", "cache of one request", "the rest", "longest context", "verdict")
    table = [head, ("---",) * len(head), *rows]
    return "\n".join(
        [
            "### %s" % question.title,
            "",
            "%s, %d tensors' headers of %s; %s with %.2f GiB." % (
                question.model, size[0], gib(size[1]), question.gpu, question.total_gib
            ),
            "",
            "```text",
            printed,
            "```",
            "",
            *("| %s |" % " | ".join(cell.replace("|", "/") for cell in row) for row in table),
            "",
        ]
    )  # fmt: skip


def accuracy() -> str:
    """Return what `make accuracy` measures, in Markdown."""
    import score

    records = score.load(HERE.parent / "accuracy" / "kv_records_open.yml", "records")
    models = score.models_of(HERE.parent / "accuracy" / "model_configs.yml")
    exceptions = score.load(HERE.parent / "accuracy" / "exceptions.yml", "exceptions")
    said = score.summary(score.score(records, models), exceptions)
    layout, refuse = said["layout"], said["refuse"]
    asked = refuse["refused"] + len(refuse["accepted"]) + len(refuse["unsupported"])
    rows = [
        ("what", "records", "outcome"),
        ("---", "---", "---"),
        (
            "layout: blocks, tokens and concurrency from the memory that the log says",
            "%d that the log determines" % layout["determined"],
            "%d exact; %d named exceptions besides (`tests/accuracy/exceptions.yml`)"
            % (said["exact"], len(said["layout_exceptions"])),
        ),
    ]
    for title, name in (("nothing measured before", "estimate"), ("calibrated by the log", "estimate_calibrated")):
        one = said[name]
        outcome = (
            "%d within max(2 %%, 0.25 GiB), %d within 2 %%; off by %.2f %% in the mean, %.2f %% median, %.2f %% most"
        )
        numbers = (
            one["within"],
            one["within_2_percent"],
            one["mean_percent"],
            one["median_percent"],
            one["max_percent"],
        )
        rows.append(("memory for the cache, %s" % title, str(one["records"]), outcome % numbers))
    rows.append(
        (
            "starts that vLLM refused",
            str(asked),
            "%d refused, %d accepted, %d not planned for want of a configuration"
            % (refuse["refused"], len(refuse["accepted"]), len(refuse["unsupported"])),
        )
    )
    return "\n".join("| %s |" % " | ".join(row) for row in rows) + "\n"


def filled(text: str, name: str, content: str) -> str:
    """Return a document with the part between its markers replaced."""
    begin, end = "<!-- %s:begin -->" % name, "<!-- %s:end -->" % name
    head, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise SystemExit("%s lacks the markers of %s" % (DOCUMENT, name))
    return head + begin + "\n\n" + content + "\n" + end + rest.partition(end)[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if something would change")
    options = parser.parse_args()
    import conftest

    conftest.pytest_configure()
    python = peers_python()
    with tempfile.TemporaryDirectory() as made:
        parts = [section(question, python, Path(made) / str(index)) for index, question in enumerate(QUESTIONS)]
    before = DOCUMENT.read_text(encoding="utf-8")
    after = filled(filled(before, "worked-plans", "\n".join(parts)), "accuracy", accuracy())
    if after == before:
        return 0
    if options.check:
        sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True), "is", "would be"))
        return 1
    DOCUMENT.write_text(after, encoding="utf-8")
    print("%s: written" % DOCUMENT.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
