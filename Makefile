# `make serve` and `make test` install all they need into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: serve test test-all lint check format faults bench clean help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.serve: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once)"
	@$(INSTALL) ".[torch,local,model,client]"
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "installing what tests need into $(VENV) (once)"
	@$(INSTALL) ".[torch,local,model,client,dev]"
	@touch $@

serve: $(VENV)/.serve  ## a whole local cluster on a real model
	@exec $(BIN)/baton up

test: $(VENV)/.dev  ## all tests that need no Docker and no accelerator
	$(BIN)/pytest -m "not long and not docker and not gpu"

test-all: $(VENV)/.dev  ## the long suites too, and Docker's where an engine runs
	$(BIN)/pytest -m "not gpu"

lint: $(VENV)/.dev  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## what CI runs

format: $(VENV)/.dev  ## put the code in shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

faults: $(VENV)/.dev  ## hurts a cluster in every way, again and again; the table of docs/reliability.md
	$(BIN)/python -m tests.faults.report

bench: $(VENV)/.dev  ## every benchmark, each against a baseline of the same run
	$(BIN)/python -m bench

clean:  ## remove what make made
	rm -rf $(VENV) build *.egg-info
