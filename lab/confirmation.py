"""Which of an experiment's runs its verdict rests on, and whether it needs more: pure functions over its runs.

A run that did not have its device to itself is *contended*, one whose pins did not hold is *tainted* (`RunResult`). The verdict
rests on the runs that are neither, else on all; once runs with fresh seeds confirm, on those and not on the one that the
idea was selected by. Guarantees: what was only measured on a shared device is kept by nobody, except a baseline, which a
session cannot do without; what is tainted makes no champion; either may be tried again with the same bytes, whose confirmations
keep their seeds, and so does one that gave no answer, so that nobody draws seeds until one is lucky. A recorded number rests on
the runs that have one (`evidence_of`): what fails later takes nothing away. Does not: measure, or correct a number for what was
shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .executor import RunResult
from .policy import Judgement, Measurement
from .records import Experiment, Run
from .states import AWAITED, Decision, Outcome, Purpose

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
        measurement: the mean of the runs that the number rests on; None: a run that failed decides.
        rests_on: those runs, with their results.
        confirmations: how many of them have fresh seeds, and had their device to themselves.
        contended: how the device was shared, where that holds for every run that answers.
        tainted: which pin did not hold, in any of the runs.
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
    answers = [(run, result) for run, result in finished if result.outcome not in _UNANSWERED]
    clean = [(run, result) for run, result in answers if _is_clean(result)]
    pool = clean or [(run, result) for run, result in answers if not result.tainted] or answers or finished[-1:]
    scored = _fresh([(run, result) for run, result in pool if _has_number(result)])
    # Alone on its device, a run that fails is the answer; beside others, a failure says less than a number.
    failed = next((answer for answer in _fresh(pool) if not _has_number(answer[1])), None)
    decides = failed if failed is not None and (clean or not scored) else scored[-1]
    return Evidence(
        decides=decides,
        measurement=_mean([result for _, result in scored], alone=bool(clean)) if _has_number(decides[1]) else None,
        rests_on=tuple(scored),
        confirmations=sum(run.purpose is Purpose.CONFIRM for run, _ in scored) if clean else 0,
        contended=() if clean else tuple(result.contended for _, result in answers if result.contended),
        tainted=next((result.tainted for _, result in finished if result.tainted), None),
    )


def evidence_of(experiment: Experiment, runs: Sequence[Run]) -> Evidence | None:
    """Return what an experiment's recorded answer rests on; None: none of its runs has ended.

    Of a number, on the runs that have one; of a kept one, on those whose pins held. So what ends otherwise later, as a seed
    that crashes, takes away neither the number nor its good name.
    """
    finished = [run for run in runs if run.result is not None]
    if experiment.val_bpb is not None:
        finished = [run for run in finished if run.result is not None and _has_number(run.result)] or finished
        if experiment.decision is Decision.KEPT:
            finished = [run for run in finished if run.result is not None and not run.result.tainted] or finished
    return weigh(finished) if finished else None


def doubt_of(experiment: Experiment, runs: Sequence[Run]) -> Doubt:
    """Return why a judged experiment's answer is worth less than it looks; while that is so, its bytes may be tried again."""
    evidence = None if experiment.verdict is None else evidence_of(experiment, runs)
    return "" if evidence is None else evidence.doubt


def run_that_counts(experiment: Experiment, runs: Sequence[Run]) -> Answer | None:
    """Return the run that stands for an experiment, with its result; None: none has ended.

    It is the newest that the number rests on; without a number, the newest that ended as the verdict says.
    """
    evidence = evidence_of(experiment, runs)
    if evidence is None or (experiment.val_bpb is not None and evidence.rests_on):
        return None if evidence is None else evidence.rests_on[-1]
    ended = [(run, run.result) for run in runs if run.result is not None and run.result.outcome == experiment.verdict]
    return ended[-1] if ended else evidence.decides


def number_of(experiment: Experiment, runs: Sequence[Run]) -> Measurement | None:
    """Return the recorded number of an experiment, with how many runs it rests on; None: it has none."""
    if experiment.val_bpb is None:
        return None
    evidence = evidence_of(experiment, runs)
    return Measurement(
        val_bpb=experiment.val_bpb,
        standard_error=experiment.standard_error or 0.0,
        runs=1 if evidence is None or evidence.measurement is None else evidence.measurement.runs,
    )


def is_confirmed(runs: Sequence[Run]) -> bool:
    """True where runs with fresh seeds decide: as many as it takes."""
    return weigh(runs).confirmations >= CONFIRMATIONS


def further_runs(runs: Sequence[Run], judgement: Judgement) -> tuple[Purpose, int] | None:
    """Return for what, and how often, an experiment is to be run before it is judged; None: what there is decides."""
    evidence = weigh(runs)
    newest = {run.seed: run.result for run in runs if run.purpose in AWAITED}  # what was cancelled may have been run again
    cancelled = any(result is not None and result.outcome is Outcome.CANCELLED for result in newest.values())
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


def seed_to_repeat(runs: Sequence[Run], earlier: Sequence[Run] = ()) -> int | None:
    """Return the seed that the next confirmation takes, the oldest that gave ``runs`` no answer; None: a fresh one.

    ``earlier`` are the runs of other experiments of the session with the same bytes, the oldest first.
    """
    taken = {run.seed for run in runs if run.purpose is Purpose.CONFIRM and (run.result is None or _answers(run.result))}
    drawn = (run.seed for run in (*earlier, *runs) if run.purpose is Purpose.CONFIRM)
    return next((seed for seed in drawn if seed not in taken), None)


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


def _is_clean(result: RunResult) -> bool:
    return not result.contended and not result.tainted


def _has_number(result: RunResult) -> bool:
    return result.outcome is Outcome.SCORED and result.val_bpb is not None


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
