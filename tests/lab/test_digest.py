"""A session in numbers: what is counted, from when to when, and what is None because it was not measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from autoresearch_mcp.lab.digest import Digest, digest
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.noise import Noise
from autoresearch_mcp.lab.records import Experiment, Run
from autoresearch_mcp.lab.states import Decision, Outcome, Purpose, RunState, Verdict

Make = Callable[..., Experiment]
NOISE = Noise(sigma=0.02, source="prior")


def run_of(experiment: Experiment, *, finished_at: float | None, seconds: float = 0.0) -> list[Run]:
    result = None if finished_at is None else RunResult(outcome=Outcome.SCORED, reason="scored", total_seconds=seconds)
    return [
        Run(
            id=f"{experiment.id}.1",
            experiment=experiment.id,
            attempt=1,
            seed=1,
            purpose=Purpose.PROPOSED,
            device="cpu",
            state=RunState.RUNNING if finished_at is None else RunState.FINISHED,
            result=result,
            created_at=experiment.created_at,
            finished_at=finished_at,
            started_at=experiment.created_at,
        )
    ]


@pytest.fixture
def night(experiment_of: Make) -> Digest:
    experiments = [
        experiment_of(1, val_bpb=2.0, decision=Decision.KEPT, decided_at=1.0),
        experiment_of(2, val_bpb=1.7, delta=-0.3, z=10.0, decision=Decision.KEPT, decided_at=5.0),
        experiment_of(3, val_bpb=1.8, delta=-0.2, z=7.0, decision=Decision.KEPT, decided_at=4.0, note="better"),
        experiment_of(4, val_bpb=1.69, delta=-0.01, z=0.3, verdict=Verdict.WITHIN_NOISE, note="no difference"),
        experiment_of(5, val_bpb=2.5, delta=0.8, z=-28.0, verdict=Verdict.WORSE, note="far too large"),
        experiment_of(6, val_bpb=1.76, delta=0.06, z=-2.1, verdict=Verdict.WORSE),
        experiment_of(7, verdict=Verdict.CRASHED),
        experiment_of(8, val_bpb=1.65, delta=-0.05, z=1.8, decision=Decision.PENDING),
        experiment_of(9, verdict=None, decision=Decision.PENDING),
    ]
    runs = {e.id: run_of(e, finished_at=e.created_at + 600.0, seconds=300.0) for e in experiments[:-1]}
    runs["e0009"] = run_of(experiments[-1], finished_at=None)
    return digest(experiments, runs, NOISE)


def ids(experiments: tuple[Experiment, ...]) -> list[str]:
    return [experiment.id for experiment in experiments]


def test_champions_are_told_in_the_order_in_which_they_were_kept(night: Digest) -> None:
    assert ids(night.kept) == ["e0001", "e0003", "e0002"]
    assert ids(night.running_best) == ["e0001", "e0003", "e0002"]
    assert night.since_best == 6
    assert night.baseline is not None
    assert night.champion is not None
    assert (night.baseline.id, night.champion.id) == ("e0001", "e0002")


def test_the_champion_is_judged_against_the_baseline_with_the_sessions_noise(night: Digest) -> None:
    assert night.gain == pytest.approx(0.3)
    assert night.overall is not None
    assert night.overall.verdict is Verdict.IMPROVED
    assert night.overall.standard_error == pytest.approx(NOISE.sigma * 2**0.5)


def test_a_near_miss_was_decided_against_and_is_better_than_its_parent(night: Digest) -> None:
    assert ids(night.near_misses) == ["e0004"]


def test_lessons_failures_and_what_is_open_are_told_apart(night: Digest) -> None:
    assert ids(night.lessons) == ["e0004", "e0005"]
    assert ids(night.without_number) == ["e0007"]
    assert ids(night.undecided) == ["e0008"]
    assert ids(night.unfinished) == ["e0009"]
    assert (night.experiments, night.reverted) == (9, 4)


def test_hours_go_from_the_first_experiment_to_the_last_result(night: Digest) -> None:
    assert night.hours == pytest.approx((8600.0 - 1000.0) / 3600.0)
    assert night.experiments_per_hour == pytest.approx(8 / (7600.0 / 3600.0))
    assert night.device_seconds == pytest.approx(8 * 300.0)


def test_further_seeds_days_later_make_no_session_longer(experiment_of: Make) -> None:
    experiment = experiment_of(1, val_bpb=2.0, decision=Decision.KEPT)
    experiment = replace(experiment, decided_at=experiment.created_at + 600.0)
    (first,) = run_of(experiment, finished_at=experiment.created_at + 600.0, seconds=300.0)
    later = replace(first, created_at=experiment.created_at + 1e6, finished_at=experiment.created_at + 2e6)
    noise, confirmation = (replace(later, purpose=purpose) for purpose in (Purpose.NOISE, Purpose.CONFIRM))
    summary = digest([experiment], {experiment.id: [first, noise, confirmation]}, NOISE)
    assert summary.hours == pytest.approx(600.0 / 3600.0)
    assert summary.device_seconds == pytest.approx(900.0)


def test_a_simpler_champion_that_is_a_little_worse_is_no_new_best(experiment_of: Make) -> None:
    experiments = [
        experiment_of(1, val_bpb=2.0, decision=Decision.KEPT, decided_at=1.0),
        experiment_of(2, val_bpb=2.01, delta=0.01, z=-0.4, decision=Decision.KEPT, decided_at=2.0),
    ]
    summary = digest(experiments, {}, NOISE)
    assert ids(summary.running_best) == ["e0001"]
    assert summary.gain == pytest.approx(-0.01)


def test_without_a_number_nothing_is_made_up(experiment_of: Make) -> None:
    for experiments in ([], [experiment_of(1, verdict=Verdict.CRASHED)], [experiment_of(1, verdict=None)]):
        summary = digest(experiments, {}, NOISE)
        assert (summary.gain, summary.baseline, summary.champion, summary.hours) == (None, None, None, None)
        assert summary.experiments_per_hour is None
        assert summary.running_best == ()


def test_while_the_baseline_is_the_champion_there_is_no_gain(experiment_of: Make) -> None:
    summary = digest([experiment_of(1, val_bpb=2.0, decision=Decision.KEPT, decided_at=1.0)], {}, NOISE)
    assert summary.overall is None
    assert summary.gain is None
