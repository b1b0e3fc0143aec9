"""The arithmetic of the certified metric: which positions are audited, and what claims and audits say together.

Guarantees, whatever the bulk process claims and however the picks depend on it: the certified value is an unbiased estimate of
the loss of the audited process's own predictions, because each audit is weighted by the inverse of the probability that its
position was picked; its standard error is, on average, not too small. Does not: find a lie at positions that no audit meets;
docs/SECURITY.md says how rarely a gain that counts gets past. Pure functions over arrays; rows are [rows, T].

A position is picked with a probability that grows with what the run claims to gain there on the champion, because that is where
a lie pays. The bulk process can steer that, so a cut can tell the audit process a few bits about another row: at most the
three that a position of 256 carries when half of the cuts are left to chance, one part in 200 of what a row holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..policy import CERTIFICATION_TOLERANCE_BPB
from .windows import Rows

_NEGATIVE_NATS = -1e-4  # what float32 rounding may do to a probability of one
_UNIFORM_SHARE = 0.5  # of the audits, wherever the gains are


class InvalidModelError(Exception):
    """The model has no honest number; the text says why. ``claimed_bpb`` is what it claimed, where that is known."""

    def __init__(self, message: str, *, claimed_bpb: float | None = None) -> None:
        super().__init__(message)
        self.claimed_bpb = claimed_bpb


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """Which positions are audited: at most one cut for a row."""

    rows: np.ndarray  # int64 [audits]
    cuts: np.ndarray  # int64 [audits]: the target at this position is predicted from the inputs up to it
    weights: np.ndarray  # float64 [audits]: 1 / probability that this position was picked


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The outcome of scoring; bits per byte of the scored text."""

    val_bpb: float
    standard_error: float
    claimed_bpb: float
    audits: int
    scored_bytes: int
    scored_tokens: int
    window_nats: tuple[float, ...]
    claims: np.ndarray = field(repr=False, compare=False)  # nats float64 [rows, T], padding is 0


def check_claims(rows: Rows, claims: np.ndarray) -> None:
    """Blank the padding of ``claims``; raises `InvalidModelError` for what is no loss."""
    claims[~rows.mask()] = 0.0
    if not np.isfinite(claims).all():
        raise InvalidModelError("the model's loss is not finite on the validation text (NaN or infinity)")
    if claims.min() < _NEGATIVE_NATS:
        raise InvalidModelError(f"the model claims a probability above one ({claims.min():.3g} nats)")


def bits_per_byte(nats: float, rows: Rows) -> float:
    """Return a total of nats over all rows as bits per byte of the scored text."""
    return nats / (math.log(2) * rows.scored_bytes)


def pick_audits(rows: Rows, gains: np.ndarray, audits: int, rng: np.random.Generator) -> Picks:
    """Pick one cut in each of ``audits`` rows, or in every row if there are no more.

    Half of a position's size is its share of the scored positions, half its share of ``gains``, nats float64 [rows, T] that
    the run claims to gain there (`reference.claimed_gains`; all zero: none are known). Rows are picked by systematic
    sampling in a random order with probability proportional to their size, then a cut by its size in its row.
    """
    mask = rows.mask()
    size = mask / rows.scored_tokens
    total = float(gains.sum())
    if total > 0:
        size = _UNIFORM_SHARE * size + (1 - _UNIFORM_SHARE) * gains * mask / total
    edges = np.cumsum(size, axis=1)
    row_size = edges[:, -1]
    probability = _inclusion_probabilities(row_size, min(audits, len(row_size)))
    order = rng.permutation(len(row_size))
    ticks = np.cumsum(probability[order])
    hits = np.searchsorted(ticks, np.arange(rng.random(), ticks[-1] - 1e-9, 1.0), side="right")
    chosen = rng.permutation(order[np.unique(hits)])
    thresholds = rng.random(len(chosen)) * row_size[chosen]
    cuts = np.minimum((edges[chosen] <= thresholds[:, None]).sum(axis=1), rows.scored[chosen] - 1)
    picked = probability[chosen] * size[chosen, cuts] / row_size[chosen]
    return Picks(rows=chosen, cuts=cuts, weights=1.0 / picked)


def _inclusion_probabilities(size: np.ndarray, count: int) -> np.ndarray:
    """Scale ``size`` to probabilities that sum to ``count``, none above one."""
    certain = np.zeros(len(size), dtype=bool)
    while True:
        probability = np.ones(len(size))
        rest = ~certain
        if rest.any():
            probability[rest] = (count - certain.sum()) * size[rest] / size[rest].sum()
        over = rest & (probability > 1.0)
        if not over.any():
            return np.minimum(probability, 1.0)
        certain |= over


def negative_log_softmax(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float64 logits [n, V], int targets [n] -> nats float64 [n]."""
    highest = logits.max(axis=1)
    return highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)) - logits[np.arange(len(targets)), targets]


def certify(rows: Rows, claims: np.ndarray, picks: Picks, audited: np.ndarray) -> Score:
    """Combine claims and audits; raises `InvalidModelError` when they contradict each other.

    The standard error is that of terms drawn with replacement. Where rows are drawn without, or every row is audited and
    only the cuts are drawn, it counts the differences between rows as well and is too large, never too small, on average.
    """
    bits = math.log(2) * rows.scored_bytes
    terms = picks.weights * (audited - claims[picks.rows, picks.cuts])
    correction = terms.sum() / bits
    count = len(terms)
    standard_error = math.sqrt(count / max(count - 1, 1) * float(((terms - terms.mean()) ** 2).sum())) / bits
    claimed = float(claims.sum()) / bits
    if abs(correction) > max(3 * standard_error, CERTIFICATION_TOLERANCE_BPB):
        raise InvalidModelError(
            f"the model claimed {claimed:.4f} bits per byte, but {count} audits contradict it by {correction:+.4f} "
            "(it looks ahead, is not normalised, keeps state between rows, or answers dishonestly)",
            claimed_bpb=claimed,
        )
    certified = claimed + correction
    if not (math.isfinite(certified) and math.isfinite(standard_error) and certified >= 0):
        raise InvalidModelError(
            f"the losses are too uneven to be certified ({claimed:.4g} bits per byte claimed, {correction:+.4g} by audits)"
        )
    window_nats = np.bincount(rows.window, weights=claims.sum(axis=1))
    return Score(
        val_bpb=certified,
        standard_error=standard_error,
        claimed_bpb=claimed,
        audits=count,
        scored_bytes=rows.scored_bytes,
        scored_tokens=rows.scored_tokens,
        window_nats=tuple(round(float(value), 4) for value in window_nats),
        claims=claims,
    )
