"""Seeds that are run while a lab has nothing else to do."""

from __future__ import annotations

import time

import pytest
from autoresearch_mcp.lab import dispatch, experiments, idle
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Outcome, Purpose, RunState

from ..conftest import QUICK_TRAIN_PY, MakeLab
from ..polling import until

SLOW = QUICK_TRAIN_PY.replace("val_bpb=2.0", "val_bpb=2.0 seconds=4")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab counts as idle after a moment."""
    monkeypatch.setattr(idle, "IDLE_SECONDS", 0.3)


def noise_runs(lab: Lab, experiment_id: str, state: RunState = RunState.FINISHED) -> int:
    runs = lab.ledger.runs(experiment_id)
    return sum(run.purpose is Purpose.NOISE and run.state is state for run in runs)


@pytest.mark.usefixtures("soon")
def test_a_lab_left_alone_measures_its_noise_on_three_seeds_of_the_baseline_and_then_stops(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab(gate="confirmed", idle=True)
    baseline = dispatch.wait(lab, experiments.propose(lab, description="baseline", hypothesis="")[0].id, 60)
    assert noise_runs(lab, baseline.id) == 0

    def measured() -> bool:
        dispatch.dispatch(lab)
        return noise_runs(lab, baseline.id) == idle.NOISE_RUNS - 1

    until(measured)
    assert lab.noise(lab.session()).source == "measured"
    assert idle.idle_experiment(lab) is None


@pytest.mark.usefixtures("soon")
def test_a_lab_whose_human_does_not_want_that_stays_idle(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab(gate="confirmed", idle=False)
    dispatch.wait(lab, experiments.propose(lab, description="baseline", hypothesis="")[0].id, 60)
    time.sleep(idle.IDLE_SECONDS)
    assert idle.idle_experiment(lab) is None


@pytest.mark.usefixtures("soon")
def test_it_gives_way_to_an_experiment_at_once(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab(gate="confirmed", idle=True, train=SLOW)
    baseline = dispatch.wait(lab, experiments.propose(lab, description="baseline", hypothesis="")[0].id, 60)

    def measuring() -> bool:
        dispatch.dispatch(lab)
        return noise_runs(lab, baseline.id, RunState.RUNNING) == 1

    until(measuring)
    lab.workspace.train.write_text(SLOW.replace("val_bpb=2.0 seconds=4", "val_bpb=2.3"))
    began = time.monotonic()
    idea = experiments.propose(lab, description="quicker", hypothesis="")[0]
    assert dispatch.wait(lab, idea.id, 60).val_bpb == 2.3
    assert time.monotonic() - began < 3.5  # it did not wait for the four seconds
    ended = [run.result for run in lab.ledger.runs(baseline.id) if run.purpose is Purpose.NOISE]
    assert [result.outcome for result in ended if result is not None] == [Outcome.CANCELLED]
    assert lab.ledger.experiment(baseline.id).val_bpb == 2.0
