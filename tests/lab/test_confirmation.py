"""Which runs a verdict rests on, and when there are to be more: pure functions over runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import pytest
from autoresearch_mcp.lab.confirmation import (
    CONFIRMATIONS,
    MAX_CONFIRMATIONS,
    MAX_EXTRA_RUNS,
    confirmation_note,
    doubt_of,
    evidence_of,
    further_runs,
    is_confirmed,
    number_of,
    run_that_counts,
    seed_to_repeat,
    unconfirmed_remark,
    weigh,
)
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.policy import Judgement, Measurement, judge
from autoresearch_mcp.lab.records import Experiment, Run
from autoresearch_mcp.lab.states import Decision, Outcome, Purpose, RunState, Verdict

SHARED = "others used 40% of the run's 2 cores"
PARENT = Measurement(val_bpb=2.0, standard_error=0.0)
CONFIRM, NOISE = Purpose.CONFIRM, Purpose.NOISE


def scored(
    val_bpb: float,
    purpose: Purpose = Purpose.PROPOSED,
    *,
    contended: str | None = None,
    tainted: str | None = None,
    error: float = 0.0,
) -> Run:
    result = RunResult(
        outcome=Outcome.SCORED,
        reason="scored",
        val_bpb=val_bpb,
        standard_error=error,
        contended=contended,
        tainted=tainted,
    )
    return run_of(result, purpose)


def ended(outcome: Outcome, purpose: Purpose = Purpose.PROPOSED, *, contended: str | None = None) -> Run:
    return run_of(RunResult(outcome=outcome, reason=f"it {outcome}", contended=contended), purpose)


def run_of(result: RunResult | None, purpose: Purpose = Purpose.PROPOSED, *, seed: int = 1) -> Run:
    return Run(
        id="e0002.1",
        experiment="e0002",
        attempt=1,
        seed=seed,
        purpose=purpose,
        device="cpu",
        state=RunState.QUEUED if result is None else RunState.FINISHED,
        result=result,
        created_at=0.0,
        finished_at=None,
        started_at=None,
    )


def experiment_of(verdict: Verdict | None, val_bpb: float | None, decision: Decision = Decision.PENDING) -> Experiment:
    """Return an experiment that was judged so."""
    return Experiment(
        **{field.name: "" for field in fields(Experiment)}  # type: ignore[arg-type]
        | {"verdict": verdict, "val_bpb": val_bpb, "standard_error": 0.0, "decision": decision}
    )


def kept_number(val_bpb: float, runs: Sequence[Run]) -> tuple[float, int, str]:
    """Return what the runs of a kept experiment come to: its number, how many runs that rests on, and the doubt."""
    evidence = evidence_of(experiment_of(Verdict.IMPROVED, val_bpb, Decision.KEPT), runs)
    assert evidence is not None
    assert evidence.measurement is not None
    return evidence.measurement.val_bpb, evidence.measurement.runs, evidence.doubt


def number(runs: Sequence[Run]) -> Measurement:
    measurement = weigh(runs).measurement
    assert measurement is not None
    return measurement


def judged_as_baseline(runs: Sequence[Run]) -> Judgement:
    """Judge as the baseline of a session: whatever has a number may be kept."""
    evidence = weigh(runs)
    return judge(evidence.outcome, evidence.measurement, None, sigma=0.02)


def judged(runs: Sequence[Run]) -> Judgement:
    """Judge against `PARENT` under the gate `confirmed`."""
    evidence = weigh(runs)
    confirmed = is_confirmed(runs)
    return judge(evidence.outcome, evidence.measurement, PARENT, sigma=0.02, gate="confirmed", confirmed=confirmed)


def test_a_run_that_had_its_device_to_itself_is_the_answer() -> None:
    evidence = weigh([scored(2.0)])
    assert evidence.measurement is not None
    assert (evidence.outcome, evidence.measurement.val_bpb, evidence.doubt) == (Outcome.SCORED, 2.0, "")


def test_the_runs_that_were_not_contended_decide_alone_and_their_mean_is_the_number() -> None:
    runs = [scored(1.0, contended=SHARED), scored(2.0, error=0.003), scored(2.2, error=0.004)]
    assert number(runs).val_bpb == pytest.approx(2.1)
    assert number(runs).standard_error == pytest.approx(math.hypot(0.003, 0.004) / 2)
    assert (number(runs).runs, weigh(runs).contended) == (2, ())


def test_where_every_run_was_contended_their_mean_stands_and_counts_as_one_run() -> None:
    runs = [scored(1.0, contended="a"), scored(2.0, contended="b"), scored(3.0, contended="b")]
    evidence = weigh(runs)
    assert (number(runs).val_bpb, number(runs).runs) == (2.0, 1)
    assert (evidence.doubt, evidence.contended) == ("contended", ("a", "b", "b"))
    remark = evidence.remark(becomes_champion=False)
    assert "each of its 3 runs: a; b." in remark
    assert "run_experiment with the same train.py" in remark
    assert "start_session" in evidence.remark(becomes_champion=True)


def test_the_number_that_an_idea_was_selected_by_does_not_count_once_fresh_seeds_confirm() -> None:
    runs = [scored(1.5), scored(1.9, CONFIRM), scored(2.0, CONFIRM)]
    assert (number(runs).val_bpb, number(runs).runs) == (pytest.approx(1.95), 2)
    assert weigh(runs).confirmations == 2


def test_seeds_that_measure_the_noise_of_what_stands_sharpen_its_number() -> None:
    assert number([scored(2.0), scored(2.2, NOISE)]).val_bpb == pytest.approx(2.1)
    kept = [scored(1.5), scored(1.9, CONFIRM), scored(2.0, CONFIRM), scored(2.1, NOISE)]
    assert (number(kept).val_bpb, number(kept).runs) == (pytest.approx(2.0), 3)
    recorded = number_of(experiment_of(Verdict.IMPROVED, 2.0), kept)
    assert recorded is not None
    assert (recorded.val_bpb, recorded.runs) == (2.0, 3)


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(ended(Outcome.CRASHED, NOISE), id="a seed of the noise crashed"),
        pytest.param(ended(Outcome.CANCELLED, NOISE), id="it gave way"),
        pytest.param(scored(9.0, NOISE, tainted="the corpus changed"), id="it is tainted"),
        pytest.param(scored(9.0, NOISE, contended=SHARED), id="it was contended"),
    ],
)
def test_seeds_that_came_to_nothing_leave_the_number_its_runs_and_its_good_name(later: Run) -> None:
    kept = [scored(1.5), scored(1.9, CONFIRM), scored(2.0, CONFIRM)]
    with_later, champion = [*kept, later], experiment_of(Verdict.IMPROVED, 1.95, Decision.KEPT)
    assert evidence_of(champion, with_later) == weigh(kept)
    found = run_that_counts(champion, with_later)
    assert found is not None
    assert found[0] is kept[-1]
    assert doubt_of(champion, with_later) == ""


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(ended(Outcome.CRASHED, CONFIRM), id="a seed crashed"),
        pytest.param(scored(9.0, CONFIRM, tainted="the corpus changed"), id="it is tainted"),
        pytest.param(ended(Outcome.TIMED_OUT, NOISE), id="a seed of the noise timed out"),
    ],
)
def test_a_kept_baseline_that_shared_its_device_stays_what_it_is_until_a_seed_is_alone(later: Run) -> None:
    baseline = [scored(2.0, contended=SHARED)]
    assert kept_number(2.0, [*baseline, later]) == (2.0, 1, "contended")
    assert kept_number(2.0, [*baseline, later, scored(2.1, NOISE)]) == (2.1, 1, "")


def test_what_was_judged_tainted_and_is_not_kept_stays_in_doubt() -> None:
    runs = [scored(1.5), scored(1.9, CONFIRM), scored(1.9, CONFIRM, tainted="the corpus changed")]
    assert doubt_of(experiment_of(Verdict.IMPROVED, 1.9), runs) == "tainted"
    assert doubt_of(experiment_of(Verdict.IMPROVED, 1.9, Decision.KEPT), runs) == ""


def test_a_confirmation_that_crashes_after_the_decision_takes_no_number_away() -> None:
    kept, crashed = experiment_of(Verdict.IMPROVED, 1.9), ended(Outcome.CRASHED, CONFIRM)
    for runs, counts in (([scored(1.9), crashed], 0), ([scored(1.5), scored(1.9, CONFIRM), crashed], 1)):
        evidence = evidence_of(kept, runs)
        assert evidence is not None
        assert evidence.measurement == Measurement(val_bpb=1.9, standard_error=0.0)
        found = run_that_counts(kept, runs)
        assert found is not None
        assert found[0] is runs[counts]


def test_of_an_experiment_without_a_number_the_run_that_ended_as_the_verdict_says_is_the_one_to_look_at() -> None:
    runs = [scored(1.5), ended(Outcome.CRASHED, CONFIRM), scored(1.5, CONFIRM)]
    assert weigh(runs).outcome is Outcome.CRASHED
    found = run_that_counts(experiment_of(Verdict.CRASHED, None), runs)
    assert found is not None
    assert found[0] is runs[1]
    assert run_that_counts(experiment_of(None, None), [run_of(None)]) is None


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.INVALID])
def test_a_failure_alone_on_its_device_decides_and_one_beside_others_does_not(outcome: Outcome) -> None:
    assert weigh([scored(2.0, contended=SHARED), ended(outcome)]).outcome is outcome
    assert weigh([scored(2.0, contended=SHARED), ended(outcome, contended=SHARED)]).outcome is Outcome.SCORED
    assert weigh([ended(outcome, contended=SHARED)]).outcome is outcome
    assert weigh([scored(1.5), scored(1.5, CONFIRM), ended(outcome, CONFIRM)]).outcome is outcome


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.CANCELLED])
def test_a_run_without_an_answer_decides_only_where_there_is_no_other(outcome: Outcome) -> None:
    assert weigh([scored(2.0, contended=SHARED), ended(outcome)]).outcome is Outcome.SCORED
    alone = weigh([ended(outcome)])
    assert (alone.outcome, alone.measurement, alone.doubt) == (outcome, None, "")


def test_a_tainted_run_is_no_part_of_a_number_that_others_carry() -> None:
    runs = [scored(1.5), scored(1.9, CONFIRM), scored(9.0, CONFIRM, tainted="the corpus changed")]
    assert (number(runs).val_bpb, number(runs).runs, weigh(runs).doubt) == (1.9, 1, "tainted")


def test_one_tainted_run_taints_the_experiment_and_says_whose_task_it_is() -> None:
    evidence = weigh([scored(2.0, contended=SHARED), scored(2.0, tainted="the corpus changed")])
    assert evidence.doubt == "tainted"
    assert evidence.obstacle == "its run is tainted"
    assert "the corpus changed" in evidence.remark(becomes_champion=False)
    assert "autoresearch init" in evidence.remark(becomes_champion=False)


def test_a_promising_number_is_confirmed_by_two_fresh_seeds() -> None:
    runs = [scored(1.9)]
    assert further_runs(runs, judged(runs)) == (CONFIRM, CONFIRMATIONS)
    runs += [scored(1.9, CONFIRM), scored(1.94, CONFIRM)]
    assert is_confirmed(runs)
    assert further_runs(runs, judged(runs)) is None
    assert judged(runs).keepable


def test_a_gain_that_its_fresh_seeds_do_not_show_is_none() -> None:
    runs = [scored(1.9), scored(2.0, CONFIRM), scored(1.99, CONFIRM)]
    assert further_runs(runs, judged(runs)) is None
    assert (judged(runs).keepable, judged(runs).delta) == (False, pytest.approx(-0.005))


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(scored(1.9, CONFIRM, contended=SHARED), id="contended"),
        pytest.param(ended(Outcome.LOST, CONFIRM), id="lost"),
    ],
)
def test_a_confirmation_that_is_no_answer_is_replaced_four_times_in_all(spoiled: Run) -> None:
    runs = [scored(1.9), scored(1.9, CONFIRM), spoiled]
    assert further_runs(runs, judged(runs)) == (CONFIRM, 1)
    runs += [spoiled] * (MAX_CONFIRMATIONS - 2)
    assert further_runs(runs, judged(runs)) is None
    assert not is_confirmed(runs)  # by the one that answered
    assert "1 of the 2 runs" in unconfirmed_remark("e0002", runs, judged(runs))


def test_contended_confirmations_are_replaced_where_the_first_run_was_contended_too() -> None:
    runs = [scored(1.9, contended=SHARED), *[scored(1.9, CONFIRM, contended=SHARED)] * 2]
    assert not is_confirmed(runs)
    assert further_runs(runs, judged(runs)) == (CONFIRM, 2)


def test_a_confirmation_that_gave_no_answer_is_run_again_with_its_own_seed() -> None:
    def confirmation(seed: int, outcome: Outcome | None, contended: str | None = None) -> Run:
        result = None if outcome is None else RunResult(outcome=outcome, reason="", val_bpb=1.9, contended=contended)
        return run_of(result, CONFIRM, seed=seed)

    assert seed_to_repeat([scored(1.9)]) is None
    runs = [confirmation(5, Outcome.SCORED), confirmation(6, Outcome.CANCELLED), confirmation(7, Outcome.LOST)]
    assert seed_to_repeat(runs) == 6
    runs.append(confirmation(6, None))
    assert seed_to_repeat(runs) == 7
    runs[-1] = confirmation(6, Outcome.SCORED, SHARED)
    assert seed_to_repeat(runs) == 6
    assert seed_to_repeat([confirmation(6, Outcome.CRASHED)]) is None  # which is an answer

    # The same bytes tried again: their seeds are drawn already, whatever those came to.
    earlier = [confirmation(6, Outcome.CRASHED), confirmation(7, Outcome.SCORED, SHARED)]
    assert seed_to_repeat([scored(1.9)], earlier) == 6
    assert seed_to_repeat([confirmation(6, None)], earlier) == 7
    assert seed_to_repeat([confirmation(6, Outcome.SCORED), confirmation(7, None)], earlier) is None


def test_where_no_confirmation_answered_nothing_is_confirmed_and_the_researcher_is_told_what_to_call() -> None:
    runs = [scored(1.9), *[scored(1.9, CONFIRM, contended=SHARED)] * MAX_CONFIRMATIONS]
    assert further_runs(runs, judged(runs)) is None
    assert not is_confirmed(runs)
    assert not judged(runs).keepable
    remark = unconfirmed_remark("e0002", runs, judged(runs))
    assert SHARED in remark
    assert "confirm_experiment('e0002')" in remark
    assert unconfirmed_remark("e0002", [scored(2.0)], judged([scored(2.0)])) == ""


def test_a_cancelled_confirmation_is_not_queued_again() -> None:
    runs = [scored(1.9), run_of(RunResult(outcome=Outcome.CANCELLED, reason="cancelled"), CONFIRM, seed=6)]
    assert further_runs(runs, judged(runs)) is None
    runs.append(run_of(RunResult(outcome=Outcome.SCORED, reason="scored", val_bpb=1.9), CONFIRM, seed=6))
    assert further_runs(runs, judged(runs)) == (CONFIRM, 1)  # somebody asked for it again, and one more is missing


def test_a_contended_number_that_could_be_kept_needs_another_run_at_most_twice() -> None:
    runs = [scored(2.0, contended=SHARED)]
    for _ in range(MAX_EXTRA_RUNS):
        assert further_runs(runs, judged_as_baseline(runs)) == (Purpose.REPEAT, 1)
        runs.append(scored(2.0, Purpose.REPEAT, contended=SHARED))
    assert further_runs(runs, judged_as_baseline(runs)) is None


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([scored(2.0)], id="it was alone"),
        pytest.param([scored(2.0, contended=SHARED), scored(2.0)], id="the second was alone"),
        pytest.param([scored(2.0, contended=SHARED, tainted="x")], id="tainted"),
        pytest.param([scored(2.0, contended=SHARED), ended(Outcome.CANCELLED)], id="cancelled"),
        pytest.param([ended(Outcome.CRASHED, contended=SHARED)], id="no number"),
        pytest.param([scored(2.0, contended=SHARED, error=0.5)], id="too blurred to be kept"),
    ],
)
def test_otherwise_no_run_is_added(runs: list[Run]) -> None:
    assert further_runs(runs, judged_as_baseline(runs)) is None


def test_a_lost_repetition_is_tried_once_more() -> None:
    runs = [scored(2.0, contended=SHARED), ended(Outcome.LOST, Purpose.REPEAT)]
    assert further_runs(runs, judged_as_baseline(runs)) == (Purpose.REPEAT, 1)


def test_an_answer_is_in_doubt_where_no_run_had_the_device_to_itself_or_one_is_tainted() -> None:
    within = experiment_of(Verdict.WITHIN_NOISE, 2.0)
    assert doubt_of(within, [scored(2.0, contended=SHARED)]) == "contended"
    assert doubt_of(within, [scored(2.0, tainted="x")]) == "tainted"
    late = [ended(Outcome.TIMED_OUT, contended=SHARED)]
    assert doubt_of(experiment_of(Verdict.TIMED_OUT, None), late) == "contended"
    assert doubt_of(experiment_of(None, None), late) == ""  # it is not judged yet
    assert doubt_of(within, [scored(2.0)]) == ""
    assert doubt_of(within, [scored(2.0, contended=SHARED), scored(2.0)]) == ""
    assert doubt_of(within, []) == ""


def test_the_note_says_why_an_experiment_that_has_a_number_goes_on() -> None:
    assert confirmation_note([run_of(None)]) == ""
    assert confirmation_note([scored(2.0)]) == ""
    shared = confirmation_note([scored(2.0, contended=SHARED), run_of(None, Purpose.REPEAT)])
    assert "run 2 of at most 3" in shared
    assert SHARED in shared
    confirmed = confirmation_note([scored(1.9), run_of(None, CONFIRM), run_of(None, CONFIRM)])
    assert "run 2 of 3" in confirmed
    assert "fresh ones decide" in confirmed
