"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LabOption = Annotated[
    Path, typer.Option("--lab", metavar="DIR", help="The lab, or any folder inside it.", show_default="the current folder")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
BudgetOption = Annotated[
    float | None, typer.Option("--budget-seconds", metavar="S", help="Training seconds of each experiment.")
]

HERE = Path()
