"""Many runs as one table: medians over the repetitions, their spread, and the ratio to the port in the same repetition.

Pure. Of a repetition counts its best-placed run: scored before not, alone on its device before contended, later before earlier.
Ratios are taken within a repetition, whose runs follow one another, so that a machine that slows down moves both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .contenders import NAMES, PORT
from .figures import RunFigures

Compared = Literal["no", "ratio", "difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the tables."""

    name: str
    title: str
    text: Callable[[float], str]
    compared: Compared = "no"  # with the port's


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if value >= 0.001 or value == 0 else f"{100 * value:.2g} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"


FIGURES = (
    Figure(name="val_bpb", title="val_bpb", text=lambda value: f"{value:.4f}", compared="difference"),
    Figure(name="tokens_per_second", title="training tokens/s", text=_count, compared="ratio"),
    Figure(name="steps", title="steps", text=_count),
    Figure(name="model_flops_utilisation", title="model FLOPs utilisation", text=_share, compared="ratio"),
    Figure(name="forward_flops_per_token", title="forward MFLOPs a token", text=lambda value: f"{value / 1e6:.2f}"),
    Figure(name="startup_seconds", title="start-up", text=_seconds),
    Figure(name="startup_core_seconds", title="start-up, CPU time", text=_seconds),
    Figure(name="compile_seconds", title="of it compilation", text=_seconds),
    Figure(name="scoring_seconds", title="scoring", text=_seconds),
    Figure(name="overhead_seconds", title="call to verdict, less training", text=_seconds),
    Figure(name="optimizer_share", title="Muon's share of a step", text=_share),
    Figure(name="loader_share", title="loader's share of a step", text=_share),
    Figure(name="peak_memory_mb", title="most memory", text=lambda value: f"{value:,.0f} MB"),
    Figure(name="peak_gpu_memory_mb", title="most GPU memory", text=lambda value: f"{value:,.0f} MB"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median and extremes of one figure over the repetitions that have it."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The runs of one contender at one budget."""

    contender: str
    budget_seconds: float
    repetitions: int  # that count
    contended: int  # of them, that had to share their device
    failed: int  # of them, without a number
    spreads: dict[str, Spread]  # by the figure's name
    against_port: dict[str, Spread]  # ratio or difference, as the figure is compared
    val_bpb_std: float | None  # over seeds; None: fewer than two


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return the spread of the values that there are, None where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(median=statistics.median(known), low=min(known), high=max(known), count=len(known))


def counting(runs: Iterable[RunFigures]) -> dict[int, RunFigures]:
    """Return repetition -> the run that counts, of one contender's runs at one budget."""
    best: dict[int, RunFigures] = {}
    for run in runs:
        other = best.get(run.repetition)
        if other is None or _rank(run) >= _rank(other):
            best[run.repetition] = run
    return dict(sorted(best.items()))


def _rank(run: RunFigures) -> tuple[bool, bool]:
    return run.scored, not is_marked(run)


def is_marked(run: RunFigures) -> bool:
    """Say whether a run's figures are doubtful: it had to share its device, or a pin did not hold."""
    return run.contended is not None or run.tainted is not None


def summarise(runs: Sequence[RunFigures]) -> list[Summary]:
    """Return a summary for each contender and budget, by budget, then as the contenders are listed."""
    groups: dict[tuple[float, str], list[RunFigures]] = {}
    for run in runs:
        groups.setdefault((run.budget_seconds, run.contender), []).append(run)
    counted = {key: counting(group) for key, group in groups.items()}
    order = sorted(counted, key=lambda key: (key[0], NAMES.index(key[1])))
    return [_summary(name, budget, counted[budget, name], counted.get((budget, PORT), {})) for budget, name in order]


def _summary(name: str, budget: float, found: dict[int, RunFigures], port: dict[int, RunFigures]) -> Summary:
    scored = {repetition: run for repetition, run in found.items() if run.scored}
    spreads, against_port = {}, {}
    for figure in FIGURES:
        if (taken := spread(getattr(run, figure.name) for run in scored.values())) is not None:
            spreads[figure.name] = taken
        if figure.compared != "no" and name != PORT:
            pairs = [
                (getattr(run, figure.name), getattr(port[repetition], figure.name))
                for repetition, run in scored.items()
                if repetition in port and port[repetition].scored
            ]
            if (taken := spread(_compare(figure.compared, own, other) for own, other in pairs)) is not None:
                against_port[figure.name] = taken
    numbers = [run.val_bpb for run in scored.values() if run.val_bpb is not None]
    return Summary(
        contender=name,
        budget_seconds=budget,
        repetitions=len(found),
        contended=sum(is_marked(run) for run in found.values()),
        failed=len(found) - len(scored),
        spreads=spreads,
        against_port=against_port,
        val_bpb_std=statistics.stdev(numbers) if len(numbers) > 1 else None,
    )


def _compare(how: Compared, own: float | None, other: float | None) -> float | None:
    if own is None or other is None or (how == "ratio" and other == 0):
        return None
    return own / other if how == "ratio" else own - other
