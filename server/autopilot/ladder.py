"""The ladder: a fixed order of single changes to the constants of train.py, each tried on the champion of the moment.

Deterministic, without end and without judgement: after the last rung it starts again with smaller, then larger, steps. The
order is what paid most at budgets of seconds on a CPU: more optimizer steps and more value embeddings first (removing the
value embeddings costs 0.1 bpb), then learning rates and their schedule, then sizes and the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import count
from typing import Literal

from .edits import Constant, Number, literal, read_constants, replace_constants
from .ranges import RANGES
from .strategy import Change, Observation, Proposal, changes_in

# How a rung moves a value: times ``amount``, plus ``amount``, or 1 - (1 - value) times ``amount`` for decays close to 1.
Move = Literal["times", "plus", "complement"]

_FRUITLESS_CYCLES = 40  # without any applicable rung: then the constants are not there


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One direction for one constant, inside its range (`ranges.RANGES`)."""

    name: str
    move: Move
    amount: float
    why: str
    along: str | None = None  # a constant that must shrink by the same factor for the file to run

    def target(self, value: Number, scale: float) -> Number | None:
        """Return the value to try, of the type of ``value``; None where the rung has no room. ``scale`` stretches the step."""
        match self.move:
            case "times":
                moved = value * self.amount**scale
            case "plus":
                step = self.amount * scale
                if isinstance(value, int):
                    step = round(step) or (1 if self.amount > 0 else -1)
                moved = value + step
            case "complement":
                moved = 1 - (1 - value) * self.amount**scale
        if isinstance(value, int):
            moved = round(moved)
        moved = type(value)(float(literal(moved)))
        return moved if moved in RANGES[self.name] and moved != value else None


def _times(name: str, amount: float, why: str, along: str | None = None) -> Rung:
    return Rung(name=name, move="times", amount=amount, why=why, along=along)


def _plus(name: str, amount: float, why: str) -> Rung:
    return Rung(name=name, move="plus", amount=amount, why=why)


def _complement(name: str, amount: float, why: str) -> Rung:
    return Rung(name=name, move="complement", amount=amount, why=why)


RUNGS = (
    _plus("DEPTH", -1, "Fewer blocks make each step cheaper, so that more steps fit."),
    _plus("VALUE_EMBED_EVERY", -1, "Value embeddings are cheap capacity: looked up, not multiplied."),
    _times("TOTAL_BATCH_TOKENS", 0.5, "A short run lacks optimizer steps more than it lacks clean gradients.",
           along="DEVICE_BATCH_ROWS"),
    _times("MATRIX_LR", 0.67, "Smaller steps on the matrices may overshoot less."),
    _plus("WARMDOWN_FRACTION", 0.2, "A longer decay averages more noise out of the final weights."),
    _times("UNEMBEDDING_LR", 2.0, "The head starts near zero, so its rate bounds how fast predictions sharpen."),
    _times("MOMENTUM_RAMP_STEPS", 0.33, "The ramp should end within the steps that the budget allows."),
    _times("EMBEDDING_LR", 1.5, "Rare tokens get few updates; larger ones let them leave their random start."),
    _times("SCALAR_LR", 0.2, "The x0 lambdas move every layer at once; smaller steps may be steadier."),
    _times("MATRIX_LR", 1.5, "In a short run the matrices have few steps to travel; each may be longer."),
    _plus("WARMDOWN_FRACTION", -0.2, "A shorter decay leaves more of the budget at the full rate."),
    _complement("ADAM_BETA2", 2.0, "A shorter memory of gradient sizes adapts within few steps."),
    _times("SOFTCAP", 2.0, "A looser cap lets confident predictions get through."),
    _times("WEIGHT_DECAY", 0.5, "A run that sees little data twice needs little decay."),
    _times("HEAD_DIM", 0.5, "Smaller heads are more heads: more attention patterns for the same cost."),
    _times("X0_LAMBDA_INIT", 2.0, "A stronger path from the embeddings helps before the blocks have learned."),
    _plus("ORTHOGONAL_STEPS", -1, "A rougher orthogonalisation costs less of every step."),
    _plus("MLP_RATIO", -1, "A narrower MLP makes each step cheaper, so that more steps fit."),
    _times("EMBEDDING_LR", 0.67, "Smaller steps of the embeddings may be steadier."),
    _times("TOTAL_BATCH_TOKENS", 2.0, "Cleaner gradients may be worth fewer steps."),
    _plus("FINAL_LR_FRACTION", 0.05, "The last steps still learn if the rate does not fall to zero."),
    _plus("WARMUP_FRACTION", 0.03, "A gentle start may spare the early steps a detour."),
    _times("UNEMBEDDING_LR", 0.5, "Smaller steps of the head may be steadier."),
    _times("ROPE_BASE", 0.2, "A context this short needs no long wavelengths."),
    _plus("DEPTH", 1, "One more block may learn more from each token than it costs in steps."),
    _complement("MUON_BETA2", 2.0, "The per-neuron scale should settle within few steps."),
    _complement("ADAM_BETA1", 0.5, "More momentum averages the noise of small batches."),
    _complement("MOMENTUM", 2.0, "Less momentum reacts faster, which counts when steps are few."),
    _times("SOFTCAP", 0.67, "A tighter cap regularises the logits."),
    _times("WEIGHT_DECAY", 2.0, "Stronger decay keeps the matrices responsive to new gradients."),
    _times("SCALAR_LR", 2.0, "The x0 lambdas may not get far enough in so few steps."),
    _plus("VALUE_EMBED_EVERY", 1, "Fewer value embeddings are fewer parameters to fit."),
    _plus("MLP_RATIO", 1, "A wider MLP may learn more from each token than it costs in steps."),
    _times("VOCAB_SIZE", 2.0, "Longer tokens put more text into every step."),
    _times("VOCAB_SIZE", 0.5, "Fewer tokens are each seen more often, and the head gets cheaper."),
    _complement("ADAM_BETA2", 0.5, "A longer memory of gradient sizes is steadier."),
    _times("X0_LAMBDA_INIT", 0.5, "Blocks that start on their own may use their depth better."),
    _times("ROPE_BASE", 5.0, "Longer wavelengths let heads look by content."),
)  # fmt: skip

# These steps only make sense whole: a vocabulary must be a prepared size, rows and heads must divide.
_WHOLE_STEPS = ("TOTAL_BATCH_TOKENS", "VOCAB_SIZE", "HEAD_DIM")


class Ladder:
    """The strategy `ladder`; an object stands on one rung and climbs with every proposal."""

    learns = False

    def __init__(self) -> None:
        self._positions = _positions()
        self._proposed: set[Change] = set()

    def propose(
        self, source: str, *, profile: str, tried: Set[Change], observed: Sequence[Observation] = ()
    ) -> Proposal | None:
        """Return the next change that fits the constants of ``source`` and was not tried in either direction."""
        constants = read_constants(source, profile)
        for _ in range(_FRUITLESS_CYCLES * len(RUNGS)):
            rung, scale = next(self._positions)
            proposal = _apply(rung, scale, source, constants)
            if proposal is None:
                continue
            changes = changes_in(proposal.description)
            if changes & (tried | self._proposed):
                continue
            self._proposed |= changes
            return proposal
        return None


def _positions() -> Iterator[tuple[Rung, float]]:
    """Yield every rung at scale 1, then all of them at 1/2, 2, 1/3, 3, and so on."""
    for rung in RUNGS:
        yield rung, 1.0
    for divisor in count(2):
        for scale in (1 / divisor, float(divisor)):
            for rung in RUNGS:
                if rung.name not in _WHOLE_STEPS:
                    yield rung, scale


def _apply(rung: Rung, scale: float, source: str, constants: dict[str, Constant]) -> Proposal | None:
    constant = constants.get(rung.name)
    target = None if constant is None else rung.target(constant.value, scale)
    if constant is None or target is None:
        return None
    changes: dict[Constant, Number] = {constant: target}
    description = f"{rung.name} {literal(constant.value)} -> {literal(target)}"
    if rung.along is not None:
        companion = constants.get(rung.along)
        if companion is None or companion.value * target % constant.value:
            return None
        changes[companion] = type(companion.value)(companion.value * target / constant.value)
        description += f", with {rung.along} in step"
    return Proposal(description=description, hypothesis=rung.why, source=replace_constants(source, changes))
