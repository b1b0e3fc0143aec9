"""Opening the lab of a command, and printing what a tool answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ...lab.lab import Lab
    from ...tools.results import Answer


@contextmanager
def opened(folder: Path, *, budget_seconds: float | None = None) -> Iterator[Lab]:
    """Open the lab around ``folder`` for a block; raises `NotReadyError` where there is none."""
    from ...lab import researchers
    from ...lab.lab import Lab

    lab = Lab.open(folder, budget_seconds=budget_seconds)
    try:
        researchers.stand_in(lab)
        yield lab
    finally:
        lab.close()


def print_answer(answer: Answer, *, as_json: bool) -> None:
    """Print an answer as one JSON object, or as text that leaves the terminal as it is."""
    from ...tools.describe import clean

    typer.echo(answer.model_dump_json() if as_json else clean(answer.text()))
