"""The built-in strategies, by the name that the command line takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .ladder import Ladder
from .strategy import Strategy

STRATEGIES: Mapping[str, Callable[[], Strategy]] = {"ladder": Ladder}  # each call starts one afresh
