"""Which of an experiment's runs its verdict rests on, and whether it needs more: pure functions over its runs.

A run that did not have its device to itself is *contended*, one whose pins did not hold is *tainted* (`RunResult`). The verdict
rests on the runs that were not contended, else on all; once runs with fresh seeds confirm, on those and not on the one that the
idea was selected by. Guarantees: what was only measured on a shared device is kept by nobody, except a baseline, which a
session cannot do without; what is tainted makes no champion; either may be tried again with the same bytes. Does not: measure,
or correct a number for what was shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .executor import RunResult
from .policy import Judgement, Measurement
from .records import Run
from .states import AWAITED, Outcome, Purpose

MAX_EXTRA_RUNS = 2  # for a number that was only measured on a shared device
CONFIRMATIONS = 2  # runs with fresh seeds that decide under the gate `confirmed`
MAX_CONFIRMATIONS = 4  # of them that are tried, where some are contended or lost
_UNANSWERED = (Outcome.CANCELLED, Outcome.LOST)  # they say nothing about the candidate

Doubt = Literal["", "contended", "tainted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the finished runs of one experiment say together.

    Attributes:
        outcome, reason: of the run that decides.
        measurement: the mean of the runs with a number that the verdict rests on; None: it rests on none.
        rests_on: those runs' results.
        confirmations: how many of them have fresh seeds.
        contended: how the device was shared, where that holds for every run that answers.
        tainted: which pin did not hold, in any of the runs.
    """

    outcome: Outcome
    reason: str
    measurement: Measurement | None
    rests_on: tuple[RunResult, ...]
    confirmations: int
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


def weigh(runs: Sequence[Run]) -> Evidence:
    """Return what the finished ones of an experiment's runs, the oldest first and at least one, say together."""
    finished = [(run, run.result) for run in runs if run.result is not None]
    tainted = next((result.tainted for _, result in finished if result.tainted), None)
    answers = [(run, result) for run, result in finished if result.outcome not in _UNANSWERED]
    clean = [(run, result) for run, result in answers if not result.contended]
    pool = clean or answers or finished[-1:]
    fresh = any(run.purpose is Purpose.CONFIRM for run, _ in pool)
    pool = [(run, result) for run, result in pool if not fresh or run.purpose in (Purpose.CONFIRM, Purpose.NOISE)]
    scored = [(run, result) for run, result in pool if result.outcome is Outcome.SCORED]
    # Alone on its device, a run that fails is the answer; beside others, a failure says less than a number.
    failed = next((result for _, result in pool if result.outcome is not Outcome.SCORED), None)
    decides = failed if failed is not None and (clean or not scored) else scored[-1][1]
    rests_on = tuple(result for _, result in scored) if decides.outcome is Outcome.SCORED else (decides,)
    return Evidence(
        outcome=decides.outcome,
        reason=decides.reason,
        measurement=_mean(rests_on, alone=bool(clean)) if decides.outcome is Outcome.SCORED else None,
        rests_on=rests_on,
        confirmations=sum(run.purpose is Purpose.CONFIRM for run, _ in scored),
        contended=() if clean else tuple(result.contended for _, result in answers if result.contended),
        tainted=tainted,
    )


def run_that_counts(runs: Sequence[Run]) -> tuple[Run, RunResult] | None:
    """Return the newest of an experiment's runs that its number rests on, with its result; None: it rests on none."""
    finished = [(run, run.result) for run in runs if run.result is not None]
    rests_on = weigh(runs).rests_on if finished else ()
    return next((pair for pair in reversed(finished) if any(pair[1] is result for result in rests_on)), None)


def measurement_of(val_bpb: float, standard_error: float | None, runs: Sequence[Run]) -> Measurement:
    """Return the recorded number of an experiment; it rests on as many runs as its verdict did."""
    number = weigh(runs).measurement if any(run.result is not None for run in runs) else None
    return Measurement(val_bpb=val_bpb, standard_error=standard_error or 0.0, runs=1 if number is None else number.runs)


def is_confirmed(runs: Sequence[Run]) -> bool:
    """True where runs with fresh seeds decide: as many as it takes, or what came of as many as are tried."""
    confirmations = weigh(runs).confirmations
    return confirmations >= CONFIRMATIONS or (confirmations > 0 and _tried(runs) >= MAX_CONFIRMATIONS)


def further_runs(runs: Sequence[Run], judgement: Judgement) -> tuple[Purpose, int] | None:
    """Return for what, and how often, an experiment is to be run before it is judged; None: what there is decides."""
    evidence = weigh(runs)
    awaited = [run.result for run in runs if run.purpose in AWAITED]
    cancelled = any(result is not None and result.outcome is Outcome.CANCELLED for result in awaited)
    if cancelled or evidence.tainted is not None:
        return None
    if judgement.promising:
        wanted = min(CONFIRMATIONS - evidence.confirmations, MAX_CONFIRMATIONS - _tried(runs))
        return (Purpose.CONFIRM, wanted) if wanted > 0 else None
    if judgement.keepable and evidence.contended and len(runs) <= MAX_EXTRA_RUNS:
        return Purpose.REPEAT, 1
    return None


def unconfirmed_remark(experiment_id: str, runs: Sequence[Run], judgement: Judgement) -> str:
    """Return why a promising number was not confirmed, and what to do; empty where it was, or was none."""
    if not judgement.promising:
        return ""
    ended = [run.result for run in runs if run.purpose is Purpose.CONFIRM and run.result is not None]
    why = "; ".join(dict.fromkeys(result.contended or result.reason for result in ended)) or "it was cancelled before"
    return f"No run with a fresh seed decided: {why}. Call confirm_experiment('{experiment_id}'), which queues them again."


def _tried(runs: Sequence[Run]) -> int:
    return sum(run.purpose is Purpose.CONFIRM for run in runs)


def confirmation_note(runs: Sequence[Run]) -> str:
    """Return why an experiment that has results goes on; empty where it has none yet."""
    finished = [run.result for run in runs if run.result is not None]
    if not finished or len(finished) == len(runs):
        return ""
    waiting = next(run for run in runs if run.result is None)
    if waiting.purpose is Purpose.CONFIRM:
        return f"run {len(finished) + 1} of {len(runs)}, with a fresh seed: the first number was promising, fresh ones decide"
    shared = next((result.contended for result in reversed(finished) if result.contended), None)
    why = f": the device was shared ({shared})" if shared else ""
    return f"run {len(finished) + 1} of at most {1 + MAX_EXTRA_RUNS}, with a fresh seed{why}; the number needs a confirmation"


def may_be_repeated(runs: Sequence[Run]) -> bool:
    """True where the same bytes may be tried again although they have an answer: the answer is in doubt."""
    return any(run.result is not None for run in runs) and weigh(runs).doubt != ""


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
