"""The noise between seeds: pooled over what was run more than once, and a prior until there is enough of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from autoresearch_mcp.lab.noise import LEAST_DEGREES, PRIOR_DEGREES, measured_noise


def test_until_something_was_run_often_enough_it_is_the_prior_and_called_so() -> None:
    for groups in ([], [[2.0]], [[2.0], [1.9]], [[2.0, 2.1]]):
        noise = measured_noise(groups, prior=0.02)
        assert (noise.sigma, noise.source, noise.words) == (0.02, "prior", "a prior")


def test_three_runs_of_the_baseline_measure_it_with_the_prior_as_one_degree_of_freedom() -> None:
    noise = measured_noise([[2.0, 2.1, 2.2]], prior=0.02)
    assert noise.sigma == pytest.approx(math.sqrt((0.02**2 + 2 * 0.1**2) / 3))
    assert (noise.source, noise.words) == ("measured", "measured on 3 runs")
    assert (LEAST_DEGREES, PRIOR_DEGREES) == (2, 1)


def test_deviations_are_taken_from_each_candidates_own_mean() -> None:
    apart = measured_noise([[2.0, 2.1], [1.0, 1.1], [7.0]], prior=0.02)
    together = measured_noise([[2.0, 2.1], [2.0, 2.1]], prior=0.02)
    assert (apart.sigma, apart.runs) == (pytest.approx(together.sigma), 4)


def test_runs_that_happen_to_agree_promise_no_certainty() -> None:
    assert measured_noise([[2.0, 2.0, 2.0]], prior=0.02).sigma == pytest.approx(0.02 / math.sqrt(3))


def test_with_many_runs_the_prior_does_not_matter() -> None:
    draws = np.random.default_rng(0).normal(2.0, 0.01, size=(200, 3)).tolist()
    assert measured_noise(draws, prior=0.05).sigma == pytest.approx(0.01, rel=0.1)
