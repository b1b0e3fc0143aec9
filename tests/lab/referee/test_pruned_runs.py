"""Hopeless runs end early, for real; good ones, silent ones, and those that confirm train to the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import dispatch, wait
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.referee.specfile import read_spec, write_spec
from autoresearch_mcp.lab.states import Verdict
from autoresearch_mcp.tools.describe import describe
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.show_experiment import show_experiment

pytestmark = pytest.mark.slow

BUDGET_SECONDS = 6.0  # a tenth of it has reports enough to be judged
RULES = "[early_stop]\nmargin = 0.5\n"


def run(lab: Lab, source: str, description: str) -> tuple[Experiment, RunResult]:
    lab.workspace.train.write_text(source)
    experiment, _ = experiments.propose(lab, description=description, hypothesis="")
    experiment = wait(lab, experiment.id, 120.0)
    result = lab.ledger.runs(experiment.id)[-1].result
    assert result is not None, "the run did not end in time"
    return experiment, result


def test_hopeless_runs_are_pruned_and_others_train_to_the_end(make_lab: Callable[..., Lab], train_py: str) -> None:
    lab = make_lab(seconds=BUDGET_SECONDS, extra=RULES)
    lab.start_session(None, "tester")

    def rate(text: str) -> str:
        assert "LEARNING_RATE = 0.05" in train_py
        return train_py.replace("LEARNING_RATE = 0.05", f"LEARNING_RATE = {text}")

    run(lab, train_py, "baseline")
    assert read_spec(lab.state.run("e0001.1")).early_stop is None

    good, result = run(lab, rate("0.04"), "nearly the same")
    assert good.val_bpb is not None, good.reason
    spec = read_spec(lab.state.run(f"{good.id}.1"))
    assert spec.early_stop is not None
    assert (spec.early_stop.margin, spec.early_stop.parent_vocab_size) == (0.5, 257)
    write_spec(lab.state.run("copy"), spec)
    assert read_spec(lab.state.run("copy")) == spec

    exploding = rate("1e30")
    pruned, result = run(lab, exploding, "explodes")
    assert pruned.verdict is Verdict.PRUNED, pruned.reason
    assert "was not finite" in pruned.reason
    assert (result.val_bpb, result.claimed_bpb, result.scoring_seconds) == (None, None, None)
    assert (result.elapsed_seconds or 99.0) < 0.4 * BUDGET_SECONDS

    hopeless = train_py.replace("loss.item()", "loss.item() + 1.0")  # a loss one nat above the parent's
    pruned, result = run(lab, hopeless, "far above its parent")
    assert pruned.verdict is Verdict.PRUNED, pruned.reason
    assert "above the parent's" in pruned.reason
    assert "beyond the margin of 0.50" in pruned.reason
    assert 0.3 * BUDGET_SECONDS <= (result.elapsed_seconds or 0.0) < 0.5 * BUDGET_SECONDS

    answer = describe(lab, pruned)
    assert (answer.experiment.verdict, answer.experiment.val_bpb, answer.keepable) == ("pruned", None, False)
    assert "beyond the margin" in show_experiment(lab, pruned.id).content
    assert [row.id for row in history(lab, verdict="pruned", sort="oldest").experiments] == ["e0003", "e0004"]
    assert lab.stop_reason(lab.session()) is None

    renamed = hopeless.replace("report(step, loss=", "report(step, objective=")
    silent, result = run(lab, renamed, "the same, under another name")
    assert silent.val_bpb is not None, silent.reason
    assert (result.elapsed_seconds or 0.0) > 0.9 * BUDGET_SECONDS

    experiments.confirm(lab, good.id, 1)
    dispatch(lab)
    confirmation = lab.ledger.runs(good.id)[-1]
    assert read_spec(lab.state.run(confirmation.attempt_id)).early_stop is None
    experiments.cancel(lab, good.id)
    assert lab.ledger.verify() == []
