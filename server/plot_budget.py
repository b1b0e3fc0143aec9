"""Searches side by side as a PNG: the best that each had kept, against experiments and against device time.

Does not: choose what is compared, or say who is ahead; `report_rivals` does.
"""

from __future__ import annotations

from ..tools.charts import BudgetChart
from .plot import INK, drawing, framed, plain, png

_STYLES = (
    ("#1a7f37", "-"),
    ("#0969da", "--"),
    ("#bf8700", "-."),
    ("#8250df", ":"),
    ("#57606a", "--"),
)  # told apart in grey, too
_SECONDS_PER_HOUR = 3600.0
_HOURS_FROM = 2 * _SECONDS_PER_HOUR  # on, the axis counts hours


def budget_png(chart: BudgetChart) -> bytes:
    """Return a 1200 x 600 pixel PNG of two panels with one scale of val_bpb."""
    longest = max(seconds for line in chart.lines for _, seconds, _ in line.points)
    unit, divisor = ("device hours", _SECONDS_PER_HOUR) if longest >= _HOURS_FROM else ("device seconds", 1.0)
    with drawing() as figure:
        left = framed(figure, title=chart.title, x="experiments", y="best kept val_bpb (lower is better)", place=(1, 2, 1))
        right = framed(figure, title="", x=unit, y="", place=(1, 2, 2))
        right.sharey(left)
        for position, line in reversed(list(enumerate(chart.lines))):
            color, style = _STYLES[position % len(_STYLES)]
            values = [value for _, _, value in line.points]
            for axes, spent in (
                (left, [float(experiments) for experiments, _, _ in line.points]),
                (right, [seconds / divisor for _, seconds, _ in line.points]),
            ):
                axes.step(
                    spent,
                    values,
                    where="post",
                    color=color,
                    linestyle=style,
                    linewidth=1.4 if position else 2.2,
                    marker="o",
                    markevery=[len(values) - 1],
                    label=plain(line.label),
                )
        lines, names = left.get_legend_handles_labels()
        figure.legend(lines[::-1], names[::-1], loc="outside lower center", ncols=2, frameon=False, labelcolor=INK)
        return png(figure)
