# Everything runs in the virtual environment .venv, which is created at the first call and synced when a lock file changes.
# Requires make, and Python 3.11 or newer with venv and pip. `make PYTHON=python3.12 demo` selects another Python.

PYTHON ?= python3
# Container images often set it; without .pyc files every process would compile all modules at each start.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# Outside the environment's site-packages, since a sync removes packages that the lock file does not list.
UV := .venv/uv/bin/uv
PIP := $(BIN)/python -m pip --disable-pip-version-check
stamp = .venv/$(1)-$(shell cksum < $(2) | tr ' ' '-')
DEVELOPMENT := $(call stamp,development,tests/requirements.lock)
# The development environment includes the runtime dependencies.
RUNTIME := $(or $(wildcard $(DEVELOPMENT)),$(call stamp,runtime,requirements.lock))
PROCESSORS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

# One more than processors, since end-to-end tests mostly wait for other processes.
TESTERS := $(shell expr $(PROCESSORS) + 1)

.PHONY: help demo up test check architecture bench torture migration lock clean

help:
	@echo 'make demo     start with a sample company, 2,000 mails and a simulated audience'
	@echo 'make up       start without sample data'
	@echo 'make test     run all tests, on SQLite and on PostgreSQL'
	@echo 'make check    check format, lint, types and import rules'
	@echo 'make architecture   rewrite the generated sections of ARCHITECTURE.md'
	@echo 'make bench    run the benchmarks and compare them with their limits'
	@echo 'make torture  repeat the crash and fault-injection tests many times'
	@echo 'make migration m="what changes"   draft a migration from the models'
	@echo 'make lock     update the lock files of the dependencies'
	@echo 'make clean    delete .venv and var, the data included'

demo: $(RUNTIME)
	@exec $(BIN)/kampania demo $(ARGS)

up: $(RUNTIME)
	@exec $(BIN)/kampania up $(ARGS)

test: $(DEVELOPMENT)
	@$(BIN)/python -m pytest -n $(TESTERS) $(ARGS)

check: $(DEVELOPMENT)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

architecture: $(DEVELOPMENT)
	@$(BIN)/python -m tests.architecture.architecture_document

bench: $(DEVELOPMENT)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

torture: $(DEVELOPMENT)
	@TORTURE=50 $(BIN)/python -m pytest -n $(PROCESSORS) --timeout 3600 tests/delivery/test_crash_safety.py \
	  tests/delivery/test_crash_safety_processes.py tests/delivery/test_chaos.py \
	  tests/tracking/spool/test_writer.py tests/tracking/test_crash_safety.py tests/tracking/test_crash_safety_processes.py tests/tracking/endpoints/test_fuzz.py tests/architecture/test_any_input.py tests/e2e/test_outages.py $(ARGS)

migration: $(DEVELOPMENT)
	@var=$$(mktemp -d) && trap 'rm -rf "$$var"' EXIT && export KAMPANIA_VAR="$$var" DATABASE_URL= && \
	  $(BIN)/kampania migrate && $(BIN)/kampania makemigration "$(or $(m),$(error describe the change: make migration m="…"))"
	@$(BIN)/ruff format --quiet campaigns/migrations/versions
	@$(BIN)/ruff check --quiet --fix campaigns/migrations/versions

lock: $(DEVELOPMENT)
	$(UV) pip compile $(COMPILE) pyproject.toml -o requirements.lock
	$(UV) pip compile $(COMPILE) --group dev pyproject.toml -o tests/requirements.lock
COMPILE := --universal --generate-hashes --no-emit-index-url --no-header --quiet --python-version 3.11

clean:
	rm -rf .venv var

$(RUNTIME): LOCK := requirements.lock
$(DEVELOPMENT): LOCK := tests/requirements.lock
$(sort $(RUNTIME) $(DEVELOPMENT)):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'Kampania needs Python 3.11 or newer, and $(PYTHON) is '"$$($(PYTHON) -V 2>&1)"'.'; \
	  echo 'Select another one: make PYTHON=python3.12 $(MAKECMDGOALS)'; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo '$(PYTHON) lacks venv or pip. On Debian and Ubuntu: sudo apt install python3-venv'; exit 1; } >&2
	@test -x $(BIN)/python || { echo 'Creating .venv …'; $(PYTHON) -m venv .venv; }
	@echo 'Installing the packages of $(LOCK) …'
	@$(UV) --version >/dev/null 2>&1 || $(PIP) install --quiet --target .venv/uv uv 2>/dev/null || \
	  echo 'uv is not available here; pip takes a little longer.'
	@if $(UV) --version >/dev/null 2>&1; then \
	  export VIRTUAL_ENV="$(CURDIR)/.venv"; \
	  $(UV) pip sync --quiet --require-hashes $(LOCK) && $(UV) pip install --quiet --no-deps --editable .; \
	else \
	  $(PIP) install --quiet --require-hashes -r $(LOCK) && $(PIP) install --quiet --no-deps --editable .; \
	fi
	@rm -f .venv/runtime-* .venv/development-* && touch $@
