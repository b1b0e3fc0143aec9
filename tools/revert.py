"""revert: decide against an experiment and restore train.py."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab import experiments
from ..lab.lab import Lab
from .describe import describe, next_without_experiment, researcher_called, train_file_of
from .results import Answer, ExperimentAnswer


class RevertAnswer(Answer):
    """What was reverted, and where unknown content of train.py was saved."""

    experiment: ExperimentAnswer | None
    train_file: str | None = Field(
        description="The file that is the champion's again; null: its researcher works in another session, or has left."
    )
    backup: str | None = Field(description="Git ref of what train.py held besides the experiment; null: nothing else.")

    def body(self) -> str:
        what = f"{self.experiment.experiment.id} is reverted" if self.experiment else "unrun edits are discarded"
        saved = f" What train.py held is saved as {self.backup} (git cat-file blob {self.backup})." if self.backup else ""
        details = f"\n{self.experiment.body()}" if self.experiment else ""
        left = "its researcher works in another session or has left, so no train.py was changed"
        file = f"{self.train_file} is the champion's again" if self.train_file else left
        return f"{what}; {file}.{saved}{details}"


def revert(
    lab: Lab,
    experiment_id: Annotated[str, Field(description="A finished experiment, or 'workspace' for edits that were never run.")],
    lesson: Annotated[str, Field(description="What was learned; it stays in the history.", max_length=1000)] = "",
    researcher: Annotated[
        str, Field(description="For 'workspace', where several researchers use this server: whose train.py.")
    ] = "",
) -> RevertAnswer:
    """Decide against an experiment, with the lesson, and restore trainer/train.py to the champion's.

    Nothing is lost: the candidate is stored. Next: edit train.py for the next idea.
    """
    experiment, backup = experiments.revert(lab, experiment_id, lesson, researcher)
    session = lab.session()
    who = researcher_called(lab, session, researcher if experiment is None else experiment.researcher)
    restored = who is not None and (experiment is None or experiment.session == session.tag)
    return RevertAnswer(
        experiment=describe(lab, experiment) if experiment else None,
        train_file=str(train_file_of(lab, who)) if who is not None and restored else None,
        backup=backup,
        next=next_without_experiment(lab, session, who),
        ledger_head=lab.ledger.head(),
    )
