"""What may end a run early, taken from the record: its parent's curve, and the margin that recorded runs teach.

And what the rules would have come to, had they judged the runs that are recorded. Guarantees: only the first run of an idea is
ever ended early, never one that repeats, confirms or measures noise, and no baseline. Does not: end anything (`pruning` tells
`referee.training` to), or count what was ended as evidence. Of a curve that is gone or unreadable there is nothing to say.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .confirmation import Answer, run_that_counts
from .curves import reports_of
from .executor import RunResult
from .pruning import METRIC, EarlyStop, LossCurve, Losses, excess_of, margin_of, replay
from .records import Experiment, Run
from .states import Decision, Outcome, Purpose, Verdict

if TYPE_CHECKING:
    from .config import LabConfig
    from .lab import Lab

_MOST_RECORDED = 50  # the newest, that the margin is taken from
_OF_GROUP = 'parent IS NOT NULL AND session IN (SELECT tag FROM sessions WHERE "group" = ?)'


def parent_run(lab: Lab, experiment: Experiment) -> Answer | None:
    """Return the run that those of an experiment are compared with while they go on; None: there is none."""
    if experiment.parent is None:
        return None
    return run_that_counts(lab.ledger.experiment(experiment.parent), lab.ledger.runs(experiment.parent))


def early_stop_of(lab: Lab, experiment: Experiment, run: Run, config: LabConfig, parent: Answer | None) -> EarlyStop | None:
    """Return what may end a run early; None: nothing may. ``parent`` is the run that it is compared with."""
    rules = config.early_stop
    if run.purpose is not Purpose.PROPOSED or experiment.is_baseline or not (rules.diverged or rules.futility):
        return None
    stop = EarlyStop(diverged=rules.diverged, after_share=rules.after_share)
    losses = () if parent is None else _losses_of(lab, *parent, config)
    if parent is None or not losses:
        return stop
    stop = replace(stop, parent_losses=losses, parent_vocab_size=parent[1].vocab_size)
    if not rules.futility:
        return stop
    margin = margin_of(_recorded(lab, experiment, config)) if rules.margin is None else rules.margin
    return replace(stop, margin=margin)


def _recorded(lab: Lab, experiment: Experiment, config: LabConfig) -> list[float]:
    """Return how far above its parent each recorded run of this comparability group lay at most that ended no worse.

    No worse is a number that is not above the parent's: one that is, though within noise, did not come back.
    """
    group = lab.ledger.session_now(experiment.session).group
    children = lab.ledger.experiments(f"{_OF_GROUP} AND delta <= 0", group, order="rowid DESC", limit=_MOST_RECORDED)
    compared = [pair for child in children if (pair := _compared(lab, child, config)) is not None]
    return [excess for pair in compared if (excess := pair.excess(config.early_stop.after_share)) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """The first run of an experiment, with its curve, beside its parent's."""

    run: Run
    result: RunResult
    losses: Losses
    parent_losses: Losses
    parent_result: RunResult

    def excess(self, after_share: float) -> float | None:
        return excess_of(self.losses, self.parent_losses, after_share=after_share)


def _compared(lab: Lab, experiment: Experiment, config: LabConfig) -> _Compared | None:
    """Return an experiment's first run beside its parent's; None: one has no curve, or they learned other tokens."""
    first = next((run for run in lab.ledger.runs(experiment.id) if run.purpose is Purpose.PROPOSED), None)
    parent = parent_run(lab, experiment)
    if first is None or first.result is None or first.result.outcome is not Outcome.SCORED or parent is None:
        return None
    losses, parent_losses = _losses_of(lab, first, first.result, config), _losses_of(lab, *parent, config)
    if not losses or not parent_losses or first.result.vocab_size != parent[1].vocab_size:
        return None
    return _Compared(run=first, result=first.result, losses=losses, parent_losses=parent_losses, parent_result=parent[1])


def _losses_of(lab: Lab, run: Run, result: RunResult, config: LabConfig) -> Losses:
    """Return the smoothed losses of a finished run; empty where it reported too little."""
    return _losses(lab.state.run(run.attempt_id).curve, config.budget.seconds, result.startup_deducted_seconds or 0.0)


@lru_cache(maxsize=256)
def _losses(path: Path, budget_seconds: float, deducted_seconds: float) -> Losses:
    points = ((seconds - deducted_seconds, loss) for seconds, loss in _points(path))
    losses = LossCurve(budget_seconds, points).losses()
    return losses if any(loss is not None for loss in losses) else ()


def _points(path: Path) -> list[tuple[float, float]]:
    """Return (seconds, loss) of a curve's reports while it trained; those without a loss are passed over."""
    points = list[tuple[float, float]]()
    for report in reports_of(path):
        with suppress(ValueError, KeyError, TypeError, OverflowError):
            seconds, loss = float(report["seconds"]), float(report[METRIC])
            if seconds > 0:
                points.append((seconds, loss))
    return points


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldEnd:
    """A recorded run that the rule would have ended, and what it came to instead."""

    experiment: str
    verdict: str
    delta: float | None  # against its parent; negative is better
    won: bool  # it was kept, or might have been
    saved_seconds: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the rule would have come to over the recorded runs of a comparability group, in the order of the record.

    Attributes:
        compared: runs with a number that have a curve, and whose parent's run has one.
        device_seconds: that those took.
        winners: of them, those that were kept or might have been.
        would_end: of them, those that the rule would have ended.
        margin: that would be used for the next one; None: too few are recorded, so only divergence is judged.
        ended: runs that were ended early.
        ended_seconds: that this saved, about: the rest of their budgets, and scoring as their parents'.
    """

    compared: int
    device_seconds: float
    winners: int
    would_end: tuple[WouldEnd, ...]
    margin: float | None
    ended: int
    ended_seconds: float

    @property
    def saved_seconds(self) -> float:
        return sum(each.saved_seconds for each in self.would_end)

    @property
    def winners_lost(self) -> int:
        return sum(each.won for each in self.would_end)


def replayed(lab: Lab, group: str, config: LabConfig) -> Replay:
    """Judge the recorded runs of a comparability group by both rules, in force or not, with the margin of that time."""
    rules = config.early_stop
    recorded: list[float] = []
    would_end: list[WouldEnd] = []
    compared, device_seconds, winners, ended, ended_seconds = 0, 0.0, 0, 0, 0.0

    def margin() -> float | None:
        return margin_of(recorded) if rules.margin is None else rules.margin

    for experiment in lab.ledger.experiments(_OF_GROUP, group):
        if experiment.verdict is Verdict.PRUNED:
            ended += 1
            ended_seconds += _saved_by_pruning(lab, experiment, config)
        if experiment.verdict is None or (pair := _compared(lab, experiment, config)) is None:
            continue
        won = experiment.keepable or experiment.decision is Decision.KEPT
        compared, device_seconds, winners = compared + 1, device_seconds + pair.result.total_seconds, winners + won
        rule = EarlyStop(
            margin=margin(),
            after_share=rules.after_share,
            parent_losses=pair.parent_losses,
            parent_vocab_size=pair.parent_result.vocab_size,
        )
        points = _points(lab.state.run(pair.run.attempt_id).curve)
        end = replay(
            points,
            rule,
            budget_seconds=config.budget.seconds,
            vocab_size=pair.result.vocab_size or 1,
            deducted_seconds=pair.result.startup_deducted_seconds or 0.0,
        )
        if end is not None:
            would_end.append(
                WouldEnd(
                    experiment=experiment.id,
                    verdict=str(experiment.verdict),
                    delta=experiment.delta,
                    won=won,
                    saved_seconds=round(_seconds_after(pair.result, end[0], config) + (pair.result.scoring_seconds or 0.0), 1),
                    reason=end[1],
                )
            )
        elif experiment.delta is not None and experiment.delta <= 0 and (excess := pair.excess(rules.after_share)) is not None:
            recorded = [*recorded, excess][-_MOST_RECORDED:]
    return Replay(
        compared=compared,
        device_seconds=round(device_seconds, 1),
        winners=winners,
        would_end=tuple(would_end),
        margin=margin(),
        ended=ended,
        ended_seconds=round(ended_seconds, 1),
    )


def _saved_by_pruning(lab: Lab, experiment: Experiment, config: LabConfig) -> float:
    found = next((run.result for run in lab.ledger.runs(experiment.id) if run.result is not None), None)
    parent = parent_run(lab, experiment)
    if found is None or found.outcome is not Outcome.PRUNED:
        return 0.0
    scoring_seconds = 0.0 if parent is None else parent[1].scoring_seconds or 0.0
    return _seconds_after(found, found.elapsed_seconds or 0.0, config) + scoring_seconds


def _seconds_after(result: RunResult, seconds: float, config: LabConfig) -> float:
    """Return how long the device would have trained, or did, after ``seconds`` on the run's clock."""
    pace = (result.wall_seconds or 0.0) / result.elapsed_seconds if result.elapsed_seconds else 1.0
    return max(0.0, config.budget.seconds - seconds) * pace
