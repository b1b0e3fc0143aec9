"""Results without training: experiments are proposed for real, and their results recorded as the dispatcher would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import judge_experiment
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Outcome


@pytest.fixture
def record() -> Callable[..., Experiment]:
    """Return a function that proposes the workspace's train.py with ``change`` appended, and records its result.

    For an experiment that goes on, that of its next run; further keyword arguments are fields of the result.
    """
    return _record


def _record(
    lab: Lab,
    val_bpb: float | None,
    *,
    change: str = "",
    outcome: Outcome = Outcome.SCORED,
    reason: str = "measured",
    log: str = "",
    description: str = "an idea",
    hypothesis: str = "",
    **facts: str | float,
) -> Experiment:
    lab.workspace.train.write_text(lab.workspace.train.read_text() + change)
    experiment, _ = experiments.propose(lab, description=description, hypothesis=hypothesis)
    run = next(run for run in lab.ledger.runs(experiment.id) if run.result is None)
    result = RunResult(
        outcome=outcome,
        reason=reason,
        val_bpb=val_bpb,
        standard_error=None if val_bpb is None else 0.0,
        total_seconds=3.0,
        guarantees={"time": "the referee's clock"},
        **facts,  # type: ignore[arg-type]
    )
    if log:
        paths = lab.state.run(run.attempt_id)
        paths.root.mkdir(parents=True)
        paths.log.write_text(log)
    with lab.ledger.transaction():
        lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
        judge_experiment(lab, experiment)
    return lab.ledger.experiment(experiment.id)
