"""Which of an experiment's runs its verdict rests on, and whether it needs one more: pure functions over their results.

A run that did not have its device to itself is *contended*, one whose pins did not hold is *tainted* (`RunResult`). The verdict
rests on the runs that were not contended, else on all. Guarantees: what was only measured on a shared device is kept by nobody,
except a baseline, which a session cannot do without; what is tainted makes no champion; either may be tried again with the
same bytes. Does not: measure, or correct a number for what was shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .executor import RunResult
from .policy import Judgement, Measurement
from .states import Outcome

MAX_EXTRA_RUNS = 2
_UNANSWERED = (Outcome.CANCELLED, Outcome.LOST)  # they say nothing about the candidate

Doubt = Literal["", "contended", "tainted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the finished runs of one experiment say together.

    Attributes:
        outcome, reason: of the run that decides.
        measurement: the mean of the runs with a number that the verdict rests on; None: it rests on none.
        rests_on: those runs.
        contended: how the device was shared, where that holds for every run that answers.
        tainted: which pin did not hold, in any of the runs.
    """

    outcome: Outcome
    reason: str
    measurement: Measurement | None
    rests_on: tuple[RunResult, ...]
    contended: tuple[str, ...]
    tainted: str | None

    @property
    def doubt(self) -> Doubt:
        """In one word, why the verdict is worth less than it looks; empty: it is not."""
        return "tainted" if self.tainted else "contended" if self.contended else ""

    @property
    def obstacle(self) -> str | None:
        """Why the experiment may not be kept whatever its number is, as the rest of a sentence."""
        if self.tainted:
            return "its run is tainted"
        return "it never had its device to itself" if self.contended else None

    def remark(self, *, becomes_champion: bool) -> str:
        """Return what the reason of the verdict adds, and what to do; empty where there is no doubt."""
        if self.tainted:
            return (
                f"Tainted: {self.tainted}. Tell the human, who looks with `autoresearch doctor` and `autoresearch verify` and "
                "mends it with `autoresearch init`; run_experiment then accepts the same bytes again."
            )
        if not self.contended:
            return ""
        runs = "its run" if len(self.contended) == 1 else f"each of its {len(self.contended)} runs"
        how = f"The device was shared in {runs}: {'; '.join(dict.fromkeys(self.contended))}."
        if becomes_champion:
            return (
                f"{how} It is the champion all the same, so every comparison with it is doubtful: free the machine, then call "
                'start_session(tag="new") for a new baseline.'
            )
        return f"{how} Free the machine, then call run_experiment with the same train.py: it is accepted again."


def weigh(results: Sequence[RunResult]) -> Evidence:
    """Return what the results of one experiment's runs, the oldest first and at least one, say together."""
    tainted = next((result.tainted for result in results if result.tainted), None)
    answers = [result for result in results if result.outcome not in _UNANSWERED]
    clean = [result for result in answers if not result.contended]
    pool = clean or answers or results[-1:]
    scored = [result for result in pool if result.outcome is Outcome.SCORED]
    # Alone on its device, a run that fails is the answer; beside others, a failure says less than a number.
    failed = next((result for result in pool if result.outcome is not Outcome.SCORED), None)
    decides = failed if failed is not None and (clean or not scored) else scored[-1]
    rests_on = tuple(scored) if decides.outcome is Outcome.SCORED else (decides,)
    return Evidence(
        outcome=decides.outcome,
        reason=decides.reason,
        measurement=_mean(scored, alone=bool(clean)) if decides.outcome is Outcome.SCORED else None,
        rests_on=rests_on,
        contended=() if clean else tuple(result.contended for result in answers if result.contended),
        tainted=tainted,
    )


def measurement_of(val_bpb: float, standard_error: float | None, results: Sequence[RunResult]) -> Measurement:
    """Return the recorded number of an experiment; it rests on as many runs as its verdict did."""
    number = weigh(results).measurement if results else None
    return Measurement(val_bpb=val_bpb, standard_error=standard_error or 0.0, runs=1 if number is None else number.runs)


def needs_another_run(results: Sequence[RunResult], judgement: Judgement) -> bool:
    """True where a number that could be kept was only measured on a shared device, and one more run may tell."""
    evidence = weigh(results)
    cancelled = any(result.outcome is Outcome.CANCELLED for result in results)
    return (
        judgement.keepable
        and bool(evidence.contended)
        and evidence.tainted is None
        and not cancelled
        and len(results) <= MAX_EXTRA_RUNS
    )


def confirmation_note(results: Sequence[RunResult]) -> str:
    """Return why an experiment that has results goes on; empty where it has none yet."""
    if not results:
        return ""
    shared = next((result.contended for result in reversed(results) if result.contended), None)
    why = f": the device was shared ({shared})" if shared else ""
    return f"run {len(results) + 1} of at most {1 + MAX_EXTRA_RUNS}, with a fresh seed{why}; the number needs a confirmation"


def may_be_repeated(results: Sequence[RunResult]) -> bool:
    """True where the same bytes may be tried again although they have an answer: the answer is in doubt."""
    return bool(results) and weigh(results).doubt != ""


def _mean(scored: Sequence[RunResult], *, alone: bool) -> Measurement | None:
    """Return the mean; runs that shared their device count as one, since their noise is not only that of the seeds."""
    numbers = [(result.val_bpb, result.standard_error or 0.0) for result in scored if result.val_bpb is not None]
    if not numbers:
        return None
    return Measurement(
        val_bpb=math.fsum(val_bpb for val_bpb, _ in numbers) / len(numbers),
        standard_error=math.hypot(*(error for _, error in numbers)) / len(numbers),
        runs=len(numbers) if alone else 1,
    )
