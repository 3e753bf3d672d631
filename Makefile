# `make demo` and `make test` set themselves up: a virtual environment in .venv, the tested versions, torch first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-slow lint bench trl112 clean

demo: $(VENV)/.demo
	$(BIN)/rlhf demo

# Two at a time, each on one thread; the tests of a file share what they make, so they stay together, in the order of
# tests/conftest.py.
test: $(VENV)/.test lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -q --run-slow

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.throughput

# TRL 1.12, the last with a PPOTrainer, for the benchmark alone: its versions need not fit beside ours.
trl112: .venv-trl112/.done

.venv-trl112/.done: constraints.txt
	$(PYTHON) -m venv .venv-trl112
	.venv-trl112/bin/python -m pip install -q -c constraints.txt torch
	sed '/^trl==/d' constraints.txt > .venv-trl112/constraints.txt
	.venv-trl112/bin/python -m pip install -q -c .venv-trl112/constraints.txt 'trl==1.12.*' psutil
	touch $@

# torch first and alone: its version decides which build, and how many gigabytes, everything after it pulls in.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[feedback,report]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) .venv-trl112 build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
