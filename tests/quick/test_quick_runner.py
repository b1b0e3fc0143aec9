"""The runner of the other tests: it must behave as the real one does where they rely on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Verdict


def test_a_quick_run_measures_what_train_py_says(make_quick_lab: Callable[..., Lab]) -> None:
    lab = make_quick_lab()
    baseline, _ = experiments.propose(lab, description="baseline", hypothesis="")
    baseline = wait(lab, baseline.id, 20.0)
    assert (baseline.verdict, baseline.val_bpb) == (Verdict.IMPROVED, 2.0)
    lab.workspace.train.write_text(lab.workspace.train.read_text().replace("val_bpb=2.0", "outcome=crashed"))
    crashed, _ = experiments.propose(lab, description="a crash", hypothesis="")
    assert wait(lab, crashed.id, 20.0).verdict is Verdict.CRASHED
    assert lab.ledger.verify() == []


@pytest.mark.parametrize(("wish", "verdict"), [("seconds=60", Verdict.TIMED_OUT), ("seconds=4", Verdict.CANCELLED)])
def test_a_quick_run_keeps_its_budget_and_can_be_cancelled(
    make_quick_lab: Callable[..., Lab], wish: str, verdict: Verdict
) -> None:
    lab = make_quick_lab(seconds=1.0 if verdict is Verdict.TIMED_OUT else 5.0)
    lab.workspace.train.write_text(lab.workspace.train.read_text().replace("val_bpb=2.0", wish))
    lab.start_session("new", "tester")
    experiment, _ = experiments.propose(lab, description="a long one", hypothesis="")
    if verdict is Verdict.CANCELLED:
        experiments.cancel(lab, experiment.id)
    assert wait(lab, experiment.id, 20.0).verdict is verdict
