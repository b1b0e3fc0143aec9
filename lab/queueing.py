"""Whose run is next: pure functions over what waits and who was served last.

What answers for an experiment that was measured already (a stale win on its new champion, a run that confirms) goes first,
then the researchers in turn: whoever was served longest ago, each with its oldest run. So one who queues twenty ideas delays
the others by one run, not by twenty. What no researcher waits for is last. Does not: know of devices, or interrupt what runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A queued run.

    Attributes:
        position: its place in the order of queueing.
        goes_on: its experiment was measured before, and its verdict waits for this.
        awaited: by a researcher; the noise between seeds is measured for nobody in particular.
    """

    run_id: str
    researcher: str
    position: int
    goes_on: bool = False
    awaited: bool = True


def in_turn(waiting: Sequence[Waiting], served: Mapping[str, int]) -> Iterator[Waiting]:
    """Yield the runs in the order in which they should start.

    ``served`` says in which order the researchers were served last (any numbers; a larger one is later); who is not named was
    not served lately.
    """
    last = dict(served)
    left = list(waiting)
    turn = max(last.values(), default=0)
    while left:
        first = min(left, key=lambda run: (not run.awaited, not run.goes_on, last.get(run.researcher, -1), run.position))
        left.remove(first)
        turn += 1
        last[first.researcher] = turn
        yield first
