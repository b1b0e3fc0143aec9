"""The command that says what this machine can do, and what would improve it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from .options import HERE, JsonOption, LabOption

if TYPE_CHECKING:
    from ..check import Table


def doctor(lab: LabOption = HERE, as_json: JsonOption = False) -> None:
    """Check this machine and the lab, and start the server once.

    Exits 1 when something needed is missing; every line that could be better names what improves it.
    """
    from ..check import Level
    from ..doctor import examine

    checks = []
    colours = {Level.OK: typer.colors.GREEN, Level.WARN: typer.colors.YELLOW, Level.FAIL: typer.colors.RED}
    for check in examine(lab.resolve()):
        checks.append(check)
        if not as_json:
            advice = f"\n      -> {check.advice}" if check.advice else ""
            typer.echo(f"{typer.style(f'{check.level:<5}', fg=colours[check.level])} {check.name}: {check.found}{advice}")
            for table in check.tables:
                typer.echo("\n".join(_lines(table)))
    failed = [check.name for check in checks if check.level is Level.FAIL]
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}))
    if failed:
        typer.echo(f"autoresearch: research is not possible yet: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _lines(table: Table) -> list[str]:
    width = max(len(name) for name, _ in table.rows)
    return [f"      {table.title}:", *(f"        {name:<{width}}  {text}" for name, text in table.rows)]
