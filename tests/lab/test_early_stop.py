"""What may end a run early comes from the record, and only for the first run of an idea; recorded runs can be judged again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.config import LabConfig, parse_config
from autoresearch_mcp.lab.dispatch import judge_experiment
from autoresearch_mcp.lab.early_stop import early_stop_of, parent_run, replayed
from autoresearch_mcp.lab.errors import CandidateError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.pruning import EarlyStop
from autoresearch_mcp.lab.recording import queue_run
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Outcome, Purpose, Verdict

BUDGET = 2.0  # of the lab of these tests
Curve = Callable[[float], float]


def learns(share: float) -> float:
    return 2.0 + 3.6 * math.exp(-4 * share)


def tried(
    lab: Lab,
    val_bpb: float | None,
    curve: Curve | None = learns,
    *,
    outcome: Outcome = Outcome.SCORED,
    vocab_size: int = 257,
    reason: str = "measured",
    until: float = 1.0,
    **facts: Any,
) -> Experiment:
    """Propose another train.py, and record a curve and a result of its run."""
    number = lab.ledger.count_experiments()
    if number:
        lab.workspace.train.write_text(lab.workspace.train.read_text() + f"\nX{number} = {number}\n")
    experiment, _ = experiments.propose(lab, description=f"idea {number}", hypothesis="")
    (run,) = lab.ledger.runs(experiment.id)
    paths = lab.state.run(run.attempt_id)
    paths.root.mkdir(parents=True)
    shares = [step / 100 for step in range(1, int(100 * until))] if curve is not None else []
    lines = [
        json.dumps({"step": n, "seconds": BUDGET * share, "loss": curve(share)}) for n, share in enumerate(shares) if curve
    ]
    paths.curve.write_text("".join(f"{line}\n" for line in ['{"step": 0, "seconds": 0.0, "loss": 99.0}', *lines, '{"st']))
    result = RunResult(
        outcome=outcome,
        reason=reason,
        val_bpb=val_bpb,
        standard_error=None if val_bpb is None else 0.0,
        vocab_size=vocab_size,
        elapsed_seconds=until * BUDGET,
        wall_seconds=until * BUDGET * 1.5,
        scoring_seconds=None if val_bpb is None else 4.0,
        total_seconds=10.0,
        **facts,
    )
    with lab.ledger.transaction():
        lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
        judge_experiment(lab, experiment)
    return lab.ledger.experiment(experiment.id)


def above(nats: float) -> Curve:
    return lambda share: learns(share) + nats


def config_of(text: str = "") -> LabConfig:
    return parse_config(f"[budget]\nseconds = {BUDGET}\n{text}", source="the test")


def stop_of(lab: Lab, config: LabConfig, *, purpose: Purpose = Purpose.PROPOSED) -> EarlyStop | None:
    """Return what may end the next run of a new idea."""
    number = lab.ledger.count_experiments()
    lab.workspace.train.write_text(lab.workspace.train.read_text() + f"\nX{number} = {number}\n")
    experiment, _ = experiments.propose(lab, description="the next", hypothesis="")
    if purpose is not Purpose.PROPOSED:
        queue_run(lab, experiment.id, config, purpose)
    run = lab.ledger.runs(experiment.id)[-1]
    parent = parent_run(lab, experiment)
    return early_stop_of(lab, experiment, run, config, parent)


def test_a_new_idea_is_compared_with_its_parents_curve_once_enough_runs_are_recorded(still: Lab) -> None:
    tried(still, 2.5)
    for excess in (0.1, 0.2, -0.1, 0.05, 0.0, 0.0, 0.1):
        tried(still, 2.5, above(excess))
    stop = stop_of(still, config_of())
    assert stop is not None
    assert (stop.diverged, stop.margin, stop.parent_vocab_size) == (True, None, 257)  # seven are too few
    assert stop.parent_losses[-1] == pytest.approx(learns(0.95), abs=0.01)
    assert stop.parent_losses[:2] == (None, None)  # what was reported before the clock ran is no part of the curve
    tried(still, 3.5, above(1.5))  # far worse: how far it lay above says nothing of what comes back
    tried(still, 2.51, above(0.9))  # worse within noise: it did not come back either
    tried(still, 2.5, above(0.12))
    stop = stop_of(still, config_of())
    assert stop is not None
    assert stop.margin == pytest.approx(0.4, abs=0.01)
    assert (stop_of(still, config_of("[early_stop]\nmargin = 0.7\n")) or EarlyStop()).margin == 0.7


@pytest.mark.parametrize("purpose", [Purpose.REPEAT, Purpose.CONFIRM, Purpose.NOISE])
def test_a_run_that_repeats_confirms_or_measures_noise_is_never_ended_early(still: Lab, purpose: Purpose) -> None:
    tried(still, 2.5)
    assert stop_of(still, config_of(), purpose=purpose) is None


def test_a_baseline_is_never_ended_early(still: Lab) -> None:
    baseline, _ = experiments.propose(still, description="baseline", hypothesis="")
    assert early_stop_of(still, baseline, still.ledger.runs(baseline.id)[0], config_of(), None) is None


def test_without_a_parents_curve_only_divergence_is_judged(still: Lab) -> None:
    tried(still, 2.5, None)
    assert stop_of(still, config_of("[early_stop]\nmargin = 0.5\n")) == EarlyStop(diverged=True, after_share=0.3)
    assert stop_of(still, config_of("[early_stop]\ndiverged = false\nfutility = false\n")) is None


def test_a_pruned_experiment_has_no_number_and_is_no_crash_but_counts_as_tried(still: Lab) -> None:
    tried(still, 2.5)
    said = "after 0.6 s its loss 5.06 was 0.60 above the parent's 4.46 at the same time"
    pruned = tried(still, None, above(0.6), outcome=Outcome.PRUNED, reason=said, until=0.3)
    assert (pruned.verdict, pruned.val_bpb, pruned.keepable) == (Verdict.PRUNED, None, False)
    assert pruned.reason == f"the run was ended early, so there is no number to compare: {said}"
    session = still.session()
    assert still.ledger.count_experiments("session = ?", session.tag) == 2
    experiments.revert(still, pruned.id, "hopeless")
    still.workspace.train.write_bytes(still.ledger.stored(pruned.candidate_sha256))
    with pytest.raises(CandidateError, match=r"tried as e0002 \(pruned, reverted\)"):
        experiments.propose(still, description="again", hypothesis="")


def test_a_run_that_was_ended_early_beside_others_may_be_tried_again(still: Lab) -> None:
    tried(still, 2.5)
    pruned = tried(still, None, outcome=Outcome.PRUNED, until=0.3, contended="others used 90% of the run's 2 cores")
    assert "run_experiment with the same train.py" in pruned.reason
    again, is_new = experiments.propose(still, description="again", hypothesis="")
    assert (again.id, is_new) == ("e0003", True)


def test_recorded_runs_are_judged_again_with_the_margin_of_their_time(still: Lab) -> None:
    tried(still, 2.5)
    first = tried(still, 2.7, above(0.6))  # too few are recorded to judge it
    for excess in (0.1, 0.2, -0.1, 0.05, 0.0, 0.0, 0.1, 0.0):
        tried(still, 2.5, above(excess))
    hopeless, lucky = tried(still, 2.9, above(0.7)), tried(still, 2.3, above(0.5))
    tried(still, 2.9, above(0.9), vocab_size=512)  # counts other tokens
    tried(still, 2.9, None)
    tried(still, None, above(0.7), outcome=Outcome.PRUNED, until=0.5)
    session = still.session()
    found = replayed(still, session.group, still.session_config(session))
    assert (first.verdict, lucky.keepable) == (Verdict.WORSE, True)
    assert (found.compared, found.device_seconds) == (11, 110.0)
    assert [(each.experiment, each.won, each.verdict) for each in found.would_end] == [
        (hopeless.id, False, "worse"),
        (lucky.id, True, "improved"),
    ]
    assert found.margin == pytest.approx(0.4, abs=0.01)
    # What is left of the budget, at the pace of the wall's clock, and scoring.
    assert [each.saved_seconds for each in found.would_end] == [pytest.approx(0.69 * BUDGET * 1.5 + 4.0, abs=0.1)] * 2
    assert (found.winners_lost, found.winners >= 1) == (1, True)
    assert (found.ended, found.ended_seconds) == (1, pytest.approx(0.5 * BUDGET * 1.5 + 4.0, abs=0.1))
