"""Which runs a verdict rests on, and when one more is needed: pure functions over results."""

from __future__ import annotations

import math

import pytest
from autoresearch_mcp.lab.confirmation import (
    MAX_EXTRA_RUNS,
    confirmation_note,
    may_be_repeated,
    needs_another_run,
    weigh,
)
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.policy import Judgement, judge
from autoresearch_mcp.lab.states import Outcome

SHARED = "others used 40% of the run's 2 cores"


def scored(val_bpb: float, *, contended: str | None = None, tainted: str | None = None, error: float = 0.0) -> RunResult:
    return RunResult(
        outcome=Outcome.SCORED,
        reason="scored",
        val_bpb=val_bpb,
        standard_error=error,
        contended=contended,
        tainted=tainted,
    )


def ended(outcome: Outcome, *, contended: str | None = None) -> RunResult:
    return RunResult(outcome=outcome, reason=f"it {outcome}", contended=contended)


def judgement_of(*results: RunResult) -> Judgement:
    """Judge as the baseline of a session: whatever has a number may be kept."""
    evidence = weigh(results)
    return judge(evidence.outcome, evidence.measurement, None, sigma=0.02, sigma_is_prior=True)


def test_a_run_that_had_its_device_to_itself_is_the_answer() -> None:
    evidence = weigh([scored(2.0)])
    assert evidence.measurement is not None
    assert (evidence.outcome, evidence.measurement.val_bpb, evidence.doubt) == (Outcome.SCORED, 2.0, "")


def test_the_runs_that_were_not_contended_decide_alone_and_their_mean_is_the_number() -> None:
    evidence = weigh([scored(1.0, contended=SHARED), scored(2.0, error=0.003), scored(2.2, error=0.004)])
    assert evidence.measurement is not None
    assert evidence.measurement.val_bpb == pytest.approx(2.1)
    assert evidence.measurement.standard_error == pytest.approx(math.hypot(0.003, 0.004) / 2)
    assert (evidence.measurement.runs, evidence.contended) == (2, ())


def test_where_every_run_was_contended_their_mean_stands_and_counts_as_one_run() -> None:
    evidence = weigh([scored(1.0, contended="a"), scored(2.0, contended="b"), scored(3.0, contended="b")])
    assert evidence.measurement is not None
    assert (evidence.measurement.val_bpb, evidence.measurement.runs) == (2.0, 1)
    assert (evidence.doubt, evidence.contended) == ("contended", ("a", "b", "b"))
    remark = evidence.remark(becomes_champion=False)
    assert "each of its 3 runs: a; b." in remark
    assert "run_experiment with the same train.py" in remark
    assert "start_session" in evidence.remark(becomes_champion=True)


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.INVALID])
def test_a_failure_alone_on_its_device_decides_and_one_beside_others_does_not(outcome: Outcome) -> None:
    assert weigh([scored(2.0, contended=SHARED), ended(outcome)]).outcome is outcome
    assert weigh([scored(2.0, contended=SHARED), ended(outcome, contended=SHARED)]).outcome is Outcome.SCORED
    assert weigh([ended(outcome, contended=SHARED)]).outcome is outcome


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.CANCELLED])
def test_a_run_without_an_answer_decides_only_where_there_is_no_other(outcome: Outcome) -> None:
    assert weigh([scored(2.0, contended=SHARED), ended(outcome)]).outcome is Outcome.SCORED
    alone = weigh([ended(outcome)])
    assert (alone.outcome, alone.measurement, alone.doubt) == (outcome, None, "")


def test_one_tainted_run_taints_the_experiment_and_says_whose_task_it_is() -> None:
    evidence = weigh([scored(2.0, contended=SHARED), scored(2.0, tainted="the corpus changed")])
    assert evidence.doubt == "tainted"
    assert evidence.obstacle == "its run is tainted"
    assert "the corpus changed" in evidence.remark(becomes_champion=False)
    assert "autoresearch init" in evidence.remark(becomes_champion=False)


def test_a_contended_number_that_could_be_kept_needs_another_run_at_most_twice() -> None:
    results = [scored(2.0, contended=SHARED)]
    for _ in range(MAX_EXTRA_RUNS):
        assert needs_another_run(results, judgement_of(*results))
        results.append(scored(2.0, contended=SHARED))
    assert not needs_another_run(results, judgement_of(*results))


@pytest.mark.parametrize(
    "results",
    [
        pytest.param([scored(2.0)], id="it was alone"),
        pytest.param([scored(2.0, contended=SHARED), scored(2.0)], id="the second was alone"),
        pytest.param([scored(2.0, contended=SHARED, tainted="x")], id="tainted"),
        pytest.param([scored(2.0, contended=SHARED), ended(Outcome.CANCELLED)], id="cancelled"),
        pytest.param([ended(Outcome.CRASHED, contended=SHARED)], id="no number"),
        pytest.param([scored(2.0, contended=SHARED, error=0.5)], id="too blurred to be kept"),
    ],
)
def test_otherwise_no_run_is_added(results: list[RunResult]) -> None:
    assert not needs_another_run(results, judgement_of(*results))


def test_a_lost_confirmation_is_tried_once_more() -> None:
    results = [scored(2.0, contended=SHARED), ended(Outcome.LOST)]
    assert needs_another_run(results, judgement_of(*results))


def test_bytes_may_be_repeated_exactly_while_their_answer_is_in_doubt() -> None:
    assert may_be_repeated([scored(2.0, contended=SHARED)])
    assert may_be_repeated([scored(2.0, tainted="x")])
    assert may_be_repeated([ended(Outcome.TIMED_OUT, contended=SHARED)])
    assert not may_be_repeated([scored(2.0)])
    assert not may_be_repeated([scored(2.0, contended=SHARED), scored(2.0)])
    assert not may_be_repeated([])


def test_the_note_counts_the_runs_and_says_what_was_shared() -> None:
    assert confirmation_note([]) == ""
    note = confirmation_note([scored(2.0, contended=SHARED)])
    assert "run 2 of at most 3" in note
    assert SHARED in note
