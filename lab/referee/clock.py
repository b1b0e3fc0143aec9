"""The budget: how much of it a run has used, on the clock that its device deserves.

`wall` for a GPU, which a run has to itself. `core_seconds` for a CPU, which is shared by nature: the budget is that many
seconds on every core, so a neighbour costs patience instead of steps; a cap of twice the budget on the wall bounds it.
Elapsed counts from START to process exit. The grace is what a run may overshoot without being timed out; it counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WALL_CAP = 2.0  # core_seconds: the wall may take this many budgets
_GRACE_SECONDS = 1.0
_GRACE_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetClock:
    """Pure arithmetic over readings; who reads is the runner."""

    kind: Literal["wall", "core_seconds"]
    budget_seconds: float
    cores: int

    @property
    def grace_seconds(self) -> float:
        return max(_GRACE_SECONDS, _GRACE_SHARE * self.budget_seconds)

    def elapsed(self, *, wall_seconds: float, cpu_seconds: float) -> float:
        """Return the budget used, in seconds, from what passed since START."""
        if self.kind == "wall":
            return wall_seconds
        return max(cpu_seconds / self.cores, wall_seconds / WALL_CAP)

    def seconds_left(self, *, wall_seconds: float, cpu_seconds: float) -> float:
        return self.budget_seconds - self.elapsed(wall_seconds=wall_seconds, cpu_seconds=cpu_seconds)

    def expired(self, *, wall_seconds: float, cpu_seconds: float) -> bool:
        """True once the budget and its grace are used up."""
        return self.seconds_left(wall_seconds=wall_seconds, cpu_seconds=cpu_seconds) < -self.grace_seconds
