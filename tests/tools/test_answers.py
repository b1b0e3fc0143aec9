"""What the tools say: the right next call in every state, complete in both forms, and small in the worst case."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.errors import ConfigError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import accept_rules
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.tools.describe import describe
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.keep import keep
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.results import Answer
from autoresearch_mcp.tools.revert import revert
from autoresearch_mcp.tools.show_experiment import show_experiment
from autoresearch_mcp.tools.status import status
from autoresearch_mcp.tools.wait_experiment import wait_experiment
from autoresearch_mcp.tools.waiting import bounded

Record = Callable[..., Experiment]

LONG = "長い説明 of an idea " * 60


def next_of(answer: Answer) -> str:
    return " ".join(answer.next)


def sizes(answer: Answer) -> tuple[int, int]:
    return len(answer.text().encode()), len(answer.model_dump_json().encode())


def test_the_next_call_is_right_before_and_after_the_baseline(still: Lab, record: Record) -> None:
    assert "baseline" in next_of(status(still))
    record(still, 2.0)
    assert "edit trainer/train.py" in next_of(status(still))


def test_a_crashed_baseline_leads_to_its_log_and_a_repair(still: Lab, record: Record) -> None:
    crashed = record(still, None, outcome=Outcome.CRASHED)
    assert next_of(status(still)) == f"revert('{crashed.id}', lesson='...')"
    answer = revert(still, crashed.id, "does not start")
    assert "part='log'" in next_of(answer)
    assert "repair" in next_of(answer)


def test_a_cancelled_baseline_leads_to_another_baseline(still: Lab, record: Record) -> None:
    cancelled = record(still, None, outcome=Outcome.CANCELLED)
    assert "baseline" in next_of(revert(still, cancelled.id, ""))


def test_a_finished_win_offers_keep_and_revert_and_a_loss_only_revert(still: Lab, record: Record) -> None:
    record(still, 2.0)
    better = record(still, 1.9, change="\nA = 1\n")
    assert next_of(history(still)).startswith(f"keep('{better.id}'")
    keep(still, better.id, "better")
    worse = record(still, 2.5, change="\nB = 1\n")
    assert next_of(describe(still, worse)) == f"revert('{worse.id}', lesson='...')"


def test_keeping_a_stale_win_is_offered_with_what_that_does(still: Lab, record: Record) -> None:
    record(still, 2.0)
    before = still.workspace.train.read_text()
    first = record(still, 1.9, change="\nA = 1\n")
    still.workspace.train.write_text(before.replace("WIDTH = 16", "WIDTH = 32"))  # a change without the first
    second = record(still, 1.8)
    keep(still, second.id, "")
    answer = describe(still, still.ledger.experiment(first.id))
    assert answer.keepable
    assert "stale win" in answer.text()
    assert "merges its change" in answer.text()
    assert next_of(answer).startswith("keep(")


def test_a_running_experiment_leads_to_waiting_with_another_argument_each_time(still: Lab) -> None:
    experiment, _ = experiments.propose(still, description="baseline", hypothesis="")
    answer = wait_experiment(still, experiment.id, wait_seconds=0.0)
    assert answer.state == "queued"
    assert f"wait_experiment('{experiment.id}', after=" in next_of(answer)
    assert not answer.log_tail


def test_the_log_of_an_experiment_that_never_ran_is_empty(still: Lab) -> None:
    experiment, _ = experiments.propose(still, description="baseline", hypothesis="")
    assert show_experiment(still, experiment.id, "log").content == ""
    assert show_experiment(still, experiment.id, "curve").content == ""


def test_answers_stay_under_10_kb_and_complete_at_their_largest(still: Lab, record: Record) -> None:
    still.workspace.program.write_text(LONG * 20)
    still.workspace.config.write_text(still.workspace.config.read_text() + "[stop]\ncrashes_in_a_row = 0\n")
    accept_rules(still)
    for number in range(30):
        outcome = Outcome.SCORED if number == 0 else Outcome.CRASHED
        made = record(
            still,
            2.0 if number == 0 else None,
            change=f"\nX{number} = {number}\n" if number else "",
            outcome=outcome,
            description=LONG[:480],
            hypothesis=LONG[:1900],
        )
        if number:
            revert(still, made.id, LONG[:990])
    answers: list[Answer] = [
        read_program(still),
        status(still),
        history(still),
        history(still, per_page=25),
        describe(still, still.ledger.experiment("e0002")),
        show_experiment(still, "e0002"),
        show_experiment(still, "e0002", "diff"),
    ]
    for answer in answers:
        text_bytes, json_bytes = sizes(answer)
        assert text_bytes < 10_000, type(answer).__name__
        assert json_bytes < 10_000, type(answer).__name__
    for row in history(still, per_page=25).experiments:
        assert row.id in history(still, per_page=25).text()


def test_the_end_of_a_long_log_is_shown_and_the_rest_is_named(still: Lab, record: Record) -> None:
    experiment = record(still, None, outcome=Outcome.CRASHED)
    paths = still.state.run(f"{experiment.id}.1")
    paths.root.mkdir(parents=True)
    paths.log.write_text("".join(f"{number}\n" for number in range(20_000)) + "the end\n")
    answer = show_experiment(still, experiment.id, "log")
    assert answer.content.endswith("> the end")
    assert str(paths.log) in answer.omitted
    assert "> the end" in answer.text()
    assert max(sizes(answer)) < 10_000
    paths.log.write_text('"\\"\n' * 20_000)  # each of which is two bytes as JSON
    quotes = show_experiment(still, experiment.id, "log")
    assert 9_000 < max(sizes(quotes)) < 10_000
    assert quotes.content.endswith('> "\\"')


def test_a_long_curve_is_thinned_and_keeps_its_last_point(still: Lab, record: Record) -> None:
    experiment = record(still, None, outcome=Outcome.CRASHED)
    paths = still.state.run(f"{experiment.id}.1")
    paths.root.mkdir(parents=True)
    paths.curve.write_text("".join(f'{{"step": {n}, "loss": {n / 7:.6f}}}\n' for n in range(3000)))
    answer = show_experiment(still, experiment.id, "curve")
    assert '"step": 2999' in answer.content.splitlines()[-1]
    assert "of 3000 points" in answer.omitted
    assert max(sizes(answer)) < 10_000
    many = ", ".join(f'"m{name}": 1' for name in range(90))
    paths.curve.write_text(f'{{"step": 1, "seconds": 1, {many}}}\n' * 100)
    assert max(sizes(show_experiment(still, experiment.id, "curve"))) < 10_000


def test_history_filters_sorts_and_pages(still: Lab, record: Record) -> None:
    record(still, 2.0, description="the baseline")
    keep(still, record(still, 1.9, change="\nA = 1\n", description="a wider model").id, "gain")
    revert(still, record(still, 2.5, change="\nB = 1\n", description="a deeper model").id, "too slow")
    assert [row.id for row in history(still).experiments] == ["e0003", "e0002", "e0001"]
    assert [row.id for row in history(still, sort="best").experiments] == ["e0002", "e0001", "e0003"]
    assert [row.id for row in history(still, decision="reverted").experiments] == ["e0003"]
    assert [row.id for row in history(still, verdict="worse").experiments] == ["e0003"]
    assert [row.id for row in history(still, text="TOO SLOW").experiments] == ["e0003"]
    second = history(still, per_page=2, page=2)
    assert ([row.id for row in second.experiments], second.total, second.pages) == (["e0001"], 3, 2)
    assert "session='all'" in history(still, text="nothing like it").hint


def test_a_wait_is_never_longer_than_the_client_allows(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bounded(lab, None) == 45.0
    assert bounded(lab, 1000.0) == 45.0
    monkeypatch.setenv("AUTORESEARCH_MAX_WAIT", "110")
    assert bounded(lab, 1000.0) == 110.0
    monkeypatch.setenv("AUTORESEARCH_MAX_WAIT", "soon")
    with pytest.raises(ConfigError, match="soon"):
        bounded(lab, None)


def test_read_program_alone_is_enough_to_go_on(still: Lab, record: Record) -> None:
    record(still, 2.0)
    waiting = record(still, 1.9, change="\nA = 1\n", description="a wider model")
    text = read_program(still).text()
    for needed in ("Gate 'any'", "Champion: e0001", "Undecided: e0002", "a wider model", f"keep('{waiting.id}'", "# program"):
        assert needed in text
