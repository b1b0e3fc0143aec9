"""The arithmetic of the budget: grace, the cap on the wall, and what a long start-up takes off."""

from __future__ import annotations

import pytest
from autoresearch_mcp.lab.referee.clock import BudgetClock, startup_allowance


def clock(kind: str = "core_seconds", *, budget: float = 300.0, deducted: float = 0.0) -> BudgetClock:
    return BudgetClock(kind=kind, budget_seconds=budget, cores=2, deducted_seconds=deducted)  # type: ignore[arg-type]


def test_core_seconds_count_cpu_time_over_the_cores_and_at_least_half_the_wall() -> None:
    assert clock().elapsed(wall_seconds=100.0, cpu_seconds=180.0) == 90.0
    assert clock().elapsed(wall_seconds=400.0, cpu_seconds=180.0) == 200.0
    assert clock("wall").elapsed(wall_seconds=100.0, cpu_seconds=1e6) == 100.0


@pytest.mark.parametrize(("budget", "grace"), [(10.0, 1.0), (50.0, 1.0), (300.0, 6.0)])
def test_the_grace_is_a_second_or_a_fiftieth_and_counts(budget: float, grace: float) -> None:
    made = clock("wall", budget=budget)
    assert made.grace_seconds == pytest.approx(grace)
    assert not made.expired(wall_seconds=budget + grace - 0.01, cpu_seconds=0.0)
    assert made.expired(wall_seconds=budget + grace + 0.01, cpu_seconds=0.0)


def test_start_up_is_measured_on_the_clock_of_the_run() -> None:
    assert clock().startup_seconds(wall_seconds=20.0, cpu_seconds=12.0) == 6.0
    assert clock("wall").startup_seconds(wall_seconds=20.0, cpu_seconds=12.0) == 20.0
    assert startup_allowance(6.0) == 7.5


@pytest.mark.parametrize("kind", ["core_seconds", "wall"])
def test_what_was_deducted_is_gone_from_the_first_moment_on(kind: str) -> None:
    made = clock(kind, deducted=40.0)
    assert made.seconds_left(wall_seconds=0.0, cpu_seconds=0.0) == 260.0
    assert made.elapsed(wall_seconds=0.0, cpu_seconds=0.0) == 40.0
    assert made.expired(wall_seconds=267.0, cpu_seconds=534.0)
    assert not clock(kind).expired(wall_seconds=267.0, cpu_seconds=534.0)
