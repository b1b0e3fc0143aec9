"""Options and fixtures of the attacks: on which rungs they run, and where the outcome of each cell goes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_CELL = "attack_cell"
_cells: list[dict[str, object]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rungs", default="best", help='"best", "all", or levels such as "landlock,process"')
    parser.addoption("--attack-cells", default=None, help="write what became of each attack on each rung to this JSON file")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _cells.extend(value for name, value in report.user_properties if name == _CELL and report.when == "teardown")  # type: ignore[misc]


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("attack_cells", default=None)
    if path is not None and not hasattr(session.config, "workerinput"):
        Path(path).write_text(json.dumps({"user_id": os.geteuid(), "cells": _cells}, indent=1))


@pytest.fixture(scope="session", autouse=True)
def _api_key() -> Iterator[None]:
    """The server of these tests has an API key in its environment, as a client's server may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTACK_API_KEY", f"sk-{os.urandom(16).hex()}")
        yield
