"""What a process can be asked for, by name: the tools, and what only people ask for."""

from collections.abc import Callable, Mapping
from typing import Any

from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.tools.catalog import TOOLS


def _open_test(lab: Lab) -> None:
    from autoresearch_mcp.server.cli.open_test import open_test_split  # here: no other process waits for it

    open_test_split(lab)


ASKED: Mapping[str, Callable[..., Any]] = {**{tool.name: tool.function for tool in TOOLS}, "open_test": _open_test}
