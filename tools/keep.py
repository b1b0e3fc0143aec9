"""keep: make an experiment the champion."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab import experiments
from ..lab.lab import Lab
from .describe import describe
from .results import ExperimentAnswer


def keep(
    lab: Lab,
    experiment_id: Annotated[str, Field(description="A finished, keepable experiment, such as 'e0017'.")],
    reason: Annotated[str, Field(description="Why it is worth keeping.", max_length=1000)] = "",
) -> ExperimentAnswer:
    """Keep an experiment: it becomes the champion and the head of the session's branch. Refused where the gate says no."""
    return describe(lab, experiments.keep(lab, experiment_id, reason))
