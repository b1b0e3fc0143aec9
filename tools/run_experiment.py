"""run_experiment: try the train.py of the workspace."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab.dispatch import wait
from ..lab.experiments import propose
from ..lab.lab import Lab
from ..lab.similar import remarks
from .describe import describe
from .results import ExperimentAnswer
from .waiting import OnProgress, bounded


def run_experiment(
    lab: Lab,
    description: Annotated[str, Field(description="What changed, in one line (3 to 500 characters).")],
    hypothesis: Annotated[str, Field(description="Why it should lower val_bpb.")] = "",
    researcher: Annotated[
        str, Field(description="Your name, where several researchers use this server: as you gave it to start_session.")
    ] = "",
    again: Annotated[bool, Field(description="Also where this session has tried the same idea.")] = False,
    wait_seconds: Annotated[
        float | None, Field(ge=0, description="How long to wait for the verdict; the server caps it.")
    ] = None,
    on_progress: OnProgress = None,
) -> ExperimentAnswer:
    """Train trainer/train.py as it is now for the fixed budget and certify its val_bpb. Call it after each edit of one idea.

    The bytes are taken at this moment; you may edit the file afterwards. Next: wait_experiment while it is not finished, then
    keep or revert. The same undecided bytes again return the same experiment.
    """
    experiment, is_new = propose(lab, description=description, hypothesis=hypothesis, researcher=researcher, again=again)
    said = remarks(lab, experiment) if is_new else []
    answer = describe(lab, wait(lab, experiment.id, bounded(lab, wait_seconds), on_progress))
    answer.warnings += said
    return answer
