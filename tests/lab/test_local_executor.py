"""What the executor answers about run folders that somebody deleted."""

from __future__ import annotations

import shutil

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import current_progress
from autoresearch_mcp.lab.executor import RunLostError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import RunState


def test_a_run_whose_folder_is_gone_has_no_progress_and_is_lost(still: Lab) -> None:
    experiment, _ = experiments.propose(still, description="baseline", hypothesis="")
    (run,) = still.ledger.runs(experiment.id)
    paths = still.state.run(run.attempt_id)
    paths.root.mkdir(mode=0o700)
    assert still.executor.progress(run.attempt_id) is not None
    still.ledger.append("run_started", {"id": run.id, "attempt": run.attempt, "device": "cpu"})
    shutil.rmtree(paths.root)
    assert still.executor.progress(run.attempt_id) is None
    assert still.ledger.runs_in_state(RunState.RUNNING)
    assert current_progress(still, experiment.id).phase == "queued"
    assert still.executor.log(run.attempt_id) == b""
    with pytest.raises(RunLostError, match="gone"):
        still.executor.result(run.attempt_id)
