"""The gate `confirmed` on a real record: results are recorded by hand, in the order in which the runs were queued."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import pytest
from autoresearch_mcp.lab import experiments, idle
from autoresearch_mcp.lab.confirmation import number_of
from autoresearch_mcp.lab.dispatch import current_progress, is_finished, judge_experiment
from autoresearch_mcp.lab.errors import DecisionError, StoppedError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.idle import queue_seeds
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import pause
from autoresearch_mcp.lab.states import Decision, Outcome, Purpose, RunState, Verdict


@pytest.fixture
def strict(make_lab: Callable[..., Lab]) -> Iterator[Lab]:
    """A lab under the gate `confirmed`, in which nothing is dispatched."""
    lab = make_lab(gate="confirmed", idle=True)
    lab.start_session(None, "tester")
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    yield lab
    os.close(hold)


def propose(lab: Lab, width: int = 16) -> Experiment:
    """Propose train.py with this width; 16 is the baseline's."""
    source = lab.workspace.train.read_text()
    lab.workspace.train.write_text(re.sub(r"WIDTH = \d+", f"WIDTH = {width}", source))
    return experiments.propose(lab, description=f"width {width}", hypothesis="")[0]


def finish(lab: Lab, experiment: Experiment, *ends: float | Outcome | RunResult) -> Experiment:
    """Record how the oldest runs that wait ended: with a val_bpb, or without."""
    for end in ends:
        run = next(run for run in lab.ledger.runs(experiment.id) if run.state is not RunState.FINISHED)
        if isinstance(end, Outcome):
            result = RunResult(outcome=end, reason="ended")
        elif isinstance(end, RunResult):
            result = end
        else:
            result = RunResult(outcome=Outcome.SCORED, reason="scored", val_bpb=end, standard_error=0.0)
        with lab.ledger.transaction():
            lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
            judge_experiment(lab, lab.ledger.experiment(experiment.id))
    return lab.ledger.experiment(experiment.id)


def purposes(lab: Lab, experiment: Experiment) -> list[Purpose]:
    return [run.purpose for run in lab.ledger.runs(experiment.id)]


def test_a_baseline_is_one_run_and_the_agent_moves_on(strict: Lab) -> None:
    baseline = finish(strict, propose(strict), 2.0)
    assert (baseline.decision, purposes(strict, baseline)) == (Decision.KEPT, [Purpose.PROPOSED])


def test_a_promising_number_is_run_twice_more_with_seeds_of_their_own_which_decide_alone(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.8)
    assert (idea.verdict, purposes(strict, idea)) == (None, [Purpose.PROPOSED, Purpose.CONFIRM, Purpose.CONFIRM])
    assert len({run.seed for run in strict.ledger.runs(idea.id)}) == 3
    assert "run 2 of 3" in current_progress(strict, idea.id).note
    idea = finish(strict, idea, 1.90, 1.94)
    assert (idea.verdict, idea.val_bpb, idea.keepable) == (Verdict.IMPROVED, pytest.approx(1.92), True)
    assert "confirmed, and may be kept" in idea.reason
    assert experiments.keep(strict, idea.id, "").experiment.decision is Decision.KEPT
    assert strict.ledger.verify() == []


def test_a_lucky_number_does_not_survive(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.95, 2.0, 1.99)
    assert (idea.verdict, idea.val_bpb, idea.keepable) == (Verdict.WITHIN_NOISE, pytest.approx(1.995), False)
    with pytest.raises(DecisionError, match=r"not better by 0\.0200"):
        experiments.keep(strict, idea.id, "")


def test_what_is_not_promising_costs_one_run(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    for width, val_bpb in ((32, 1.995), (48, 2.3)):
        idea = finish(strict, propose(strict, width), val_bpb)
        assert (len(strict.ledger.runs(idea.id)), idea.keepable) == (1, False)


def test_a_crash_with_a_fresh_seed_is_the_answer(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.8, 1.8, Outcome.CRASHED)
    assert (idea.verdict, idea.keepable) == (Verdict.CRASHED, False)


def test_a_lost_confirmation_is_replaced(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.8, 1.9, Outcome.LOST)
    assert (idea.verdict, len(strict.ledger.runs(idea.id))) == (None, 4)
    assert finish(strict, idea, 1.92).val_bpb == pytest.approx(1.91)


def test_cancelling_a_confirmation_ends_the_experiment_without_a_gain(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.8, Outcome.CANCELLED, Outcome.CANCELLED)
    assert (idea.verdict, idea.keepable) == (Verdict.IMPROVED, False)
    assert f"confirm_experiment('{idea.id}')" in idea.reason
    assert finish(strict, experiments.confirm(strict, idea.id, 2), 1.9, 1.9).keepable


def test_cancelling_draws_no_other_seeds_however_often(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.8)
    drawn = [run.seed for run in strict.ledger.runs(idea.id)][1:]
    for _ in range(5):
        finish(strict, idea, Outcome.CANCELLED, Outcome.CANCELLED)
        experiments.confirm(strict, idea.id, 2)
        assert [run.seed for run in strict.ledger.runs(idea.id)][-2:] == drawn
    idea = finish(strict, idea, 1.9, Outcome.CANCELLED)
    assert not idea.keepable
    assert "1 of the 2 runs with fresh seeds that decide gave an answer" in idea.reason
    experiments.confirm(strict, idea.id, 2)
    assert [run.seed for run in strict.ledger.runs(idea.id)][-1] == drawn[1]


def test_each_run_that_ends_is_in_the_number_of_what_stands(strict: Lab) -> None:
    baseline = finish(strict, propose(strict), 2.0)
    queue_seeds(strict, strict.session())
    half = finish(strict, baseline, 2.2)
    number = number_of(half, strict.ledger.runs(half.id))
    assert number is not None
    assert (number.val_bpb, number.runs) == (pytest.approx(2.1), 2)
    whole = finish(strict, half, 2.4)
    assert whole.reason.endswith("the first measured result of the session. Its number since then: 2.2000, by 3 runs")


def test_seeds_are_not_queued_where_no_run_would_start(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    pause(strict, "the human is away")
    with pytest.raises(StoppedError, match="autoresearch resume"):
        queue_seeds(strict, strict.session())


def test_seeds_that_gave_way_are_no_tries(strict: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "IDLE_SECONDS", 0.0)
    baseline = finish(strict, propose(strict), 2.0)
    for outcome, goes_on in ((Outcome.CANCELLED, True), (Outcome.CRASHED, False)):
        for _ in range(8):
            queue_seeds(strict, strict.session())
            finish(strict, baseline, outcome, outcome)
        assert (idle.idle_experiment(strict) is not None) is goes_on
    assert len(queue_seeds(strict, strict.session())) == 2  # a human asks for them


def test_more_seeds_may_be_asked_for_before_a_decision_and_asking_again_queues_nothing(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.8, 1.9, 1.92)
    again = experiments.confirm(strict, idea.id, 3)
    assert (again.verdict, len(strict.ledger.runs(idea.id))) == (None, 4)
    assert len(strict.ledger.runs(experiments.confirm(strict, idea.id, 3).id)) == 4
    assert not is_finished(strict, again)
    idea = finish(strict, idea, 2.2)
    assert (idea.val_bpb, idea.keepable) == (pytest.approx((1.9 + 1.92 + 2.2) / 3), False)


def test_a_near_miss_may_be_confirmed_and_kept_after_all(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.995)
    assert finish(strict, experiments.confirm(strict, idea.id, 2), 1.95, 1.95).keepable


def test_who_asks_for_more_seeds_after_two_that_said_no_gets_a_surer_number_and_no_other_verdict(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.95, 2.0, 1.99)
    more = experiments.confirm(strict, idea.id, 3)
    assert (more.verdict, is_finished(strict, more)) == (Verdict.WITHIN_NOISE, False)
    more = finish(strict, more, 1.0)
    assert "not better by 0.0200 (one sigma). Its number since then: 1.6633, by 3 runs" in more.reason
    assert (more.verdict, more.keepable, more.val_bpb) == (Verdict.WITHIN_NOISE, False, pytest.approx((2.0 + 1.99 + 1.0) / 3))
    with pytest.raises(DecisionError, match="cannot be kept"):
        experiments.keep(strict, idea.id, "")
    assert strict.ledger.verify() == []


def test_bytes_that_are_tried_again_are_confirmed_with_the_seeds_they_had(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.8)
    drawn = [run.seed for run in strict.ledger.runs(idea.id)][1:]
    tainted = RunResult(outcome=Outcome.SCORED, reason="scored", val_bpb=2.0, standard_error=0.0, tainted="the corpus changed")
    idea = finish(strict, idea, tainted, tainted)
    with pytest.raises(DecisionError, match="fresh seeds do not mend that"):
        experiments.confirm(strict, idea.id, 4)
    again = finish(strict, propose(strict, 32), 1.8)
    assert again.id != idea.id
    assert [run.seed for run in strict.ledger.runs(again.id)][1:] == drawn


def test_more_seeds_of_a_champion_sharpen_its_number_and_leave_its_verdict(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), 1.8, 1.9, 1.92)
    experiments.keep(strict, idea.id, "")
    kept = finish(strict, experiments.confirm(strict, idea.id, 3), 1.94)
    assert (kept.verdict, kept.decision, kept.val_bpb) == (Verdict.IMPROVED, Decision.KEPT, pytest.approx(1.92))
    assert is_finished(strict, kept)


def test_what_has_no_number_cannot_be_confirmed(strict: Lab) -> None:
    finish(strict, propose(strict), 2.0)
    idea = finish(strict, propose(strict, 32), Outcome.CRASHED)
    with pytest.raises(DecisionError, match="no number to confirm"):
        experiments.confirm(strict, idea.id, 2)


def test_the_seeds_of_baseline_and_champion_measure_the_noise_that_later_verdicts_use(strict: Lab) -> None:
    baseline = finish(strict, propose(strict), 2.0)
    assert strict.noise(strict.session()).source == "prior"
    assert len(queue_seeds(strict, strict.session())) == 2
    assert len(queue_seeds(strict, strict.session())) == 2  # the same two
    assert is_finished(strict, baseline)  # nobody waits for them
    measured = finish(strict, baseline, 2.1, 2.2)
    noise = strict.noise(strict.session())
    assert (noise.source, noise.runs) == ("measured", 3)
    assert noise.sigma == pytest.approx(((0.02**2 + 2 * 0.1**2) / 3) ** 0.5)
    assert (measured.val_bpb, measured.decision) == (pytest.approx(2.1), Decision.KEPT)
    assert queue_seeds(strict, strict.session()) == []
    idea = finish(strict, propose(strict, 32), 2.07)  # half of the prior's sigma below, and well within the noise
    assert (idea.verdict, len(strict.ledger.runs(idea.id))) == (Verdict.WITHIN_NOISE, 1)
    assert "measured on 3 runs" in idea.reason
    assert strict.ledger.verify() == []
