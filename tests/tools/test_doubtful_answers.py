"""What the tools say about runs that were contended or tainted: seen in every answer, in both forms, with what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import calibration
from autoresearch_mcp.lab.experiments import revert
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import pause
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.tools.describe import describe
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.report import report
from autoresearch_mcp.tools.show_experiment import show_experiment
from autoresearch_mcp.tools.status import status
from autoresearch_mcp.tools.wait_experiment import wait_experiment

Record = Callable[..., Experiment]

SHARED = "others used 40% of the run's 2 cores, more than the 15% that count as ordinary here (busiest: cc1plus 33%)"
TAINT = "the harness was changed while it ran"


def test_a_run_that_was_alone_says_how_alone_and_raises_no_doubt(still: Lab, record: Record) -> None:
    baseline = record(still, 2.0, others_share=0.0123)
    answer = describe(still, baseline)
    assert (answer.others_share, answer.contended, answer.tainted, answer.confirming) == (0.0123, None, None, "")
    assert "others used 1% of the run's cores\n" in answer.text()
    assert "(contended)" not in history(still).text()


def test_an_experiment_that_is_confirmed_says_why_it_goes_on(still: Lab, record: Record) -> None:
    baseline = record(still, 2.0, contended=SHARED, others_share=0.4)
    answer = wait_experiment(still, baseline.id, wait_seconds=0.0)
    assert (answer.state, answer.experiment.verdict) == ("queued", None)
    assert SHARED in answer.confirming
    assert "it goes on: run 2 of at most 3" in answer.text()
    assert answer.next[0].startswith(f"wait_experiment('{baseline.id}'")
    shown = show_experiment(still, baseline.id).text()
    assert f"run {baseline.id}.1: finished" in shown
    assert f"run {baseline.id}.2: queued" in shown
    assert f'"contended": {json.dumps(SHARED)}' in shown
    pause(still, "")
    assert "is queued and starts then" in describe(still, baseline).next[0]


def test_what_never_had_its_device_to_itself_shows_in_every_answer_with_the_way_on(still: Lab, record: Record) -> None:
    record(still, 2.0)
    for change in ("\nA = 1\n", "", ""):
        shared = record(still, 1.5, change=change, contended=SHARED, others_share=0.4)
    shared = still.ledger.experiments(order="rowid DESC")[0]
    answer = describe(still, shared)
    assert (answer.others_share, answer.contended, answer.keepable) == (0.4, SHARED, False)
    assert answer.experiment.doubt == "contended"
    assert "others used 40% of the run's cores (contended)" in answer.text()
    assert answer.next == [
        "run_experiment(description='...') with the same trainer/train.py, once the machine is free",
        f"revert('{shared.id}', lesson='...')",
    ]
    assert "| improved (contended) |" in history(still).text()
    assert history(still).experiments[0].doubt == "contended"
    assert len(answer.text()) < 2_500


@pytest.mark.parametrize("outcomes", [(Outcome.CRASHED, Outcome.SCORED), (Outcome.SCORED, Outcome.CRASHED)])
def test_a_crash_among_the_fresh_seeds_is_told_with_its_cause_and_its_log_wherever_it_is_asked_for(
    make_lab: Callable[..., Lab], record: Record, outcomes: tuple[Outcome, ...]
) -> None:
    lab = make_lab(gate="confirmed")
    lab.start_session(None, "tester")
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    record(lab, 2.0)
    idea = record(lab, 1.8, change="\nA = 1\n", log="it goes well\n")
    for outcome in outcomes:
        crashed = outcome is Outcome.CRASHED
        log = "ValueError: an unlucky seed\n" if crashed else "it goes well\n"
        record(lab, None if crashed else 1.8, outcome=outcome, log=log)
    answer = wait_experiment(lab, idea.id, 0.0)
    assert (answer.experiment.verdict, answer.experiment.val_bpb) == ("crashed", None)
    assert answer.cause.startswith("error: ValueError")
    assert answer.log_tail == ["ValueError: an unlucky seed"]
    assert "an unlucky seed" in show_experiment(lab, idea.id, part="log").content
    assert report(lab).failures == {"error: ValueError": 1}
    assert [row.cause for row in history(lab, summary="causes").causes] == ["error: ValueError"]
    revert(lab, idea.id, "")
    os.close(hold)


def test_a_tainted_baseline_leads_to_the_human_and_to_the_same_bytes(still: Lab, record: Record) -> None:
    tainted = record(still, 2.0, tainted=TAINT)
    answer = describe(still, tainted)
    assert (answer.tainted, answer.experiment.doubt, answer.champion) == (TAINT, "tainted", None)
    assert TAINT in answer.text()
    assert "autoresearch doctor" in answer.next[0]
    assert f'"tainted": "{TAINT}"' in show_experiment(still, tainted.id).text()
    assert "improved (tainted)" in history(still).text()
    revert(still, tainted.id, "")
    (step,) = status(still).next
    assert "autoresearch doctor" in step
    assert "same trainer/train.py" in step


def test_the_report_counts_the_runs_whose_number_is_in_doubt(still: Lab, record: Record) -> None:
    record(still, 2.0, contended=SHARED)
    record(still, 2.0)
    record(still, 1.9, change="\nA = 1\n", tainted=TAINT)
    text = report(still).markdown
    assert "1 of 3 runs were contended" in text
    assert "1 of 3 runs were tainted" in text


def test_the_rules_name_the_share_from_which_a_run_is_contended(still: Lab) -> None:
    assert not any("contended" in rule for rule in read_program(still).rules)  # no share is too much in these tests
    calibration.record(still.ledger, background_share=0.02, threshold=0.17)
    (rule,) = [rule for rule in read_program(still).rules if "contended" in rule]
    assert "more than 17% of its device" in rule
    assert "up to 2 more runs" in rule
