# Three targets for users (setup, research, test), the others for developers. Each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLIENTS := tests/conformance/node_modules/.installed

.PHONY: help setup research bench test clients test-all attack-table attack-figures kill-matrix crowd soak check format clean

help:
	@echo "make setup      make .venv and install the project into it"
	@echo "make research   run a short real research session in labs/demo, on this machine"
	@echo "make bench      our train.py against a port of upstream's recipe; writes docs/BENCHMARKS.md (an hour and a half on two cores)"
	@echo "make test       everything that CI runs; without make clients, the tests of the official MCP clients are skipped"
	@echo "make clients    install the official MCP Inspector and conformance suite for make test (Node.js with npm)"
	@echo "make test-all   every attack of tests/attacks on every rung, as this user and as an ordinary one"
	@echo "make kill-matrix   a process killed at every labelled point; writes docs/RECOVERY.md"
	@echo "make check      lint, types, import rules and the fast tests"

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=23.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	mkdir -p $(VENV)/typing && ln -sfn "$(CURDIR)" $(VENV)/typing/autoresearch_mcp
	touch $(STAMP)

research: setup
	$(BIN)/autoresearch research

# Our recipe against a port of upstream's, by turns (corpus wheels). BENCH holds options, such as --profile gpu.
bench: setup
	$(BIN)/autoresearch bench --seconds 60 --seconds 300 --repeats 3 --json bench-results.json --markdown docs/BENCHMARKS.md $(BENCH)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m "not slow" -n 2

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 2

# The official clients of MCP, pinned with their hashes; no script of theirs runs while they are installed.
clients: $(CLIENTS)

$(CLIENTS): tests/conformance/package.json tests/conformance/package-lock.json
	cd tests/conformance && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $(CLIENTS)

test-all: setup
	$(BIN)/python tests/attacks/everywhere.py $(ATTACKS)

# ATTACKS holds arguments, such as --python PATH for an ordinary user that cannot enter root's home.
# The same, written down in docs/ATTACKS.md; attack-figures measures what only costs a cheat something (minutes; corpus wheels).
attack-table: setup
	$(BIN)/python tests/attacks/everywhere.py --table docs/ATTACKS.md $(ATTACKS)

attack-figures: setup
	$(BIN)/python tests/attacks/pretrain.py

# Every labelled point at which a process is killed, written down in docs/RECOVERY.md.
kill-matrix: setup
	$(BIN)/pytest -q tests/kills --kill-points=all --kill-cells=$(VENV)/kill-cells.json -n 2
	$(BIN)/python -m tests.kills.table $(VENV)/kill-cells.json docs/RECOVERY.md

# Eight clients of one server, 200 trained experiments (half an hour on two cores; corpus wheels).
crowd: setup
	$(BIN)/python -m tests.crowd.crowd

# 2,000 experiments that train nothing, and what the server needs meanwhile; prints the table of docs/RECOVERY.md.
soak: setup
	$(BIN)/python -m tests.nights.soak --experiments 2000 --output $(VENV)/soak

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info tests/conformance/node_modules
