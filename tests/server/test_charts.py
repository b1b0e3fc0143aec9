"""Pictures beside answers: what was asked for is drawn, small, and the answer says the same without it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import accept_rules
from autoresearch_mcp.server.plot_curves import chart_png, curves_png
from autoresearch_mcp.tools.charts import Curve, CurvesChart, table_of
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.show_experiment import show_experiment
from mcp import Client
from mcp.types import CallToolResult

from .connected import connected, in_both_eras, picture_of, text_of

MakeLab = Callable[..., Lab]


def is_small_png(picture: bytes | None) -> bool:
    assert picture is not None
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (1200, 600)
    return len(picture) < 100_000


def curve(slope: float, count: int = 2_000) -> str:
    return "".join(
        json.dumps({"step": step, "seconds": step / 40, "loss": 7.0 - slope * step / (step + 200), "rate": 0.1}) + "\n"
        for step in range(count)
    )


@pytest.fixture
def researched(make_quick_lab: MakeLab) -> Lab:
    """A lab with a baseline and a worse experiment, both with long curves."""
    lab = make_quick_lab()
    try_out(lab, "baseline", "")
    try_out(lab, "a $ sign, 100 % and _underscores_", "# quick: minus=-0.1\n")
    for number, slope in ((1, 5.0), (2, 4.5)):
        lab.state.run(f"e{number:04d}.1").curve.write_text(curve(slope))
    return lab


def try_out(lab: Lab, description: str, change: str) -> Experiment:
    lab.workspace.train.write_text(lab.workspace.train.read_text() + change)
    experiment, _ = experiments.propose(lab, description=description, hypothesis="")
    return wait(lab, experiment.id, 20.0)


def call(lab: Lab, tool: str, arguments: dict[str, Any], era: str = "auto") -> CallToolResult:
    return connected(lab.root, lambda client: client.call_tool(tool, arguments), era=era)


@in_both_eras
def test_a_picture_comes_when_it_is_asked_for_and_beside_the_whole_answer(researched: Lab, era: str) -> None:
    for tool, plainly, drawn in (
        ("history", {}, {"chart": True}),
        ("show_experiment", {"experiment_id": "e0002", "part": "curve"}, {"experiment_id": "e0002", "part": "chart"}),
    ):
        assert picture_of(call(researched, tool, plainly, era)) is None
        result = call(researched, tool, drawn, era)
        assert not result.is_error
        assert is_small_png(picture_of(result))
        assert len(text_of(result).encode()) < 10_000
        assert len(json.dumps(result.structured_content).encode()) < 10_000
        assert not any("chart" in name for name in result.structured_content or {})
        assert "e0001" in text_of(result)


def test_the_chart_of_an_experiment_compares_it_with_its_parent_and_reads_as_a_table(researched: Lab) -> None:
    answer = show_experiment(researched, "e0002", "chart")
    assert isinstance(answer.chart, CurvesChart)
    assert [line.label for line in answer.chart.curves] == ["e0002 (val_bpb 2.1000)", "e0001, its parent (val_bpb 2.0000)"]
    rows = answer.content.splitlines()
    assert rows[1] == "seconds | e0002 (val_bpb 2.1000) | e0001, its parent (val_bpb 2.0000)"
    own, parent = (float(value) for value in rows[-1].split(" | ")[1:])
    assert own == pytest.approx(7.0 - 4.5 * 1960 / 2160, abs=0.01)
    assert parent < own


def test_what_reported_nothing_has_no_chart_and_says_so(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    assert history(lab, chart=True).chart is None
    try_out(lab, "baseline", "")
    answer = show_experiment(lab, "e0001", "chart")
    assert answer.chart is None
    assert "nothing to draw" in answer.text()
    assert picture_of(call(lab, "show_experiment", {"experiment_id": "e0001", "part": "chart"})) is None


def test_a_curve_that_somebody_spoiled_is_no_error(researched: Lab) -> None:
    for lines in (
        "no json\n[1, 2]\n{}\n",
        '{"step": 1, "seconds": 1.0, "loss": NaN}\n',
        '{"step": 1, "seconds": "late", "loss": 1}\n{"step": 1, "seconds": 1, "loss": 1e400}\n',
        f'{{"step": 1, "seconds": 1, "loss": {"9" * 500}}}\n',
    ):
        researched.state.run("e0002.1").curve.write_text(lines)
        assert "nothing to draw" in show_experiment(researched, "e0002", "chart").content


def test_only_numbers_of_one_comparability_group_share_a_chart(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    try_out(lab, "baseline", "")
    lab.workspace.config.write_text(lab.workspace.config.read_text().replace("seconds = 5.0", "seconds = 6.0", 1))
    accept_rules(lab)
    lab.start_session("new", "tester")
    try_out(lab, "another baseline", "")
    for session in ("", "all"):
        chart = history(lab, session=session, chart=True).chart
        assert chart is not None
        assert not isinstance(chart, CurvesChart)
        assert [experiment.id for experiment in chart.experiments] == ["e0002"]
        assert is_small_png(chart_png(chart))


@pytest.mark.parametrize(
    "values", [[(0.0, 3.0)], [(0.0, 3.0), (0.0, 3.0)], [(1.0, 2.0), (2.0, 2.0)], [(5.0, 1e15), (6.0, -1e15)]]
)
def test_any_curve_becomes_a_picture_and_a_table(values: list[tuple[float, float]]) -> None:
    chart = CurvesChart(title="a $ lab " * 40, metric="a_$", curves=[Curve(label="e0001 $", points=values)])
    assert is_small_png(curves_png(chart))
    assert len(table_of(chart).splitlines()) >= 3


def test_many_clients_get_their_own_pictures_at_once(researched: Lab) -> None:
    arguments = [{"experiment_id": "e0001", "part": "chart"}, {"experiment_id": "e0002", "part": "chart"}] * 3
    pictures: dict[int, bytes | None] = {}

    async def use(client: Client) -> None:
        async def ask(number: int) -> None:
            pictures[number] = picture_of(await client.call_tool("show_experiment", arguments[number]))

        async with anyio.create_task_group() as tasks:
            for number in range(len(arguments)):
                tasks.start_soon(ask, number)

    connected(researched.root, use)
    assert len({pictures[number] for number in (0, 2, 4)}) == len({pictures[number] for number in (1, 3, 5)}) == 1
    assert pictures[0] != pictures[1]
