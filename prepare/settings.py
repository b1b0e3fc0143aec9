"""What the referee tells a candidate's process through its environment: never through a file that a candidate could edit."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

SETTINGS_VARIABLE = "AUTORESEARCH_SETTINGS"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSettings:
    """The settings of one run, as the candidate sees them."""

    profile: str  # "cpu" or "gpu"
    device: str  # a torch device, "cpu" or "cuda"
    context_length: int  # tokens in a row; a model is scored at exactly this length
    budget_seconds: float  # training time on the referee's clock
    seed: int  # drawn by the referee
    channel_fd: int  # inherited socket to the referee
    memory_bytes: int  # the limit of the run's processes together; a GPU's own memory is not in it
    scratch: str  # the only folder that may be written

    def to_environment(self) -> dict[str, str]:
        return {SETTINGS_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> CandidateSettings:
        """Read the settings; raises `RuntimeError` when this process was not started by the referee."""
        text = os.environ.get(SETTINGS_VARIABLE)
        if text is None:
            raise RuntimeError(
                "train.py is run by the referee, which owns the data and the clock. "
                "Use the tool run_experiment, or: autoresearch run --description '...'"
            )
        return cls(**json.loads(text))
