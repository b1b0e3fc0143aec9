"""The tables of the terminal hold every column and never read a stranger's words as markup."""

from __future__ import annotations

from autoresearch_mcp.server.tables import experiments_table, programs_table
from autoresearch_mcp.tools.results import ExperimentSummary, ProgramSummary
from rich.console import Console

PROGRAM = ProgramSummary(
    program="0123abcd",
    title="Be [bold]bold[/bold]",
    group="feedfacecafe",
    began="2026-11-25",
    first="e0001",
    last="e0012",
    experiments=12,
    kept=3,
    without_number=2,
    best_val_bpb=1.9,
    mean_delta=-0.0125,
    median_delta=-0.0075,
    total_gain=0.25,
)


def printed(table: object) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_programs_stand_side_by_side_with_all_their_numbers() -> None:
    text = printed(programs_table([PROGRAM, PROGRAM.model_copy(update={"best_val_bpb": None, "mean_delta": None})]))
    for words in (
        "0123abcd",
        "2026-11-25",
        "feedfacecafe",
        "e0012",
        "12",
        "1.9000",
        "-0.0125",
        "0.2500",
        "Be [bold]bold[/bold]",
    ):
        assert words in text
    assert text.count("0123abcd") == 2


def test_a_description_is_printed_as_it_was_written() -> None:
    experiment = ExperimentSummary(
        id="e0002", session="s", researcher="r", program="0123abcd", description="[red]wider[/red]", parent="e0001",
        verdict="worse", decision="reverted", val_bpb=2.0, delta=0.1, confidence=0.0, note="[link=http://example.org]x[/link]",
    )  # fmt: skip
    text = printed(experiments_table([experiment], sessions=True))
    assert "[red]wider[/red]" in text
    assert "[link=http://example.org]" in text
