"""The stop rules: each closes a session at its number, and none before."""

from __future__ import annotations

import pytest
from autoresearch_mcp.lab.config import StopConfig
from autoresearch_mcp.lab.states import Verdict
from autoresearch_mcp.lab.stopping import SessionFacts, crashes_in_a_row, stop_reason

GOOD, BAD = Verdict.WORSE, Verdict.CRASHED


def facts(*verdicts: Verdict | None, hours: float = 0.0, best: float | None = None, forgiven: int = 0) -> SessionFacts:
    return SessionFacts(verdicts=verdicts, hours=hours, best_val_bpb=best, forgiven=forgiven)


def test_without_rules_nothing_stops_a_session():
    never = StopConfig(crashes_in_a_row=0)
    assert stop_reason(never, facts(*[BAD] * 1000, hours=9999.0, best=0.0001)) is None


def test_the_target_is_met_at_the_target_and_not_above_it():
    rules = StopConfig(target=1.85)
    assert stop_reason(rules, facts(GOOD, best=1.8501)) is None
    assert "1.8500 has reached the target of 1.85 ([stop] target)" in (stop_reason(rules, facts(GOOD, best=1.85)) or "")
    assert stop_reason(rules, facts(None)) is None


def test_experiments_count_when_they_run_and_not_when_they_were_cancelled_or_lost():
    rules = StopConfig(experiments=3)
    assert stop_reason(rules, facts(GOOD, Verdict.CANCELLED, Verdict.LOST, BAD)) is None
    assert "3 of 3 experiments" in (stop_reason(rules, facts(GOOD, BAD, None)) or "")


def test_hours_count_from_the_start_of_the_session():
    rules = StopConfig(hours=8.0)
    assert stop_reason(rules, facts(hours=7.99)) is None
    assert "[stop] hours" in (stop_reason(rules, facts(hours=8.0)) or "")


def test_crashes_in_a_row_are_those_since_the_last_number():
    rules = StopConfig(crashes_in_a_row=3)
    assert stop_reason(rules, facts(BAD, BAD, GOOD, BAD, Verdict.INVALID)) is None
    assert "3 experiments in a row" in (stop_reason(rules, facts(GOOD, BAD, Verdict.TIMED_OUT, Verdict.INVALID)) or "")


def test_forgiven_crashes_no_longer_count():
    rules = StopConfig(crashes_in_a_row=2)
    assert stop_reason(rules, facts(BAD, BAD, forgiven=2)) is None
    assert stop_reason(rules, facts(BAD, BAD, BAD, forgiven=2)) is None
    assert stop_reason(rules, facts(BAD, BAD, BAD, BAD, forgiven=2)) is not None


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), 0),
        ((None,), 0),
        ((BAD, None), 1),
        ((BAD, Verdict.CANCELLED, BAD), 2),
        ((BAD, GOOD), 0),
        ((GOOD, BAD, Verdict.LOST), 1),
    ],
)
def test_what_has_no_answer_neither_counts_nor_breaks_a_row(verdicts, expected):
    assert crashes_in_a_row(verdicts) == expected
