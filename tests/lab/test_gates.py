"""What each gate does to a night of research: the judgement of the product, on ideas whose true worth is known.

A night is 100 ideas; one in ten is a gain of one to four sigmas, most of the others hurt, some do nothing. The figures are
those of docs/GATES.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from autoresearch_mcp.lab.confirmation import CONFIRMATIONS
from autoresearch_mcp.lab.policy import GATES, Measurement, judge
from autoresearch_mcp.lab.states import Outcome

NIGHTS, IDEAS, SIGMA, BASELINE_RUNS = 2000, 100, 0.02, 3


@dataclass(frozen=True, slots=True)
class Nights:
    """Means over the nights; gains in sigmas."""

    gain: float  # true, of the last champion over the baseline
    optimism: float  # by how much the champion's number is better than it is
    keeps: float
    false_keeps: float
    runs: float


def simulate(gate: str, nights: int = NIGHTS, *, shorter: float = 0.0, stubborn: bool = False) -> Nights:
    """Return what a gate comes to.

    So many of the ideas that are no gain have fewer lines than their parent; a stubborn researcher has each idea confirmed.
    """
    rng = np.random.default_rng(0)
    return Nights(*np.mean([_night(gate, rng, shorter, stubborn) for _ in range(nights)], axis=0))


def _night(gate: str, rng: np.random.Generator, shorter: float, stubborn: bool) -> tuple[float, float, int, int, int]:
    """Return gain, optimism, keeps, false keeps and runs of one night."""
    truth = 2.0  # of the champion

    def measured(value: float, runs: int) -> Measurement:
        return Measurement(val_bpb=value + SIGMA * rng.standard_normal(runs).mean(), standard_error=0.0, runs=runs)

    champion, keeps, false_keeps, runs = measured(truth, BASELINE_RUNS), 0, 0, BASELINE_RUNS
    for _ in range(IDEAS):
        change = SIGMA * _worth(rng)
        lines_delta = -1 if change >= 0 and rng.random() < shorter else 0
        child = measured(truth + change, 1)
        judgement = judge(Outcome.SCORED, child, champion, sigma=SIGMA, gate=gate, lines_delta=lines_delta)
        runs += 1
        if judgement.promising or (stubborn and not judgement.keepable):
            child = measured(truth + change, CONFIRMATIONS)
            judgement = judge(Outcome.SCORED, child, champion, sigma=SIGMA, gate=gate, confirmed=True, lines_delta=lines_delta)
            runs += CONFIRMATIONS
        if judgement.keepable:
            champion, truth, keeps, false_keeps = child, truth + change, keeps + 1, false_keeps + (change >= 0)
    return (2.0 - truth) / SIGMA, (truth - champion.val_bpb) / SIGMA, keeps, false_keeps, runs


def _worth(rng: np.random.Generator) -> float:
    """Return what an idea changes, in sigmas; negative is better."""
    if rng.random() < 0.1:
        return -rng.uniform(1, 4)
    return 0.0 if rng.random() < 0.3 else abs(rng.normal(0, 1.5))


@pytest.mark.slow
def test_confirmation_with_fresh_seeds_gains_most_and_keeps_little_that_is_luck() -> None:
    any_gate, confirmed = simulate("any"), simulate("confirmed")
    assert 0.45 < any_gate.false_keeps / any_gate.keeps < 0.58
    assert confirmed.false_keeps / confirmed.keeps < 0.17
    assert confirmed.gain > any_gate.gain + 0.5
    assert any_gate.optimism > 1.2
    assert confirmed.optimism < 0.65
    assert 1.25 < confirmed.runs / any_gate.runs < 1.45


@pytest.mark.slow
def test_who_has_every_idea_confirmed_keeps_more_luck_and_pays_for_it() -> None:
    confirmed, stubborn = simulate("confirmed", 500), simulate("confirmed", 500, stubborn=True)
    assert 1.5 * confirmed.false_keeps < stubborn.false_keeps < 4 * confirmed.false_keeps
    assert stubborn.runs > 2 * confirmed.runs


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_what_is_kept_for_being_simpler_costs_little_of_the_gain(gate: str) -> None:
    without, with_simpler = simulate(gate, 500), simulate(gate, 500, shorter=0.2)
    assert with_simpler.keeps > without.keeps + 0.5
    assert with_simpler.gain > 0.82 * without.gain


def main() -> None:
    """Print the tables of docs/GATES.md."""
    for shorter in (0.0, 0.2):
        for gate in GATES:
            print(shorter, gate, simulate(gate, shorter=shorter))
    print("confirmed, stubborn", simulate("confirmed", stubborn=True))


if __name__ == "__main__":
    main()
