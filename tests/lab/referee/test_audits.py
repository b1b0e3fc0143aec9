"""The statistics of the certified metric: honest numbers are exact for any model and shape, and a lie gains nothing.

What is claimed of liars: the certified value is unbiased, always; below the honest value by more than three standard errors it
is rare, and how rare depends on how much is claimed: a gain that counts (half a sigma) gets past in at most a few runs of a
hundred where the champion's claims are known. docs/SECURITY.md has the measured table.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from autoresearch_mcp.lab.policy import LARGEST_ERROR_SHARE, SMALLEST_GAIN_SIGMAS
from autoresearch_mcp.lab.referee.audits import (
    InvalidModelError,
    Picks,
    Score,
    bits_per_byte,
    certify,
    check_claims,
    negative_log_softmax,
    pick_audits,
)
from autoresearch_mcp.lab.referee.reference import claimed_gains
from autoresearch_mcp.lab.referee.windows import Rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SIGMA = 0.02  # the CPU profile's prior
COUNTS = SMALLEST_GAIN_SIGMAS * SIGMA
LARGEST_ERROR = LARGEST_ERROR_SHARE * COUNTS
quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DRAWS = 200  # of one case, and few cases: their means are what is tested
few = settings(quickly, max_examples=20, derandomize=True)


def make_rows(rng: np.random.Generator, *, rows: int, context: int, vocab_size: int, windows: int) -> Rows:
    scored = rng.integers(1, context + 1, rows)
    return Rows(
        tokens=rng.integers(0, vocab_size, (rows, context + 1)).astype(np.int32),
        scored=scored,
        window=np.sort(np.append(np.arange(min(windows, rows)), rng.integers(0, min(windows, rows), max(0, rows - windows)))),
        scored_bytes=int(scored.sum() * 2.9) + 1,
    )


def outcomes(rows: Rows, claims: np.ndarray, truth: np.ndarray, gains: np.ndarray, audits: int, draws: int) -> np.ndarray:
    """Return (certified, standard error) of repeated scorings, NaN for `invalid`; float64 [draws, 2]."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        picks = pick_audits(rows, gains, audits, rng)
        try:
            score = certify(rows, claims, picks, truth[picks.rows, picks.cuts])
            found.append((score.val_bpb, score.standard_error))
        except InvalidModelError:
            found.append((math.nan, math.nan))
    return np.array(found)


def corrections(rows: Rows, lie: np.ndarray, gains: np.ndarray, audits: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the corrections of repeated draws and their squared standard errors, in nats."""
    rng, found, squares = np.random.default_rng(1), [], []
    for _ in range(draws):
        picks = pick_audits(rows, gains, audits, rng)
        terms = picks.weights * lie[picks.rows, picks.cuts]
        found.append(terms.sum())
        squares.append(len(terms) / max(len(terms) - 1, 1) * ((terms - terms.mean()) ** 2).sum())
    return np.array(found), np.array(squares)


@quickly
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 60),
    context=st.integers(1, 48),
    vocab_size=st.sampled_from([2, 17, 257, 2048]),
    windows=st.integers(1, 20),
    audits=st.integers(1, 80),
    scale=st.sampled_from([0.1, 1.0, 5.0, 30.0]),
    has_champion=st.booleans(),
)
def test_an_honest_models_certified_value_is_the_full_trusted_evaluation(
    seed: int, rows: int, context: int, vocab_size: int, windows: int, audits: int, scale: float, has_champion: bool
) -> None:
    """Float64 log-softmax of all logits here; float32 log-softmax in the worker, float32 logits to the audit."""
    rng = np.random.default_rng(seed)
    made = make_rows(rng, rows=rows, context=context, vocab_size=vocab_size, windows=windows)
    table = (scale * rng.normal(size=(vocab_size, vocab_size))).astype(np.float32)
    logits = table[made.tokens[:, :-1]]  # a bigram model, [rows, T, V]
    targets = made.tokens[:, 1:]
    trusted = negative_log_softmax(logits.reshape(-1, vocab_size).astype(np.float64), targets.ravel()).reshape(targets.shape)
    shifted = logits - logits.max(axis=2, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True, dtype=np.float32))
    claims = -np.take_along_axis(log_softmax, targets[..., None], axis=2)[..., 0].astype(np.float64)
    check_claims(made, claims)
    champion = np.abs(claims + rng.normal(size=claims.shape)) * made.mask() if has_champion else None
    gains = claimed_gains(made, claims, champion=champion, champion_windows=())
    picks = pick_audits(made, gains, audits, rng)
    audited = negative_log_softmax(logits[picks.rows, picks.cuts].astype(np.float64), targets[picks.rows, picks.cuts])
    score = certify(made, claims, picks, audited)
    full = bits_per_byte(float((trusted * made.mask()).sum()), made)
    # 1e-6 of what a bit per byte is for losses of a few nats; float32 keeps 24 bits of larger ones.
    assert score.val_bpb == pytest.approx(full, abs=1e-6 * max(1.0, scale))
    assert score.standard_error < 1e-5 * max(1.0, scale)
    assert len(np.unique(picks.rows)) == len(picks.rows) <= min(audits, rows)
    assert (picks.cuts < made.scored[picks.rows]).all()


@few
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 40), audits=st.integers(1, 60), concentration=st.floats(0.1, 9))
def test_the_weights_are_the_inverse_of_the_probabilities_whatever_the_gains(
    seed: int, rows: int, audits: int, concentration: float
) -> None:
    """A constant lie of one nat everywhere is estimated as the number of positions, on average over draws."""
    rng = np.random.default_rng(seed)
    made = make_rows(rng, rows=rows, context=8, vocab_size=5, windows=3)
    gains = rng.exponential(size=(rows, 8)) ** concentration * made.mask()
    lie = made.mask().astype(float)
    found, _ = corrections(made, lie, gains, audits, DRAWS)
    error = math.sqrt(largest_variance(made, lie, gains, audits) / DRAWS)
    assert found.mean() == pytest.approx(made.scored_tokens, abs=5 * error + 1e-6)


LIES = ["scaled", "on some positions", "where it beats the champion", "against decoys", "upwards and downwards"]


@few
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(LIES),
    rate=st.sampled_from([0.0005, 0.001, 0.01, 0.1, 0.5, 1.0]),
    strength=st.floats(0.01, 1.0),
    audits=st.sampled_from([40, 200]),
)
def test_whatever_the_lie_the_correction_takes_it_back_on_average_and_its_error_is_not_too_small(
    seed: int, kind: str, rate: float, strength: float, audits: int
) -> None:
    rng = np.random.default_rng(seed)
    made, honest, champion = a_task(rng)
    claims = lied(kind, rng, honest, champion, rate, strength)
    gains = claimed_gains(made, claims, champion=champion, champion_windows=())
    found, squares = corrections(made, honest - claims, gains, audits, DRAWS)
    lie = float((honest - claims).sum())
    error = math.sqrt(largest_variance(made, honest - claims, gains, audits) / DRAWS)
    assert found.mean() == pytest.approx(lie, abs=5 * error + 1e-6)
    if (np.abs(found) > 0).mean() > 0.5:  # else most draws saw no lie, and their error of zero says nothing
        assert squares.mean() >= 0.6 * found.var()


def test_the_standard_error_is_right_for_few_rows_and_too_large_for_all(rng: np.random.Generator) -> None:
    """Systematic sampling by size for few of the rows; for all of them, only the cuts are drawn."""
    made, honest, champion = a_task(rng)
    claims = honest * (1 - 0.3 * rng.random(honest.shape))
    gains = claimed_gains(made, claims, champion=champion, champion_windows=())
    few, few_squares = corrections(made, honest - claims, gains, 40, 1000)
    every, every_squares = corrections(made, honest - claims, gains, 200, 1000)
    assert few_squares.mean() / few.var() == pytest.approx(1.0, abs=0.35)
    assert 1.0 < every_squares.mean() / every.var() < 2.0


@pytest.mark.parametrize("kind", ["scaled", "on some positions", "where it beats the champion", "against decoys"])
@pytest.mark.parametrize("rate", [0.0005, 0.002, 0.01, 1.0])
def test_a_lie_that_is_worth_something_is_kept_in_few_runs_of_a_hundred(
    kind: str, rate: float, rng: np.random.Generator
) -> None:
    """Every row audited, as before a keep; the champion's claims are known, and unknown to the liar."""
    made, honest, champion = a_task(rng, rows=440, context=256)
    claims = lied(kind, rng, honest, champion, rate, 1.0)
    true_bpb, claimed_bpb = (bits_per_byte(float(nats.sum()), made) for nats in (honest, claims))
    gains = claimed_gains(made, claims, champion=champion, champion_windows=())
    found = outcomes(made, claims, honest, gains, 10**6, 200)
    kept = found[found[:, 1] <= LARGEST_ERROR]
    kept_share = float((true_bpb - kept[:, 0] >= COUNTS).mean() * len(kept) / len(found)) if len(kept) else 0.0
    assert kept_share <= (0.06 if true_bpb - claimed_bpb >= COUNTS else 0.0)
    far_below = found[:, 0] < true_bpb - np.maximum(3 * found[:, 1], COUNTS)
    assert far_below.mean() <= 0.06


def test_without_the_champions_claims_rare_lies_are_seen_less_often(rng: np.random.Generator) -> None:
    """What the importance is for: half a nat claimed at the worst 0.1 %, in a session's baseline and in a child of it."""
    made, honest, champion = a_task(rng, rows=440, context=256)
    claims = np.where(honest > np.quantile(honest[honest > 0], 0.999), 0.5, honest)
    gains = claimed_gains(made, claims, champion=champion, champion_windows=())
    half = bits_per_byte(float((honest + claims).sum()) / 2, made)
    passed = []
    for known in (np.zeros_like(claims), gains):
        found = outcomes(made, claims, honest, known, 10**6, 100)
        passed.append(float(((found[:, 0] < half) & (found[:, 1] <= LARGEST_ERROR)).mean()))
    assert passed[0] > 0.4
    assert passed[1] < 0.15


def test_a_process_that_answers_honestly_only_when_audited_is_certified_at_its_honest_value(rng: np.random.Generator) -> None:
    """Adaptive lies: bulk claims nothing lost, audits are answered as well as can be. The difference is the lie."""
    made, honest, champion = a_task(rng)
    claims = np.zeros_like(honest)
    gains = claimed_gains(made, claims, champion=champion, champion_windows=())
    assert np.isnan(outcomes(made, claims, honest, gains, 200, 50)).all()


@pytest.mark.parametrize(
    ("broken", "expected"),
    [(math.nan, "not finite"), (math.inf, "not finite"), (-math.inf, "not finite"), (-0.01, "above one")],
)
def test_a_claim_that_is_no_loss_is_refused_at_a_scored_position_and_ignored_in_the_padding(
    broken: float, expected: str, rng: np.random.Generator
) -> None:
    made, honest, _ = a_task(rng)
    short = int(np.argmin(made.scored))
    claims = honest.copy()
    claims[short, made.scored[short] :] = broken
    check_claims(made, claims)
    assert (claims == honest).all()
    claims[short, made.scored[short] - 1] = broken
    with pytest.raises(InvalidModelError, match=expected):
        check_claims(made, claims)


def test_rounding_below_zero_is_no_lie(rng: np.random.Generator) -> None:
    made, honest, _ = a_task(rng)
    claims = honest.copy()
    claims[0, 0] = -1e-6
    check_claims(made, claims)


def test_a_certified_value_below_zero_is_refused(rng: np.random.Generator) -> None:
    made, honest, _ = a_task(rng)
    tiny = np.zeros_like(honest)
    picks = Picks(rows=np.array([0, 1]), cuts=np.array([0, 0]), weights=np.array([1.0, 1.0]))
    with pytest.raises(InvalidModelError, match="uneven"):
        certify(made, tiny, picks, np.array([-1e-3, 0.0]))


def test_window_totals_are_those_of_the_claims(rng: np.random.Generator) -> None:
    made, honest, champion = a_task(rng)
    gains = claimed_gains(made, honest, champion=champion, champion_windows=())
    picks = pick_audits(made, gains, 40, rng)
    score: Score = certify(made, honest, picks, honest[picks.rows, picks.cuts])
    assert sum(score.window_nats) == pytest.approx(honest.sum(), rel=1e-5)
    assert score.claimed_bpb == pytest.approx(bits_per_byte(float(honest.sum()), made))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def a_task(rng: np.random.Generator, *, rows: int = 200, context: int = 64) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Return rows with the losses of a model and of a champion, spread and related as those of two trained seeds.

    Measured on the shipped model: mean 4.4 nats a token, correlation 0.89, mean absolute difference 0.88.
    """
    made = make_rows(rng, rows=rows, context=context, vocab_size=257, windows=rows // 3)
    made.scored[: rows * 3 // 4] = context
    made = Rows(tokens=made.tokens, scored=made.scored, window=made.window, scored_bytes=int(made.scored.sum() * 2.93))
    common = rng.gamma(1.6, 2.7, (rows, context))
    honest, champion = (np.clip(common + rng.normal(0, 0.75, common.shape), 0.001, None) * made.mask() for _ in range(2))
    return made, honest, champion


def lied(
    kind: str, rng: np.random.Generator, honest: np.ndarray, champion: np.ndarray, rate: float, strength: float
) -> np.ndarray:
    """Return claims: ``honest`` less a lie at a share ``rate`` of the positions, which takes off a share ``strength``."""
    where = (rng.random(honest.shape) < rate) & (honest > 0)
    if kind == "scaled":
        return honest * (1 - strength * rate)
    if kind == "where it beats the champion":
        where &= champion > honest
    if kind == "against decoys":  # a quarter of the audits are recognised and answered honestly: as in any, the truth is known
        where &= honest > np.quantile(honest, 0.75)
    if kind == "upwards and downwards":
        return np.clip(honest + np.where(where, rng.normal(0, 3 * strength, honest.shape), 0), 0, None) * (honest > 0)
    return np.where(where, honest * (1 - strength), honest)


def largest_variance(rows: Rows, lie: np.ndarray, gains: np.ndarray, audits: int) -> float:
    """Return an upper bound of the variance of the correction: that of independent picks with the same probabilities."""
    mask = rows.mask()
    size = mask / rows.scored_tokens
    if gains.sum() > 0:
        size = 0.5 * size + 0.5 * gains / gains.sum()
    row_size = size.sum(axis=1)
    probability = np.minimum(1.0, min(audits, len(lie)) * row_size)  # at most what it is where others are certain
    picked = probability[:, None] * size / row_size[:, None]
    return float(((lie**2)[mask] / picked[mask]).sum())
