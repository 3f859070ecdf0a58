# Everything here needs Python 3.11 or newer, make and a way to the package registries; `make` alone lists the targets.
# Arguments of the commands go into ARGS: make run ARGS="--edges 2 --sessions 3".

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run test unit lint format schemas bench chaos compiled lock clean distclean

help: ## Show this list.
	@$(PYTHON) -c 'import re; [print("make %-10s %s" % row) for row in re.findall(r"(?m)^([a-z]+):.*## (.+)", open("Makefile").read())]'

run: compiled ## Run the whole system on this machine, with a fleet charging (ARGS: see busbar up --help).
	@$(BIN)/python -m busbar up $(ARGS)

test: $(READY) ## Run all tests and checks, real Kafka and PostgreSQL included (ARGS go to pytest).
	$(BIN)/python -m pytest $(ARGS)

unit: $(READY) ## Run the tests that need no servers.
	$(BIN)/python -m pytest tests/unit tests/contract $(ARGS)

lint: $(READY) ## Check style and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY) ## Bring the code into its format.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

schemas: $(READY) ## Write the Avro schemas, their ids, examples and pages anew.
	$(BIN)/python -m busbar.avro.generate

bench: compiled ## Measure this machine (ARGS: see python -m benchmarks.load.run --help).
	$(BIN)/python -m benchmarks.load.run $(ARGS)

chaos: $(READY) ## Break things under load for long, and count (ARGS: see python -m tests.chaos --help).
	$(BIN)/python -m tests.chaos $(ARGS)

compiled: $(READY) ## Compile the hot modules where there is a C compiler: faster, and never needed.
	@$(BIN)/python -m busbar.compiled.build

lock: $(READY) ## Resolve the dependencies anew, into both lock files (ARGS: --upgrade).
	$(BIN)/python -m pip install --quiet --upgrade --target build/uv uv
	build/uv/bin/uv pip compile $(COMPILE) $(ARGS) pyproject.toml -o requirements.lock
	build/uv/bin/uv pip compile $(COMPILE) $(ARGS) --extra local --extra dev pyproject.toml -o requirements-dev.lock

COMPILE := --quiet --universal --generate-hashes --no-emit-index-url --no-header

clean: ## Remove the data, logs and secrets of `make run`.
	@$(PYTHON) -m busbar.local.clean .busbar

distclean: clean ## Remove whatever was not checked out: the virtual environment and all caches, too.
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The virtual environment: exactly what the lock names, and this folder on its path.
$(READY): requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Busbar needs Python 3.11 or newer and $(PYTHON) is " + sys.version.split()[0] + ": name another, such as make PYTHON=python3.13")'
	@$(BIN)/python -c '' 2>/dev/null || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(BIN)/python -m ensurepip >/dev/null
	@echo "installing the locked packages into $(VENV) (once, about a minute)"
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/python -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "busbar.pth").write_text(f"{pathlib.Path.cwd()}\n")'
	@printf '%s\n' '#!/bin/sh' 'exec "$$(dirname "$$0")/python" -m busbar "$$@"' > $(BIN)/busbar
	@chmod +x $(BIN)/busbar
	@touch $@
