"""Training curves as a PNG: an experiment's, and beneath it, thinner, those it is compared with, over the run's clock.

The first tenth is cut off above what follows it, so that the fall from random weights does not flatten the rest. Does not: draw
what is not in the chart's values.
"""

from __future__ import annotations

from ..tools.charts import SPANS, Chart, CurvesChart, ProgressChart, spans_of
from .plot import INK, drawing, framed, plain, png, progress_png

_COLORS = ("#1a7f37", "#8c959f", "#0969da")  # the experiment, its parent, the champion
_FIRST = 0.1  # of the time, whose values do not decide how high the axis goes
_MARGIN = 0.06  # of the range, above and below
_LEAST_RANGE = 1e-6
_TITLE_CHARACTERS = 90


def chart_png(chart: Chart) -> bytes:
    """Return the picture of what an answer says is to be drawn."""
    return progress_png(chart.experiments, chart.title) if isinstance(chart, ProgressChart) else curves_png(chart)


def curves_png(chart: CurvesChart) -> bytes:
    """Return a 1200 x 600 pixel PNG; each curve is the mean of its values in equal spans of time."""
    end_seconds = max(seconds for curve in chart.curves for seconds, _ in curve.points)
    title = chart.title if len(chart.title) <= _TITLE_CHARACTERS else chart.title[: _TITLE_CHARACTERS - 3] + "..."
    with drawing() as figure:
        axes = framed(figure, title=title, x="seconds of training", y=f"{chart.metric} (as reported, not certified)")
        later: list[float] = []
        for position, curve in reversed(list(enumerate(chart.curves))):
            spans = spans_of(curve.points, end_seconds, SPANS)
            known = [((span + 0.5) * end_seconds / SPANS, value) for span, value in enumerate(spans) if value is not None]
            later += [value for seconds, value in known if seconds >= _FIRST * end_seconds] or [value for _, value in known]
            axes.plot(
                [seconds for seconds, _ in known],
                [value for _, value in known],
                color=_COLORS[position % len(_COLORS)],
                linewidth=1.2 if position else 2.0,
                marker="o" if len(known) == 1 else None,
                label=plain(curve.label),
            )
        margin = _MARGIN * max(max(later) - min(later), _LEAST_RANGE)
        axes.set_ylim(min(later) - margin, max(later) + margin)
        lines, names = axes.get_legend_handles_labels()
        axes.legend(lines[::-1], names[::-1], loc="upper right", frameon=False, labelcolor=INK)
        return png(figure)
