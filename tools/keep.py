"""keep: make an experiment the champion."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab import experiments
from ..lab.experiments import Kept
from ..lab.lab import Lab
from .describe import describe
from .results import KeepAnswer, cut_bytes

_DIFF_BYTES = 2_000  # of each diff of a conflict


def keep(
    lab: Lab,
    experiment_id: Annotated[str, Field(description="A finished, keepable experiment, such as 'e0017'.")],
    reason: Annotated[str, Field(description="Why it is worth keeping.", max_length=1000)] = "",
) -> KeepAnswer:
    """Keep an experiment that is keepable and worth its complexity: it becomes the champion and the head of the branch.

    Refused where the gate says no. Next: edit train.py for the next idea. If another researcher's champion came first
    (a stale win), the change is merged onto that and run again, before new ideas.
    """
    kept = experiments.keep(lab, experiment_id, reason)
    answer = describe(lab, kept.merged or kept.experiment)
    return KeepAnswer(**{**answer.model_dump(), **_outcome(kept, answer.champion)})


def _outcome(kept: Kept, champion: str | None) -> dict[str, str | list[str]]:
    asked = kept.experiment
    if kept.merged is not None and asked.parent == kept.merged.parent:
        explanation = f"The run of {asked.id} was no answer, so the same bytes run again as {kept.merged.id}."
        return {"outcome": "stale_win", "explanation": explanation}
    if kept.merged is not None:
        explanation = (
            f"{asked.id} was judged against {asked.parent}, but the champion has moved to {kept.merged.parent}. Its change was "
            f"merged onto that as {kept.merged.id}, which runs first; keep it if it wins there."
        )
        return {"outcome": "stale_win", "explanation": explanation}
    if (conflict := kept.conflict) is None:
        return {"outcome": "kept", "explanation": f"{asked.id} is kept: {asked.note or 'no reason given'}"}
    explanation = (
        f"{asked.id} was judged against {asked.parent}, but the champion is {champion} now, and {conflict.reason}. Nothing was "
        f"changed. revert('{asked.id}', lesson='...') restores the champion's train.py; then make the change there by hand."
    )
    diffs = {
        "champion_diff": _short(conflict.champion_diff, f"git show autoresearch/{asked.session}:trainer/train.py"),
        "own_diff": _short(conflict.own_diff, f"show_experiment('{asked.id}', part='diff')"),
    }
    calls = [f"revert('{asked.id}', lesson='...')"]  # keep would come to the same
    return {"outcome": "stale_conflict", "explanation": explanation, **diffs, "next": calls}


def _short(diff: str, rest: str) -> str:
    kept = cut_bytes(diff, _DIFF_BYTES)
    return kept if kept == diff else f"{kept}\n[cut here; see {rest}]"
