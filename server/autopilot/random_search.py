"""Random search: the control group of every other strategy. It knows where a constant makes sense, and nothing of what helps.

A proposal changes one constant (half of the time), two (a third) or three (a sixth) of the champion's, each to a random value
near its present one. One, because most changes hurt, and a good one is lost beside one that hurts; up to three, because some
only pay together, such as a batch and its learning rate, and a control must be able to find those, too; more would nearly
always hold one that hurts. Near, because the ranges are wide enough for any budget and device: 48 blocks in 20 seconds test
nothing. Each kept change moves the centre, so nothing in the ranges is out of reach.

Deterministic for one seed, one history and one sequence of champions. A constant that `ranges` does not know is multiplied by
0.5 to 2, so any train.py has something to change. Seeds, and sizes that only evaluation or compilation sees, are left alone:
changing them moves a number without moving the model.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence, Set

from ...lab.config import PROFILES
from ...prepare.tokenizer import VOCAB_SIZES
from .edits import Constant, Number, literal, read_constants, replace_constants
from .ranges import BATCHES, RANGES, Kind, Range, broken_rules, divides
from .strategy import Change, Proposal, changes_in

_HOW_MANY = {1: 3, 2: 2, 3: 1}  # constants in a proposal -> weight
_FACTOR, _LEAST_FACTOR = 4.0, 1.1  # the farthest and the nearest ratio of a step; a nearer one drowns in the noise
_FRACTION_STEP, _LEAST_FRACTION_STEP = 0.25, 0.02  # the same as differences, for shares of a whole
_PLACES = 2  # the farthest step along powers of two, and along the prepared sizes
_UNKNOWN_FACTOR = 2.0
_LEAST_UNKNOWN_SIZE = 16  # an unknown power of two from here on is a size, and sizes must often divide one another
_DRAWS = 2_000  # without a proposal: then the constants are used up
LEFT_ALONE = re.compile(r"(?:^|_)(?:SEED|EVAL|COMPILE|CHUNK|QUEUED|BYTES|MEMORY|TIE|EPS)(?:_|$)")


class RandomSearch:
    """The strategy `random`; an object is one stream of draws."""

    def __init__(self, seed: int, *, vocab_sizes: Sequence[int] = VOCAB_SIZES) -> None:
        self._seed = seed
        self._draws = random.Random(seed)
        self._vocab_sizes = tuple(sorted(vocab_sizes))
        self._proposed: set[Change] = set()

    def propose(self, source: str, *, profile: str, tried: Set[Change]) -> Proposal | None:
        """Return a random change of ``source`` that was not tried in either direction; None when everything was."""
        constants = {
            name: constant for name, constant in read_constants(source, profile).items() if not LEFT_ALONE.search(name)
        }
        context_length = PROFILES[profile].context_length
        for _ in range(_DRAWS if constants else 0):
            proposal = self._draw(source, constants, context_length)
            if proposal is None:
                continue
            changes = changes_in(proposal.description)
            if changes & (tried | self._proposed):
                continue
            self._proposed |= changes
            return proposal
        return None

    def _draw(self, source: str, constants: Mapping[str, Constant], context_length: int) -> Proposal | None:
        """Return one draw, or None where a constant has no room or the new values would not fit together."""
        (how_many,) = self._draws.choices(tuple(_HOW_MANY), weights=tuple(_HOW_MANY.values()))
        names = self._draws.sample(sorted(constants), k=min(how_many, len(constants)))
        before = {name: constant.value for name, constant in constants.items()}
        after = dict(before)
        for name in names:
            target = self._target(name, after)
            if target is None:
                return None
            after[name] = target
        companions = _rows_in_step(before, after, context_length)
        if not broken_rules(after, context_length) <= broken_rules(before, context_length):
            return None
        words = " and ".join(f"{name} {literal(before[name])} -> {literal(after[name])}" for name in names)
        return Proposal(
            description=words + "".join(f", with {name} in step" for name in companions),
            hypothesis=f"None: random search with seed {self._seed}, the control that other ideas are measured against.",
            source=replace_constants(source, {constants[name]: after[name] for name in (*names, *companions)}),
        )

    def _target(self, name: str, values: Mapping[str, Number]) -> Number | None:
        """Return a new value for a constant, as train.py will spell it; None where the draw is no step."""
        value, known = values[name], RANGES.get(name)
        if known is None:
            drawn = self._unknown(value)
        else:
            unit = 1 if known.unit is None else values.get(known.unit, 1)
            drawn = self._known(value, known, unit)
        if drawn is None:
            return None
        drawn = type(drawn)(float(literal(drawn)))
        return drawn if drawn != value and (known is None or drawn in known) else None

    def _known(self, value: Number, known: Range, unit: Number) -> Number | None:
        match known.kind:
            case Kind.LOG_UNIFORM:
                drawn = self._ratio(value, known.low, known.high)
                whole = isinstance(value, int) and known.low >= 1
                return round(float(literal(drawn))) if whole and drawn is not None else drawn
            case Kind.COMPLEMENT:
                drawn = self._ratio(1 - value, 1 - known.high, 1 - known.low)
                return None if drawn is None else 1 - drawn
            case Kind.FRACTION:
                drawn = self._draws.uniform(max(known.low, value - _FRACTION_STEP), min(known.high, value + _FRACTION_STEP))
                return drawn if abs(drawn - value) >= _LEAST_FRACTION_STEP else None
            case Kind.INTEGER:
                steps = round(value / unit)
                reach = max(2, steps // 2)
                return type(value)(unit * self._draws.randint(max(1, steps - reach), steps + reach))
            case Kind.POWER_OF_TWO:
                drawn = value * 2.0 ** self._draws.randint(-_PLACES, _PLACES)
                return type(value)(drawn) if drawn == int(drawn) else None
            case Kind.PREPARED_SIZE:
                if value not in self._vocab_sizes:
                    return None
                place = self._vocab_sizes.index(int(value)) + self._draws.randint(-_PLACES, _PLACES)
                return self._vocab_sizes[place] if 0 <= place < len(self._vocab_sizes) else None

    def _ratio(self, value: float, low: float, high: float) -> float | None:
        """Return a number near ``value`` whose logarithm is uniform; anywhere in the range where the value is not in it."""
        if low <= value <= high:
            low, high = max(low, value / _FACTOR), min(high, value * _FACTOR)
        drawn = math.exp(self._draws.uniform(math.log(low), math.log(high)))
        return None if value / _LEAST_FACTOR < drawn < value * _LEAST_FACTOR else drawn

    def _unknown(self, value: Number) -> Number | None:
        if value == 0:
            return None
        if isinstance(value, int) and value >= _LEAST_UNKNOWN_SIZE and value.bit_count() == 1:
            return value * 2 if self._draws.random() < 0.5 else value // 2
        low, high = value / _UNKNOWN_FACTOR, value * _UNKNOWN_FACTOR
        if value < 1:  # a share or a decay stays below 1
            high = min(high, (1 + value) / 2)
        drawn = math.exp(self._draws.uniform(math.log(low), math.log(high)))
        return max(1, round(drawn)) if isinstance(value, int) else drawn


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
