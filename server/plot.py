"""The progress chart: val_bpb by experiment, what was kept, and the running best, as a PNG.

Values far above the kept ones are drawn at the upper edge with their number, and runs without a number as crosses there, so
that one failure does not flatten the rest. matplotlib is imported when a chart is drawn, with a backend that needs no screen,
and one is drawn at a time in a process, whoever asks: it shares fonts and settings between threads. Training curves are in
`plot_curves`.
"""

from __future__ import annotations

import statistics
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..lab.states import Decision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_INCHES, _HEIGHT_INCHES, _DPI = 12, 6, 100
_KEPT, _DISCARDED, _FAILED, _BEST_LINE, INK = "#1a7f37", "#8c959f", "#cf222e", "#2da44e", "#424a53"
_COLORS = 96  # of a PNG
_TICKS = 20  # at most, along the experiments
_TAIL = 0.7  # experiments that the axis goes on for after the last
_LABELS = 14  # kept points with words; the largest gains go first
_LABEL_CHARACTERS = 34
_LINE_PARTS = 12  # points of the line between two experiments that a label must not cover
_HEADROOM = 0.5  # of the range of the kept values: what lies higher above them is drawn at the edge
_LEAST_HEADROOM = 0.1  # bits per byte
_LEAST_RANGE = 0.05  # bits per byte: smaller differences are noise at budgets of seconds, and should look flat


_drawing = threading.Lock()


class Drawn(Protocol):
    """What is drawn of an experiment: a row of the record, or of an answer."""

    @property
    def id(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def verdict(self) -> str | None: ...
    @property
    def decision(self) -> str: ...
    @property
    def val_bpb(self) -> float | None: ...
    @property
    def delta(self) -> float | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    low: float
    high: float  # of the axis
    ceiling: float  # values above are drawn at the edge


def progress_chart(experiments: Sequence[Drawn], destination: Path, title: str) -> None:
    """Write the chart of `progress_png` to ``destination``; raises OSError where it cannot be written."""
    destination.write_bytes(progress_png(experiments, title))


def progress_png(experiments: Sequence[Drawn], title: str) -> bytes:
    """Return a 1200 x 600 pixel PNG.

    Args:
        experiments: finished or not, of one comparability group, the oldest first; values in bits per byte. May be empty.
        title: printed above the chart.
    """
    with drawing() as figure:
        _draw_progress(figure, experiments, title)
        return png(figure)


@contextmanager
def drawing() -> Iterator[Figure]:
    """Give a block the empty figure of a chart, while nothing else is drawn."""
    with _drawing, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box stands for it
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        figure = Figure(
            figsize=(_WIDTH_INCHES, _HEIGHT_INCHES),
            dpi=_DPI,
            facecolor="white",
            layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12),
        )
        FigureCanvasAgg(figure)
        yield figure


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG of few colors, which is a third of one of all colors: models pay for what they are shown."""
    from PIL import Image

    whole, content = BytesIO(), BytesIO()
    figure.savefig(whole, format="png")
    with Image.open(whole) as picture:
        picture.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE).save(content, format="png", optimize=True)
    return content.getvalue()


def framed(figure: Figure, *, title: str, x: str, y: str, place: tuple[int, int, int] = (1, 1, 1)) -> Axes:
    """Return axes in the style of every chart here, with plain words as title and labels.

    ``place`` is where they are: rows and columns of the figure's panels, and the panel's number from 1.
    """
    axes = figure.add_subplot(*place)
    axes.set_title(plain(title), loc="left", fontsize=13, color=INK, pad=12)
    axes.set_xlabel(plain(x), color=INK)
    axes.set_ylabel(plain(y), color=INK)
    axes.grid(axis="y", color="#eaeef2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color("#d0d7de")
    return axes


def plain(text: str) -> str:
    """Return ``text`` as matplotlib prints it: a dollar sign would begin a formula, and a control character is a box."""
    return "".join(character if character.isprintable() else " " for character in text).replace("$", r"\$")


def _draw_progress(figure: Figure, experiments: Sequence[Drawn], title: str) -> None:
    axes = framed(figure, title=title, x="experiment", y="val_bpb (bits per byte, lower is better)")
    finished = [experiment for experiment in experiments if experiment.verdict is not None]
    if not finished:
        axes.text(0.5, 0.5, "no experiment yet", transform=axes.transAxes, ha="center", color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
    else:
        limits = _limits(finished) or _Limits(low=0.0, high=1.0, ceiling=1.0)
        numbers = [_number(experiment) for experiment in finished]
        axes.set_xticks(range(min(numbers), max(numbers) + 1, -(-(max(numbers) - min(numbers) + 1) // _TICKS)))
        axes.set_xlim(min(numbers) - 0.7, max(numbers) + _TAIL)
        axes.set_ylim(limits.low, limits.high)
        if all(experiment.val_bpb is None for experiment in finished):
            axes.set_yticks([])
        _draw(axes, finished, limits)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=5, frameon=False, labelcolor=INK)
        _label_kept(figure, axes, finished)


def _draw(axes: Axes, finished: Sequence[Drawn], limits: _Limits) -> None:
    kept = [e for e in finished if e.val_bpb is not None and e.decision == Decision.KEPT]
    others = [e for e in finished if e.val_bpb is not None and e.decision != Decision.KEPT]
    inside = [e for e in others if _value(e) <= limits.ceiling]
    clipped = [e for e in others if _value(e) > limits.ceiling]
    failed = [e for e in finished if e.val_bpb is None]
    edge = limits.high - 0.035 * (limits.high - limits.low)

    if kept:
        line = _running_best(finished)
        axes.step(*zip(*line, strict=True), where="post", color=_BEST_LINE, linewidth=1.8, label="best so far", zorder=2)
        _scatter(axes, kept, [_value(e) for e in kept], "o", 72, _KEPT, "kept", edgecolors="white", linewidths=1.2, zorder=4)
    if inside:
        values = [_value(e) for e in inside]
        _scatter(axes, inside, values, "s", 34, "white", "discarded", edgecolors=_DISCARDED, linewidths=1.5, zorder=3)
    if clipped:
        _scatter(axes, clipped, [edge] * len(clipped), "^", 52, _DISCARDED, "discarded, above this axis", zorder=3)
        for experiment in clipped:
            _annotate(axes, f"{_value(experiment):.2f}", _number(experiment), edge, (0, -16), _DISCARDED, ha="center")
    if failed:
        _scatter(
            axes,
            failed,
            [edge] * len(failed),
            "x",
            60,
            _FAILED,
            "no number (crashed, timed out, invalid, pruned)",
            linewidths=2.2,
        )


def _running_best(finished: Sequence[Drawn]) -> list[tuple[float, float]]:
    """Return (experiment, lowest kept value up to it) from the first kept one to a little beyond the last experiment."""
    line: list[tuple[float, float]] = []
    for experiment in finished:
        if experiment.val_bpb is not None and experiment.decision == Decision.KEPT:
            best = experiment.val_bpb if not line else min(experiment.val_bpb, line[-1][1])
            line.append((_number(experiment), best))
        elif line:
            line.append((_number(experiment), line[-1][1]))
    return [*line, (_number(finished[-1]) + _TAIL, line[-1][1])] if line else []


def _limits(finished: Sequence[Drawn]) -> _Limits | None:
    """Return an axis on which the kept values and everything close to them can be told apart."""
    values = [_value(e) for e in finished if e.val_bpb is not None]
    if not values:
        return None
    kept = [_value(e) for e in finished if e.val_bpb is not None and e.decision == Decision.KEPT]
    top = max([*kept, statistics.median(values)])
    span = max(top - min(values), _LEAST_RANGE)
    ceiling = top + max(_HEADROOM * span, _LEAST_HEADROOM)
    lowest, highest = min(values), max(top, *(value for value in values if value <= ceiling))
    span = max(highest - lowest, _LEAST_RANGE)
    return _Limits(low=lowest - 0.1 * span, high=highest + 0.16 * span, ceiling=ceiling)


def _label_kept(figure: Figure, axes: Axes, finished: Sequence[Drawn]) -> None:
    """Write short descriptions beside kept points, the largest gains first, where they cover no point and no other label."""
    kept = [e for e in finished if e.val_bpb is not None and e.decision == Decision.KEPT]
    by_gain = sorted(kept, key=lambda e: (e.parent is not None, e.delta or 0.0))[:_LABELS]
    if not by_gain:
        return
    figure.canvas.draw()
    area = axes.get_window_extent()
    high = axes.get_ylim()[1]
    points = [(_number(e), _value(e)) for e in finished if e.val_bpb is not None and _value(e) <= high]
    for (x, value), (_, next_value) in pairwise(_running_best(finished)):
        points += [(x + part / _LINE_PARTS, value) for part in range(_LINE_PARTS)]
        points.append((x + 1, (value + next_value) / 2))
    pixels: Any = axes.transData.transform(points).T  # two rows: a night of thousands is compared at once
    taken: list[Any] = []
    for experiment in by_gain:
        text = f"{experiment.id}  {_shorten(experiment.description)}"
        for offset, ha in (((8, 8), "left"), ((8, -16), "left"), ((-8, -16), "right"), ((8, 22), "left"), ((-8, 22), "right")):
            label = _annotate(axes, text, _number(experiment), _value(experiment), offset, INK, ha=ha)
            box = label.get_window_extent().padded(3)
            fits = area.x0 <= box.x0 and box.x1 <= area.x1 and area.y0 <= box.y0 and box.y1 <= area.y1
            if fits and not any(box.overlaps(other) for other in taken) and not _covers(box, *pixels):
                taken.append(box)
                break
            label.remove()


def _covers(box: Any, x: Any, y: Any) -> bool:
    """Say whether a label's box lies over any of the points."""
    return bool(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).any())


def _annotate(axes: Axes, text: str, x: float, y: float, offset: tuple[int, int], color: str, *, ha: str) -> Any:
    return axes.annotate(
        plain(text), (x, y), xytext=offset, textcoords="offset points", fontsize=8.5, color=color, ha=ha, zorder=5
    )


def _scatter(
    axes: Axes, experiments: Sequence[Drawn], values: Sequence[float], marker: str, size: float, color: str,
    label: str, **style: Any,
) -> None:  # fmt: skip
    numbers = [_number(e) for e in experiments]
    axes.scatter(numbers, values, marker=marker, s=size, c=color, label=label, clip_on=False, **style)


def _number(experiment: Drawn) -> int:
    """Return the number in an id such as e0017."""
    return int(experiment.id.lstrip("e"))


def _value(experiment: Drawn) -> float:
    assert experiment.val_bpb is not None
    return experiment.val_bpb


def _shorten(text: str) -> str:
    short = text.partition(",")[0]
    return short if len(short) <= _LABEL_CHARACTERS else short[: _LABEL_CHARACTERS - 3].rstrip() + "..."
