import math
from itertools import product

import pytest
from autoresearch_mcp.lab.policy import (
    CERTIFICATION_TOLERANCE_BPB,
    GATES,
    LARGEST_ERROR_SHARE,
    SMALLEST_GAIN_SIGMAS,
    Z_THRESHOLD,
    Measurement,
    confidence_word,
    judge,
    keepable_below,
    normal_cdf,
)
from autoresearch_mcp.lab.states import Outcome, Verdict
from hypothesis import given
from hypothesis import strategies as st

SIGMA = 0.02

scores = st.floats(min_value=0.5, max_value=8.0)
sigmas = st.floats(min_value=1e-4, max_value=0.5)
errors = st.floats(min_value=0.0, max_value=0.1)
run_counts = st.integers(min_value=1, max_value=20)


def measured(val_bpb: float, standard_error: float = 0.0, runs: int = 1) -> Measurement:
    return Measurement(val_bpb=val_bpb, standard_error=standard_error, runs=runs)


def scored(child: float, parent: float, *, lines_delta: int = 0, **how):
    return judge(
        Outcome.SCORED,
        measured(child),
        measured(parent),
        sigma=SIGMA,
        lines_delta=lines_delta,
        **how,
    )


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SCORED])
def test_an_outcome_without_a_number_is_a_verdict_of_the_same_name_and_never_keepable(outcome):
    judgement = judge(outcome, None, measured(2.0), sigma=SIGMA)
    assert judgement.verdict.value == outcome.value
    assert not judgement.keepable
    assert judgement.delta is judgement.standard_error is judgement.z is judgement.confidence is None
    assert judgement.reason


def test_a_number_that_came_with_a_failed_outcome_is_ignored():
    judgement = judge(Outcome.INVALID, measured(0.1), measured(2.0), sigma=SIGMA)
    assert (judgement.verdict, judgement.keepable, judgement.delta) == (Verdict.INVALID, False, None)


def test_the_baseline_is_improved_and_keepable():
    judgement = judge(Outcome.SCORED, measured(2.0), None, sigma=SIGMA)
    assert (judgement.verdict, judgement.keepable) == (Verdict.IMPROVED, True)
    assert judgement.reason == "the baseline: the first measured result of the session"


def test_a_large_gain_is_improved_and_keepable():
    judgement = scored(1.9, 2.0)
    assert (judgement.verdict, judgement.keepable) == (Verdict.IMPROVED, True)
    assert judgement.delta == pytest.approx(-0.1)
    assert judgement.standard_error == pytest.approx(SIGMA * math.sqrt(2))
    assert judgement.z == pytest.approx(0.1 / (SIGMA * math.sqrt(2)))


def test_a_large_loss_is_worse_and_not_keepable_however_few_its_lines():
    judgement = scored(2.1, 2.0, lines_delta=-100)
    assert (judgement.verdict, judgement.keepable) == (Verdict.WORSE, False)


def test_a_small_gain_within_noise_may_be_kept_under_the_gate_any():
    judgement = scored(1.99, 2.0)
    assert (judgement.verdict, judgement.keepable) == (Verdict.WITHIN_NOISE, True)


def test_a_loss_of_half_a_sigma_may_be_kept_only_with_fewer_lines():
    assert not scored(2.0099, 2.0).keepable
    assert not scored(2.0099, 2.0, lines_delta=3).keepable
    assert not scored(2.0101, 2.0, lines_delta=-3).keepable
    simpler = scored(2.0099, 2.0, lines_delta=-3)
    assert simpler.keepable
    assert "simpler, with 3 fewer lines" in simpler.reason


@pytest.mark.parametrize(("child", "promising"), [(1.9, True), (1.9899, True), (1.9901, False), (2.0, False), (2.1, False)])
def test_under_the_gate_confirmed_half_a_sigma_is_promising_and_no_first_number_may_be_kept(child, promising):
    judgement = scored(child, 2.0, gate="confirmed")
    assert (judgement.promising, judgement.keepable) == (promising, False)
    assert ("runs with fresh seeds decide" in judgement.reason) is promising


@pytest.mark.parametrize(("child", "keepable"), [(1.9, True), (1.9799, True), (1.9801, False), (2.0, False)])
def test_under_the_gate_confirmed_fresh_runs_have_to_gain_a_sigma(child, keepable):
    judgement = scored(child, 2.0, gate="confirmed", confirmed=True)
    assert (judgement.promising, judgement.keepable) == (False, keepable)


def test_what_is_simpler_within_noise_needs_no_confirmation():
    assert scored(2.005, 2.0, gate="confirmed", lines_delta=-3).keepable
    assert scored(1.985, 2.0, gate="confirmed", confirmed=True, lines_delta=-3).keepable
    promising = scored(1.985, 2.0, gate="confirmed", lines_delta=-3)
    assert (promising.promising, promising.keepable) == (True, False)  # it may be more than simpler


@pytest.mark.parametrize("gate", GATES)
def test_a_baseline_needs_no_confirmation(gate):
    judgement = judge(Outcome.SCORED, measured(2.0), None, sigma=SIGMA, gate=gate)
    assert (judgement.promising, judgement.keepable) == (False, True)


def test_an_equal_number_is_not_better_but_may_be_simpler():
    assert not scored(2.0, 2.0).keepable
    assert scored(2.0, 2.0, lines_delta=-1).keepable
    assert "equal to" in scored(2.0, 2.0).reason


def test_the_reason_has_four_decimals_and_says_where_sigma_is_from():
    prior = scored(1.99, 2.0).reason
    assert "1.9900" in prior
    assert "2.0000" in prior
    assert "0.0100 better" in prior
    assert "sigma 0.0200, a prior" in prior
    own = scored(1.99, 2.0, sigma_source="measured on 5 runs").reason
    assert "prior" not in own
    assert "sigma 0.0200, measured on 5 runs" in own
    assert "\n" not in prior


@pytest.mark.parametrize("with_parent", [True, False])
def test_a_number_certified_too_loosely_is_not_keepable_and_says_so(with_parent):
    limit = LARGEST_ERROR_SHARE * SMALLEST_GAIN_SIGMAS * SIGMA
    parent = measured(2.0) if with_parent else None
    for standard_error, keepable in ((limit, True), (limit * 1.01, False)):
        judgement = judge(Outcome.SCORED, measured(1.9, standard_error), parent, sigma=SIGMA, lines_delta=-5)
        assert judgement.verdict is Verdict.IMPROVED
        assert judgement.keepable is keepable
        assert ("a fifth of the smallest gain that counts" in judgement.reason) is not keepable


@given(scores, scores, scores, sigmas, run_counts, run_counts)
def test_a_lower_number_never_judges_worse(first, second, parent, sigma, child_runs, parent_runs):
    low, high = sorted((first, second))
    better, worse = (
        judge(
            Outcome.SCORED,
            measured(value, runs=child_runs),
            measured(parent, runs=parent_runs),
            sigma=sigma,
        )
        for value in (low, high)
    )
    order = [Verdict.WORSE, Verdict.WITHIN_NOISE, Verdict.IMPROVED]
    assert order.index(better.verdict) >= order.index(worse.verdict)
    assert better.confidence >= worse.confidence
    assert better.keepable >= worse.keepable


@given(scores, scores, sigmas, errors, errors, run_counts, run_counts)
def test_swapping_child_and_parent_mirrors_the_judgement(first, second, sigma, error_1, error_2, runs_1, runs_2):
    one, other = measured(first, error_1, runs_1), measured(second, error_2, runs_2)
    forth = judge(Outcome.SCORED, one, other, sigma=sigma)
    back = judge(Outcome.SCORED, other, one, sigma=sigma)
    assert forth.z == pytest.approx(-back.z)
    assert forth.confidence + back.confidence == pytest.approx(1)
    mirror = {Verdict.IMPROVED: Verdict.WORSE, Verdict.WORSE: Verdict.IMPROVED}
    assert back.verdict is mirror.get(forth.verdict, Verdict.WITHIN_NOISE)


@given(scores, scores, sigmas, errors, run_counts, st.integers(min_value=-50, max_value=50))
def test_what_is_kept_is_never_worse_beyond_noise(child, parent, sigma, standard_error, runs, lines_delta):
    judgement = judge(
        Outcome.SCORED,
        measured(child, standard_error, runs),
        measured(parent),
        sigma=sigma,
        lines_delta=lines_delta,
    )
    if judgement.keepable:
        assert judgement.verdict is not Verdict.WORSE
        assert child < parent or lines_delta < 0
    assert (judgement.verdict is Verdict.IMPROVED) == (judgement.z >= Z_THRESHOLD)


@given(scores, scores, sigmas, run_counts)
def test_more_runs_make_the_standard_error_smaller(child, parent, sigma, runs):
    few, many = (judge(Outcome.SCORED, measured(child, runs=n), measured(parent), sigma=sigma) for n in (runs, runs + 1))
    assert many.standard_error < few.standard_error


def test_the_normal_distribution_agrees_with_known_values():
    for z, probability in ((0.0, 0.5), (Z_THRESHOLD, 0.95), (-Z_THRESHOLD, 0.05), (1.96, 0.975)):
        assert normal_cdf(z) == pytest.approx(probability, abs=1e-4)


def test_every_confidence_has_a_word():
    words = [confidence_word(step / 1000) for step in range(1001)]
    assert words[0] == "almost certainly not"
    assert words[900] == "likely"
    assert words[1000] == "almost certainly"


@pytest.mark.parametrize("sigma", [0.0, -0.1, math.nan, math.inf])
def test_a_sigma_that_is_not_positive_is_an_error(sigma):
    with pytest.raises(ValueError, match="sigma"):
        judge(Outcome.SCORED, measured(1.0), None, sigma=sigma)


def test_a_score_without_a_measurement_and_an_unknown_gate_are_errors():
    with pytest.raises(ValueError, match="measurement"):
        judge(Outcome.SCORED, None, None, sigma=SIGMA)
    with pytest.raises(ValueError, match="unknown gate 'hope'"):
        judge(Outcome.SCORED, measured(1.0), None, sigma=SIGMA, gate="hope")


@pytest.mark.parametrize(("field", "value"), [*product(("val_bpb", "standard_error"), (math.nan, math.inf, -1.0)), ("runs", 0)])
def test_a_measurement_that_is_no_number_cannot_be_made(field, value):
    content = {"val_bpb": 2.0, "standard_error": 0.0, "runs": 1} | {field: value}
    with pytest.raises(ValueError, match=field):
        Measurement(**content)


@given(
    parent=scores,
    parent_error=errors,
    runs=run_counts,
    sigma=sigmas,
    lines_delta=st.integers(-50, 50),
    beyond=st.floats(0.0, 1.0),
    child_error=errors,
    corrected=st.floats(-1.0, 1.0),
    gate=st.sampled_from(GATES),
)
def test_a_claim_that_is_not_below_the_line_is_never_kept_whatever_the_audits_take_off(
    parent, parent_error, runs, sigma, lines_delta, beyond, child_error, corrected, gate
):
    base = measured(parent, parent_error, runs)
    claim = keepable_below(base, sigma=sigma, lines_delta=lines_delta) + beyond + 1e-9
    certified = claim + corrected * max(3 * child_error, CERTIFICATION_TOLERANCE_BPB)  # more would be invalid
    child = measured(max(certified, 0.0), child_error)
    judgement = judge(Outcome.SCORED, child, base, sigma=sigma, lines_delta=lines_delta, gate=gate)
    assert not judgement.keepable
    assert not judgement.promising


def test_the_line_of_a_claim_lies_a_little_above_the_parent_and_half_a_sigma_further_for_what_is_simpler():
    assert 2.0 < keepable_below(measured(2.0), sigma=SIGMA, lines_delta=0) < 2.0 + 0.5 * SIGMA
    assert keepable_below(measured(2.0), sigma=SIGMA, lines_delta=-1) > 2.0 + 0.5 * SIGMA
