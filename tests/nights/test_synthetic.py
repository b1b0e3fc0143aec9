"""The made-up record must be what real sessions leave behind, or what is measured on it says nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.rules import accept_rules

from .synthetic import Kind, fill

MakeLab = Callable[..., Lab]


def shapes(lab: Lab) -> dict[str, set[tuple[str, ...]]]:
    """Return the kinds of events in a record, each with the sets of fields that it came with."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for row in lab.ledger.events_after(0, limit=100_000):
        body = json.loads(row["body"])
        fields = {*body, *(f"result.{name}" for name in body.get("result", {}))}
        found.setdefault(row["kind"], set()).add(tuple(sorted(fields)))
    return found


@pytest.mark.slow
def test_made_up_events_have_the_fields_of_real_ones_and_verify_finds_nothing(make_quick_lab: MakeLab) -> None:
    real, made = make_quick_lab(name="real"), make_quick_lab(name="made")
    for number, val_bpb in enumerate((2.0, 1.9, 2.4)):
        real.workspace.program.write_text(f"# Program {number}\n")
        accept_rules(real)
        real.workspace.train.write_text(f"{real.workspace.train.read_text()}# quick: val_bpb={val_bpb}\n" if number else "")
        if number == 0:
            experiments.revert(real, experiments.WORKSPACE, "")
        experiment, _ = experiments.propose(real, description=f"idea {number}", hypothesis="")
        wait(real, experiment.id, 30.0)
        if number == 1:
            experiments.keep(real, experiment.id, "lower")
        elif number == 2:
            experiments.revert(real, experiment.id, "higher")
    fill(made, 60, sessions=2, kind=Kind(windows=3))
    assert made.ledger.verify() == []
    of_real, of_made = shapes(real), shapes(made)
    assert of_made.keys() - of_real.keys() == set()
    for kind in of_real.keys() & of_made.keys():
        assert of_made[kind] <= of_real[kind], kind


def test_the_made_up_night_has_every_kind_of_end(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    fill(lab, 300, sessions=3, kind=Kind(windows=3, undecided=0.1))
    rows = lab.ledger.experiments()
    assert {row.decision for row in rows} == {"kept", "reverted", "pending"}
    assert {row.verdict for row in rows} >= {"improved", "within_noise", "worse", "crashed"}
    assert len({row.session for row in rows}) == len({row.program_sha256 for row in rows}) == 3
