"""Where `random` and `tpe` look: which constants of a file, how far from where they stand, and what must follow.

One module for both, so that a comparison of the two is one of how they search. A constant moves along an `Axis`, on which equal
distances are equal steps: the logarithm of a learning rate, a number of blocks, the place among the prepared vocabularies. It
reaches as far as is near the present value, because the ranges are wide enough for any budget and device, and 48 blocks in 20
seconds test nothing. Each kept change moves the centre, so nothing in the ranges is out of reach.

A constant that `ranges` does not know is multiplied by 0.5 to 2, so any train.py has something to change. Seeds, and sizes that
only evaluation or compilation sees, are left alone: changing them moves a number without moving the model.

Guarantees: a proposal is inside the ranges, breaks no rule that the file does not break already, and names what it changes.
Does not: know which value is good, or what fits a device's memory.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...lab.config import PROFILES
from .edits import Constant, Number, literal, read_constants, replace_constants
from .ranges import BATCHES, RANGES, Kind, Range, broken_rules, divides
from .strategy import Proposal

_HOW_MANY = {1: 3, 2: 2, 3: 1}  # constants in a proposal -> weight
_FACTOR, _LEAST_FACTOR = 4.0, 1.1  # the farthest and the nearest ratio of a step; a nearer one drowns in the noise
_FRACTION_STEP, _LEAST_FRACTION_STEP = 0.25, 0.02  # the same as differences, for shares of a whole
_PLACES = 2  # the farthest step along powers of two, and along the prepared sizes
_UNKNOWN_FACTOR = 2.0
_LEAST_UNKNOWN_SIZE = 16  # an unknown power of two from here on is a size, and sizes must often divide one another
_WHOLE = (Kind.INTEGER, Kind.POWER_OF_TWO, Kind.PREPARED_SIZE)
LEFT_ALONE = re.compile(r"(?:^|_)(?:SEED|EVAL|COMPILE|CHUNK|QUEUED|BYTES|MEMORY|TIE|EPS)(?:_|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The values near a constant's present one, as coordinates from ``low`` to ``high``, both included.

    Attributes:
        value: the present value.
        whole: whether coordinates are integers.
        least: the nearest step that counts.
        unit: of an integer, what it is a multiple of.
        sizes: the prepared ones, in order.
        known: the range that a new value must be in; None: any.
    """

    kind: Kind
    value: Number
    low: float
    high: float
    least: float = 0.0
    unit: Number = 1
    sizes: tuple[int, ...] = ()
    known: Range | None

    @property
    def whole(self) -> bool:
        return self.kind in _WHOLE

    def coordinate(self, value: Number) -> float | None:
        """Return where a value is; None: not on this axis."""
        return _coordinate(self.kind, value, origin=self.value, unit=self.unit, sizes=self.sizes)

    def value_at(self, coordinate: float) -> Number | None:
        """Return a new value as train.py will spell it; None where it would be no step, or not in its range."""
        at = self.coordinate(self.value)
        if at is not None and abs(coordinate - at) < self.least:
            return None
        drawn = self._value(coordinate)
        if drawn is None:
            return None
        drawn = type(drawn)(float(literal(drawn)))
        return drawn if drawn != self.value and (self.known is None or drawn in self.known) else None

    def _value(self, coordinate: float) -> Number | None:
        match self.kind:
            case Kind.LOG_UNIFORM:
                drawn = math.exp(coordinate)
                if not isinstance(self.value, int) or (self.known is not None and self.known.low < 1):
                    return drawn
                return max(1, round(drawn if self.known is None else float(literal(drawn))))
            case Kind.COMPLEMENT:
                return 1 - math.exp(coordinate)
            case Kind.FRACTION:
                return coordinate
            case Kind.INTEGER:
                return type(self.value)(self.unit * coordinate)
            case Kind.POWER_OF_TWO:
                drawn = self.value * 2.0**coordinate
                return type(self.value)(drawn) if drawn == int(drawn) else None
            case Kind.PREPARED_SIZE:
                return self.sizes[int(coordinate)] if 0 <= coordinate < len(self.sizes) else None


def axis_of(name: str, values: Mapping[str, Number], vocab_sizes: Sequence[int]) -> Axis | None:
    """Return the axis of a constant beside the ``values`` of all; None where it has no step to take."""
    value, known = values[name], RANGES.get(name)
    if known is None:
        return _unknown_axis(value)
    sizes = tuple(sorted(vocab_sizes)) if known.kind is Kind.PREPARED_SIZE else ()
    unit = 1 if known.unit is None else values.get(known.unit, 1) or 1
    least = 0.0
    match known.kind:
        case Kind.LOG_UNIFORM:
            low, high, least = *_ratios(value, known.low, known.high), math.log(_LEAST_FACTOR)
        case Kind.COMPLEMENT:
            low, high, least = *_ratios(1 - value, 1 - known.high, 1 - known.low), math.log(_LEAST_FACTOR)
        case Kind.FRACTION:
            low, high = max(known.low, value - _FRACTION_STEP), min(known.high, value + _FRACTION_STEP)
            least = _LEAST_FRACTION_STEP
        case Kind.INTEGER:
            steps = round(value / unit)
            reach = max(2, steps // 2)
            low, high = max(1, steps - reach), steps + reach
        case Kind.POWER_OF_TWO:
            low, high = -_PLACES, _PLACES
        case Kind.PREPARED_SIZE:
            if value not in sizes:
                return None
            low, high = sizes.index(int(value)) - _PLACES, sizes.index(int(value)) + _PLACES
    return Axis(kind=known.kind, value=value, low=low, high=high, least=least, unit=unit, sizes=sizes, known=known)


def searched(source: str, profile: str) -> dict[str, Constant]:
    """Return the constants of a file that are searched, by name."""
    constants = read_constants(source, profile)
    return {name: constant for name, constant in constants.items() if not LEFT_ALONE.search(name)}


def draw_names(draws: random.Random, constants: Mapping[str, Constant]) -> list[str]:
    """Return the constants that a proposal changes: one (half of the time), two (a third) or three (a sixth).

    One, because most changes hurt, and a good one is lost beside one that hurts; up to three, because some only pay together,
    such as a batch and its learning rate; more would nearly always hold one that hurts.
    """
    (how_many,) = draws.choices(tuple(_HOW_MANY), weights=tuple(_HOW_MANY.values()))
    return draws.sample(sorted(constants), k=min(how_many, len(constants)))


def proposal_of(
    source: str, constants: Mapping[str, Constant], targets: Mapping[str, Number], *, profile: str, hypothesis: str
) -> Proposal | None:
    """Return ``source`` with the ``targets`` in place of some constants; None where the new values do not fit together."""
    context_length = PROFILES[profile].context_length
    before = {name: constant.value for name, constant in constants.items()}
    after = {**before, **targets}
    companions = _rows_in_step(before, after, context_length)
    if not broken_rules(after, context_length) <= broken_rules(before, context_length):
        return None
    words = " and ".join(f"{name} {literal(before[name])} -> {literal(target)}" for name, target in targets.items())
    return Proposal(
        description=words + "".join(f", with {name} in step" for name in companions),
        hypothesis=hypothesis,
        source=replace_constants(source, {constants[name]: after[name] for name in (*targets, *companions)}),
    )


def _coordinate(kind: Kind, value: Number, *, origin: Number, unit: Number, sizes: Sequence[int]) -> float | None:
    match kind:
        case Kind.LOG_UNIFORM:
            return math.log(value) if value > 0 else None
        case Kind.COMPLEMENT:
            return math.log(1 - value) if value < 1 else None
        case Kind.FRACTION:
            return float(value)
        case Kind.INTEGER:
            place = value / unit
        case Kind.POWER_OF_TWO:
            place = math.log2(value / origin) if value > 0 and origin > 0 else 0.5
        case Kind.PREPARED_SIZE:
            place = sizes.index(int(value)) if value in sizes else 0.5
    return place if place == int(place) else None


def _ratios(value: float, low: float, high: float) -> tuple[float, float]:
    """Return the logarithms between which a value is near; those of the whole range where the value is not in it."""
    if low <= value <= high:
        low, high = max(low, value / _FACTOR), min(high, value * _FACTOR)
    return math.log(low), math.log(high)


def _unknown_axis(value: Number) -> Axis | None:
    if value == 0:
        return None
    if isinstance(value, int) and value >= _LEAST_UNKNOWN_SIZE and value.bit_count() == 1:
        return Axis(kind=Kind.POWER_OF_TWO, value=value, low=-1, high=1, known=None)
    high = value * _UNKNOWN_FACTOR
    if value < 1:  # a share or a decay stays below 1
        high = min(high, (1 + value) / 2)
    low = value / _UNKNOWN_FACTOR
    return Axis(kind=Kind.LOG_UNIFORM, value=value, low=math.log(low), high=math.log(high), known=None)


def _rows_in_step(before: Mapping[str, Number], after: dict[str, Number], context_length: int) -> list[str]:
    """Scale the rows of a forward pass along with a batch that they no longer divide; return the names that changed."""
    changed = []
    for total, rows in BATCHES:
        if total not in after or rows not in after or after[total] == before[total] or after[rows] != before[rows]:
            continue
        scaled = before[rows] * after[total] / before[total]
        if not divides(after[rows] * context_length, after[total]) and scaled >= 1 and scaled == int(scaled):
            after[rows] = type(before[rows])(scaled)
            changed.append(rows)
    return changed
