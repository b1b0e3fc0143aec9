"""Two searches at equal effort: what counts as effort, who is ahead, and what cannot be said yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from autoresearch_mcp.lab.control_group import AUTOPILOT, Step, is_autopilot, leads, search_steps
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.noise import Noise
from autoresearch_mcp.lab.records import Experiment, Run
from autoresearch_mcp.lab.states import Decision, Outcome, Purpose, RunState, Verdict

Make = Callable[..., Experiment]
NOISE = Noise(sigma=0.02, source="prior")


def run_of(experiment: Experiment, *, seconds: float, number: int = 1, purpose: Purpose = Purpose.PROPOSED) -> Run:
    result = RunResult(outcome=Outcome.SCORED, reason="", val_bpb=experiment.val_bpb, standard_error=0.0, total_seconds=seconds)
    return Run(
        id=f"{experiment.id}.{number}",
        experiment=experiment.id,
        attempt=1,
        seed=number,
        purpose=purpose,
        device="cpu",
        state=RunState.FINISHED,
        result=result,
        created_at=0.0,
        finished_at=1.0,
        started_at=0.0,
    )


def search(
    make: Make, numbers: Sequence[float], *, first: int = 1, seconds: float = 10.0
) -> tuple[list[Step], dict[str, list[Run]]]:
    """Return the steps and the runs of a search that keeps every number."""
    made = [make(first + i, val_bpb=value, decision=Decision.KEPT) for i, value in enumerate(numbers)]
    runs = {e.id: [run_of(e, seconds=seconds)] for e in made}
    return search_steps(made, runs), runs


def test_an_autopilot_is_known_by_the_name_in_the_record_whatever_its_strategy() -> None:
    assert is_autopilot(AUTOPILOT)
    assert is_autopilot(f"{AUTOPILOT} (random, seed 3)")
    assert not is_autopilot("autopiloted")
    assert not is_autopilot("claude")


def test_a_search_steps_on_with_each_answer_and_keeps_its_best(experiment_of: Make) -> None:
    kept, lower, failed = (
        experiment_of(1, val_bpb=2.0, decision=Decision.KEPT),
        experiment_of(3, val_bpb=1.9, decision=Decision.KEPT),
        experiment_of(4, verdict=Verdict.CRASHED),
    )
    discarded, simpler = experiment_of(2, val_bpb=1.5), experiment_of(5, val_bpb=1.95, decision=Decision.KEPT)
    experiments = [kept, discarded, lower, failed, simpler]
    steps = search_steps(experiments, {e.id: [run_of(e, seconds=10.0)] for e in experiments})
    assert [step.experiments for step in steps] == [1, 2, 3, 4, 5]
    assert [step.best.id for step in steps] == ["e0001", "e0001", "e0003", "e0003", "e0003"]
    assert [step.device_seconds for step in steps] == [10.0, 20.0, 30.0, 40.0, 50.0]


def test_confirmations_are_paid_for_and_idle_measurements_are_not(experiment_of: Make) -> None:
    made = experiment_of(1, val_bpb=2.0, decision=Decision.KEPT)
    runs = [
        run_of(made, seconds=10.0),
        run_of(made, seconds=5.0, number=2, purpose=Purpose.CONFIRM),
        run_of(made, seconds=100.0, number=3, purpose=Purpose.NOISE),
    ]
    (step,) = search_steps([made], {made.id: runs})
    assert step.device_seconds == 15.0


def test_what_was_cancelled_costs_time_and_is_no_experiment(experiment_of: Make) -> None:
    cancelled = experiment_of(2, verdict=Verdict.CANCELLED)
    experiments = [
        experiment_of(1, val_bpb=2.0, decision=Decision.KEPT),
        cancelled,
        experiment_of(3, val_bpb=2.1),
        experiment_of(4, verdict=None),
    ]
    steps = search_steps(experiments, {e.id: [run_of(e, seconds=10.0)] for e in experiments[:3]})
    assert [(step.experiments, step.device_seconds) for step in steps] == [(1, 10.0), (2, 30.0)]


def test_nothing_is_a_step_before_the_first_kept_number(experiment_of: Make) -> None:
    experiments = [experiment_of(1, verdict=Verdict.CRASHED), experiment_of(2, val_bpb=2.0, decision=Decision.KEPT)]
    (step,) = search_steps(experiments, {})
    assert step.experiments == 2


def test_the_longer_search_is_judged_at_the_effort_of_the_shorter(experiment_of: Make) -> None:
    own, own_runs = search(experiment_of, [2.0, 1.9])
    other, other_runs = search(experiment_of, [2.0, 1.95, 1.5], first=10, seconds=5.0)
    by_count, by_time = leads(own, other, {**own_runs, **other_runs}, NOISE)
    assert (by_count.unit, by_count.spent, by_count.own.id, by_count.other.id) == ("experiments", 2, "e0002", "e0011")
    assert by_count.judgement.delta == pytest.approx(-0.05)
    assert by_count.judgement.verdict is Verdict.IMPROVED
    assert (by_time.unit, by_time.spent, by_time.own.id, by_time.other.id) == ("device seconds", 15.0, "e0001", "e0012")
    assert by_time.judgement.verdict is Verdict.WORSE


def test_a_small_lead_is_within_noise(experiment_of: Make) -> None:
    own, own_runs = search(experiment_of, [2.0])
    other, other_runs = search(experiment_of, [2.01], first=10)
    assert {lead.judgement.verdict for lead in leads(own, other, {**own_runs, **other_runs}, NOISE)} == {Verdict.WITHIN_NOISE}


def test_a_search_without_a_number_so_early_is_not_compared(experiment_of: Make) -> None:
    own, runs = search(experiment_of, [2.0, 1.9], seconds=4.0)
    crashed = [experiment_of(number, verdict=Verdict.CRASHED) for number in (10, 11)]
    late = [*crashed, experiment_of(12, val_bpb=1.0, decision=Decision.KEPT)]
    runs |= {e.id: [run_of(e, seconds=2.0)] for e in late}
    assert leads(own, [], runs, NOISE) == []
    (lead,) = leads(own, search_steps(late, runs), runs, NOISE)
    assert (lead.unit, lead.spent, lead.own.id, lead.other.id) == ("device seconds", 6.0, "e0001", "e0012")
