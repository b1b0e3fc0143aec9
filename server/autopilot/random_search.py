"""Random search: the control group of every other strategy. It knows where a constant makes sense, and nothing of what helps.

A proposal changes one to three constants of the champion's, each to a random value near its present one (`space`): a control
must be able to find what only pays together, too.

Deterministic for one seed, one history and one sequence of champions.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence, Set

from ...prepare.tokenizer import VOCAB_SIZES
from .edits import Constant, Number
from .space import axis_of, draw_names, proposal_of, searched
from .strategy import Change, Observation, Proposal, changes_in

_DRAWS = 2_000  # without a proposal: then the constants are used up


class RandomSearch:
    """The strategy `random`; an object is one stream of draws."""

    learns = False

    def __init__(self, seed: int, *, vocab_sizes: Sequence[int] = VOCAB_SIZES) -> None:
        self._seed = seed
        self._draws = random.Random(seed)
        self._vocab_sizes = tuple(vocab_sizes)
        self._proposed: set[Change] = set()

    def propose(
        self, source: str, *, profile: str, tried: Set[Change], observed: Sequence[Observation] = ()
    ) -> Proposal | None:
        """Return a random change of ``source`` that was not tried in either direction; None when everything was."""
        constants = searched(source, profile)
        for _ in range(_DRAWS if constants else 0):
            proposal = self._draw(source, constants, profile)
            if proposal is None:
                continue
            changes = changes_in(proposal.description)
            if changes & (tried | self._proposed):
                continue
            self._proposed |= changes
            return proposal
        return None

    def _draw(self, source: str, constants: Mapping[str, Constant], profile: str) -> Proposal | None:
        """Return one draw, or None where a constant has no room or the new values would not fit together."""
        values = {name: constant.value for name, constant in constants.items()}
        targets: dict[str, Number] = {}
        for name in draw_names(self._draws, constants):
            target = self._target(name, values | targets)
            if target is None:
                return None
            targets[name] = target
        hypothesis = f"None: random search with seed {self._seed}, the control that other ideas are measured against."
        return proposal_of(source, constants, targets, profile=profile, hypothesis=hypothesis)

    def _target(self, name: str, values: Mapping[str, Number]) -> Number | None:
        axis = axis_of(name, values, self._vocab_sizes)
        if axis is None:
            return None
        if axis.whole:
            return axis.value_at(self._draws.randint(int(axis.low), int(axis.high)))
        return axis.value_at(self._draws.uniform(axis.low, axis.high))
