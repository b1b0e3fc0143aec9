"""A near miss: the rule, and that SQL and Python say the same of every experiment there can be."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable

from autoresearch_mcp.lab.near_misses import NEAR_MISS, ORDER, near_misses
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Decision, Verdict

Make = Callable[..., Experiment]


def ids(experiments: list[Experiment]) -> list[str]:
    return [each.id for each in experiments]


def test_a_near_miss_is_better_than_its_parent_and_was_decided_against(experiment_of: Make) -> None:
    experiments = [
        experiment_of(2, delta=-0.01, z=0.5, verdict=Verdict.WITHIN_NOISE),
        experiment_of(3, delta=0.01, z=-0.5, verdict=Verdict.WITHIN_NOISE),
        experiment_of(4, delta=-0.03, z=1.5),
        experiment_of(5, delta=-0.03, z=1.5, decision=Decision.PENDING),
        experiment_of(6, delta=-0.09, z=4.5, decision=Decision.KEPT),
    ]
    assert ids(near_misses(experiments)) == ["e0004", "e0002"]


def test_what_was_merged_onto_a_later_champion_is_none_once_that_is_kept(experiment_of: Make) -> None:
    stale = experiment_of(2, delta=-0.05, z=2.5)
    for decision, found in ((Decision.KEPT, []), (Decision.REVERTED, ["e0002"]), (Decision.PENDING, ["e0002"])):
        merged = experiment_of(3, rebase_of="e0002", delta=0.01, z=-0.5, verdict=Verdict.WITHIN_NOISE, decision=decision)
        assert ids(near_misses([stale, merged])) == found


def test_sql_and_python_say_the_same(experiment_of: Make) -> None:
    kinds = itertools.product(Decision, [*Verdict, None], [None, -0.03, -0.02, -0.01, 0.0, 0.01])
    experiments = [
        experiment_of(number, decision=decision, verdict=verdict, delta=delta, z=None if delta is None else number % 7 - 3.0)
        for number, (decision, verdict, delta) in enumerate(kinds, start=2)
    ]
    last = len(experiments) + 2
    experiments += [
        experiment_of(last + number, rebase_of=each.id, decision=decision)
        for number, (each, decision) in enumerate(zip(near_misses(experiments), Decision, strict=False))
    ]
    db = sqlite3.connect(":memory:")
    names = ("id", "rebase_of", "decision", "verdict", "delta", "z")
    db.execute(f"CREATE TABLE experiments ({', '.join(names)})")
    marks = ", ".join("?" for _ in names)
    db.executemany(
        f"INSERT INTO experiments VALUES ({marks})", [[getattr(each, name) for name in names] for each in experiments]
    )
    found = [row[0] for row in db.execute(f"SELECT id FROM experiments WHERE {NEAR_MISS} ORDER BY {ORDER}")]
    assert found == ids(near_misses(experiments))
    assert len(found) == 2 * 3 - 1, "one of them was merged and kept"
