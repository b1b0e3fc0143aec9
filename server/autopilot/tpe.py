"""The tree-structured Parzen estimator (TPE) of Optuna: the control that learns from what was measured.

It looks where `random` looks (`space`), and draws as `random` does which one to three constants of the champion's a proposal
changes; the rest stays at the champion's values. Only *where to* is another matter: TPE fits one density to the values of those
constants in the best tenth of all experiments and one to their values in the rest, and proposes where the ratio is largest.
Changing every constant at once, as TPE does by itself, is hopeless here: a night has dozens of experiments for thirty
constants, and a whole vector of draws nearly always holds one that hurts. Since chance chooses the subset for both, `tpe`
against `random` tells what learning from the numbers is worth.

Optuna keeps nothing between proposals: each is drawn from a study that is made of the record, so an autopilot that is started
again knows what the one before it measured. An experiment without a number is told as *pruned*, which ranks below every number;
what Optuna calls a failed trial it leaves out, and would crash there again.

Guarantees: the same seed, record and champion give the same proposals. Does not: model the noise of the numbers, or look at
experiments whose values are farther from the champion's than a proposal may go.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence, Set

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ...prepare.tokenizer import VOCAB_SIZES
from .edits import Constant, Number
from .space import Axis, axis_of, draw_names, proposal_of, searched
from .strategy import Change, Observation, Proposal, changes_in

_Distribution = FloatDistribution | IntDistribution

_SUBSETS = 300  # without a proposal: then the constants are used up
_ASKS = 6  # of one subset, where a draw is no step, breaks a rule or was tried
_RANDOM_TRIALS = 3  # before these have an answer there is nothing to learn from

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each study would disturb the view


class Tpe:
    """The strategy `tpe`; an object remembers only what it proposed."""

    learns = True

    def __init__(self, seed: int, *, vocab_sizes: Sequence[int] = VOCAB_SIZES) -> None:
        self._seed = seed
        self._vocab_sizes = tuple(vocab_sizes)
        self._proposed: set[Change] = set()
        self._record, self._turn = -1, 0  # how many observations there were, and how many proposals since

    def propose(
        self, source: str, *, profile: str, tried: Set[Change], observed: Sequence[Observation] = ()
    ) -> Proposal | None:
        """Return what TPE makes of ``observed``, not tried in either direction; None where it finds no such change."""
        constants = searched(source, profile)
        draws = self._draws(len(observed))
        hypothesis = (
            f"None: TPE with seed {self._seed}, which knows the numbers of {len(observed)} experiments; a control that other "
            "ideas are measured against."
        )
        for _ in range(_SUBSETS if constants else 0):
            names = draw_names(draws, constants)
            for targets in self._targets(names, constants, observed, seed=draws.getrandbits(32)):
                proposal = proposal_of(source, constants, targets, profile=profile, hypothesis=hypothesis)
                if proposal is None:
                    continue
                changes = changes_in(proposal.description)
                if changes & (tried | self._proposed):
                    continue
                self._proposed |= changes
                return proposal
        return None

    def _draws(self, observations: int) -> random.Random:
        """Return a stream that depends on the seed, the record, and how often it was asked since the record grew."""
        self._turn = self._turn + 1 if observations == self._record else 0
        self._record = observations
        return random.Random(f"{self._seed} {observations} {self._turn}")

    def _targets(
        self, names: Sequence[str], constants: Mapping[str, Constant], observed: Sequence[Observation], *, seed: int
    ) -> Iterator[dict[str, Number]]:
        """Yield new values for the constants of ``names``, each further one knowing of those before; nothing without room."""
        values = {name: constant.value for name, constant in constants.items()}
        axes = {name: axis for name in names if (axis := axis_of(name, values, self._vocab_sizes)) is not None}
        space = {name: each for name, axis in axes.items() if (each := _distribution(axis)) is not None}
        if len(space) < len(names):
            return
        sampler = optuna.samplers.TPESampler(n_startup_trials=_RANDOM_TRIALS, multivariate=True, seed=seed)
        study = optuna.create_study(sampler=sampler)
        study.add_trials([trial for each in observed if (trial := _trial(each, axes, space)) is not None])
        for _ in range(_ASKS):
            drawn = study.ask({**space}).params  # stays open, which TPE takes for a bad one
            targets = {name: target for name in names if (target := axes[name].value_at(drawn[name])) is not None}
            if len(targets) == len(names):
                yield targets


def _distribution(axis: Axis) -> _Distribution | None:
    """Return where Optuna may draw coordinates of an axis; None: there is no choice."""
    if not axis.whole:
        return FloatDistribution(axis.low, axis.high) if axis.low < axis.high else None
    places = [place for place in range(int(axis.low), int(axis.high) + 1) if axis.value_at(place) is not None]
    at = axis.coordinate(axis.value)
    places += [] if at is None else [int(at)]
    return IntDistribution(min(places), max(places)) if len(places) > 1 else None


def _trial(observation: Observation, axes: Mapping[str, Axis], space: Mapping[str, _Distribution]) -> FrozenTrial | None:
    """Return an observation as Optuna takes it; None where a value is not known, or could not be drawn from here."""
    params: dict[str, float] = {}
    for name, axis in axes.items():
        at = axis.coordinate(observation.values[name]) if name in observation.values else None
        if at is None or not space[name].low <= at <= space[name].high:
            return None
        params[name] = int(at) if axis.whole else at
    state = TrialState.PRUNED if observation.val_bpb is None else TrialState.COMPLETE
    return create_trial(state=state, value=observation.val_bpb, params=params, distributions={**space})
