# `make up` on a fresh machine sets everything up and runs the main job; `make test` runs the tests.
# Every target makes what it needs: the virtual environment, the packages, the model, the servers.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Processes that run tests side by side. Most tests wait for servers: more than cores pay.
WORKERS ?= 4
# Tests start hundreds of processes, which load compiled code three times as fast.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: up install test test-fast check docs bench eval format clean help

up: $(VENV)/base.stamp ## install what is missing, fetch the default model, start everything here
	@$(BIN)/orchestra up $(ARGS)

install: $(VENV)/base.stamp ## only install: .venv/bin/orchestra is there afterwards

test: $(VENV)/dev.stamp ## run all tests in WORKERS=4 processes (ARGS="tests/actors/bus -n0" for some, in one)
	@$(BIN)/python -m pytest -n $(WORKERS) --durations=25 $(ARGS)

# test_torch.py would import torch, which takes seconds in each worker.
FAST := -m "not server and not model and not triton and not simulation" --ignore-glob="*/test_torch.py"
test-fast: $(VENV)/dev.stamp ## run the tests that start no process, load no model and simulate nothing
	@$(BIN)/python -m pytest -n 2 $(FAST) $(ARGS)

check: $(VENV)/dev.stamp ## lint, format, types, imports, links of the docs
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.docs.links

docs: $(VENV)/dev.stamp ## write docs/reference and the examples of the docs from the code
	@$(BIN)/orchestra reference --write docs/reference
	@$(BIN)/python -m tests.docs.examples

bench: $(VENV)/dev.stamp ## side-by-side figures; takes a while (ARGS="path actors" for some of them)
	@$(BIN)/python -m tests.bench $(ARGS)

EVAL_CLUSTER ?= --up
EVAL = $(BIN)/orchestra eval --limit 20 --budget 1500 --max-tokens 64 --concurrency 4 --resume \
	$(EVAL_CLUSTER) $(ARGS)
# A folder of recorded answers, which are no part of this project: make eval ARGS=replay REPLAY=DIR
REPLAY ?= ../shared/panel

eval: $(VENV)/dev.stamp ## patterns against self-consistency on three tasks; when stopped, goes on in ./eval-*
ifeq ($(firstword $(ARGS)),replay) # panels on recorded answers: ARGS="replay [PANEL…] [--quick] [--fresh]"
	@$(BIN)/python -m tests.bench.panels --records $(REPLAY) $(wordlist 2,$(words $(ARGS)),$(ARGS))
else
	@$(EVAL) chain_sum --task min_terms=2 --task max_terms=2 --task max_digits=1
	@$(EVAL) letter_counting --task min_words=1 --task max_words=3
	@$(EVAL) syllogism
endif

format: $(VENV)/dev.stamp ## mend what ruff can mend
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean: ## remove the virtual environment and caches; models and data stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Orchestra needs Python 3.11 or 3.12, and $(PYTHON) is %d.%d: make PYTHON=python3.12 …" % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] < (3, 13) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/base.stamp: pyproject.toml | $(VENV)/bin/python
	@echo "installing Orchestra into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[onnx]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(VENV)/bin/python
	@echo "installing Orchestra, its development tools and Triton into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,triton]'
	@touch $@ $(VENV)/base.stamp
