"""The built-in strategies, by the name that the command line takes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from .ladder import Ladder
from .random_search import RandomSearch
from .strategy import Strategy

STRATEGIES = ("ladder", "random")
SEEDED = ("random",)  # the others have nothing to draw

_SEEDS = 1_000_000  # short enough to be typed again


def draw_seed() -> int:
    """Return a fresh seed, for who did not name one."""
    return secrets.randbelow(_SEEDS)


def make_strategy(name: str, *, seed: int | None, vocab_sizes: Sequence[int]) -> Strategy:
    """Start a strategy afresh.

    Args:
        name: one of `STRATEGIES`.
        seed: for one of `SEEDED`; None for the others.
        vocab_sizes: the vocabularies of the lab's corpus, in tokens.
    """
    if name not in SEEDED:
        return Ladder()
    if seed is None:
        raise ValueError(f"the strategy {name} needs a seed")
    return RandomSearch(seed, vocab_sizes=vocab_sizes)
