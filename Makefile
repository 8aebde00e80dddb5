# All commands of the project. `make` or `make help` lists them; none needs another one run before it.

PYTHON ?= python3
VENV ?= .venv
SEEDS ?= 0:200
PYTEST_ARGS ?=
# Tests that run at a time; a few that are chosen run one by one, without the cost of starting workers.
TEST_JOBS ?= $(if $(strip $(PYTEST_ARGS)),0,2)
UP_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
GENERATED := $(VENV)/.generated
SCHEMAS := $(wildcard proto/*.proto)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help venv proto run test lint types format bench chaos containers damage simulate fuzz conformance coverage-doc clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the interpreter, VENV=dir the environment."

$(INSTALLED): pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Quorate needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip --disable-pip-version-check install -qq --editable '.[dev]'
	@touch $(INSTALLED)

$(GENERATED): $(INSTALLED) $(SCHEMAS)
	@$(BIN)/python setup.py --quiet build_proto
	@touch $(GENERATED)

venv: $(INSTALLED) ## create the environment and install everything into it
	@:
proto: $(GENERATED) ## generate the protobuf code (done by every other command too)
	@:

run: $(GENERATED) ## start a local three-zone cluster in the foreground; UP_ARGS='--http-port 0 ...'
	@exec $(BIN)/quorate up $(UP_ARGS)

test: $(GENERATED) ## run every test: unit, data-driven, short simulation, real clusters; PYTEST_ARGS='-k name'
	@$(BIN)/python -m pytest -q -n $(TEST_JOBS) --dist loadgroup --durations=20 $(PYTEST_ARGS)

lint: $(GENERATED) ## check style, formatting, import layers and file sizes
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check --diff .
	@$(BIN)/lint-imports --no-logo > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@$(BIN)/python -m tests.file_sizes
	@echo "lint: clean"

types: $(GENERATED) ## check types with mypy --strict
	@$(BIN)/mypy

format: $(GENERATED) ## rewrite the code in the project's format
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: $(GENERATED) ## measure what replication costs, then a local cluster and its peers; BENCH_ARGS='--help'
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

chaos: $(GENERATED) ## break a real cluster under load, give a verdict; CHAOS_ARGS='--help' tells more
	@$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

containers: $(GENERATED) ## build the image, run the compose deployment on a real engine, break it; CONTAINERS_ARGS='--help'
	@$(BIN)/python -m tests.containers $(CONTAINERS_ARGS)

damage: $(GENERATED) ## damage the files of a storage node in every place, see that it is noticed; DAMAGE_ARGS='--help'
	@$(BIN)/python -m tests.damage $(DAMAGE_ARGS)

simulate: $(GENERATED) ## simulate the replication layer and whole clusters under faults; SEEDS=from:to
	@$(BIN)/python -m tests.simulation.run --spread --seeds $(SEEDS)
	@$(BIN)/python -m tests.simulation.run_clusters --seeds $(SEEDS)

fuzz: $(GENERATED) ## break requests of every operation and send them; FUZZ_ARGS='--seconds 600' (--help tells more)
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

conformance: $(GENERATED) ## run the corpus; ENDPOINT=http://host:port [GRPC=host:port] or, without, on a cluster of its own
	@$(BIN)/python -m pytest -q tests/conformance $(if $(ENDPOINT),--endpoint $(ENDPOINT)) $(if $(GRPC),--grpc-endpoint $(GRPC)) $(PYTEST_ARGS)

coverage-doc: $(GENERATED) ## rewrite docs/api-coverage.md from the code and the service's model
	@$(BIN)/python docs/api_coverage.py

clean: ## remove everything that was made here, except data directories
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@rm -f proto/*_pb2.py proto/*_pb2.pyi proto/*_pb2_grpc.py
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
