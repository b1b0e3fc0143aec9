# Three targets for users (setup, research, test) and one for developers (check). Each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup research test check format clean

help:
	@echo "make setup      make .venv and install the project into it"
	@echo "make research   run a short real research session in labs/demo, on this machine"
	@echo "make test       everything that CI runs"
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

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
