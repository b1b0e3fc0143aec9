"""Preparing a corpus with a progress bar on stderr; without a terminal, a line for each stage and one every while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ...prepare.building import prepare_corpus
from ...prepare.corpus import Corpus
from ..tables import console

if TYPE_CHECKING:
    from ...prepare.sources import CorpusSource

_LINE_SECONDS = 20.0  # between two lines of one stage, where there is no terminal


def prepare_with_progress(name: str, *, source: CorpusSource | None = None, verify: bool = False) -> Corpus:
    """Return the corpus ``name``, made now if need be; raises what `prepare_corpus` raises, a wrong name as a usage error."""
    stderr = console(stderr=True)
    last_stage, last_line = "", 0.0
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(f"corpus {name}", total=1.0, visible=False, detail="")

        def report(stage: str, fraction: float, detail: str, /) -> None:
            nonlocal last_stage, last_line
            bar.update(task, completed=fraction, description=f"corpus {name}: {stage}", detail=detail, visible=True)
            now = time.monotonic()
            if not stderr.is_terminal and (stage != last_stage or (detail and now - last_line > _LINE_SECONDS)):
                separator = ", " if detail else ""
                stderr.print(f"corpus {name}: {stage}{separator}{detail}", markup=False)
                last_line = now
            last_stage = stage

        try:
            return prepare_corpus(name, progress=report, source=source, verify=verify)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
