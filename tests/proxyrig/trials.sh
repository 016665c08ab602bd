#!/usr/bin/env bash
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs trials of the proxy, one after the other, and fails if one did: trials.sh [zero_loss|overload|faults|tools|bench]...
# Without an argument: zero_loss overload faults. PROXY_SUITES: the Debians whose nginx is taken (bookworm; tools: both).
# Their JSON is written to .cache/proxyrig/results.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
results=$here/../../.cache/proxyrig/results
mkdir -p "$results"
failed=()
(($#)) || set -- zero_loss overload faults
for trial in "$@"; do
    suites=${PROXY_SUITES:-bookworm}
    [[ $trial != tools ]] || suites=${PROXY_SUITES:-bookworm trixie}
    module=proxyrig.$trial
    realtime=${PROXY_REALTIME:-0}
    [[ $trial != bench ]] || module=bench.proxy
    # Latencies: what else runs on the machine shall not be in them.
    [[ $trial != bench && $trial != overload ]] || realtime=${PROXY_REALTIME:-1}
    for suite in $suites; do
        printf '\n=== %s, nginx of %s\n' "$trial" "$suite"
        PROXY_SUITE=$suite PROXY_REALTIME=$realtime "$here/run.sh" "$module" --json "$(realpath "$results")/$trial-$suite.json" ||
            failed+=("$trial on $suite")
    done
done
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
