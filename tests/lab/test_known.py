"""What a session has taught: themes, constants, near misses and a plateau, from the record alone."""

from __future__ import annotations

import pytest
from autoresearch_mcp.lab.known import Constant, Record, Trial, Tried, known, step_of
from autoresearch_mcp.lab.records import Changes

NOTHING = Record(tried=(), near_misses=(), last_gain=None, since_gain=0)


def trial(number: int, delta: float, *, changes: Changes | None = None, z: float = 0.0, is_gain: bool = False) -> Trial:
    return Trial(id=f"e{number:04d}", changes=changes or {}, delta=delta, z=z, is_gain=is_gain)


def tried(theme: str, best: Trial | None, *, finished: int = 1, failed: int = 0, changes: Changes | None = None) -> Tried:
    gain = -best.delta if best is not None and best.is_gain else 0.0
    return Tried(
        theme=theme,
        changes=(best.changes if best else {}) if changes is None else changes,
        experiments=finished,
        finished=finished,
        kept=int(gain > 0),
        without_number=failed,
        gain=gain,
        best=best,
    )


def record(*each: Tried, near_misses: tuple[Trial, ...] = (), since_gain: int = 0) -> Record:
    return Record(tried=each, near_misses=near_misses, last_gain=None, since_gain=since_gain)


def test_before_the_first_result_nothing_is_known_and_every_constant_is_untouched() -> None:
    found = known(NOTHING, ["B", "A"], plateau_after=1)
    assert (found.finished, found.worked, found.failed, found.constants, found.near_misses) == (0, (), (), (), ())
    assert found.untouched == ("B", "A")
    assert not found.is_plateau


def test_a_theme_worked_where_something_was_kept_that_gained_and_the_largest_gain_comes_first() -> None:
    found = known(
        record(
            tried("batch", trial(2, -0.01, is_gain=True)),
            tried("attention", trial(3, -0.5, z=1.0), finished=4),
            tried("schedule", trial(4, -0.03, is_gain=True), finished=2),
            tried("schedule", trial(5, -0.02, is_gain=True)),
            tried("loss", None, finished=9, failed=9),
        )
    )
    assert [(theme.name, round(theme.gain, 3), theme.kept, theme.finished) for theme in found.worked] == [
        ("schedule", 0.05, 2, 3),
        ("batch", 0.01, 1, 1),
    ]
    assert found.worked[0].best == trial(4, -0.03, is_gain=True)
    assert [(theme.name, theme.without_number) for theme in found.failed] == [("loss", 9), ("attention", 0)]
    assert found.finished == 17


def test_what_was_kept_is_the_best_of_its_theme_although_more_was_once_measured() -> None:
    found = known(record(tried("loss", trial(2, -0.2)), tried("loss", trial(3, -0.1, is_gain=True))))
    assert found.worked[0].best is not None
    assert found.worked[0].best.id == "e0003"


def test_a_constant_that_was_changed_alone_has_its_steps_with_the_best_of_each() -> None:
    def change(new: str) -> Changes:
        return {"LR": ("0.04", new)}

    found = known(
        record(
            tried("learning rate", trial(2, 0.3, changes=change("0.08")), finished=2),
            tried("learning rate", trial(3, 0.1, changes=change("0.05"))),
            tried("learning rate", trial(4, -0.1, changes=change("0.02"))),
            tried("learning rate", None, changes=change("best_of(3)"), failed=1),
            tried("learning rate", trial(5, -0.7, changes={**change("0.01"), "DEPTH": ("4", "6")})),
        ),
        ["WIDTH", "LR", "DEPTH"],
    )
    (constant,) = found.constants
    assert isinstance(constant, Constant)
    assert {step: (count, best and best.id) for step, (count, best) in constant.steps.items()} == {
        "higher": (3, "e0003"),
        "lower": (1, "e0004"),
        "changed": (1, None),
    }
    assert found.untouched == ("WIDTH",)


@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        ("0.04", "0.08", "higher"),
        ("1e-10", "1e-8", "higher"),
        ("65_536", "32_768", "lower"),
        ("2**14", "2**15", "higher"),
        ("8 if CPU else 64", "4 if CPU else 64", "lower"),
        ("WIDTH**-0.5", "WIDTH**-0.6", "lower"),
        ("0.3 if CPU else 0.6", "0.45", "changed"),
        ("True", "False", "changed"),
        ("(1, 2)", "(2, 3)", "changed"),
        (None, "3", "changed"),
        ("3", None, "changed"),
        ("3", "3", "changed"),
    ],
)
def test_a_step_goes_the_way_of_the_one_number_that_differs(old: str | None, new: str | None, step: str) -> None:
    assert step_of(old, new) == step


def test_near_misses_are_told_once_for_the_same_constants_and_not_where_those_were_kept() -> None:
    rope, lr, depth = ({name: ("1", "2")} for name in ("ROPE", "LR", "DEPTH"))
    misses = (
        trial(5, -0.03, changes=rope, z=1.4),
        trial(6, -0.02, z=1.2),
        trial(7, -0.02, changes=rope, z=1.1),
        trial(8, -0.01, changes=lr, z=0.8),
        trial(9, -0.01, z=0.6),
        trial(4, -0.01, changes={**rope, **depth}, z=0.5),
    )
    found = known(record(tried("learning rate", trial(3, -0.1, changes=lr, is_gain=True)), near_misses=misses))
    assert [trial.id for trial in found.near_misses] == ["e0005", "e0006", "e0009", "e0004"]


def test_a_plateau_is_told_after_as_many_as_the_human_wants_or_never() -> None:
    found = [known(record(since_gain=20), plateau_after=after).is_plateau for after in (0, 1, 20, 21)]
    assert found == [False, True, True, False]
