"""confirm_experiment: more seeds for one experiment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab.experiments import confirm
from ..lab.lab import Lab
from .describe import describe
from .results import ExperimentAnswer


def confirm_experiment(
    lab: Lab,
    experiment_id: Annotated[str, Field(description="A finished one with a number, such as 'e0017'.")],
    seeds: Annotated[int, Field(ge=1, le=8, description="Fresh seeds that it is to have in all.")] = 2,
) -> ExperimentAnswer:
    """Run a finished experiment again with fresh seeds: is its gain real?

    Use it where the number that picked an idea is to be doubted: the fresh ones decide alone. The gate 'confirmed' asks for two
    by itself; once they have said no, more of them only make the number surer. Next: wait_experiment while it is not finished,
    then keep or revert. The same call again queues nothing more.
    """
    return describe(lab, confirm(lab, experiment_id, seeds))
