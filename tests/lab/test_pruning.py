"""A hopeless run is told by what it reports, and one that may still win is let go on."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import pytest
from autoresearch_mcp.lab.pruning import LEAST_RECORDED, EarlyStop, LossCurve, Losses, Pruner, excess_of, margin_of, replay
from hypothesis import given
from hypothesis import strategies as st

BUDGET = 100.0
VOCABULARY = 2048
Points = list[tuple[float, float]]


def learns(seconds: float) -> float:
    """The loss of a run that learns: from 7.6, what guessing costs, to 3."""
    return 3.0 + 4.6 * math.exp(-seconds / 25.0)


def points(loss: Callable[[float], float] = learns, *, every: float = 0.5, noise: float = 0.0) -> Points:
    dice = random.Random(0)
    return [(step * every, loss(step * every) + dice.gauss(0.0, noise)) for step in range(int(BUDGET / every))]


def losses(reports: Iterable[tuple[float, float]]) -> Losses:
    return LossCurve(BUDGET, reports).losses()


PARENT = losses(points())


def rule(margin: float | None = 0.5, *, diverged: bool = True, after_share: float = 0.3) -> EarlyStop:
    return EarlyStop(
        diverged=diverged, margin=margin, after_share=after_share, parent_losses=PARENT, parent_vocab_size=VOCABULARY
    )


def ended(reports: Points, stop: EarlyStop, *, vocab_size: int = VOCABULARY) -> tuple[float, str] | None:
    return replay(reports, stop, budget_seconds=BUDGET, vocab_size=vocab_size)


def live(stop: EarlyStop, reports: Iterable[tuple[float, object]]) -> str | None:
    """Judge reports as a runner does, which looks ten times a second."""
    pruner = Pruner(stop, BUDGET)
    pruner.opened(VOCABULARY)
    coming, tick = list(reports), 0.0
    while tick <= BUDGET:
        while coming and coming[0][0] <= tick:
            pruner.report(*coming.pop(0))
        if (said := pruner.reason(tick)) is not None:
            return said
        tick += 0.1
    return None


def test_a_run_like_its_parent_is_let_go_on_however_noisy_its_batches_are():
    assert ended(points(noise=0.3), rule(0.3)) is None
    assert ended(points(lambda seconds: learns(seconds) + 0.45), rule(0.5)) is None


def test_a_run_that_lies_further_above_its_parent_than_the_margin_ends_once_that_is_judged():
    seconds, said = ended(points(lambda seconds: learns(seconds) + 0.6), rule(0.5)) or (0.0, "")
    assert 30.0 <= seconds <= 31.0
    assert "after 30.0 s its loss 5.32 was 0.60 above the parent's 4.72 at the same time, beyond the margin of 0.50" in said


def test_futility_is_judged_neither_before_its_share_nor_when_little_is_left():
    assert ended(points(lambda seconds: learns(seconds) + (1.5 if seconds < 20 else 0.0)), rule()) is None
    assert ended(points(lambda seconds: learns(seconds) + (1.5 if seconds > 86 else 0.0)), rule()) is None
    late, _ = ended(points(lambda seconds: learns(seconds) + (1.5 if seconds > 50 else 0.0)), rule()) or (0.0, "")
    assert 52.0 < late < 60.0
    assert 70.0 <= (ended(points(lambda seconds: learns(seconds) + 0.6), rule(after_share=0.7)) or (0.0, ""))[0] <= 71.0
    assert ended(points(lambda seconds: learns(seconds) + 0.6), rule(margin=None)) is None


def test_a_run_that_began_late_is_compared_with_what_its_parent_had_learned_in_the_same_time():
    late = [(seconds + 25.0, loss) for seconds, loss in points() if seconds < 75.0]
    assert ended(late, rule()) is not None  # the parent's at the same second of the budget had learned for longer
    stop = rule()
    assert replay(late, stop, budget_seconds=BUDGET, vocab_size=VOCABULARY, deducted_seconds=25.0) is None
    worse = [(seconds, loss + (0.6 if seconds > 80.0 else 0.0)) for seconds, loss in late]  # with 20 s left
    assert replay(worse, stop, budget_seconds=BUDGET, vocab_size=VOCABULARY, deducted_seconds=25.0) is None


def test_what_is_not_reported_is_not_judged():
    hopeless = points(lambda _: 6.0, every=3.0)  # four in a window, at most
    assert ended(hopeless, rule()) is None
    assert ended([], rule()) is None
    assert live(rule(), [(seconds, {"objective": math.nan}) for seconds, _ in points()]) is None
    assert ended(points(lambda _: 6.0), EarlyStop(margin=0.5)) is None


def test_losses_of_another_vocabulary_are_not_compared():
    worse = points(lambda seconds: learns(seconds) + 3.0)
    assert ended(worse, rule()) is not None
    assert ended(worse, rule(), vocab_size=4096) is None
    pruner = Pruner(rule(), BUDGET)
    for vocab_size in (VOCABULARY, 4096):  # it trains on both
        pruner.opened(vocab_size)
    for seconds, loss in worse:
        pruner.report(seconds, {"loss": loss})
    assert pruner.reason(BUDGET) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_a_run_at_once(value: float) -> None:
    reports = [(5.0, {"loss": 7.0}), (5.5, {"loss": value}), (6.0, {"loss": 7.0})]
    said = live(EarlyStop(), reports)
    assert said == f"after 5.5 s its loss was not finite ({value})"
    assert live(EarlyStop(diverged=False), reports) is None


def test_a_loss_that_rises_far_above_where_it_began_ends_a_run_and_a_bad_batch_does_not():
    explodes = points(lambda seconds: 7.6 + max(0.0, seconds - 4.0) ** 2)
    seconds, said = ended(explodes, EarlyStop()) or (0.0, "")
    assert 4.0 < seconds < 12.0
    assert "had diverged" in said
    assert ended(explodes, EarlyStop(diverged=False)) is None
    assert ended([*points()[:8], (4.0, 80.0), *points()[9:]], EarlyStop()) is None
    bad_start = points(lambda seconds: 20.0 if seconds < 6 else learns(seconds))  # such weights; it learns all the same
    assert ended(bad_start, EarlyStop()) is None


def test_a_run_that_does_not_learn_where_its_parent_does_ends_before_futility_is_judged():
    flat = points(lambda _: math.log(VOCABULARY))
    seconds, said = ended(flat, rule(margin=None)) or (0.0, "")
    assert 10.0 < seconds < 30.0
    assert "so it does not learn" in said
    assert ended(flat, rule(margin=None, diverged=False)) is None


@pytest.mark.parametrize(
    "metrics", [None, [], "loss", {}, {"loss": None}, {"loss": "nan"}, {"loss": True}, {"loss": 10**400}, {"loss": [1.0]}]
)
def test_a_report_that_says_no_loss_is_passed_over(metrics: object) -> None:
    assert live(rule(), [(seconds, metrics) for seconds, _ in points()]) is None


@given(st.lists(st.tuples(st.floats(0, BUDGET), st.floats(0, 1)), max_size=300), st.floats(0.01, 2.0))
def test_who_is_never_above_its_parent_is_never_ended(lower: list[tuple[float, float]], margin: float) -> None:
    parents = points()
    reports = [(seconds, loss - 0.01 * less) for (seconds, loss), (_, less) in zip(parents, lower, strict=False)]
    assert ended(reports, rule(margin)) is None


def test_a_recorded_run_is_judged_as_it_was_while_it_ran():
    for above in (0.0, 0.4, 0.6, 1.0, 2.5):
        reports = points(lambda seconds, above=above: learns(seconds) + above, noise=0.2)
        then, again = live(rule(), [(seconds, {"loss": loss}) for seconds, loss in reports]), ended(reports, rule())
        assert then == (None if again is None else again[1])


def test_the_margin_is_twice_what_recorded_runs_lay_above_their_parents():
    assert margin_of([0.3] * (LEAST_RECORDED - 1)) is None
    assert margin_of([-0.2, 0.1, 0.3, 0.0, -0.4, 0.1, 0.0, 0.2]) == pytest.approx(0.6)
    assert margin_of([-0.2] * LEAST_RECORDED) == pytest.approx(0.2)  # what smoothing leaves of the noise


def test_the_excess_of_a_run_is_the_largest_while_futility_is_judged():
    bump = losses(points(lambda seconds: learns(seconds) + (0.8 if 40 <= seconds < 60 else 3.0 if seconds < 15 else 0.1)))
    assert excess_of(bump, PARENT, after_share=0.3) == pytest.approx(0.8, abs=0.01)
    assert excess_of(bump, PARENT, after_share=0.8) == pytest.approx(0.1, abs=0.01)
    assert excess_of((), PARENT, after_share=0.3) is None
    assert excess_of(bump, (), after_share=0.3) is None
