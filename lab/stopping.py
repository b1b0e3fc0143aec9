"""When a session has done enough: the rules of ``[stop]``, as a pure function over what happened.

A rule that is met closes the session to new experiments; what runs, ends, and can be kept or reverted. Does not: end anything
by itself, or judge whether the goal was worth it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .config import StopConfig
from .states import NO_EVIDENCE, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What the stop rules look at.

    Attributes:
        experiments: of the session, those that run or have an answer, or were ended early.
        crashes_in_a_row: as the function of that name counts them.
        hours: since the session began.
        best_val_bpb: of the champion; None before the baseline has a number.
    """

    experiments: int
    crashes_in_a_row: int
    hours: float
    best_val_bpb: float | None


def stop_reason(rules: StopConfig, facts: SessionFacts) -> str | None:
    """Return which rule is met, with its numbers and its key, or None while research may go on."""
    if rules.target is not None and facts.best_val_bpb is not None and facts.best_val_bpb <= rules.target:
        return f"val_bpb {facts.best_val_bpb:.4f} has reached the target of {rules.target:g} ([stop] target)"
    if rules.experiments and facts.experiments >= rules.experiments:
        return f"{facts.experiments} of {rules.experiments} experiments are done or running ([stop] experiments)"
    if rules.hours and facts.hours >= rules.hours:
        return f"it began {facts.hours:.1f} hours ago, and {rules.hours:g} are allowed ([stop] hours)"
    crashes = facts.crashes_in_a_row
    if rules.crashes_in_a_row and crashes >= rules.crashes_in_a_row:
        return f"{crashes} experiments in a row failed ([stop] crashes_in_a_row = {rules.crashes_in_a_row})"
    return None


def crashes_in_a_row(newest_first: Iterable[Verdict | None]) -> int:
    """Return how many of the last finished experiments failed, counted back to the last one that has a number.

    ``newest_first`` are the verdicts of the session's experiments since its crashes were forgiven last (`autoresearch resume`),
    by when they were recorded; None: not judged yet. None is read beyond the first that has a number.
    """
    crashes = 0
    for verdict in newest_first:
        if verdict is None or verdict in NO_EVIDENCE:
            continue
        if verdict.has_number():
            break
        crashes += 1
    return crashes
