"""What read_program says of a session's experiments: a digest that is the same twice, and small however many there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import accept_rules
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.tools.keep import keep
from autoresearch_mcp.tools.known_text import MOST_ROWS, what_was_taught
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.revert import revert

from ..nights.synthetic import Kind, fill

MakeLab = Callable[..., Lab]
LONG = ' of "長い説明" and \\ more words' * 10


def digest_of(lab: Lab) -> str:
    return "\n".join(read_program(lab).known)


def test_before_the_first_idea_has_an_answer_there_is_no_digest(still: Lab, record: Callable[..., Experiment]) -> None:
    assert read_program(still).known == []
    record(still, 2.0, description="baseline")
    assert read_program(still).known == []
    assert "What the session has taught" not in read_program(still).text()


def test_one_idea_is_told_with_what_it_changed_and_with_what_nobody_ever_changed(
    still: Lab, record: Callable[..., Experiment]
) -> None:
    record(still, 2.0, description="baseline")
    train = still.workspace.train
    train.write_text(train.read_text().replace("LEARNING_RATE = 0.05", "LEARNING_RATE = 0.1"))
    record(still, 1.9, description="a higher learning rate")
    keep(still, "e0002", "a gain")
    assert read_program(still).known == [
        "gained: learning rate: 0.1000 with 1 kept of 1, most by e0002 -0.1000 (LEARNING_RATE 0.05 -> 0.1)",
        "changed alone, with the best of each: LEARNING_RATE higher 1 (-0.1000)",
        "never changed: WIDTH",
    ]
    for line in read_program(still).known:
        assert f"- {line}\n" in read_program(still).text()


def test_a_near_miss_a_failure_and_a_plateau_are_told(still: Lab, record: Callable[..., Experiment]) -> None:
    still.workspace.config.write_text(still.workspace.config.read_text() + "[stop]\nplateau_notice = 3\n")
    accept_rules(still)
    record(still, 2.0, description="baseline")
    for number, val_bpb in enumerate((1.99, None, 2.3)):
        change = f"\n# attention, take {number}\n"
        outcome = Outcome.CRASHED if val_bpb is None else Outcome.SCORED
        made = record(still, val_bpb, change=change, description="other attention", outcome=outcome)
        if number == 1:
            assert "plateau" not in digest_of(still)
        revert(still, made.id, "no")
    told = read_program(still).known
    assert told[0].startswith("plateau: 3 finished experiments and no gain was kept. Combine near misses")
    assert told[1] == "near miss: e0002 -0.0100 (other attention), z 0.4"
    assert told[2] == "no gain: attention: 3 tried, 1 without a number, best e0002 -0.0100 (other attention)"


@pytest.mark.parametrize("words", ["", LONG])
def test_at_500_experiments_it_is_the_same_twice_and_under_4_kb_in_an_answer_that_keeps_its_size(
    make_quick_lab: MakeLab, words: str
) -> None:
    lab = make_quick_lab(extra="[stop]\ncrashes_in_a_row = 0\n")
    lab.workspace.program.write_text(f"# program\n\n{words * 20}\n")
    accept_rules(lab)
    fill(lab, 500, sessions=1, programs=1, kind=Kind(windows=3, undecided=0.02, words=words))
    session = lab.session()
    taught = what_was_taught(lab, session, lab.champion(session))
    assert taught == what_was_taught(lab, session, lab.champion(session))
    whole = taught.lines(MOST_ROWS)
    assert len("\n".join(whole).encode()) < 4_000
    kinds = [line.partition(":")[0] for line in whole]
    for kind in ("gained", "near miss", "changed alone, with the best of each", "never changed", "left out here"):
        assert kind in kinds
    answer = read_program(lab)
    assert len(answer.text().encode()) <= 8_000
    assert len(answer.model_dump_json().encode()) <= 9_500
    assert len(answer.recent) >= 3
    assert {line.partition(":")[0] for line in answer.known} == set(kinds)
    assert read_program(lab) == answer
