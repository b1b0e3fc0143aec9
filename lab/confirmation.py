"""Which of an experiment's runs its verdict rests on, and whether it needs more: pure functions over its runs.

A run that did not have its device to itself is *contended*, one whose pins did not hold is *tainted* (`RunResult`). The verdict
rests on the runs that are neither, else on all; once runs with fresh seeds confirm, on those and not on the one that the
idea was selected by. Guarantees: what was only measured on a shared device is kept by nobody, except a baseline, which a
session cannot do without; what is tainted makes no champion; either may be tried again with the same bytes; a confirmation
that gave no answer is run again with its own seed, so that nobody draws seeds until one is lucky; a run that fails later
takes no number away. Does not: measure, or correct a number for what was shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .executor import RunResult
from .policy import Judgement, Measurement
from .records import Experiment, Run
from .states import AWAITED, Outcome, Purpose

MAX_EXTRA_RUNS = 2  # for a number that was only measured on a shared device
CONFIRMATIONS = 2  # runs with fresh seeds that decide under the gate `confirmed`
MAX_CONFIRMATIONS = 4  # that are tried by themselves, where some are contended or lost
_UNANSWERED = (Outcome.CANCELLED, Outcome.LOST)  # they say nothing about the candidate

Doubt = Literal["", "contended", "tainted"]
Answer = tuple[Run, RunResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the finished runs of one experiment say together.

    Attributes:
        decides: the run whose outcome and reason are the experiment's, with its result.
        measurement: the mean of the runs that the number rests on; None: there is none. Where a run failed after that, the
            verdict is its outcome, and the number that of a decision before it.
        rests_on: those runs, with their results.
        confirmations: how many of them have fresh seeds, and had their device to themselves.
        contended: how the device was shared, where that holds for every run that answers.
        tainted: which pin did not hold, in any run but those of the noise, which only sharpen a number.
    """

    decides: Answer
    measurement: Measurement | None
    rests_on: tuple[Answer, ...]
    confirmations: int
    contended: tuple[str, ...]
    tainted: str | None

    @property
    def outcome(self) -> Outcome:
        return self.decides[1].outcome

    @property
    def reason(self) -> str:
        return self.decides[1].reason

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
    answers = [
        (run, result)
        for run, result in finished
        if result.outcome not in _UNANSWERED and (run.purpose is not Purpose.NOISE or _sharpens(result))
    ]
    clean = [(run, result) for run, result in answers if _is_clean(result)]
    pool = clean or answers or finished[-1:]
    scored = _fresh([(run, result) for run, result in pool if _has_number(result)])
    # Alone on its device, a run that fails is the answer; beside others, a failure says less than a number.
    failed = next((answer for answer in _fresh(pool) if not _has_number(answer[1])), None)
    return Evidence(
        decides=failed if failed is not None and (clean or not scored) else scored[-1],
        measurement=_mean([result for _, result in scored], alone=bool(clean)),
        rests_on=tuple(scored),
        confirmations=sum(run.purpose is Purpose.CONFIRM for run, _ in scored) if clean else 0,
        contended=() if clean else tuple(result.contended for _, result in answers if result.contended),
        tainted=next((result.tainted for run, result in finished if result.tainted and run.purpose is not Purpose.NOISE), None),
    )


def run_that_counts(experiment: Experiment, runs: Sequence[Run]) -> Answer | None:
    """Return the run that stands for an experiment, with its result; None: none has ended.

    It is the newest that the number rests on; without a number, the newest that ended as the verdict says.
    """
    finished = [(run, run.result) for run in runs if run.result is not None]
    if not finished:
        return None
    evidence = weigh(runs)
    if experiment.val_bpb is not None and evidence.rests_on:
        return evidence.rests_on[-1]
    ended_so = [answer for answer in finished if experiment.verdict is not None and answer[1].outcome == experiment.verdict]
    return ended_so[-1] if ended_so else evidence.decides


def number_of(experiment: Experiment, runs: Sequence[Run]) -> Measurement | None:
    """Return the recorded number of an experiment, which rests on as many runs as `weigh` says; None: it has none."""
    if experiment.val_bpb is None:
        return None
    number = weigh(runs).measurement if any(run.result is not None for run in runs) else None
    return Measurement(
        val_bpb=experiment.val_bpb,
        standard_error=experiment.standard_error or 0.0,
        runs=1 if number is None else number.runs,
    )


def is_confirmed(runs: Sequence[Run]) -> bool:
    """True where runs with fresh seeds decide: as many as it takes."""
    return weigh(runs).confirmations >= CONFIRMATIONS


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
    gave = weigh(runs).confirmations or "None"
    ended = [run.result for run in runs if run.purpose is Purpose.CONFIRM and run.result is not None]
    why = "; ".join(dict.fromkeys(result.contended or result.reason for result in ended if not _answers(result)))
    return (
        f"{gave} of the {CONFIRMATIONS} runs with fresh seeds that decide gave an answer: {why or 'it was cancelled before'}. "
        f"Call confirm_experiment('{experiment_id}'), which queues the others again."
    )


def seed_to_repeat(runs: Sequence[Run]) -> int | None:
    """Return the seed that the next confirmation takes, the oldest of those that gave no answer; None: a fresh one."""
    confirmations = [run for run in runs if run.purpose is Purpose.CONFIRM]
    taken = {run.seed for run in confirmations if run.result is None or _answers(run.result)}
    return next((run.seed for run in confirmations if run.seed not in taken), None)


def confirmations_there(runs: Sequence[Run]) -> int:
    """Return how many confirmations have an answer, or are to have one."""
    return sum(run.purpose is Purpose.CONFIRM and (run.result is None or _answers(run.result)) for run in runs)


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


def _is_clean(result: RunResult) -> bool:
    return not result.contended and not result.tainted


def _has_number(result: RunResult) -> bool:
    return result.outcome is Outcome.SCORED and result.val_bpb is not None


def _sharpens(result: RunResult) -> bool:
    """True for what a run of the noise may add to the number that stands."""
    return _has_number(result) and not result.tainted


def _answers(result: RunResult) -> bool:
    """True where a run says something about its seed: a number, or a failure alone on the device."""
    return result.outcome not in _UNANSWERED and _is_clean(result)


def _fresh(pool: list[Answer]) -> list[Answer]:
    """Leave out what an idea was selected by, once runs with fresh seeds are there."""
    if not any(run.purpose is Purpose.CONFIRM for run, _ in pool):
        return pool
    return [(run, result) for run, result in pool if run.purpose in (Purpose.CONFIRM, Purpose.NOISE)]


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
