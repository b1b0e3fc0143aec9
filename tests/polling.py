"""Waiting for what comes true by itself, with a deadline instead of a sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_POLL_SECONDS = 0.01

FoundT = TypeVar("FoundT")


def until(look: Callable[[], FoundT | None], *, deadline_seconds: float = 30.0) -> FoundT:
    """Return the first true answer of ``look``."""
    deadline = time.monotonic() + deadline_seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(_POLL_SECONDS)
    raise AssertionError("it did not come true in time")
