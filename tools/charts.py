"""What a chart of an answer shows, as values: an answer says what to draw, and the server draws it.

Nothing here draws. Curves are a candidate's own reports, never certified; they are told over the run's clock, in means of equal
spans, so that noisy ones can be compared, and read as a table by whoever cannot see the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..lab.curves import reports_of
from ..lab.dispatch import run_shown
from ..lab.lab import Lab
from ..lab.records import Experiment, Session

SPANS = 150  # of a drawn curve
ROWS = 24  # of its table
_PREFERRED = "loss"
_OURS = ("step", "seconds")
_LARGEST = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressChart:
    """val_bpb by experiment; all of one comparability group."""

    title: str
    experiments: Sequence[Experiment]  # the oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One run's reports of one metric."""

    label: str
    points: Sequence[tuple[float, float]]  # (seconds since the data was handed over, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvesChart:
    """The training curve of an experiment, first, and those it is compared with."""

    title: str
    metric: str
    curves: Sequence[Curve]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """One search: the best that it had kept after it had spent so much."""

    label: str
    points: Sequence[tuple[int, float, float]]  # (experiments, device seconds, val_bpb), none of them going back


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChart:
    """Searches under the same conditions, the first of them in front."""

    title: str
    lines: Sequence[BudgetLine]


Chart = ProgressChart | CurvesChart  # of an answer


def progress_of(lab: Lab, session: Session, experiments: Sequence[Experiment], *, whole_session: bool) -> ProgressChart | None:
    """Return the chart of those ``experiments`` whose numbers can be compared with the session's; None where there are none."""
    groups = {session.tag: session.group} if whole_session else {each.tag: each.group for each in lab.ledger.sessions()}
    comparable = [each for each in experiments if groups.get(each.session) == session.group]
    what = f"session {session.tag}" if whole_session else f"all sessions of comparability group {session.group}"
    return ProgressChart(title=f"{lab.root.name}, {what}", experiments=comparable) if comparable else None


def curves_of(lab: Lab, experiment: Experiment) -> CurvesChart | None:
    """Return an experiment's curve with its parent's and the champion's; None where train.py reported no number."""
    reports = _reports(lab, experiment)
    names = _names(reports)
    metric = _PREFERRED if _PREFERRED in names else next(iter(names), "")
    own = _points(reports, metric)
    if not own:
        return None
    curves = [Curve(label=_label(experiment, ""), points=own)]
    champion = lab.ledger.session_now(experiment.session).champion
    for other, role in ((experiment.parent, "its parent"), (champion, "the champion")):
        if other is None or other == experiment.id or (role == "the champion" and other == experiment.parent):
            continue
        compared = lab.ledger.experiment(other)
        if points := _points(_reports(lab, compared), metric):
            curves.append(Curve(label=_label(compared, f", {role}"), points=points))
    return CurvesChart(title=f"{lab.root.name}, {experiment.id}: {experiment.description}", metric=metric, curves=curves)


def table_of(chart: CurvesChart, *, rows: int = ROWS) -> str:
    """Return the curves as lines of numbers: the mean of each within equal spans of time."""
    end = max(seconds for curve in chart.curves for seconds, _ in curve.points)
    columns = [spans_of(curve.points, end, rows) for curve in chart.curves]
    lines = [f"{chart.metric} as reported, not certified; means of spans that end at: "]
    lines += ["seconds | " + " | ".join(curve.label for curve in chart.curves)]
    for row in range(rows):
        values = [column[row] for column in columns]
        if any(value is not None for value in values):
            shown = " | ".join("-" if value is None else f"{value:.4f}" for value in values)
            lines.append(f"{end * (row + 1) / rows:.1f} | {shown}")
    return "\n".join(lines)


def spans_of(points: Sequence[tuple[float, float]], end_seconds: float, spans: int) -> list[float | None]:
    """Return the mean value in each of ``spans`` equal parts of 0 to ``end_seconds``; None where nothing was reported."""
    sums, counts = [0.0] * spans, [0] * spans
    for seconds, value in points:
        span = min(spans - 1, int(spans * seconds / end_seconds)) if end_seconds > 0 else 0
        sums[span] += value
        counts[span] += 1
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def _reports(lab: Lab, experiment: Experiment) -> list[dict[str, Any]]:
    return reports_of(lab.state.run(run_shown(lab, experiment).attempt_id).curve)


def _names(reports: Sequence[dict[str, Any]]) -> list[str]:
    return [name for name in reports[-1] if name not in _OURS] if reports else []


def _points(reports: Sequence[dict[str, Any]], metric: str) -> list[tuple[float, float]]:
    found = [(_number(report.get("seconds")), _number(report.get(metric))) for report in reports]
    return [(max(0.0, seconds), value) for seconds, value in found if seconds is not None and value is not None]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < _LARGEST and math.isfinite(value) else None


def _label(experiment: Experiment, role: str) -> str:
    number = "no number" if experiment.val_bpb is None else f"val_bpb {experiment.val_bpb:.4f}"
    return f"{experiment.id}{role} ({number})"
