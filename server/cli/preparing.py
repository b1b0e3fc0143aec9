"""Preparing a corpus with a progress bar on stderr; without a terminal, one line for each stage."""

from __future__ import annotations

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ...prepare.corpus import Corpus, prepare_corpus
from ..tables import console


def prepare_with_progress(name: str, *, verify: bool = False) -> Corpus:
    """Return the corpus ``name``, made now if need be; raises what `prepare_corpus` raises, a wrong name as a usage error."""
    stderr = console(stderr=True)
    last_stage = ""
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(f"corpus {name}", total=1.0, visible=False)

        def report(stage: str, fraction: float) -> None:
            nonlocal last_stage
            bar.update(task, completed=fraction, description=f"corpus {name}: {stage}", visible=True)
            if stage != last_stage and not stderr.is_terminal:
                stderr.print(f"corpus {name}: {stage}")
            last_stage = stage

        try:
            return prepare_corpus(name, progress=report, verify=verify)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
