# Everything a person runs. `make demo` and `make test` need nothing but Python 3.11, a C compiler and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := $(wildcard mapstore/*.pyx mapstore/*.pxi cdc/mysql/*.pyx cdc/mysql/*.pxi)

.PHONY: help demo test lint types check format clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(READY)  ## migrate a live table on a throwaway server: copy, kill -9, resume, compare
	$(BIN)/cdc demo

test: lint types  ## lint, types, and all tests on real servers
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)  ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what was built; servers' packages stay in the cache folder
	rm -rf $(VENV) build *.egg-info mapstore/_map.c mapstore/*.so cdc/mysql/*.c cdc/mysql/*.so

$(READY): pyproject.toml setup.py $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than Python 3.11: name a newer one with make PYTHON=..."; exit 1; }
	@command -v $${CC:-cc} >/dev/null || \
	    { echo "There is no C compiler ($${CC:-cc}): install one (Debian: apt-get install gcc libc6-dev), mapstore is compiled."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@


include mapstore.mk codec.mk rows.mk
