"""Claims are deleted where no later run can be audited against them, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.leftovers import drop_claims
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Outcome


def claims_of(lab: Lab, experiment: Experiment) -> Path:
    """Write claims as the runner of the experiment's run would have; returns their path."""
    (run,) = lab.ledger.runs(experiment.id)
    paths = lab.state.run(run.attempt_id)
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.claims.write_bytes(b"claims")
    return paths.claims


def test_the_claims_of_champions_and_of_what_may_become_one_stay(lab: Lab, measured) -> None:
    baseline, better, undecided = measured(2.0), measured(1.8, change="8"), measured(1.7, change="9")
    experiments.keep(lab, better.id, "")
    for experiment in (baseline, better, undecided):
        path = claims_of(lab, experiment)
        drop_claims(lab, lab.ledger.experiment(experiment.id))
        assert path.exists(), experiment.id


@pytest.mark.parametrize(("val_bpb", "outcome"), [(2.6, Outcome.SCORED), (None, Outcome.CRASHED), (None, Outcome.CANCELLED)])
def test_the_claims_of_what_can_never_be_kept_go(lab: Lab, measured, val_bpb: float | None, outcome: Outcome) -> None:
    measured(2.0)
    worse = measured(val_bpb, change="8", outcome=outcome)
    path = claims_of(lab, worse)
    drop_claims(lab, worse)
    assert not path.exists()
    assert path.parent.is_dir()
    drop_claims(lab, worse)


def test_the_claims_of_a_reverted_experiment_go_although_it_could_have_been_kept(lab: Lab, measured) -> None:
    measured(2.0)
    better = measured(1.8, change="8")
    path = claims_of(lab, better)
    experiments.revert(lab, better.id, "not worth its lines")
    assert not path.exists()
