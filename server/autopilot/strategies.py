"""The built-in strategies, by the name that the command line takes."""

from __future__ import annotations

import secrets
import shlex
import sys
from collections.abc import Sequence

from ...lab.errors import NotReadyError
from .ladder import Ladder
from .random_search import RandomSearch
from .strategy import Strategy

STRATEGIES = ("ladder", "random", "tpe")
SEEDED = ("random", "tpe")  # the others have nothing to draw

_SEEDS = 1_000_000  # short enough to be typed again


def draw_seed() -> int:
    """Return a fresh seed, for who did not name one."""
    return secrets.randbelow(_SEEDS)


def require_installed(name: str) -> None:
    """Raise `NotReadyError`, which says what to install, where a strategy needs what is not there."""
    if name != "tpe":
        return
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise NotReadyError(
            f"The strategy tpe needs Optuna, which cannot be imported here ({error}). Run: "
            f"{shlex.quote(sys.executable)} -m pip install 'optuna>=5,<6' (the extra autoresearch-mcp[tpe] brings it), then "
            "the same command again. The strategies ladder and random need nothing more."
        ) from error


def make_strategy(name: str, *, seed: int | None, vocab_sizes: Sequence[int]) -> Strategy:
    """Start a strategy afresh.

    Args:
        name: one of `STRATEGIES`.
        seed: for one of `SEEDED`; None for the others.
        vocab_sizes: the vocabularies of the lab's corpus, in tokens.

    Raises:
        NotReadyError: the strategy needs what is not installed.
    """
    if name not in SEEDED:
        return Ladder()
    if seed is None:
        raise ValueError(f"the strategy {name} needs a seed")
    if name == "random":
        return RandomSearch(seed, vocab_sizes=vocab_sizes)
    require_installed(name)
    from .tpe import Tpe

    return Tpe(seed, vocab_sizes=vocab_sizes)
