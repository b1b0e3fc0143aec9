"""A session beside the built-in researcher's: who is ahead after the same effort. Pure functions over records.

Effort is counted in experiments that got an answer, and in device seconds of the runs that their decisions waited for; what a
lab measured while it was idle, or a human asked for later, costs nobody. Guarantees: two searches are compared at the effort of
the one that spent less, and judged with the noise between seeds. Does not: say that two searches which began from different
files had the same chance (`Rival.same_start` tells), or correct for a search that knew what the other had tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .digest import awaited_runs, compared
from .noise import Noise
from .policy import Judgement
from .records import Experiment, Run, Session
from .states import NO_ANSWER, Decision

AUTOPILOT = "autopilot"  # whom the record names for `autoresearch research`; the strategy stands behind it in brackets

Unit = Literal["experiments", "device seconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a search stands after one more answer: what it has spent, and the best that it has kept."""

    experiments: int
    device_seconds: float
    best: Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """The best of two searches once each had spent ``spent``; negative ``judgement.delta``: ``own`` is ahead."""

    unit: Unit
    spent: float
    own: Experiment
    other: Experiment
    judgement: Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another session, and how the one that is reported compares with it.

    Attributes:
        researchers: whom its record names.
        steps: its search, the oldest first; at least one.
        same_start: whether both began from the same train.py.
        leads: at equal effort; a unit in which one of them has no number that early is left out.
    """

    session: Session
    researchers: str
    steps: Sequence[Step]
    same_start: bool
    leads: Sequence[Lead]


def is_autopilot(researcher: str) -> bool:
    """True for the built-in researcher, whatever its strategy; nobody else gets such a name (`researchers`)."""
    return researcher == AUTOPILOT or researcher.startswith(f"{AUTOPILOT} (")


def search_steps(experiments: Sequence[Experiment], runs: Mapping[str, Sequence[Run]]) -> list[Step]:
    """Return a step for each answer of a session from the first kept number on; ``experiments`` are the oldest first."""
    steps: list[Step] = []
    count, seconds = 0, 0.0
    best: Experiment | None = None
    for experiment in experiments:
        if experiment.verdict is None:
            continue
        results = [run.result for run in awaited_runs(experiment, runs)]
        seconds += sum(result.total_seconds for result in results if result is not None)
        if experiment.verdict in NO_ANSWER:  # its time was spent all the same
            continue
        count += 1
        if experiment.decision is Decision.KEPT and experiment.val_bpb is not None:
            best = experiment if best is None or best.val_bpb is None or experiment.val_bpb < best.val_bpb else best
        if best is not None:
            steps.append(Step(experiments=count, device_seconds=seconds, best=best))
    return steps


def leads(own: Sequence[Step], other: Sequence[Step], runs: Mapping[str, Sequence[Run]], noise: Noise) -> list[Lead]:
    """Compare two searches at equal effort, in each unit; ``runs`` has those of both."""
    spent_in: tuple[tuple[Unit, Callable[[Step], float]], ...] = (
        ("experiments", lambda step: step.experiments),
        ("device seconds", lambda step: step.device_seconds),
    )
    found: list[Lead] = []
    for unit, spent_by in spent_in:
        if not own or not other:
            continue
        spent = min(spent_by(own[-1]), spent_by(other[-1]))
        ours, theirs = (
            next((step.best for step in reversed(steps) if spent_by(step) <= spent), None) for steps in (own, other)
        )
        if ours is not None and theirs is not None:
            judgement = compared(ours, theirs, runs, noise)
            found.append(Lead(unit=unit, spent=spent, own=ours, other=theirs, judgement=judgement))
    return found
