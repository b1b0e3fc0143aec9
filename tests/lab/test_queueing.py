"""Whose run is next."""

from __future__ import annotations

from autoresearch_mcp.lab.queueing import Waiting, in_turn
from hypothesis import given
from hypothesis import strategies as st


def queue(*names: str, goes_on: tuple[int, ...] = (), idle: tuple[int, ...] = ()) -> list[Waiting]:
    return [
        Waiting(
            run_id=f"{name}{position}",
            researcher=name,
            position=position,
            goes_on=position in goes_on,
            awaited=position not in idle,
        )
        for position, name in enumerate(names)
    ]


def order(waiting: list[Waiting], served: dict[str, int] | None = None) -> list[str]:
    return [run.run_id for run in in_turn(waiting, served or {})]


def test_one_researcher_is_served_in_its_own_order() -> None:
    assert order(queue("a", "a", "a")) == ["a0", "a1", "a2"]


def test_who_queues_many_delays_the_others_by_one() -> None:
    assert order(queue("a", "a", "a", "b", "c")) == ["a0", "b3", "c4", "a1", "a2"]


def test_who_was_served_longest_ago_is_first_and_a_newcomer_before_everybody() -> None:
    assert order(queue("a", "b", "c"), {"a": 9, "b": 4}) == ["c2", "b1", "a0"]


def test_what_was_measured_before_goes_first() -> None:
    assert order(queue("a", "b", "b", goes_on=(2,)), {"b": 9}) == ["b2", "a0", "b1"]


def test_what_nobody_waits_for_goes_last_although_its_experiment_was_measured_before() -> None:
    assert order(queue("a", "b", "b", goes_on=(0,), idle=(0,)), {"b": 9}) == ["b1", "b2", "a0"]


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.dictionaries(st.sampled_from("abcd"), st.integers(0, 99)))
def test_everybody_is_served_once_and_nobody_waits_longer_than_a_round(names: list[str], served: dict[str, int]) -> None:
    waiting = queue(*names)
    started = order(waiting, served)
    assert sorted(started) == sorted(run.run_id for run in waiting)
    counts = dict.fromkeys(names, 0)
    for run_id in started:
        counts[run_id[0]] += 1
        unserved = [name for name in counts if counts[name] < names.count(name)]
        assert all(counts[run_id[0]] - counts[name] <= 1 for name in unserved)
