"""Results without training: an experiment is proposed for real, and its result recorded as the dispatcher would."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Protocol

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import judge_experiment
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Decision, Outcome, Verdict


class Measure(Protocol):
    def __call__(
        self, val_bpb: float | None = None, *, change: str | None = None, outcome: Outcome = Outcome.SCORED
    ) -> Experiment: ...


@pytest.fixture
def measured(lab: Lab) -> Measure:
    """Propose the workspace's train.py, with WIDTH or more text changed, and record a result for it."""

    def measure(val_bpb: float | None = None, *, change: str | None = None, outcome: Outcome = Outcome.SCORED) -> Experiment:
        if change is not None:
            source = lab.workspace.train.read_text()
            replaced = re.sub(r"WIDTH = \d+", f"WIDTH = {change}", source) if change.isdigit() else source + change
            lab.workspace.train.write_text(replaced)
        hold = try_lock(lab.state.dispatch_lock)  # nothing is trained in these tests
        assert hold is not None
        try:
            experiment, _ = experiments.propose(lab, description=f"try {change}" if change else "baseline", hypothesis="")
            (run,) = lab.ledger.runs(experiment.id)
            result = RunResult(outcome=outcome, reason="measured", val_bpb=val_bpb, standard_error=0.0 if val_bpb else None)
            with lab.ledger.transaction():
                lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
                judge_experiment(lab, experiment)
        finally:
            os.close(hold)
        return lab.ledger.experiment(experiment.id)

    return measure


@pytest.fixture
def experiment_of() -> Callable[..., Experiment]:
    """Return a function that makes the record of experiment ``number``; keyword arguments are its fields."""

    def make(number: int, **fields: object) -> Experiment:
        values: dict[str, object] = {
            "id": f"e{number:04d}",
            "session": "s",
            "researcher": "tester",
            "parent": None if number == 1 else "e0001",
            "parent_version": 0,
            "description": f"idea {number}",
            "hypothesis": "",
            "candidate_sha256": f"{number:064x}",
            "commit": f"{number:040x}",
            "program_sha256": "a" * 64,
            "lines": 40,
            "lines_delta": 0,
            "created_at": 1000.0 * number,
            "verdict": Verdict.IMPROVED,
            "reason": "",
            "val_bpb": None,
            "standard_error": 0.0,
            "delta": None,
            "z": None,
            "confidence": None,
            "keepable": False,
            "decision": Decision.REVERTED,
            "note": "",
            "decided_at": None,
            "theme": "other",
            "changes": {},
            "added": 0,
            "removed": 0,
            "rebase_of": None,
        }
        return Experiment(**{**values, **fields})  # type: ignore[arg-type]

    return make
