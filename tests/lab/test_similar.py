"""An idea that the session has tried is refused before it costs device time; what differs is let through."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.errors import CandidateError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.own_file import Standing, own_file
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.similar import idea_of, remarks, same_changes, same_idea, same_words
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.server.autopilot.ladder import Ladder

TRAIN = (Path(__file__).resolve().parents[2] / "trainer" / "train.py").read_text()
BLOCK = "\n\ndef squash(x):\n    return x.square()\n"

Measured = Callable[..., Experiment]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("0.02", "0.03"), ("0.02", "0.03"), True),
        (("0.02", "0.03"), ("0.02", "0.031"), True),
        (("0.02", "0.03"), ("0.021", "0.03"), True),
        (("0.02", "0.03"), ("0.025", "0.03"), True),  # the same value, from elsewhere
        (("0.02", "0.03"), ("0.02", "0.04"), False),
        (("0.02", "0.03"), ("0.03", "0.02"), False),  # back
        (("0.02", "0.03"), ("0.04", "0.03"), False),  # the same value, from the other side
        (("0.02", "0.03"), ("0.03", "0.045"), False),  # further, by the same factor
        (("4", "5"), ("5", "6"), False),
        (("0.9", "0.99"), ("0.9", "0.999"), False),
        (("0.0", "0.1"), ("0.0", "0.11"), True),
        (("0.0", "0.1"), ("0.0", "0.2"), False),
        (("4 if CPU else 8", "5 if CPU else 8"), ("4 if CPU else 8", "5 if CPU else 8"), True),
        (("4 if CPU else 8", "5 if CPU else 8"), ("4 if CPU else 16", "5 if CPU else 16"), True),
        (("4 if CPU else 8", "5 if CPU else 8"), ("4 if CPU else 8", "4 if CPU else 10"), False),
        (("2**18", "2**19"), ("2**18", "2**17"), False),
        (("'gelu'", "'relu'"), ("'gelu'", "'silu'"), False),
        ((None, "1"), (None, "1"), True),
        ((None, "1"), (None, "2"), False),
        (("1e999", "2"), ("1e999", "3"), False),
    ],
)
def test_a_step_is_the_same_where_it_begins_and_ends_in_the_same_place(
    one: tuple[str | None, str | None], other: tuple[str | None, str | None], same: bool
) -> None:
    assert same_changes({"X": one}, {"X": other}) is same
    assert same_changes({"X": other}, {"X": one}) is same
    assert not same_changes({"X": one}, {"X": one, "Y": one})


def changed(*replacements: tuple[str, str], source: str = TRAIN, extra: str = "") -> bytes:
    for old, new in replacements:
        assert old in source, old
        source = source.replace(old, new, 1)
    return (source + extra).encode()


def alike(one: bytes, other: bytes, *, parent: bytes = TRAIN.encode(), other_parent: bytes = TRAIN.encode()) -> bool:
    return same_idea(idea_of(parent, one), idea_of(other_parent, other))


def test_the_same_code_is_one_idea_whatever_its_comments_and_spacing() -> None:
    one = changed(extra=BLOCK)
    assert alike(one, changed(extra="\n# why not\n\ndef squash(x):  # once\n\n    return  x.square()\n"))
    assert not alike(one, changed(extra=BLOCK.replace("square", "relu")))
    assert not alike(one, changed(extra=BLOCK + "y = 1\n"))
    assert not alike(changed(extra="\n# nothing\n"), changed(extra="\n# nothing else\n"))


def test_no_candidate_takes_long_to_compare() -> None:
    began = time.monotonic()
    assert alike(changed(extra=f"\ny = 1{' ' * 20_000}\n"), changed(extra="\ny = 1\n"))
    assert alike(changed(extra="\ny = 1\n" * 3_000), changed(extra="\ny = 1  # again\n" * 1_200)) is False
    assert time.monotonic() - began < 5


def test_the_same_line_at_another_place_is_another_idea() -> None:
    before_loop, at_start = "# Schedule: fractions", "# Model\nDEPTH"
    line = "torch.set_flush_denormal(True)\n"
    assert not alike(changed((before_loop, line + before_loop)), changed((at_start, line + at_start)))


def test_constants_and_code_count_together() -> None:
    constant = ("SOFTCAP = 15.0", "SOFTCAP = 30.0  # looser")
    assert alike(changed(constant), changed(("SOFTCAP = 15.0", "SOFTCAP = 29.5")))
    assert not alike(changed(constant), changed(constant, extra=BLOCK))
    assert alike(changed(constant, extra=BLOCK), changed(constant, extra=BLOCK))


def test_an_idea_is_the_same_on_another_parent() -> None:
    parent = changed(("MATRIX_LR = 0.04", "MATRIX_LR = 0.03"))
    child = changed(("SOFTCAP = 15.0", "SOFTCAP = 30.0"), source=parent.decode(), extra=BLOCK)
    assert alike(changed(("SOFTCAP = 15.0", "SOFTCAP = 30.0"), extra=BLOCK), child, other_parent=parent)


def test_no_two_rungs_of_the_ladder_are_the_same_idea_in_any_of_its_first_cycles() -> None:
    ladder, parent = Ladder(), TRAIN.encode()
    proposals = [ladder.propose(TRAIN, profile="cpu", tried=set()) for _ in range(100)]
    ideas = [(each.description, idea_of(parent, each.source.encode())) for each in proposals if each is not None]
    assert len(ideas) == 100
    pairs = [(a, b) for place, (a, one) in enumerate(ideas) for b, other in ideas[:place] if same_idea(one, other)]
    assert pairs == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Use a longer warmdown of the learning rate", "use a longer warmdown of the learning rate.", True),
        ("raise the rate of the matrices to 0.03", "raise the rate of the matrices to 0.05", False),
        ("an idea", "an idea", False),  # too short to tell
        ("gate each head by its own input", "gate each block by what came before it", False),
    ],
)
def test_texts_are_the_same_in_nearly_the_same_words_and_numbers(one: str, other: str, same: bool) -> None:
    assert same_words(one, other) is same


# -- in a lab -------------------------------------------------------------------------------------------------------------


def refusal(lab: Lab, measured: Measured, change: str) -> str:
    before = lab.ledger.head()
    with pytest.raises(CandidateError) as raised:
        measured(1.5, change=change)
    assert lab.ledger.head() == before
    return str(raised.value)


def test_a_repeated_idea_is_refused_and_the_earlier_one_named(lab: Lab, measured: Measured) -> None:
    measured(2.0)
    earlier = measured(2.5, change="32")
    experiments.revert(lab, earlier.id, "too wide for 2 s")
    told = refusal(lab, measured, "33")
    for words in (earlier.id, "try 32", "worse", "+0.5000", "e0001", "reverted", "too wide for 2 s", "again=True"):
        assert words in told
    assert "builds on" not in told
    who = lab.ledger.researchers(lab.session().tag)[0]
    found = own_file(lab, lab.session(), who)
    assert found.standing is Standing.REPEATED
    assert found.repeats is not None
    assert found.repeats.id == earlier.id


def test_whoever_insists_may_repeat_an_idea_and_is_told(lab: Lab, measured: Measured) -> None:
    measured(2.0)
    earlier = measured(2.5, change="32")
    experiments.revert(lab, earlier.id, "")
    (said,) = propose(lab, "", "wider, I insist", measured, width="33", again=True)
    assert earlier.id in said


def test_on_another_parent_it_is_refused_with_the_parents_named(lab: Lab, measured: Measured) -> None:
    measured(2.0)
    experiments.revert(lab, measured(2.5, change="32").id, "")
    better = measured(1.5, change="\nEXTRA = 1\n")
    experiments.keep(lab, better.id, "")
    told = refusal(lab, measured, "32")
    assert "on e0001" in told
    assert f"builds on {better.id}" in told


def test_an_idea_that_is_being_tried_is_refused(lab: Lab, measured: Measured) -> None:
    measured(2.0)
    measured(1.9, change="32")
    told = refusal(lab, measured, "\n# a remark\n")
    assert "undecided" in told


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.LOST])
def test_what_had_no_answer_is_let_through(lab: Lab, measured: Measured, outcome: Outcome) -> None:
    measured(2.0)
    experiments.revert(lab, measured(None, change="32", outcome=outcome).id, "")
    assert measured(1.9, change="33").id == "e0003"


def test_a_step_further_after_a_gain_is_a_new_idea(lab: Lab, measured: Measured) -> None:
    measured(2.0)
    experiments.keep(lab, measured(1.9, change="32").id, "")
    assert measured(1.8, change="64").id == "e0003"


def test_another_session_may_ask_again_and_is_told_what_came_of_it(lab: Lab, measured: Measured) -> None:
    measured(2.0)
    earlier = measured(2.5, change="32")
    experiments.revert(lab, earlier.id, "no gain")
    lab.start_session("new", "tester")
    measured(2.0)
    again = measured(2.4, change="33")
    (said,) = remarks(lab, again)
    assert earlier.id in said
    assert "no gain" in said


def test_the_same_words_for_other_code_are_remarked_on_and_not_refused(lab: Lab, measured: Measured) -> None:
    measured(2.0)
    words = "replace the activation of the MLP by its square"
    assert propose(lab, "\nA = 1\n", words, measured) == []
    (said,) = propose(lab, "\nB = 1\n", f"{words}!", measured)
    assert "e0002" in said
    assert "description" in said


def test_a_new_idea_is_not_remarked_on(lab: Lab, measured: Measured) -> None:
    assert remarks(lab, measured(2.0)) == []
    assert remarks(lab, measured(1.9, change="32")) == []


def propose(
    lab: Lab, change: str, description: str, measured: Measured, *, width: str = "16", again: bool = False
) -> list[str]:
    """Return what is said of an experiment with words of its own; it is measured and reverted then."""
    source = lab.workspace.train.read_text().replace("WIDTH = 16", f"WIDTH = {width}")
    lab.workspace.train.write_text(source + change)
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    experiment, is_new = experiments.propose(lab, description=description, hypothesis="", again=again)
    os.close(hold)
    assert is_new
    said = remarks(lab, experiment)
    experiments.revert(lab, measured(2.1).id, "")
    return said
