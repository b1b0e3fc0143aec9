"""How much val_bpb differs between seeds of one candidate: measured by a lab on its device, a prior until it has.

Several runs of the same bytes tell; their deviations from their own means are pooled over everything that was run more than
once. Guarantees: a run that was picked for its number is left out, since the best of many seeds says little about how they
differ. Does not: depend on which candidate it was; a candidate that is itself less steady is judged by the lab's noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .executor import RunResult
from .records import Run
from .states import Purpose

# From so many degrees of freedom on (the baseline three times) a lab has measured its noise.
LEAST_DEGREES = 2

# Degrees of freedom that the prior is worth, so that two or three runs which happen to agree do not promise certainty.
PRIOR_DEGREES = 1

Source = Literal["set", "prior", "measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """A standard deviation between seeds, in bits per byte, and where it comes from."""

    sigma: float
    source: Source
    runs: int = 0  # that it was measured on

    @property
    def words(self) -> str:
        """The source in words, to stand behind the number."""
        if self.source == "measured":
            return f"measured on {self.runs} runs"
        return "a prior" if self.source == "prior" else "set by the human"


def measured_noise(groups: Iterable[Sequence[float]], *, prior: float) -> Noise:
    """Return the pooled standard deviation of groups of val_bpb, one group for each candidate; the prior where they are few."""
    squares, degrees, runs = 0.0, 0, 0
    for group in groups:
        if len(group) > 1:
            mean = math.fsum(group) / len(group)
            squares += math.fsum((value - mean) ** 2 for value in group)
            degrees += len(group) - 1
            runs += len(group)
    if degrees < LEAST_DEGREES:
        return Noise(sigma=prior, source="prior")
    variance = (PRIOR_DEGREES * prior**2 + squares) / (PRIOR_DEGREES + degrees)
    return Noise(sigma=math.sqrt(variance), source="measured", runs=runs)


def unselected(runs: Iterable[Run], *, is_baseline: bool) -> list[float]:
    """Return the certified numbers of `unselected_results`."""
    return [result.val_bpb for result in unselected_results(runs, is_baseline=is_baseline) if result.val_bpb is not None]


def unselected_results(runs: Iterable[Run], *, is_baseline: bool) -> list[RunResult]:
    """Return the results of one candidate's runs that say how seeds differ: alone on the device, and not picked."""
    return [
        run.result
        for run in runs
        if run.result is not None
        and run.result.val_bpb is not None
        and not run.result.contended
        and not run.result.tainted
        and (run.purpose in (Purpose.CONFIRM, Purpose.NOISE) or (is_baseline and run.purpose is not Purpose.TEST))
    ]
