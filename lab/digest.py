"""What a session came to, in numbers: pure functions over its experiments and their runs.

Guarantees: nothing is invented; where something was not measured there is None. Does not: correct for trying many ideas. The
best of many tries owes a part of its gain to luck, and the more so the closer it lies to the noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .confirmation import number_of
from .near_misses import near_misses
from .noise import Noise
from .policy import Judgement, Measurement, judge
from .records import Experiment, Run
from .states import AWAITED, Decision, Outcome

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """One session, summed up. Experiments are the oldest first; gains are positive when val_bpb went down.

    Attributes:
        baseline: the experiment that the first number of the session belongs to.
        overall: the champion judged against the baseline; None while the baseline is the champion.
        kept: the champions in the order in which they were kept, the baseline first.
        running_best: those of ``kept`` that set a new lowest val_bpb.
        since_best: finished experiments that were recorded after the last of ``running_best``.
        near_misses: the surest first.
        lessons: reverted experiments that say what was learned.
        without_number: finished experiments that have no val_bpb.
        hours: from the first experiment to the last result that a decision waited for.
        device_seconds: of every run that ended, start-up and scoring included.
    """

    experiments: int
    baseline: Experiment | None
    champion: Experiment | None
    overall: Judgement | None
    kept: tuple[Experiment, ...]
    running_best: tuple[Experiment, ...]
    since_best: int
    near_misses: tuple[Experiment, ...]
    lessons: tuple[Experiment, ...]
    without_number: tuple[Experiment, ...]
    reverted: int
    unfinished: tuple[Experiment, ...]
    undecided: tuple[Experiment, ...]
    hours: float | None
    experiments_per_hour: float | None
    device_seconds: float

    @property
    def gain(self) -> float | None:
        """How far the champion is below the baseline, in bits per byte."""
        return None if self.overall is None or self.overall.delta is None else -self.overall.delta


def digest(experiments: Sequence[Experiment], runs: Mapping[str, Sequence[Run]], noise: Noise) -> Digest:
    """Sum up a session.

    Args:
        experiments: of one session, the oldest first.
        runs: by experiment.
        noise: between seeds, to judge with.
    """
    kept = sorted((e for e in experiments if e.decision is Decision.KEPT), key=lambda e: e.decided_at or 0.0)
    baseline = next((e for e in kept if e.is_baseline), None)
    champion = kept[-1] if kept else None
    ends = [run.finished_at for e in experiments for run in awaited_runs(e, runs) if run.finished_at is not None]
    hours = (max(ends) - experiments[0].created_at) / _SECONDS_PER_HOUR if ends and experiments else None
    finished = [e for e in experiments if e.verdict is not None]
    results = [run.result for members in runs.values() for run in members if run.result is not None]
    running_best = _running_best(kept)
    best_at = next(
        (index for index, e in enumerate(finished) if running_best and e.id == running_best[-1].id), len(finished) - 1
    )
    return Digest(
        experiments=len(experiments),
        baseline=baseline,
        champion=champion,
        overall=_overall(baseline, champion, runs, noise),
        kept=tuple(kept),
        running_best=tuple(running_best),
        since_best=len(finished) - 1 - best_at,
        near_misses=tuple(near_misses(experiments)),
        lessons=tuple(e for e in experiments if e.decision is Decision.REVERTED and e.note),
        without_number=tuple(e for e in finished if e.val_bpb is None),
        reverted=sum(e.decision is Decision.REVERTED for e in experiments),
        unfinished=tuple(e for e in experiments if e.verdict is None),
        undecided=tuple(e for e in finished if e.decision is Decision.PENDING),
        hours=hours,
        experiments_per_hour=len(finished) / hours if hours else None,
        device_seconds=sum(result.total_seconds for result in results),
    )


def awaited_runs(experiment: Experiment, runs: Mapping[str, Sequence[Run]]) -> list[Run]:
    """Return the runs of an experiment that its decision waited for: not the seeds that sharpen a number that stands."""
    until = experiment.decided_at
    return [run for run in runs.get(experiment.id, ()) if run.purpose in AWAITED and (until is None or run.created_at <= until)]


def _overall(
    baseline: Experiment | None, champion: Experiment | None, runs: Mapping[str, Sequence[Run]], noise: Noise
) -> Judgement | None:
    if baseline is None or champion is None or champion.id == baseline.id:
        return None
    return compared(champion, baseline, runs, noise)


def compared(experiment: Experiment, other: Experiment, runs: Mapping[str, Sequence[Run]], noise: Noise) -> Judgement:
    """Judge one kept experiment against another as if that were its parent; ``runs`` has those of both."""
    return judge(
        Outcome.SCORED,
        _measurement(experiment, runs),
        _measurement(other, runs),
        sigma=noise.sigma,
        sigma_source=noise.words,
        lines_delta=experiment.lines - other.lines,
    )


def _measurement(experiment: Experiment, runs: Mapping[str, Sequence[Run]]) -> Measurement:
    number = number_of(experiment, runs.get(experiment.id, ()))
    assert number is not None, "only what has a number is kept"
    return number


def _running_best(kept: Sequence[Experiment]) -> list[Experiment]:
    best: list[Experiment] = []
    for experiment in kept:
        if experiment.val_bpb is not None and (not best or experiment.val_bpb < (best[-1].val_bpb or 0.0)):
            best.append(experiment)
    return best
