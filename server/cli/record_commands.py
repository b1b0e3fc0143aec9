"""Commands that look: what was tried, one experiment in full, where the lab stands, the chart."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ...lab.states import Decision, Verdict
from .opened import opened, print_answer
from .options import HERE, JsonOption, LabOption


class Sort(StrEnum):
    """The orders of `history`."""

    MATCH = "match"
    NEWEST = "newest"
    OLDEST = "oldest"
    BEST = "best"
    GAIN = "gain"
    NEAR_MISS = "near_miss"


class Summary(StrEnum):
    """What `history` sums up."""

    THEMES = "themes"
    CAUSES = "causes"


class Part(StrEnum):
    """The parts of `show`."""

    SUMMARY = "summary"
    DIFF = "diff"
    LOG = "log"
    CURVE = "curve"
    CHART = "chart"
    PROGRAM = "program"


def history(
    session: Annotated[str, typer.Option(metavar="TAG", help="A session, or 'all'.", show_default="the newest")] = "",
    decision: Annotated[Decision | None, typer.Option(help="Only these.")] = None,
    verdict: Annotated[Verdict | None, typer.Option(help="Only these.")] = None,
    text: Annotated[str, typer.Option(help="Words to find in texts, lessons, changed constants and changed lines.")] = "",
    theme: Annotated[str, typer.Option(help="Only this theme, such as optimizer.")] = "",
    program: Annotated[
        str, typer.Option(metavar="DIGITS", help="Only what ran under this program.md: the first digits of its SHA-256.")
    ] = "",
    sort: Annotated[
        Sort, typer.Option(help="match: as the text fits, else the newest; near_miss: only those, the closest to a gain first.")
    ] = Sort.MATCH,
    summary: Annotated[Summary | None, typer.Option(help="Instead of rows: gain by theme, or failures by cause.")] = None,
    page: Annotated[int, typer.Option(min=1, help="From 1.")] = 1,
    per_page: Annotated[int, typer.Option(min=1, max=25, help="Rows on a page.")] = 20,
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """List experiments with val_bpb, verdict, decision and lesson, and what each program.md came to."""
    from ...tools.history import history as history_tool

    with opened(lab) as this:
        answer = history_tool(
            this,
            session=session,
            decision=decision.value if decision else "",
            verdict=verdict.value if verdict else "",
            text=text,
            theme=theme,
            program=program,
            sort=sort.value,
            summary=summary.value if summary else "",
            page=page,
            per_page=per_page,
        )
    if as_json or not answer.experiments or not sys.stdout.isatty():
        print_answer(answer, as_json=as_json)
        return
    from ..tables import console, experiments_table, programs_table

    title = f"{answer.total} experiments" + (f", page {answer.page} of {answer.pages}" if answer.pages > 1 else "")
    screen = console()
    if answer.hint:
        screen.print(answer.hint, markup=False)
    screen.print(experiments_table(answer.experiments, title=title, sessions=session == "all"))
    if len(answer.programs) > 1:
        screen.print(programs_table(answer.programs))
        screen.print(answer.programs_note, markup=False)


def show(
    experiment_id: Annotated[str, typer.Argument(metavar="ID", help="An experiment, such as e0017.")],
    part: Annotated[
        Part, typer.Option(help="All numbers, the diff, the log, the curve (chart: beside its parent's), or its program.md.")
    ] = Part.SUMMARY,
    against: Annotated[str, typer.Option(metavar="ID", help="Another experiment: the diff from it to this one.")] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show one experiment. The program.md that it ran under is printed whole, as it was accepted."""
    from ...tools.programs import program_text
    from ...tools.show_experiment import show_experiment

    with opened(lab) as this:
        if part is Part.PROGRAM and not as_json and not against:
            typer.echo(program_text(this, this.ledger.experiment(experiment_id).program_sha256), nl=False)
            return
        print_answer(show_experiment(this, experiment_id, part.value, against), as_json=as_json)


def status(lab: LabOption = HERE, as_json: JsonOption = False) -> None:
    """Say where the lab stands: session, champion, what runs, what is enforced."""
    from ...tools.status import status as status_tool

    with opened(lab) as this:
        print_answer(status_tool(this), as_json=as_json)


def plot(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The PNG to write.", show_default="progress.png of the lab")
    ] = None,
    session: Annotated[str, typer.Option(metavar="TAG", help="A session.", show_default="the newest")] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Draw val_bpb by experiment: kept, discarded and crashed ones, and the running best."""
    from ...tools.describe import summarise
    from ..plot import progress_chart

    with opened(lab) as this:
        tag = session or this.session().tag
        experiments = [summarise(this, row) for row in this.ledger.experiments("session = ?", tag)]
        destination = output or this.workspace.progress_chart
        if session and this.ledger.session(session) is None:
            known = ", ".join(known.tag for known in this.ledger.sessions())
            raise typer.BadParameter(f"there is no session {session!r} here; the sessions are: {known or 'none'}")
        title = f"{this.root.name}, session {tag}"
    try:
        progress_chart(experiments, destination, title)
    except OSError as error:
        raise typer.BadParameter(f"{destination} cannot be written: {error.strerror or error}") from error
    typer.echo(json.dumps({"chart": str(destination), "experiments": len(experiments)}) if as_json else str(destination))
