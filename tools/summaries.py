"""Experiments summed up: what each theme gained, and why those without a number have none.

Guarantees: a table of a few rows, however many experiments there are. Does not: judge; a gain is the sum of what was kept, each
against its own parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..lab.causes import Failure
from ..lab.lab import Lab
from ..lab.records import Experiment
from ..lab.states import Decision
from .describe import failure_of, shorten
from .results import CauseSummary, ThemeSummary

_MOST_CAUSES = 12  # errors of train.py have as many names as there are exceptions
_MOST_LOGS = 400  # that are read for it, the newest
_NAMED = 8  # experiments of a cause
_CAUSE_BYTES = 80


def summarise_themes(experiments: Iterable[Experiment]) -> list[ThemeSummary]:
    """Return what each theme came to, the largest gain first; baselines belong to none."""
    themes: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        if not experiment.is_baseline:
            themes.setdefault(experiment.theme, []).append(experiment)
    rows = [_theme(theme, members) for theme, members in themes.items()]
    return sorted(rows, key=lambda row: (-row.gain, row.best_delta or 0.0, -row.experiments))


def _theme(theme: str, members: Sequence[Experiment]) -> ThemeSummary:
    kept = [experiment for experiment in members if experiment.decision is Decision.KEPT]
    best = min((e for e in members if e.delta is not None), key=lambda e: e.delta or 0.0, default=None)
    return ThemeSummary(
        theme=theme,
        experiments=len(members),
        kept=len(kept),
        gain=round(-sum(experiment.delta or 0.0 for experiment in kept), 6) + 0.0,
        best_delta=None if best is None or best.delta is None else round(best.delta, 6),
        best=None if best is None else best.id,
    )


def summarise_causes(lab: Lab, where: str, values: Sequence[Any]) -> tuple[list[CauseSummary], str]:
    """Return why experiments have no number, the most frequent cause first, and what is left out; ``where`` is SQL."""
    without = f"{where} AND verdict IS NOT NULL AND val_bpb IS NULL"
    failed = lab.ledger.experiments(without, *values, order="rowid DESC", limit=_MOST_LOGS)
    kinds: dict[str, list[tuple[str, Failure]]] = {}
    for experiment in failed:
        failure = failure_of(lab, experiment, lab.ledger.runs(experiment.id))
        kinds.setdefault(failure.kind, []).append((experiment.id, failure))
    by_count = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    rows = [
        CauseSummary(
            cause=shorten(kind, _CAUSE_BYTES),
            count=len(members),
            experiments=[experiment_id for experiment_id, _ in members[:_NAMED]],
            hint=members[0][1].hint,
        )
        for kind, members in by_count[:_MOST_CAUSES]
    ]
    left = [] if rows else ["Every finished experiment has a number."]
    left += [f"{len(by_count) - len(rows)} rarer causes are left out."] if len(by_count) > len(rows) else []
    if older := lab.ledger.count_experiments(without, *values) - len(failed):
        left.append(f"{older} older failures are left out: filter by session or text.")
    return rows, " ".join(left)
