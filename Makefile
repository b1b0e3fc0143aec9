# Three targets for users (setup, research, test), the others for developers. Each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup research test test-all attack-table attack-figures check format clean

help:
	@echo "make setup      make .venv and install the project into it"
	@echo "make research   run a short real research session in labs/demo, on this machine"
	@echo "make test       everything that CI runs"
	@echo "make test-all   every attack of tests/attacks on every rung, as this user and as an ordinary one"
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

test-all: setup
	$(BIN)/python tests/attacks/everywhere.py $(ATTACKS)

# ATTACKS holds arguments, such as --python PATH for an ordinary user that cannot enter root's home.
# The same, written down in docs/ATTACKS.md; attack-figures measures what only costs a cheat something (minutes; corpus wheels).
attack-table: setup
	$(BIN)/python tests/attacks/everywhere.py --table docs/ATTACKS.md $(ATTACKS)

attack-figures: setup
	$(BIN)/python tests/attacks/pretrain.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
