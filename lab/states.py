"""The states of runs and experiments, with the legal moves beside them; an illegal move raises."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where one execution of a candidate stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"

    def move_to(self, new: RunState) -> RunState:
        """Return ``new`` if the move is legal; a running run goes back to the queue when its runner died."""
        if new not in _RUN_MOVES[self]:
            raise ValueError(f"a {self} run cannot become {new}")
        return new


_RUN_MOVES = {
    RunState.QUEUED: {RunState.RUNNING, RunState.FINISHED},
    RunState.RUNNING: {RunState.FINISHED, RunState.QUEUED},
    RunState.FINISHED: set(),
}


class Purpose(StrEnum):
    """What a run is for; which of an experiment's runs its number rests on follows from it (`confirmation`)."""

    PROPOSED = "proposed"  # the first one, of what a researcher proposed
    REPEAT = "repeat"  # again, since the device was shared
    CONFIRM = "confirm"  # with a fresh seed, after the idea was selected by its first number
    NOISE = "noise"  # with a fresh seed, of a number that stands: how much do seeds differ?
    TEST = "test"  # scored on the test split, which a human opened: no researcher learns what came of it (`test_split`)


# What researchers wait for. The rest starts when no run of these waits for the device; what measures the noise also gives way.
AWAITED = frozenset({Purpose.PROPOSED, Purpose.REPEAT, Purpose.CONFIRM})


class Outcome(StrEnum):
    """How a run ended, as the referee saw it."""

    SCORED = "scored"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    INVALID = "invalid"
    CANCELLED = "cancelled"
    LOST = "lost"
    PRUNED = "pruned"  # ended by the referee while it trained, since what train.py reported was hopeless (`pruning`)


class Verdict(StrEnum):
    """What the server concludes about an experiment; None in a record means: not judged yet."""

    IMPROVED = "improved"
    WITHIN_NOISE = "within_noise"
    WORSE = "worse"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    INVALID = "invalid"
    CANCELLED = "cancelled"
    LOST = "lost"
    PRUNED = "pruned"

    @property
    def words(self) -> str:
        """The verdict as people write it."""
        return self.value.replace("_", " ")

    def has_number(self) -> bool:
        """True where a certified val_bpb exists."""
        return self in (Verdict.IMPROVED, Verdict.WITHIN_NOISE, Verdict.WORSE)


NO_ANSWER = frozenset({Verdict.CANCELLED, Verdict.LOST})  # they say nothing about the candidate, which may be tried again
NO_EVIDENCE = NO_ANSWER | {Verdict.PRUNED}  # it was tried, and no result: neither a number nor a failure


class Decision(StrEnum):
    """What became of an experiment."""

    PENDING = "pending"
    KEPT = "kept"
    REVERTED = "reverted"

    def move_to(self, new: Decision) -> Decision:
        """Return ``new`` if the move is legal: a decision is made once."""
        if self is not Decision.PENDING or new is Decision.PENDING:
            raise ValueError(f"a {self} experiment cannot become {new}")
        return new
