"""The progress chart is a PNG of the promised size, whatever the session came to."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from autoresearch_mcp.server.plot import progress_chart, progress_png
from autoresearch_mcp.server.plot_budget import budget_png
from autoresearch_mcp.tools.charts import BudgetChart, BudgetLine
from autoresearch_mcp.tools.results import ExperimentSummary
from matplotlib.figure import Figure


def experiment(number: int, val_bpb: float | None, verdict: str | None, decision: str) -> ExperimentSummary:
    return ExperimentSummary(
        id=f"e{number:04d}",
        session="nov23",
        researcher="r",
        program="0123abcd",
        description="baseline" if number == 1 else f"MATRIX_LR 0.0{number} -> 0.03 costs $5 and 100 %, with words after it",
        parent=None if number == 1 else "e0001",
        verdict=verdict,
        decision=decision,
        val_bpb=val_bpb,
        delta=None,
        confidence=None,
        note="",
    )


BASELINE = experiment(1, 2.17, "improved", "kept")
CRASHED = experiment(2, None, "crashed", "reverted")
MANY = [
    BASELINE,
    CRASHED,
    experiment(3, 2.11, "improved", "kept"),
    experiment(4, 2.13, "within_noise", "reverted"),
    experiment(5, 9.5, "worse", "reverted"),
    experiment(6, 2.10, "improved", "kept"),
    experiment(7, 2.05, "improved", "pending"),
    experiment(8, None, None, "pending"),
]


@pytest.mark.parametrize(
    "experiments",
    [[], [BASELINE], [CRASHED], [MANY[-1]], [MANY[3]], MANY],
    ids=["none", "the baseline", "only a crash", "only a running one", "only a discarded one", "many"],
)
def test_a_session_becomes_a_png_of_1200_by_600(tmp_path: Path, experiments: list[ExperimentSummary]) -> None:
    destination = tmp_path / "progress.png"
    progress_chart(experiments, destination, "a lab, session nov23")
    content = destination.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == (1200, 600)


def test_two_experiments_that_are_far_apart_cost_no_tick_for_each_between_them() -> None:
    from autoresearch_mcp.server.plot import _TICKS, _draw_progress

    figure = Figure()
    _draw_progress(figure, [BASELINE, experiment(60_000, 2.1, "improved", "kept")], "a lab, all sessions")
    assert 10 < len(figure.axes[0].get_xticks()) <= _TICKS


def test_an_outlier_does_not_flatten_the_kept_values(tmp_path: Path) -> None:
    from autoresearch_mcp.server.plot import _limits

    limits = _limits([e for e in MANY if e.verdict is not None])
    assert limits is not None
    assert limits.low < 2.05
    assert 2.17 < limits.high < 2.5


def test_a_chart_that_cannot_be_written_raises_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        progress_chart([BASELINE], tmp_path / "missing" / "progress.png", "a lab")


def test_words_that_the_font_lacks_or_that_steer_a_terminal_are_drawn_without_a_complaint() -> None:
    strange = MANY[2].model_copy(update={"description": "長い\x1b[2J\u202e $x_1$ \\frac"})
    assert progress_png([BASELINE, strange], "長い $").startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("searches", [1, 5, 9])
@pytest.mark.parametrize("seconds", [1.0, 3600.0])
def test_searches_are_drawn_against_both_kinds_of_effort(searches: int, seconds: float) -> None:
    points = [(number, number * seconds, 2.0 - number / 100) for number in range(1, 30)]
    lines = [BudgetLine(label=f"search {number}, 100 % $", points=points[: 10 + number]) for number in range(searches)]
    content = budget_png(BudgetChart(title="a session and the autopilot", lines=lines))
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == (1200, 600)
    assert len(content) < 100_000
