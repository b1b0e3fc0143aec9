"""`autoresearch early-stop`: what ending hopeless runs would have saved and lost, told from the record."""

from __future__ import annotations

import json
from pathlib import Path

from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import judge_experiment
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.server.cli.application import app
from typer.testing import CliRunner

BUDGET_SECONDS = 2.0  # of the lab


def call(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def record(lab: Lab, description: str, val_bpb: float, loss: float) -> None:
    """Propose another train.py, and record that its run reported ``loss`` all along and was measured as ``val_bpb``."""
    lab.workspace.train.write_text(lab.workspace.train.read_text() + ("" if description == "baseline" else "\nX = 1\n"))
    experiment, _ = experiments.propose(lab, description=description, hypothesis="")
    (run,) = lab.ledger.runs(experiment.id)
    paths = lab.state.run(run.attempt_id)
    paths.root.mkdir(parents=True)
    reports = [{"step": step, "seconds": BUDGET_SECONDS * step / 100, "loss": loss} for step in range(1, 100)]
    paths.curve.write_text("".join(f"{json.dumps(report)}\n" for report in reports))
    result = RunResult(
        outcome=Outcome.SCORED,
        reason="scored",
        val_bpb=val_bpb,
        standard_error=0.0,
        vocab_size=257,
        elapsed_seconds=BUDGET_SECONDS,
        wall_seconds=BUDGET_SECONDS,
        scoring_seconds=3.0,
        total_seconds=10.0,
    )
    with lab.ledger.transaction():
        lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
        judge_experiment(lab, experiment)


def test_it_tells_the_seconds_saved_and_the_share_of_winners_lost(still: Lab) -> None:
    assert "The rules would have ended 0, saved 0 device seconds and lost 0 of the 0." in call(
        "early-stop", "--lab", still.root
    )
    record(still, "baseline", 2.5, 3.0)
    record(still, "no learning at all", 3.5, 5.5)
    told = call("early-stop", "--lab", still.root)
    assert "(a curve, and their parent's): 1. They took 10 device seconds; 0 of them were kept" in told
    assert "The rules would have ended 1, saved 5 device seconds (48%) and lost 0 of the 0." in told
    assert "e0002 (worse +1.0000) no learning at all: after 0.1 s its loss 5.50 was 2.50 above the parent's 3.00" in told
    assert "diverged is on, futility is on; its margin now: not known yet, too few runs are recorded." in told
    facts = json.loads(call("early-stop", "--json", "--lab", still.root))
    assert (facts["compared"], facts["saved_seconds"], facts["winners_lost"], facts["margin"]) == (1, 4.8, 0, None)
    assert [each["experiment"] for each in facts["would_end"]] == ["e0002"]
