"""The steps of `lab.referee.windows`, all taken at once."""

from __future__ import annotations

from typing import Any

from autoresearch_mcp.lab.referee import windows
from autoresearch_mcp.lab.referee.windows import Rows, Steps


def draw_windows(*texts: Any, **choices: Any) -> list[tuple[int, int]]:
    return _finished(windows.draw_windows(*texts, **choices))


def encode_rows(*texts: Any, **choices: Any) -> Rows:
    return _finished(windows.encode_rows(*texts, **choices))


def _finished(steps: Steps[Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
