"""What each program came to: summed up within one comparability group only, and without the baselines' free keeps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab.programs import compare_programs, program_title
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Decision, Verdict

Make = Callable[..., Experiment]
OLD, NEW = "a" * 64, "b" * 64


def test_two_programs_are_summed_up_side_by_side(experiment_of: Make) -> None:
    experiments = [
        experiment_of(1, val_bpb=2.0, decision=Decision.KEPT),
        experiment_of(2, val_bpb=1.9, delta=-0.1, decision=Decision.KEPT),
        experiment_of(3, val_bpb=2.2, delta=0.3, verdict=Verdict.WORSE),
        experiment_of(4, verdict=Verdict.CRASHED),
        experiment_of(5, program_sha256=NEW, val_bpb=1.85, delta=-0.05, decision=Decision.KEPT),
        experiment_of(6, program_sha256=NEW, val_bpb=1.8, delta=-0.05, decision=Decision.PENDING),
        experiment_of(7, program_sha256=NEW, verdict=None, decision=Decision.PENDING),
    ]
    old, new = compare_programs(experiments, {"s": "one"})
    assert (old.sha256, old.first, old.last, old.experiments, old.kept, old.without_number) == (OLD, "e0001", "e0004", 4, 1, 1)
    assert (old.best_val_bpb, old.began_at) == (1.9, 1000.0)
    assert old.mean_delta == pytest.approx(0.1)
    assert old.total_gain == pytest.approx(0.1)
    assert (new.sha256, new.experiments, new.kept, new.without_number) == (NEW, 3, 1, 0)
    assert (new.best_val_bpb, new.total_gain) == (1.8, pytest.approx(0.05))


def test_one_experiment_that_diverged_moves_the_mean_and_not_the_median(experiment_of: Make) -> None:
    deltas = [0.01, -0.01, 0.02, 5.0, -0.02]
    (record,) = compare_programs([experiment_of(n, delta=d, val_bpb=2.0) for n, d in enumerate(deltas, 2)], {"s": "one"})
    assert record.mean_delta == pytest.approx(1.0)
    assert record.median_delta == pytest.approx(0.01)


def test_numbers_of_two_comparability_groups_are_never_mixed(experiment_of: Make) -> None:
    experiments = [
        experiment_of(1, session="cpu", val_bpb=2.0, decision=Decision.KEPT),
        experiment_of(2, session="gpu", val_bpb=0.9, decision=Decision.KEPT),
    ]
    cpu, gpu = compare_programs(experiments, {"cpu": "one", "gpu": "two"})
    assert [(record.group, record.best_val_bpb) for record in (cpu, gpu)] == [("one", 2.0), ("two", 0.9)]


def test_a_program_that_only_failed_has_no_best_and_no_mean(experiment_of: Make) -> None:
    (record,) = compare_programs([experiment_of(1, verdict=Verdict.CRASHED)], {"s": "one"})
    assert (record.best_val_bpb, record.mean_delta, record.total_gain, record.without_number) == (None, None, 0.0, 1)


def test_nothing_gives_nothing() -> None:
    assert compare_programs([], {}) == []


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Be bold\n\nTry large steps.\n", "Be bold"),
        ("notes\n\n## Small steps ##\n", "Small steps"),
        ("\n  only words\n", "only words"),
        ("", "(empty)"),
        ("# " + "x" * 99, "x" * 57 + "..."),
    ],
)
def test_a_program_is_called_by_its_first_heading(text: str, title: str) -> None:
    assert program_title(text) == title
