"""Who is told to go on, and who to stop: a pause and the stop rules in the next calls of every answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import accept_rules, pause, resume
from autoresearch_mcp.tools.describe import describe
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.keep import keep
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.report import report
from autoresearch_mcp.tools.revert import revert
from autoresearch_mcp.tools.status import status

Record = Callable[..., Experiment]


@pytest.fixture
def finished(still: Lab, record: Record) -> Lab:
    """A lab whose stop rule is met: one experiment is allowed, and the baseline was it."""
    still.workspace.config.write_text(still.workspace.config.read_text() + "[stop]\nexperiments = 1\n")
    accept_rules(still)
    record(still, 2.0)
    return still


def test_a_met_stop_rule_leads_to_the_report_and_the_human(finished: Lab) -> None:
    for answer in (status(finished), history(finished), read_program(finished)):
        assert answer.next[0] == "report()"
        assert "stop here and tell the human why" in answer.next[1]
        assert "1 of 1 experiments" in answer.next[1]
        assert len(answer.next) == 2


def test_the_report_does_not_ask_for_itself(finished: Lab) -> None:
    (step,) = report(finished).next
    assert step.startswith("stop here")


def test_what_waits_for_a_decision_is_decided_before_the_end(still: Lab, record: Record) -> None:
    record(still, 2.0)
    better = record(still, 1.5, change="\nA = 1\n")
    still.workspace.config.write_text(still.workspace.config.read_text() + "[stop]\nexperiments = 2\n")
    accept_rules(still)
    assert status(still).next[0].startswith(f"keep('{better.id}'")
    assert keep(still, better.id, "").next[0] == "report()"


def test_a_pause_ends_the_turn_and_names_the_command_that_ends_it(still: Lab, record: Record) -> None:
    worse = record(still, 2.0) and record(still, 3.0, change="\nA = 1\n")
    pause(still, "the machine is needed")
    assert status(still).next == [f"revert('{worse.id}', lesson='...')"]
    calls = revert(still, worse.id, "").next
    assert calls[0] == "report()"
    assert "end your turn" in calls[1]
    assert "the machine is needed" in calls[1]
    assert "autoresearch resume" in calls[1]
    resume(still)
    assert "edit trainer/train.py" in status(still).next[0]


def test_what_is_queued_in_a_paused_lab_is_not_waited_for(still: Lab) -> None:
    queued, _ = experiments.propose(still, description="baseline", hypothesis="")
    pause(still, "")
    calls = describe(still, queued).next
    assert "end your turn" in calls[0]
    assert "is queued and starts then" in calls[0]
    assert not any("wait_experiment" in call for call in calls)


def test_what_runs_in_a_paused_lab_is_still_waited_for(still: Lab) -> None:
    running, _ = experiments.propose(still, description="baseline", hypothesis="")
    still.state.run(f"{running.id}.1").root.mkdir(parents=True)
    still.ledger.append("run_started", {"id": f"{running.id}.1", "attempt": 1, "device": "cpu"})
    pause(still, "")
    assert describe(still, running).next[0].startswith("wait_experiment(")


def test_a_paused_lab_without_a_session_does_not_ask_for_one(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    assert status(lab).next == ["start_session()"]
    pause(lab, "")
    (step,) = status(lab).next
    assert "end your turn" in step
