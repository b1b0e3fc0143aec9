"""What a strategy is: it turns the champion's source into the next candidate. It sees no file, no clock and no server."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

_CHANGE = re.compile(r"\b(?P<name>[A-Z][A-Z0-9_]*) (?P<old>\S+) -> (?P<new>[^\s,;]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One idea, ready to be run: the whole new train.py, and the words that go with it."""

    description: str
    hypothesis: str
    source: str


# A change without its direction: going back to a value that a change came from is no new idea.
Change = tuple[str, frozenset[str]]


def changes_in(description: str) -> Set[Change]:
    """Return the changes that a description such as ``MATRIX_LR 0.02 -> 0.03`` speaks of."""
    return {(found["name"], frozenset((found["old"], found["new"]))) for found in _CHANGE.finditer(description)}


class Strategy(Protocol):
    """A source of ideas. It may remember what it proposed; `tried` adds what earlier sessions and other researchers did."""

    def propose(self, source: str, *, profile: str, tried: Set[Change]) -> Proposal | None:
        """Return the next candidate built on ``source``, the champion's train.py; None when there is no further idea."""
        ...
