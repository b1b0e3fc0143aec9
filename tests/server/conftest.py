"""The option that writes down what clients see, after a change that is meant."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-snapshots", action="store_true", help="write tests/server/snapshots anew instead of comparing")
