"""The budget: how much of it a run has used, on the clock that its device deserves.

`wall` for a GPU, which a run has to itself. `core_seconds` for a CPU, which is shared by nature: the budget is that many
seconds on every core, so a neighbour costs patience instead of steps; a cap of twice the budget on the wall bounds it.
Elapsed counts from START to process exit. The grace is what a run may overshoot without being timed out; it counts.
Start-up is free up to an allowance, since what a candidate can read before START (torch's own sources) is text as well; what
exceeds the allowance is deducted: the budget is used up by that much when it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WALL_CAP = 2.0  # core_seconds: the wall may take this many budgets
STARTUP_SLACK = 1.25  # the allowance is the baseline's start-up times this
_GRACE_SECONDS = 1.0
_GRACE_SHARE = 0.02

ClockKind = Literal["wall", "core_seconds"]


def startup_allowance(baseline_seconds: float) -> float:
    """Return the start-up that is free, where the baseline's took ``baseline_seconds`` on the same clock."""
    return STARTUP_SLACK * baseline_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetClock:
    """Pure arithmetic over readings; who reads is the runner."""

    kind: ClockKind
    budget_seconds: float
    cores: int
    deducted_seconds: float = 0.0  # of the budget, because start-up exceeded its allowance

    def startup_seconds(self, *, wall_seconds: float, cpu_seconds: float) -> float:
        """Return a start-up on this clock: seconds of the wall, or CPU seconds of the process tree over the cores."""
        return wall_seconds if self.kind == "wall" else cpu_seconds / self.cores

    @property
    def grace_seconds(self) -> float:
        return max(_GRACE_SECONDS, _GRACE_SHARE * self.budget_seconds)

    def elapsed(self, *, wall_seconds: float, cpu_seconds: float) -> float:
        """Return the budget used, in seconds, from what passed since START, and what was deducted then."""
        if self.kind == "wall":
            return self.deducted_seconds + wall_seconds
        return self.deducted_seconds + max(cpu_seconds / self.cores, wall_seconds / WALL_CAP)

    def seconds_left(self, *, wall_seconds: float, cpu_seconds: float) -> float:
        return self.budget_seconds - self.elapsed(wall_seconds=wall_seconds, cpu_seconds=cpu_seconds)

    def expired(self, *, wall_seconds: float, cpu_seconds: float) -> bool:
        """True once the budget and its grace are used up."""
        return self.seconds_left(wall_seconds=wall_seconds, cpu_seconds=cpu_seconds) < -self.grace_seconds
