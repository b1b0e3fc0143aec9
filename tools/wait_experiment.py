"""wait_experiment: wait on for an experiment that was started."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab.dispatch import wait
from ..lab.lab import Lab
from .describe import describe
from .results import ExperimentAnswer
from .waiting import OnProgress, bounded


def wait_experiment(
    lab: Lab,
    experiment_id: Annotated[str, Field(description="Such as 'e0017'.")],
    after: Annotated[
        float, Field(ge=0, description="The seconds that the last answer gives here; they make each call a different one.")
    ] = 0.0,
    wait_seconds: Annotated[
        float | None, Field(ge=0, description="How long to wait for the verdict; the server caps it.")
    ] = None,
    on_progress: OnProgress = None,
) -> ExperimentAnswer:
    """Wait a bounded time for an experiment that is not finished, and say where it stands.

    Next: the same again as the answer lists it, until there is a verdict; then keep or revert. Leaving or timing out never ends
    a training.
    """
    del after  # only makes consecutive calls differ: one client ends the turn at five identical ones
    return describe(lab, wait(lab, experiment_id, bounded(lab, wait_seconds), on_progress))
