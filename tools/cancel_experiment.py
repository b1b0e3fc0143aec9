"""cancel_experiment: end an experiment that is not worth finishing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab.dispatch import wait
from ..lab.experiments import cancel
from ..lab.lab import Lab
from .describe import describe
from .results import ExperimentAnswer

_SETTLE_SECONDS = 10.0


def cancel_experiment(lab: Lab, experiment_id: Annotated[str, Field(description="Such as 'e0017'.")]) -> ExperimentAnswer:
    """End a queued or running experiment that is not worth finishing, such as one that diverged.

    It gets the verdict 'cancelled' and no number. Next: revert.
    """
    cancel(lab, experiment_id)
    return describe(lab, wait(lab, experiment_id, _SETTLE_SECONDS))
