"""The constants that the built-in strategies know: where the value of each makes sense, and what must fit together.

One table for every strategy, so that a comparison of two is one of how they search and not of where. It names the constants of
trainer/train.py and those of a file in the style of karpathy/autoresearch. Not covered: what fits a device's memory, and which
value is good.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

from .edits import Number


class Kind(StrEnum):
    """How the values of a constant are spread, and with that what a step of it is."""

    LOG_UNIFORM = "log-uniform"  # ratios count: learning rates
    INTEGER = "integer"  # counts
    FRACTION = "fraction"  # differences count: shares of a whole
    COMPLEMENT = "complement"  # ratios of 1 - value count: decays close to 1
    POWER_OF_TWO = "power of two"  # doubled or halved: sizes that must divide one another
    PREPARED_SIZE = "prepared size"  # one of the vocabularies of the corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Where a constant makes sense, both ends included. ``unit`` names the constant that an integer is a multiple of."""

    kind: Kind
    low: float
    high: float
    unit: str | None = None

    def __contains__(self, value: Number) -> bool:
        return self.low <= value <= self.high


def _log(low: float, high: float) -> Range:
    return Range(kind=Kind.LOG_UNIFORM, low=low, high=high)


def _integer(low: int, high: int, unit: str | None = None) -> Range:
    return Range(kind=Kind.INTEGER, low=low, high=high, unit=unit)


def _fraction(low: float, high: float) -> Range:
    return Range(kind=Kind.FRACTION, low=low, high=high)


def _complement(low: float, high: float) -> Range:
    return Range(kind=Kind.COMPLEMENT, low=low, high=high)


def _power(low: int, high: int) -> Range:
    return Range(kind=Kind.POWER_OF_TWO, low=low, high=high)


RANGES: Mapping[str, Range] = {
    # Model
    "DEPTH": _integer(1, 48),
    "WIDTH": _integer(32, 8192, unit="HEAD_DIM"),
    "ASPECT_RATIO": _log(8, 512),
    "HEAD_DIM": _power(16, 256),
    "MLP_RATIO": _integer(1, 8),
    "VOCAB_SIZE": Range(kind=Kind.PREPARED_SIZE, low=512, high=8192),
    "ROPE_BASE": _log(50, 1e7),
    "SOFTCAP": _log(2.0, 200.0),
    "VALUE_EMBED_EVERY": _integer(1, 12),
    "VALUE_GATE_CHANNELS": _power(1, 512),
    "X0_LAMBDA_INIT": _log(0.01, 2.0),
    "HEAD_STD": _log(1e-5, 0.1),
    # Batch
    "TOTAL_BATCH_TOKENS": _power(512, 2**21),
    "TOTAL_BATCH_SIZE": _power(512, 2**21),
    "DEVICE_BATCH_ROWS": _power(1, 1024),
    "DEVICE_BATCH_SIZE": _power(1, 1024),
    # Optimizer
    "EMBEDDING_LR": _log(1e-3, 5.0),
    "UNEMBEDDING_LR": _log(1e-4, 0.5),
    "SCALAR_LR": _log(1e-3, 5.0),
    "SHIFT_LR": _log(1e-3, 5.0),
    "ADAM_BETA1": _complement(0.3, 0.99),
    "ADAM_BETA2": _complement(0.5, 0.9999),
    "MATRIX_LR": _log(1e-4, 1.0),
    "WEIGHT_DECAY": _log(1e-3, 2.0),
    "MOMENTUM_START": _complement(0.3, 0.99),
    "MOMENTUM": _complement(0.5, 0.99),
    "MOMENTUM_RAMP_STEPS": _log(1, 5000),
    "MUON_BETA2": _complement(0.5, 0.9999),
    "ORTHOGONAL_STEPS": _integer(2, 5),
    # Schedule
    "WARMUP_FRACTION": _fraction(0.0, 0.5),
    "WARMUP_RATIO": _fraction(0.0, 0.5),
    "WARMDOWN_FRACTION": _fraction(0.05, 1.0),
    "WARMDOWN_RATIO": _fraction(0.05, 1.0),
    "FINAL_LR_FRACTION": _fraction(0.0, 0.5),
    "FINAL_LR_FRAC": _fraction(0.0, 0.5),
}

# The tokens of an optimizer step, and the rows of the forward passes that it is made of.
BATCHES = (("TOTAL_BATCH_TOKENS", "DEVICE_BATCH_ROWS"), ("TOTAL_BATCH_SIZE", "DEVICE_BATCH_SIZE"))
_MULTIPLES = (("WIDTH", "HEAD_DIM"),)
_NOT_ABOVE = (("VALUE_GATE_CHANNELS", "WIDTH"),)
_SHARES = (("WARMUP_FRACTION", "WARMDOWN_FRACTION"), ("WARMUP_RATIO", "WARMDOWN_RATIO"))  # of one whole


def broken_rules(values: Mapping[str, Number], context_length: int) -> Set[str]:
    """Return what does not fit together in ``values``, so that the file would not run as meant (empty: nothing known).

    Args:
        values: constants by name; a rule about one that is absent is not broken.
        context_length: tokens in a row.
    """
    broken = set[str]()
    for total, rows in BATCHES:
        if total in values and rows in values and not divides(values[rows] * context_length, values[total]):
            broken.add(f"{total} is a multiple of {rows} rows of {context_length} tokens")
    for multiple, unit in _MULTIPLES:
        if multiple in values and unit in values and not divides(values[unit], values[multiple]):
            broken.add(f"{multiple} is a multiple of {unit}")
    for lower, upper in _NOT_ABOVE:
        if lower in values and upper in values and values[lower] > values[upper]:
            broken.add(f"{lower} is at most {upper}")
    for one, other in _SHARES:
        if one in values and other in values and values[one] + values[other] > 1:
            broken.add(f"{one} and {other} are at most 1 together")
    return broken


def divides(unit: Number, value: Number) -> bool:
    """Whether ``value`` is a positive multiple of ``unit``."""
    return 0 < unit <= value and value % unit == 0
