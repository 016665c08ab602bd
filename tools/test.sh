#!/usr/bin/env bash
# The tests, from fast to slow. Usage: tools/test.sh [contracts|unit|lint|packaging|accuracy|molecule|oracle|driver]
# Without an argument: all of them but driver, which compiles a kernel module. Stops at the first part that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/bootstrap.sh dev
export PATH="$PWD/.venv/bin:$PATH"
export GPUFLEET_CACHE_DIR=${GPUFLEET_CACHE_DIR:-/var/cache/gpufleet}
began=$SECONDS

part() { printf '\n=== %s (at %d s)\n' "$1" "$((SECONDS - began))"; }

contracts() {
  part "contracts: defaults and argument specs, releases, pins, names"
  pytest -q tests/contracts
}

unit() {
  part "unit and golden: pure functions, recorded fixtures, servers that misbehave"
  pytest -q -n 2 tests/unit tests/golden
}

lint() {
  part "lint: ansible-lint production, yamllint strict, ruff, mypy strict"
  ansible-lint --offline --strict
  yamllint --strict .
  ruff check .
  ruff format --check .
  mypy
  tools/docs.py --check
  antsibull-changelog lint
}

packaging() {
  part "packaging: build, install, ansible-doc from the installed copy, the tree as AWX lays it out"
  pytest -q tests/packaging tests/awx
}

accuracy() {
  part "accuracy: the memory planner against public start-up logs"
  pytest -q tests/accuracy -m "not oracle"
}

oracle() {
  part "oracle: the memory planner against vLLM's own arithmetic"
  pytest -q tests/accuracy -m "oracle and not slow"
}

engine() {
  part "engine and model for the scenarios: built once, kept in $GPUFLEET_CACHE_DIR"
  ansible-playbook -i inventories/lab playbooks/build_engine.yml
  .venv/bin/python tools/lab_model.py --cache-dir "$GPUFLEET_CACHE_DIR"
}

molecule() {
  local built=
  for scenario in ${SCENARIOS:-lab_host preflight model_store proxy watchdog default}; do
    # lab_host makes the bases, and the engine may need the interpreter of one.
    if [ "$scenario" != lab_host ] && [ -z "$built" ]; then
      engine
      built=1
    fi
    part "molecule $scenario: real hosts, real packages, real engine"
    command molecule test -s "$scenario"
  done
}

driver() {
  part "molecule driver_debian: the real driver, compiled (minutes)"
  command molecule test -s driver_debian
}

if [ $# -gt 0 ]; then
  "$@"
else
  contracts
  unit
  lint
  packaging
  accuracy
  molecule
  oracle
fi
printf '\n=== all of it passed in %d s\n' "$((SECONDS - began))"
