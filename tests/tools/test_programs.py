"""Two programs compared in one call: `history` filters by program and sums up what each came to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab.errors import NotReadyError, UnknownNameError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import accept_rules
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.keep import keep
from autoresearch_mcp.tools.revert import revert
from autoresearch_mcp.tools.show_experiment import show_experiment

Record = Callable[..., Experiment]
CAREFUL, BOLD = "# Careful\n\nSmall steps.\n", "# Bold\n\nLarge steps.\n"


def accept(lab: Lab, program: str) -> None:
    lab.workspace.program.write_text(program)
    accept_rules(lab)


@pytest.fixture
def compared(still: Lab, record: Record) -> Lab:
    """A lab whose first two experiments ran under one program, and the next three under another."""
    accept(still, CAREFUL)
    record(still, 2.0, description="baseline")
    revert(still, record(still, 2.3, change="\nA = 1\n", description="wider").id, "slower")
    accept(still, BOLD)
    keep(still, record(still, 1.8, change="\nB = 1\n", description="another optimizer").id, "a clear gain")
    record(still, 1.7, change="\nC = 1\n", description="no bias")
    return still


def test_each_row_names_its_program_and_the_answer_compares_them(compared: Lab) -> None:
    answer = history(compared, sort="oldest")
    careful, bold = answer.programs
    assert [row.program for row in answer.experiments] == [careful.program] * 2 + [bold.program] * 2
    assert (careful.title, careful.first, careful.last, careful.experiments, careful.kept) == (
        "Careful",
        "e0001",
        "e0002",
        2,
        0,
    )
    assert (careful.best_val_bpb, careful.mean_delta, careful.total_gain) == (2.0, 0.3, 0.0)
    assert (bold.title, bold.experiments, bold.kept, bold.best_val_bpb) == ("Bold", 2, 1, 1.7)
    assert (bold.mean_delta, bold.total_gain) == (-0.15, 0.2)
    text = answer.text()
    assert careful.line() in text
    assert bold.line() in text
    assert "starts from a better champion" in text


def test_a_prefix_of_its_hash_filters_by_program(compared: Lab) -> None:
    careful, bold = history(compared).programs
    assert [row.id for row in history(compared, program=bold.program[:4]).experiments] == ["e0004", "e0003"]
    filtered = history(compared, program=careful.program.upper())
    assert (filtered.total, [program.program for program in filtered.programs]) == (2, [careful.program])
    assert filtered.programs_note == ""


@pytest.mark.parametrize("prefix", ["ffff0000", "abc", "not hex", "%", "'; DROP TABLE experiments"])
def test_an_unknown_program_is_refused_with_those_there_are(compared: Lab, prefix: str) -> None:
    careful, bold = history(compared).programs
    with pytest.raises(UnknownNameError) as refused:
        history(compared, program=prefix)
    for program in (careful, bold):
        assert program.program in str(refused.value)
        assert program.title in str(refused.value)
        assert program.began in str(refused.value)


def test_digits_that_begin_two_programs_are_refused_with_more_of_each(compared: Lab) -> None:
    """Found by trying: texts whose hashes share their first four digits."""
    import hashlib

    seen: dict[str, str] = {}
    for number in range(100_000):
        text = f"# Program {number}\n"
        first = hashlib.sha256(text.encode()).hexdigest()[:4]
        if first in seen:
            break
        seen[first] = text
    for program in (seen[first], text):
        accept(compared, program)
    with pytest.raises(UnknownNameError, match=f"2 programs begin with '{first}'"):
        history(compared, program=first)


def test_before_the_first_session_there_is_no_program(make_lab: Callable[..., Lab]) -> None:
    with pytest.raises(NotReadyError, match="start_session"):
        history(make_lab(), program="abcd")


def other_budget(lab: Lab, record: Record, val_bpb: float) -> Experiment:
    """Measure a baseline in a session whose numbers are not comparable with those before."""
    lab.workspace.config.write_text(lab.workspace.config.read_text().replace("seconds = 2.0", "seconds = 4.0"))
    accept_rules(lab)
    lab.workspace.train.write_bytes(lab.champion_source(lab.session()))
    lab.start_session("new", "tester")
    return record(lab, val_bpb, description="baseline")


def test_numbers_of_two_comparability_groups_are_not_ranked_together(compared: Lab, record: Record) -> None:
    alone = history(compared, session="all", sort="best")
    assert "not comparable" not in alone.hint
    newest = other_budget(compared, record, 2.5)
    for sort in ("best", "gain"):
        answer = history(compared, session="all", sort=sort)  # type: ignore[arg-type]
        ids = [row.id for row in answer.experiments]
        assert ids[0] == newest.id
        assert len(ids) == len(alone.experiments) + 1
        assert "under 2 different conditions" in answer.text()
    best = [row.id for row in history(compared, session="all", sort="best").experiments]
    assert best[1:] == [row.id for row in alone.experiments]
    assert "ask for one session" in history(compared, session="all", summary="themes").hint
    assert history(compared, session="all", sort="newest").hint == ""


def test_programs_of_two_comparability_groups_are_told_apart(compared: Lab, record: Record) -> None:
    other_budget(compared, record, 1.5)
    answer = history(compared, session="all")
    assert len({program.group for program in answer.programs}) == 2
    assert [program.best_val_bpb for program in answer.programs] == [2.0, 1.7, 1.5]
    assert "compare only rows of the same group" in answer.text()
    assert "group" not in history(compared).programs_note


def test_the_program_that_an_experiment_ran_under_is_shown_after_it_was_replaced(compared: Lab) -> None:
    answer = show_experiment(compared, "e0001", "program")
    assert "Small steps." in answer.content
    assert history(compared).programs[0].program in answer.content
    assert "Large steps." in show_experiment(compared, "e0004", "program").text()


def test_a_long_program_is_cut_and_the_command_for_the_whole_is_named(still: Lab, record: Record) -> None:
    accept(still, "# Long\n" + "word " * 4000)
    record(still, 2.0)
    answer = show_experiment(still, "e0001", "program")
    assert len(answer.text().encode()) < 10_000
    assert "autoresearch show e0001 --part program" in answer.omitted


def test_many_programs_leave_the_answer_small_and_name_how_many_are_missing(still: Lab, record: Record, tmp_path: Path) -> None:
    for number in range(9):
        accept(still, f"# Program {number} {'と' * 40}\n")
        record(still, 2.0, change=f"\nX{number} = 1\n" if number else "", description='"quoted" \\ words ' * 20)
    answer = history(still, per_page=25)
    assert len(answer.programs) == 5
    assert "4 older rows are left out" in answer.text()
    assert max(len(answer.text().encode()), len(answer.model_dump_json().encode())) < 10_000
