# Everything a user or a maintainer types. Needs python3 >= 3.11 and make; the rest goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
REPORT_DIR ?= report
WORKERS ?= 2
NEWEST_PYTHON ?= $(firstword $(foreach name,3.14 3.13 3.12,$(shell python$(name) -c "import sys; print(sys.executable)" 2>/dev/null)))

.PHONY: help demo cases test test-fast test-newest lint types format docs dist lock clean

help:
	@echo "make demo       diagnose two sick CNNs and a healthy one on bundled real images"
	@echo "make cases      reproduce the five reference cases, fault by fault: a page for each run, and a gallery"
	@echo "make test       run every test          make test-fast   leave out the slow ones"
	@echo "make test-newest  run every test on the newest jax, if there is a Python 3.12 or newer"
	@echo "make lint       check style             make types       check types"
	@echo "make format     rewrite to style        make lock        resolve the dependencies anew"
	@echo "make docs       build the site          make dist       build wheel and sdist"
	@echo "make clean      remove what was built"

$(VENV)/.user: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[report,images]"
	@touch $@

$(VENV)/.dev: $(VENV)/.user
	$(PIP) --editable ".[report,images,dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.user
	$(PIP) --editable ".[report,images,docs]"
	@touch $@

demo: $(VENV)/.user
	$(BIN)/python -m experiments.demo --report_dir=$(REPORT_DIR)

cases: $(VENV)/.user
	$(BIN)/python -m experiments.gallery --pages_dir=$(REPORT_DIR)/cases $(if $(DOCS),--docs=$(DOCS))

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-newest:
	@if [ -z "$(NEWEST_PYTHON)" ]; then \
	  echo "test-newest: nothing to run, there is no python3.12, python3.13 or python3.14; NEWEST_PYTHON=... names one"; \
	else \
	  $(MAKE) test PYTHON="$(NEWEST_PYTHON)" VENV=.venv-newest && \
	  .venv-newest/bin/python -c "import jax, sys; print('tested with jax', jax.__version__, 'on Python', sys.version)"; \
	fi

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the site is in build/site/index.html"

dist: $(VENV)/.dev
	rm -rf dist build/lib
	$(BIN)/python -m build

lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --fork-strategy requires-python \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache $(REPORT_DIR)
