"""The stop rules: each closes a session at its number, and none before."""

from __future__ import annotations

import re

import pytest
from autoresearch_mcp.lab.config import StopConfig
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.rules import accept_rules, resume
from autoresearch_mcp.lab.states import Outcome, Verdict
from autoresearch_mcp.lab.stopping import SessionFacts, crashes_in_a_row, stop_reason

GOOD, BAD = Verdict.WORSE, Verdict.CRASHED


def facts(*, experiments: int = 0, crashes: int = 0, hours: float = 0.0, best: float | None = None) -> SessionFacts:
    return SessionFacts(experiments=experiments, crashes_in_a_row=crashes, hours=hours, best_val_bpb=best)


def test_without_rules_nothing_stops_a_session():
    never = StopConfig(crashes_in_a_row=0)
    assert stop_reason(never, facts(experiments=1000, crashes=1000, hours=9999.0, best=0.0001)) is None


def test_the_target_is_met_at_the_target_and_not_above_it():
    rules = StopConfig(target=1.85)
    assert stop_reason(rules, facts(best=1.8501)) is None
    assert "1.8500 has reached the target of 1.85 ([stop] target)" in (stop_reason(rules, facts(best=1.85)) or "")
    assert stop_reason(rules, facts(experiments=1)) is None


def test_the_number_of_experiments_is_met_at_the_number():
    rules = StopConfig(experiments=3)
    assert stop_reason(rules, facts(experiments=2)) is None
    assert "3 of 3 experiments" in (stop_reason(rules, facts(experiments=3)) or "")


def test_hours_count_from_the_start_of_the_session():
    rules = StopConfig(hours=8.0)
    assert stop_reason(rules, facts(hours=7.99)) is None
    assert "[stop] hours" in (stop_reason(rules, facts(hours=8.0)) or "")


def test_crashes_in_a_row_close_a_session_at_their_number():
    rules = StopConfig(crashes_in_a_row=3)
    assert stop_reason(rules, facts(crashes=2)) is None
    assert "3 experiments in a row" in (stop_reason(rules, facts(crashes=3)) or "")


@pytest.mark.parametrize(
    ("newest_first", "expected"),
    [
        ((), 0),
        ((None,), 0),
        ((None, BAD), 1),
        ((BAD, Verdict.CANCELLED, BAD), 2),
        ((GOOD, BAD), 0),
        ((Verdict.LOST, BAD, GOOD), 1),
        ((Verdict.INVALID, BAD, GOOD, BAD, BAD), 2),
        ((Verdict.INVALID, Verdict.TIMED_OUT, BAD, GOOD), 3),
        ((Verdict.PRUNED, BAD, Verdict.PRUNED, BAD, GOOD), 2),
    ],
)
def test_what_has_no_answer_neither_counts_nor_breaks_a_row(newest_first, expected):
    assert crashes_in_a_row(newest_first) == expected


def test_nothing_is_read_beyond_the_newest_experiment_that_has_a_number():
    def verdicts():
        yield from (BAD, BAD, GOOD)
        pytest.fail("it read on")

    assert crashes_in_a_row(verdicts()) == 2


def test_running_experiments_count_and_those_without_an_answer_do_not(lab: Lab, measured):
    """The record is asked for the facts; `autoresearch resume` forgives what crashed before it."""
    measured(2.0)
    for number, outcome in enumerate((Outcome.CRASHED, Outcome.CANCELLED, Outcome.CRASHED)):
        measured(change=f"\nX{number} = 1\n", outcome=outcome)
    session = lab.session()
    for rules, reason in (("experiments = 3", "3 of 3 experiments"), ("crashes_in_a_row = 2", "2 experiments in a row")):
        lab.workspace.config.write_text(re.sub(r"\[stop\]\n.*\n", "", lab.workspace.config.read_text()) + f"[stop]\n{rules}\n")
        accept_rules(lab)
        assert reason in (lab.stop_reason(lab.session()) or "")
    resume(lab)
    assert lab.stop_reason(lab.session()) is None
    assert list(lab.ledger.latest_verdicts(session.tag)) == ["crashed", "cancelled", "crashed", "improved"]
