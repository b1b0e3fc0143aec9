"""revert: decide against an experiment and restore train.py."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab import experiments
from ..lab.lab import Lab
from .describe import describe, next_without_experiment, researcher_called
from .results import Answer, ExperimentAnswer


class RevertAnswer(Answer):
    """What was reverted, and where unknown content of train.py was saved."""

    experiment: ExperimentAnswer | None
    backup: str | None = Field(description="Git ref of what train.py held besides the experiment; null: nothing else.")

    def body(self) -> str:
        what = f"{self.experiment.experiment.id} is reverted" if self.experiment else "unrun edits are discarded"
        saved = f" What train.py held is saved as {self.backup} (git cat-file blob {self.backup})." if self.backup else ""
        details = f"\n{self.experiment.body()}" if self.experiment else ""
        return f"{what}; trainer/train.py is the champion's again.{saved}{details}"


def revert(
    lab: Lab,
    experiment_id: Annotated[str, Field(description="A finished experiment, or 'workspace' for edits that were never run.")],
    lesson: Annotated[str, Field(description="What was learned; it stays in the history.", max_length=1000)] = "",
    researcher: Annotated[
        str, Field(description="For 'workspace', where several researchers use this server: whose train.py.")
    ] = "",
) -> RevertAnswer:
    """Decide against an experiment and restore trainer/train.py to the champion's. Nothing is lost: the candidate is stored."""
    experiment, backup = experiments.revert(lab, experiment_id, lesson, researcher)
    session = lab.session()
    name = researcher if experiment is None else experiment.researcher
    return RevertAnswer(
        experiment=describe(lab, experiment) if experiment else None,
        backup=backup,
        next=next_without_experiment(lab, session, researcher_called(lab, session, name)),
        ledger_head=lab.ledger.head(),
    )
