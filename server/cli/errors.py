"""The one place where errors that a person can act on become one message and an exit code; others keep their traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from ...lab.disk import disk_errors_told
from ...lab.errors import LabError
from ...prepare.errors import PrepareError

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


class CommandGroup(TyperGroup):
    """The commands, with that mapping around them; `--help` lists them in the order in which they were added."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        try:
            with disk_errors_told():
                return super().invoke(ctx)
        except (LabError, PrepareError) as error:
            typer.echo(f"autoresearch: {error}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("autoresearch: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
