# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo

.PHONY: help install check test arm64 demo clean

help:
	@echo "make demo       search networks for handwritten digits, measured on this machine, and write the best as a project"
	@echo "make test       run the tests"
	@echo "make check      formatting, lint, types, dependency rules, stub drift, the files for boards"
	@echo "make arm64      install, use and remove the agent in an emulated arm64 Debian; as root, some minutes"
	@echo "make install    make $(VENV) with host, agent and development tools"
	@echo "make clean      remove what the others made"

install: $(STAMP)

$(STAMP): pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing EdgeNAS and PyTorch into $(VENV); some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[host,dev]'
	@touch $@

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PYTHON=$(PYTHON) protos/generate.sh --check
	deploy/check-unit.sh

# Two files at a time, each by one process: most of a test's time an agent waits or a single thread works. In their order:
# the files with fewest tests, which would come last, take longest.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadfile --no-loadscope-reorder

arm64: $(STAMP)
	tests/arm64/run.sh

# One thread, --keep-flagged, no waits, no retries and rough figures: whoever tries the demo does other things meanwhile,
# and wants to see it end.
demo: $(STAMP)
	rm -rf $(DEMO)
	EDGENAS_HOME=$(CURDIR)/$(DEMO)/home EDGENAS_LOCAL_AGENT='--retries 0 --gate-limit-s 0 --measure-limit-s 2' \
		$(BIN)/edgenas search --dataset digits --device local --budget 24 --epochs 5 --threads 1 --keep-flagged
	EDGENAS_HOME=$(CURDIR)/$(DEMO)/home $(BIN)/edgenas generate last --out $(DEMO)/project
	@echo "look at the run: EDGENAS_HOME=$(DEMO)/home $(BIN)/edgenas front last"
	@echo "now try: cd $(DEMO)/project && ../../$(BIN)/python train.py --epochs 1"

clean:
	rm -rf $(VENV) .venv-protos $(DEMO) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
