# Everything that a person does with Coppice. `make` lists it.

PYTHON ?= python3
BIN := .venv/bin
PORT ?= 8501
CORES := $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
export OMP_NUM_THREADS ?= $(CORES)
export TOKENIZERS_PARALLELISM = false

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

run: .venv/ready workspace ## Open the dashboard on 127.0.0.1
	$(BIN)/python -m streamlit run app/main.py --server.port $(PORT)

demo: .venv/ready ## The same path without a browser: score, plan, prune, distill, evaluate, report
	$(BIN)/python -m core demo

check: .venv/dev ## The fast part of the tests: style, types, unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist worksteal -m "not embedded and not browser and not whole"

test: check workspace chromium ## Everything that proves that the project works
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist worksteal -m "whole and not embedded"
	$(BIN)/python -m pytest -m "embedded or browser"

bench: .venv/ready workspace ## Measure the bars of docs/benchmarks.md again
	missed=0; for name in scoring load dashboard streaming distill trainers quality plans repair; do $(BIN)/python -m bench $$name || missed=1; done; exit $$missed

bench-peers: .venv/ready ## Install the packages that `python -m bench quality` and `trainers` compare with, apart from the project's own
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .peers -r bench/peers/requirements.txt

screenshots: .venv/dev workspace chromium ## Take the pictures of docs/images from the running dashboard
	$(BIN)/python -m tests.screenshots

workspace: .venv/ready ## Bring the embedded model and texts
	@$(BIN)/python -m core fetch

chromium: ## Make sure that there is a browser for the browser tests
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium; } \
	  || { echo "The browser tests need chromium: install it with your system's package manager (Debian: apt-get install chromium)." >&2; exit 1; }

.venv/ready: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Coppice needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make run PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev: requirements-dev.txt .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean: ## Remove the virtual environment and caches; the workspace stays
	rm -rf .venv .peers .mypy_cache .pytest_cache .ruff_cache

.PHONY: help run demo check test bench bench-peers screenshots workspace chromium clean
.DEFAULT_GOAL := help
