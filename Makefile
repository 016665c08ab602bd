# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export GPUFLEET_CACHE_DIR ?= /var/cache/gpufleet
SCENARIOS ?= lab_host preflight model_store proxy watchdog default

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

.PHONY: control dev
control: ## Prepare this machine as a control node
	@tools/bootstrap.sh control
dev: ## Prepare this machine for the tests
	@tools/bootstrap.sh dev

.PHONY: demo demo-env demo-check demo-down
demo: control ## From a bare machine to a real completion through mutual TLS; run it again: nothing changes
	@tools/demo.py up
demo-env: ## Print shell exports that point any client at the demo: eval "$$(make -s demo-env)"
	@tools/demo.py env
demo-check: dev ## Run the table of proxy cases against the demo
	@tools/demo.py check
demo-down: ## Remove every trace of the demo (KEEP_CACHE=1 keeps what can be built again)
	@tools/demo.py down

.PHONY: test contracts unit lint packaging molecule accuracy
test: ## Everything, in the order from fast to slow
	@tools/test.sh
contracts unit lint packaging: dev ## One part of the tests
	@tools/test.sh $@
molecule: dev ## The scenarios on booted hosts: SCENARIOS="proxy default"
	@SCENARIOS="$(SCENARIOS)" tools/test.sh molecule

RECORDS ?= tests/accuracy/kv_records_open.yml
CONFIGS ?= tests/accuracy/model_configs.yml
accuracy: dev ## Score the memory planner against public start-up logs: RECORDS=file CONFIGS=file
	@.venv/bin/python tests/accuracy/score.py --records "$(RECORDS)" --configs "$(CONFIGS)"

.PHONY: accuracy-engine
accuracy-engine: dev ## Compare with vLLM's own classes and with starts of it on this CPU (5 min; outside of test)
	@.venv/bin/pytest -q tests/accuracy -m oracle -s

.PHONY: coverage
coverage: dev ## Branch coverage of plugins/module_utils, children measured too; fails below 95 % (5 min; outside of test)
	@tools/coverage.py

.PHONY: test-gpu-stack
test-gpu-stack: dev ## The GPU stack's roles on booted hosts, from a signed mirror (7 min; not part of test yet)
	@SCENARIOS=gpu_stack tools/test.sh molecule

.PHONY: test-interrupted
test-interrupted: ## Interrupt the demo at a dozen points, then let it end (5 min; outside of test)
	@tests/demo_interrupted.py

.PHONY: test-driver
test-driver: dev ## The real driver of Debian's archive, built by DKMS on a booted host; slow, not part of `make test`
	@tools/test.sh driver

.PHONY: accuracy-llama
accuracy-llama: dev ## Compare the llama.cpp planner with llama-server's own dry run (10 s; not part of test)
	@tests/accuracy/accuracy_llama.sh

.PHONY: proxy-check proxy-trials proxy-tools bench-proxy
proxy-check: dev ## Run the table of proxy cases against the endpoint of demo-env's variables, whatever it is
	@.venv/bin/python tests/proxy_check.py $(ARGUMENTS)
proxy-trials: ## Change, overload and break the proxy under load: TRIALS="zero_loss overload faults" (6 min; root; not part of test)
	@tests/proxyrig/trials.sh $(TRIALS)
proxy-tools: ## Foreign tools judge the proxy on both Debians' nginx (8 min; root; not part of test)
	@tests/proxyrig/trials.sh tools
bench-proxy: ## What the proxy costs, direct and HAProxy beside it (10 min; root; not part of test)
	@tests/proxyrig/trials.sh bench

.PHONY: bench
bench: dev ## Tasks and seconds of the no-change run, with a peer's role beside it
	@tests/bench/no_change.py

.PHONY: bench-plan
bench-plan: dev ## Time and memory of planning 70 B parameters from headers, with a peer beside it
	@.venv/bin/python tests/bench/memory_plan.py

.PHONY: release-check
release-check: dev ## Prove every release consistent, offline, and print the support matrix
	@.venv/bin/python tools/release_check.py

.PHONY: sanity
sanity: dev ## ansible-test sanity on the built and installed collection, with an empty ignore list
	@tools/sanity.sh

.PHONY: docs lock
docs: dev ## Write the generated tables of the READMEs
	@tools/docs.py
lock: dev ## Resolve every lock file again
	@tools/lock.sh
