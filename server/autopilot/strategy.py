"""What a strategy is: it turns the champion's source into the next candidate. It sees no file, no clock and no server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from .edits import Number

_CHANGE = re.compile(r"\b(?P<name>[A-Z][A-Z0-9_]*) (?P<old>\S+) -> (?P<new>[^\s,;]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One idea, ready to be run: the whole new train.py, and the words that go with it."""

    description: str
    hypothesis: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What came of an experiment: the constants of its train.py, as far as they are known, and its certified number.

    ``val_bpb`` is in bits per byte; None: it ran and got none, as after a crash.
    """

    values: Mapping[str, Number]
    val_bpb: float | None


# A change without its direction: going back to a value that a change came from is no new idea.
Change = tuple[str, frozenset[str]]


def changes_in(description: str) -> Set[Change]:
    """Return the changes that a description such as ``MATRIX_LR 0.02 -> 0.03`` speaks of."""
    return {(found["name"], frozenset((found["old"], found["new"]))) for found in _CHANGE.finditer(description)}


class Strategy(Protocol):
    """A source of ideas. It may remember what it proposed; the record adds what earlier sessions and other researchers did."""

    @property
    def learns(self) -> bool:
        """Whether it looks at `observed`; nobody reads the record for one that does not."""
        ...

    def propose(
        self, source: str, *, profile: str, tried: Set[Change], observed: Sequence[Observation] = ()
    ) -> Proposal | None:
        """Return the next candidate; None when there is no further idea.

        Args:
            source: the champion's train.py, which it builds on.
            profile: the lab's, whose arm of a constant counts.
            tried: the changes that are no new idea.
            observed: what came of the experiments so far, the oldest first.
        """
        ...
