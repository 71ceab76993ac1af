# All commands for people. `make demo` and `make test` need only Python 3.11, a C compiler and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := $(wildcard mapstore/*.pyx mapstore/*.pxi cdc/mysql/*.pyx cdc/mysql/*.pxi)

# Our compiled code under AddressSanitizer and UndefinedBehaviorSanitizer. Python itself is not instrumented: its own
# allocator is off, so that the sanitizer sees every buffer; leaks at exit are Python's and not reported.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
SANITIZED := LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc
FUZZ := build/fuzz
FUZZ_EVENTS ?= 1000000
FUZZ_MINUTES ?= 10
FUZZ_CONVERSATIONS ?= 5000
FUZZ_SEED ?= 1
ROUNDS ?= 50

.PHONY: help demo test lint types format sanitize fuzz model soak rounds clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(READY)  ## migrate a live table on a throwaway server: copy, kill -9, resume, compare, measure
	$(BIN)/cdc demo

test: lint types  ## lint, types, and all tests on real servers
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)  ## format the code and fix lint findings
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sanitize: $(READY)  ## the map's tests under ASan and UBSan
	MAPSTORE_CFLAGS="$(SANITIZE)" $(SANITIZED) \
	    $(BIN)/python -m pytest -q -p no:cacheprovider --capture=sys --timeout=1800 tests/mapstore

# Built apart from the installed package, which stays unchanged.
fuzz: $(READY)  ## fuzz the binlog decoder (FUZZ_EVENTS, FUZZ_SEED) and the row reader (FUZZ_MINUTES) under ASan and UBSan; replay a hostile server (FUZZ_CONVERSATIONS)
	rm -rf $(FUZZ)
	mkdir -p $(FUZZ)/source
	git ls-files -z cdc mapstore setup.py pyproject.toml README.md LICENSE | xargs -0 cp --parents --target-directory $(FUZZ)/source
	CFLAGS="-O1 -g $(SANITIZE)" \
	    $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(FUZZ)/installed ./$(FUZZ)/source
	$(SANITIZED) PYTHONPATH=$(FUZZ)/installed:. $(BIN)/python -P -m tests.events.fuzz $(FUZZ_EVENTS) $(FUZZ_SEED)
	$(SANITIZED) PYTHONPATH=$(FUZZ)/installed:. $(BIN)/python -P -m tests.fuzz_rows --minutes $(FUZZ_MINUTES)
	CDC_HOSTILE_CONVERSATIONS=$(FUZZ_CONVERSATIONS) $(BIN)/pytest -q -s tests/adversity/test_hostile_server.py

model: $(READY)  ## check the model of the hand-over with spin, complete and with each part left out
	$(BIN)/python -m tests.promela

soak: $(READY)  ## long random tests: tables, copies under load, kills, hostile settings, schema changes; a failed test prints its seed
	CDC_PROPERTY_VALUES=500000 $(BIN)/pytest -q -s tests/mysql/test_rows_property.py
	CDC_LOAD_ROUNDS=30 $(BIN)/pytest -q -s tests/mysql/test_handover_load.py
	CDC_SOAK_KILLS=200 $(BIN)/pytest -q -s tests/adversity/test_crashes.py
	CDC_VARIABLES_TOGETHER=1 CDC_VARIABLES_ROUNDS=100 $(BIN)/pytest -q -s tests/mysql/test_session.py
	CDC_CHANGES_ROUNDS=100 $(BIN)/pytest -q -s tests/adversity/test_random_changes.py
	CDC_SESSIONS_STATEMENTS=20000 $(BIN)/pytest -q -s tests/adversity/test_foreign_sessions.py

rounds: $(READY)  ## repeat the tests that wait for another process, ROUNDS times each, in changing orders
	$(BIN)/pytest -q -m waits --rounds $(ROUNDS)

clean:  ## remove built files; servers' packages stay in the cache folder
	rm -rf $(VENV) build *.egg-info mapstore/_map.c mapstore/*.so cdc/mysql/*.c cdc/mysql/*.so

$(READY): pyproject.toml setup.py $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than Python 3.11: name a newer one with make PYTHON=..."; exit 1; }
	@command -v $${CC:-cc} >/dev/null || \
	    { echo "The C compiler $${CC:-cc} is missing, and mapstore is compiled: install it (Debian: apt-get install gcc libc6-dev)."; exit 1; }
	@echo "Installing and compiling into $(VENV), about two minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@
