"""What becomes of experiments whose runs were contended or tainted: results are recorded by hand, everything else is real."""

from __future__ import annotations

import re

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import current_progress, judge_experiment
from autoresearch_mcp.lab.errors import CandidateError, DecisionError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Decision, Outcome, RunState, Verdict

SHARED = "others used 40% of the run's 2 cores, more than the 15% that count as ordinary here"
TAINT = "the harness was changed while it ran"


def propose(lab: Lab, width: int = 16) -> Experiment:
    """Propose train.py with this width; 16 is the baseline's."""
    source = lab.workspace.train.read_text()
    lab.workspace.train.write_text(re.sub(r"WIDTH = \d+", f"WIDTH = {width}", source))
    return experiments.propose(lab, description=f"width {width}", hypothesis="")[0]


def finish(
    lab: Lab,
    experiment: Experiment,
    val_bpb: float | None = None,
    *,
    contended: str | None = None,
    tainted: str | None = None,
    outcome: Outcome = Outcome.SCORED,
) -> Experiment:
    """Record how the run that waits ended, as the dispatcher would."""
    (run,) = [run for run in lab.ledger.runs(experiment.id) if run.state is not RunState.FINISHED]
    result = RunResult(
        outcome=outcome,
        reason="measured",
        val_bpb=val_bpb,
        standard_error=None if val_bpb is None else 0.0,
        others_share=0.4 if contended else 0.01,
        contended=contended,
        tainted=tainted,
    )
    with lab.ledger.transaction():
        lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
        judge_experiment(lab, experiment)
    return lab.ledger.experiment(experiment.id)


def test_a_contended_baseline_is_run_again_with_a_fresh_seed_and_says_why_it_goes_on(still: Lab) -> None:
    baseline = finish(still, propose(still), 2.0, contended=SHARED)
    assert (baseline.verdict, still.session().champion) == (None, None)
    first, second = still.ledger.runs(baseline.id)
    assert (second.id, second.state) == (f"{baseline.id}.2", RunState.QUEUED)
    assert first.seed != second.seed
    assert SHARED in current_progress(still, baseline.id).note
    assert propose(still).id == baseline.id  # it is not over, so asking again changes nothing
    with pytest.raises(DecisionError, match="wait_experiment"):
        experiments.keep(still, baseline.id, "")


def test_the_run_that_was_alone_decides(still: Lab) -> None:
    baseline = finish(still, propose(still), 2.0)
    candidate = propose(still, 32)
    assert finish(still, candidate, 1.5, contended=SHARED).verdict is None
    judged = finish(still, candidate, 1.9)
    assert (judged.verdict, judged.val_bpb, judged.keepable) == (Verdict.IMPROVED, 1.9, True)
    assert "shared" not in judged.reason
    assert experiments.keep(still, judged.id, "").experiment.decision is Decision.KEPT
    assert judged.parent == baseline.id
    assert still.ledger.verify() == []


def test_a_gain_that_was_only_luck_beside_others_does_not_survive_its_confirmation(still: Lab) -> None:
    finish(still, propose(still), 2.0)
    candidate = propose(still, 32)
    finish(still, candidate, 1.5, contended=SHARED)
    judged = finish(still, candidate, 2.3)
    assert (judged.verdict, judged.val_bpb, judged.keepable) == (Verdict.WORSE, 2.3, False)


def test_a_crash_alone_on_the_device_decides_too(still: Lab) -> None:
    finish(still, propose(still), 2.0)
    candidate = propose(still, 32)
    finish(still, candidate, 1.5, contended=SHARED)
    assert finish(still, candidate, outcome=Outcome.CRASHED).verdict is Verdict.CRASHED


def test_a_contended_number_that_is_no_gain_stands_without_another_run_and_may_be_tried_again(still: Lab) -> None:
    finish(still, propose(still), 2.0)
    worse = finish(still, propose(still, 32), 2.5, contended=SHARED)
    assert (worse.verdict, worse.val_bpb, worse.keepable) == (Verdict.WORSE, 2.5, False)
    assert SHARED in worse.reason
    assert propose(still, 32).id != worse.id


def test_what_never_had_its_device_to_itself_cannot_be_kept_and_the_same_bytes_are_accepted_again(still: Lab) -> None:
    finish(still, propose(still), 2.0)
    candidate = propose(still, 32)
    for val_bpb in (1.8, 1.7):
        assert finish(still, candidate, val_bpb, contended=SHARED).verdict is None
    judged = finish(still, candidate, 1.6, contended=SHARED)
    assert (judged.verdict, judged.keepable) == (Verdict.IMPROVED, False)
    assert judged.val_bpb == pytest.approx(1.7)
    assert "not keepable, since it never had its device to itself" in judged.reason
    assert "run_experiment with the same train.py" in judged.reason
    with pytest.raises(DecisionError, match="shared in each of its 3 runs"):
        experiments.keep(still, judged.id, "")
    again = propose(still, 32)
    assert again.id != judged.id
    replaced = still.ledger.experiment(judged.id)
    assert (replaced.decision, replaced.note) == (Decision.REVERTED, f"tried again as {again.id}")
    assert finish(still, again, 1.7).keepable
    assert propose(still, 32).id == again.id  # this answer is not in doubt
    assert still.ledger.verify() == []


def test_a_baseline_whose_runs_were_all_contended_is_the_champion_with_a_warning(still: Lab) -> None:
    baseline = propose(still)
    for _ in range(2):
        assert finish(still, baseline, 2.0, contended=SHARED).verdict is None
    judged = finish(still, baseline, 2.0, contended=SHARED)
    assert (judged.verdict, judged.decision) == (Verdict.IMPROVED, Decision.KEPT)
    assert still.session().champion == baseline.id
    assert SHARED in judged.reason
    assert 'start_session(tag="new")' in judged.reason
    with pytest.raises(CandidateError, match="champion"):
        propose(still)
    assert finish(still, propose(still, 32), 1.9).keepable


@pytest.mark.parametrize("contended", [None, SHARED])
def test_a_tainted_experiment_is_never_kept_and_not_run_again_by_itself(still: Lab, contended: str | None) -> None:
    finish(still, propose(still), 2.0)
    tainted = finish(still, propose(still, 32), 1.5, contended=contended, tainted=TAINT)
    assert (tainted.verdict, tainted.val_bpb, tainted.keepable) == (Verdict.IMPROVED, 1.5, False)
    assert len(still.ledger.runs(tainted.id)) == 1
    with pytest.raises(DecisionError, match=TAINT):
        experiments.keep(still, tainted.id, "")
    assert propose(still, 32).id != tainted.id


def test_a_tainted_baseline_makes_no_champion_and_is_repeated_with_the_same_bytes_first(still: Lab) -> None:
    tainted = finish(still, propose(still), 2.0, tainted=TAINT)
    assert (tainted.keepable, still.session().champion) == (False, None)
    assert "autoresearch doctor" in tainted.reason
    with pytest.raises(CandidateError, match=f"{tainted.id} is tainted"):
        propose(still, 32)
    again = propose(still, 16)
    assert again.id != tainted.id
    assert finish(still, again, 2.0).decision is Decision.KEPT
    assert still.session().champion == again.id


def test_cancelling_a_confirmation_ends_the_experiment_with_the_number_it_has(still: Lab) -> None:
    finish(still, propose(still), 2.0)
    candidate = propose(still, 32)
    finish(still, candidate, 1.5, contended=SHARED)
    judged = finish(still, candidate, outcome=Outcome.CANCELLED)
    assert (judged.verdict, judged.val_bpb, judged.keepable) == (Verdict.IMPROVED, 1.5, False)
    assert [run.state for run in still.ledger.runs(candidate.id)] == [RunState.FINISHED] * 2
