"""The questions that people ask in chat, each answered by one call, in a few rows, in both forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from autoresearch_mcp.lab import digest as digests
from autoresearch_mcp.lab.causes import HINTS, Cause
from autoresearch_mcp.lab.errors import CandidateError, UnknownExperimentError, UnknownNameError
from autoresearch_mcp.lab.experiments import keep, revert
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.server.cli.application import app
from autoresearch_mcp.tools.describe import describe
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.read_train import read_train
from autoresearch_mcp.tools.results import Answer, HistoryAnswer
from autoresearch_mcp.tools.run_experiment import run_experiment
from autoresearch_mcp.tools.show_experiment import show_experiment
from autoresearch_mcp.tools.status import status
from typer.testing import CliRunner

Record = Callable[..., Experiment]

ERROR = "Traceback (most recent call last):\n  File ...\nRuntimeError: shapes cannot be multiplied\n"


def rows(answer: HistoryAnswer) -> list[str]:
    return [experiment.id for experiment in answer.experiments]


def set_constant(lab: Lab, name: str, value: str) -> None:
    source = lab.workspace.train.read_text()
    lab.workspace.train.write_text(re.sub(rf"^{name} = [^\n#]*[^\s#]", f"{name} = {value}", source, flags=re.MULTILINE))


@pytest.fixture
def night(still: Lab, record: Record) -> Lab:
    """Baseline; a kept schedule; a worse width; a near miss in the optimizer; two crashes of a kind, and one out of memory."""
    record(still, 2.0)
    keep(still, record(still, 1.9, change="\nWARMDOWN_FRACTION = 0.5\n", description="decay over half").id, "clear gain")
    set_constant(still, "WIDTH", "64")
    revert(still, record(still, 2.3, description="wider embedding", peak_memory_mb=812.0, steps=77).id, "too slow by far")
    revert(still, record(still, 1.89, change="\nADAM_BETA2 = 0.9\n", description="shorter memory").id, "hardly a difference")
    for number in (5, 6):
        crashed = record(still, None, change=f"\nloop_{number} = {number}\n", outcome=Outcome.CRASHED, log=ERROR)
        revert(still, crashed.id, "a slip")
    full = record(still, None, change="\nBIG = 1\n", outcome=Outcome.CRASHED, reason="used more than 9 MB ([limits] memory_mb)")
    revert(still, full.id, "")
    return still


def test_what_was_tried_on_a_subject(night: Lab) -> None:
    assert rows(history(night, text="what did we try on the schedule?")) == ["e0002"]
    assert rows(history(night, text="warmdown")) == ["e0002"]
    assert rows(history(night, text="beta2 0.9")) == ["e0004"]
    assert rows(history(night, theme="Optimizer")) == ["e0004"]
    assert rows(history(night, theme="architecture", text="wider")) == ["e0003"]
    assert rows(history(night, theme="architecture", decision="kept")) == []
    with pytest.raises(UnknownNameError, match="learning rate"):
        history(night, theme="optimiser")


def test_a_search_is_in_the_order_of_its_fit_or_in_the_one_asked_for_and_in_pages(night: Lab, record: Record) -> None:
    for number in range(4):
        words = "heads " * (1 + number % 2) + "and other words"
        revert(night, record(night, 2.0 - number / 100, change=f"\nHEADS_{number} = 1\n", description=words).id, "")
    fit = rows(history(night, text="heads"))
    assert sorted(fit) == ["e0008", "e0009", "e0010", "e0011"]
    assert rows(history(night, text="heads", sort="oldest")) == sorted(fit)
    assert rows(history(night, text="heads", sort="best")) == ["e0011", "e0010", "e0009", "e0008"]
    pages = [history(night, text="heads", per_page=3, page=page) for page in (1, 2)]
    assert [row for page in pages for row in rows(page)] == fit
    assert {(page.total, page.pages) for page in pages} == {(4, 2)}
    some = history(night, text="heads zebra")
    assert rows(some) == fit
    assert "some of them" in some.text()


def test_the_best_five_and_the_near_misses(night: Lab) -> None:
    assert rows(history(night, sort="best", per_page=5))[:2] == ["e0004", "e0002"]
    near = rows(history(night, sort="near_miss"))
    assert near == ["e0004"]
    everything = night.ledger.experiments()
    assert near == [e.id for e in digests.digest(everything, {}, night.noise(night.session())).near_misses]


def test_gain_by_theme(night: Lab) -> None:
    answer = history(night, summary="themes")
    assert answer.experiments == []
    table: dict[str, Any] = {theme.theme: theme for theme in answer.themes}
    assert (answer.themes[0].theme, answer.themes[0].gain, answer.themes[0].kept) == ("schedule", 0.1, 1)
    assert (table["optimizer"].best, table["optimizer"].gain, table["optimizer"].best_delta) == ("e0004", 0.0, -0.01)
    assert sum(theme.experiments for theme in answer.themes) == 6, "the baseline has none"
    for theme in answer.themes:
        assert theme.line() in answer.text()
    assert [theme.theme for theme in history(night, summary="themes", theme="schedule").themes] == ["schedule"]


def test_failures_by_cause_with_a_hint(night: Lab) -> None:
    answer = history(night, summary="causes")
    slips, memory = answer.causes
    assert (slips.cause, slips.count, slips.experiments) == ("error: RuntimeError", 2, ["e0006", "e0005"])
    assert (memory.cause, memory.hint) == ("out of memory", HINTS[Cause.OUT_OF_MEMORY])
    assert "3 of 7 experiments have no number" in answer.text()
    assert memory.line() in answer.text()
    assert "has a number" in history(night, summary="causes", decision="kept").text()
    crashed = describe(night, night.ledger.experiment("e0007"))
    assert crashed.cause == f"out of memory. {HINTS[Cause.OUT_OF_MEMORY]}"
    assert f"cause: {crashed.cause}" in crashed.text()
    assert describe(night, night.ledger.experiment("e0002")).cause == ""


def test_what_an_experiment_is_and_counted(night: Lab) -> None:
    text = show_experiment(night, "e0003").content
    assert "theme architecture: WIDTH 16 -> 64, 1 lines added, 1 removed" in text
    assert "steps 77, peak memory MB 812" in text
    assert "theme baseline\n" in show_experiment(night, "e0001").content
    curve = night.state.run("e0003.1").curve
    curve.parent.mkdir(parents=True)
    curve.write_text('{"step": 0, "seconds": 0.1, "parameters": 1234567}\nno json\n[1]\n')
    assert "parameters (as reported) 1,234,567" in show_experiment(night, "e0003").content


def test_what_changed_between_two_experiments(night: Lab) -> None:
    answer = show_experiment(night, "e0004", against="e0003")
    assert answer.part == "diff"
    head = answer.content.splitlines()
    assert head[0] == "from e0003 (worse, reverted, val_bpb 2.3000): wider embedding"
    assert head[1].startswith("to e0004 (")
    assert "ADAM_BETA2 none -> 0.9, WIDTH 64 -> 16, " in head[2]
    assert "-WIDTH = 64" in answer.content
    assert "+ADAM_BETA2 = 0.9" in answer.content
    assert "(the same bytes)" in show_experiment(night, "e0004", against="e0004").content
    assert show_experiment(night, "e0004", "log", "e0003").content == answer.content
    with pytest.raises(UnknownExperimentError, match="e0099"):
        show_experiment(night, "e0004", against="e0099")


def test_experiments_of_other_conditions_are_said_to_be(night: Lab) -> None:
    first = night.session()
    event = {name: getattr(first, name) for name in ("researcher", "base_commit", "base_sha256", "config", "harness")}
    night.ledger.append(
        "session_started", {**event, "tag": "other", "group": "elsewhere", "program_sha256": first.program_sha256}
    )
    night.start_session(first.tag)
    like = night.ledger.experiment("e0001")
    fields = {name: getattr(like, name) for name in ("researcher", "description", "hypothesis", "candidate_sha256", "commit")}
    recorded = {"id": "e0008", "session": "other", "parent": None, "parent_version": 0, "lines": 1, "lines_delta": 0}
    night.ledger.append(
        "experiment_recorded", {**fields, **recorded, "program_sha256": first.program_sha256, "rebase_of": None}
    )
    assert "not comparable" in show_experiment(night, "e0008", against="e0001").content


def test_run_experiment_refuses_a_repetition_unless_told_to_repeat_it_and_says_so(night: Lab) -> None:
    set_constant(night, "WIDTH", "65")
    with pytest.raises(CandidateError, match=r"e0003.*again=True"):
        run_experiment(night, "wider", wait_seconds=0.0)
    discard, again = status(night).next
    assert discard.startswith("revert('workspace')")
    assert again.startswith("run_experiment(description='...', hypothesis='...', again=True) to try the edit")
    assert "e0003 was the same idea" in again
    assert "e0003 was the same idea" in read_train(night).text()
    answer = run_experiment(night, "wider", again=True, wait_seconds=0.0)
    assert any("e0003" in warning and "too slow by far" in warning for warning in answer.warnings)
    assert "warning: This idea was tried as e0003" in answer.text()


def test_the_same_questions_from_a_shell(night: Lab) -> None:
    def told(*words: str) -> str:
        result = CliRunner().invoke(app, [*words, "--lab", str(night.root)])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "| schedule" not in told("history", "--theme", "optimizer")
    assert "e0004" in told("history", "--theme", "optimizer", "--text", "beta2", "--sort", "near_miss")
    assert "schedule | 1 | 1 | 0.1000" in told("history", "--summary", "themes")
    assert HINTS[Cause.OUT_OF_MEMORY] in told("history", "--summary", "causes")
    assert "WIDTH 64 -> 16" in told("show", "e0004", "--against", "e0003")
    set_constant(night, "WIDTH", "65")
    refused = CliRunner().invoke(app, ["run", "-d", "wider", "--no-wait", "--lab", str(night.root)])
    assert refused.exit_code == 1
    assert "again=True" in refused.stderr
    assert "e0008" in told("run", "-d", "wider", "--again", "--no-wait")


def test_every_answer_stays_small_with_long_words(still: Lab, record: Record) -> None:
    record(still, 2.0)
    words = '長い説明 "quoted" \\ ' * 25
    for number in range(30):
        log = f"Traceback (most recent call last):\n  File ...\nError{number}{'x' * 300}Error: {words}\n"
        failed = record(
            still,
            None if number % 2 else 2.0 + number / 1000,
            change=f"\nHEADS_{number} = '{'y' * 100}'\n",
            outcome=Outcome.CRASHED if number % 2 else Outcome.SCORED,
            log=log,
            description=words[:500],
            hypothesis=words * 3,
        )
        revert(still, failed.id, words)
    last = "e0031"
    answers: list[Answer] = [
        history(still, text="quoted", per_page=25),
        history(still, text="長い", per_page=25),
        history(still, sort="near_miss", per_page=25),
        history(still, summary="themes"),
        history(still, summary="causes"),
        show_experiment(still, last),
        show_experiment(still, last, against="e0002"),
        describe(still, still.ledger.experiment(last)),
    ]
    assert answers[0].model_dump()["total"] == 30
    for answer in answers:
        assert max(len(answer.text().encode()), len(answer.model_dump_json().encode())) < 10_000
