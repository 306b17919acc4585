# `make serve` and `make test` install all they need into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := torch,local,model,dev

.PHONY: serve test test-all lint check format bench clean help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

serve: $(VENV)/.installed  ## a whole local cluster on a real model
	@exec $(BIN)/baton up

test: $(VENV)/.installed  ## all tests that need no Docker and no accelerator
	$(BIN)/pytest -m "not long and not docker and not gpu"

test-all: $(VENV)/.installed  ## the long suites too, and Docker's where an engine runs
	$(BIN)/pytest -m "not gpu"

lint: $(VENV)/.installed  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## what CI runs

format: $(VENV)/.installed  ## put the code in shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed  ## every benchmark, each against a baseline of the same run
	$(BIN)/python -m bench

clean:  ## remove what make made
	rm -rf $(VENV) build *.egg-info
