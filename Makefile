# Everything lives in .venv; a machine with Python 3.11 or newer is enough.
VENV := .venv
BIN := $(VENV)/bin
# Each process imports torch anew, so more than four gain nothing.
PARALLEL := -n auto --maxprocesses 4
DATA ?= ../shared/data
WORK ?= runs/recipes
NEIGHBOURS := .venv-neighbours
LIGHT = .venv-light-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# A folder of wheels holds a CPU build of torch, for Python 3.11 and older than the newest release.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
CPU_TORCH := --constraint constraints/cpu.txt
else
PYTHON ?= python3
CPU_TORCH := --torch-backend cpu
endif

.PHONY: help demo test test-fast test-light test-neighbours check bench recipes clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

demo: $(VENV)/.light ## Install what segmenting needs and segment the demo image
	$(BIN)/nuclens demo

test: $(VENV)/.dev ## Run the tests
	$(BIN)/pytest $(PARALLEL)

test-fast: $(VENV)/.dev ## Run the tests but the slow ones
	$(BIN)/pytest $(PARALLEL) -m 'not slow'

test-light: $(LIGHT)/bin/uv ## Run the tests without anything that trains: make test-light PYTHON=python3.13
	$(LIGHT)/bin/uv pip install --quiet --python $(LIGHT)/bin/python --editable '.[test]'
	$(LIGHT)/bin/pytest

test-neighbours: $(VENV)/.dev $(NEIGHBOURS)/.tiatoolbox ## Read our files with programs that need other versions than ours
	$(BIN)/pytest -rs tests/formats/test_annotation_store.py

check: $(VENV)/.dev ## Lint, formatting, types and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.dev ## Measure again what the pages in docs/ state
	$(BIN)/python benchmarks/dependencies.py

recipes: $(VENV)/.dev ## Train recipes with 20 TFLOP each and score them: make recipes DATA=../shared/data WORK=runs/recipes
	$(BIN)/python benchmarks/recipes.py prepare $(DATA) $(WORK)
	$(BIN)/python benchmarks/recipes.py train $(WORK) --tflop 20 --narrow
	$(BIN)/python benchmarks/recipes.py score $(WORK)
	$(BIN)/python benchmarks/recipes_page.py $(WORK)

clean: ## Remove all that the other targets made
	rm -rf $(VENV) .venv-light-* $(NEIGHBOURS) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

%/bin/uv:
	$(PYTHON) -m venv $*
	$*/bin/pip install --quiet uv

$(VENV)/.light: pyproject.toml $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable .
	@touch $@

$(VENV)/.dev: constraints/cpu.txt $(VENV)/.light
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(CPU_TORCH) --editable '.[dev]'
	@touch $@

# All that TIAToolbox's store itself imports: the whole of it would bring torch and another zarr.
$(NEIGHBOURS)/.tiatoolbox: $(NEIGHBOURS)/bin/uv
	$(NEIGHBOURS)/bin/uv pip install --quiet --python $(NEIGHBOURS)/bin/python --no-deps tiatoolbox
	$(NEIGHBOURS)/bin/uv pip install --quiet --python $(NEIGHBOURS)/bin/python numpy pandas pyyaml requests shapely typing_extensions
	@touch $@
