"""What a session has taught, as lines of `read_program`: a plateau first, then what to build on, then what to leave alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..lab.candidate import check_candidate
from ..lab.errors import CandidateError
from ..lab.known import Known, Trial, known
from ..lab.lab import Lab
from ..lab.records import Experiment, Session
from ..lab.tried import tried
from .describe import shorten
from .results import number

MOST_ROWS = 6  # of each kind
_WHAT_BYTES = 60  # of the constants that an experiment changes, else of its description
_NAMES_PER_ROW = 4  # untouched constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What a session has taught, and the descriptions of the experiments that are named."""

    known: Known
    descriptions: Mapping[str, str]

    def lines(self, rows: int) -> list[str]:
        """Return it with at most so many rows of each kind; what is left out is counted. None before the first result."""
        return list(self._lines(rows)) if self.known.finished else []

    def _lines(self, rows: int) -> Iterator[str]:
        taught = self.known
        if taught.is_plateau:
            since = f"since the last kept gain, {taught.last_gain}" if taught.last_gain else "and no gain was kept"
            yield (
                f"plateau: {taught.since_gain} finished experiments {since}. Combine near misses, change what never was, or "
                "try what is no small step"
            )
        for theme in taught.worked[:rows]:
            most = "" if theme.best is None else f", most by {self._named(theme.best)}"
            yield f"gained: {theme.name}: {theme.gain:.4f} with {theme.kept} kept of {theme.finished}{most}"
        for trial in taught.near_misses[:rows]:
            yield f"near miss: {self._named(trial)}, z {number(trial.z, '.1f')}"
        for theme in taught.failed[:rows]:
            best = "" if theme.best is None else f", best {self._named(theme.best)}"
            failed = f", {theme.without_number} without a number" if theme.without_number else ""
            yield f"no gain: {theme.name}: {theme.finished} tried{failed}{best}"
        if taught.constants:
            steps = (
                f"{constant.name} "
                + ", ".join(
                    f"{step} {count} ({number(None if best is None else best.delta, '+.4f')})"
                    for step, (count, best) in constant.steps.items()
                )
                for constant in taught.constants[:rows]
            )
            yield f"changed alone, with the best of each: {'; '.join(steps)}"
        if taught.untouched:
            yield f"never changed: {', '.join(taught.untouched[: rows * _NAMES_PER_ROW])}"
        kinds = (
            ("themes", max(0, len(taught.worked) - rows) + max(0, len(taught.failed) - rows)),
            ("near misses", len(taught.near_misses) - rows),
            ("constants that were changed alone", len(taught.constants) - rows),
            ("constants that never were", len(taught.untouched) - rows * _NAMES_PER_ROW),
        )
        if left_out := [f"{count} {kind}" for kind, count in kinds if count > 0]:
            yield f"left out here: {', '.join(left_out)}"

    def _named(self, trial: Trial) -> str:
        changes = ", ".join(f"{name} {old or 'absent'} -> {new or 'absent'}" for name, (old, new) in trial.changes.items())
        what = shorten(changes or self.descriptions.get(trial.id, ""), _WHAT_BYTES)
        return f"{trial.id} {number(trial.delta, '+.4f')} ({what})"


def what_was_taught(lab: Lab, session: Session, champion: Experiment | None) -> Taught:
    """Return what a session has taught so far."""
    constants: tuple[str, ...] = ()
    if champion is not None:
        with suppress(CandidateError):  # it was accepted by older checks
            constants = tuple(check_candidate(lab.ledger.stored(champion.candidate_sha256), None).constants)
    plateau = lab.session_config(session).stop.plateau_notice
    taught = known(tried(lab.ledger, session.tag), constants, plateau_after=plateau)
    bests = (theme.best for themes in (taught.worked, taught.failed) for theme in themes[:MOST_ROWS])
    named = [trial.id for trial in (*bests, *taught.near_misses[:MOST_ROWS]) if trial is not None]
    marks = ", ".join("?" for _ in named)
    found = lab.ledger.experiments(f"id IN ({marks})", *named) if named else []
    return Taught(known=taught, descriptions={experiment.id: experiment.description for experiment in found})
