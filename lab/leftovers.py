"""What a run leaves behind that nobody will read again: its claims, once its experiment cannot be anybody's parent.

A run's claims say what its model claimed for each position of the scored text, so that the audits of its children go where
they claim to beat it. They are most of a run folder: eight bytes for each token, up to 67 MB. Guarantees: those of a champion,
past or present, and of what may still be kept, stay. Does not: touch a result, a log or a curve, or anything that the record
needs; audits of a child whose parent's claims are gone go by the windows (`referee.reference`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from .records import Experiment
from .states import Decision

if TYPE_CHECKING:
    from .lab import Lab


def drop_claims(lab: Lab, experiment: Experiment) -> None:
    """Delete the claims of an experiment's runs if it was reverted or can never be kept; may be called again."""
    if experiment.verdict is None or experiment.decision is Decision.KEPT:
        return
    if experiment.keepable and experiment.decision is Decision.PENDING:
        return
    for run in lab.ledger.runs(experiment.id):
        with suppress(OSError):  # a disk that deletes nothing costs space, not the verdict
            lab.state.run(run.attempt_id).claims.unlink(missing_ok=True)
