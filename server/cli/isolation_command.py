"""The command with which a human lets experiments run where a train.py reaches the user's files. No tool does this."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from .opened import opened
from .options import HERE, JsonOption, LabOption

if TYPE_CHECKING:
    from ...lab.lab import Lab


def accept_isolation(
    lab: LabOption = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="Accept without being asked, for scripts.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a train.py can do on this machine and, where it reaches your files, accept that once for this lab."""
    with opened(lab) as this:
        ask = (lambda question: True) if yes else _ask_on_terminal
        accepted = accept(this, ask, lambda line: typer.echo(line, err=as_json))
        level = this.isolation.level
    if as_json:
        typer.echo(json.dumps({"level": level, "accepted": accepted}))
    if not accepted:
        raise typer.Exit(1)


def accept(lab: Lab, ask: Callable[[str], bool], say: Callable[[str], None]) -> bool:
    """Explain the level, ask where it needs acceptance, and record a yes; returns whether experiments may run."""
    from ...lab.isolation import accept as record_acceptance
    from ...lab.isolation import acceptance
    from ..doctor_isolation import raising_here

    isolation = lab.isolation
    say(f"Isolation level of this machine: {isolation.level} ({isolation.mechanism}).")
    for title, verb, abilities in (
        ("Prevented here, for a train.py that an agent writes:", "cannot", isolation.prevents),
        ("Not prevented:", "can", isolation.can),
    ):
        if abilities:
            say(title)
        for ability in abilities:
            say(f"- it {verb} {ability}")
    if not isolation.needs_acceptance:
        say("Experiments may run at this level; nothing needs to be accepted.")
        return True
    if (given := acceptance(lab.ledger, isolation)) is not None:
        say(f"Accepted on {given.date} ({given.machine}); it holds for this lab.")
        return True
    if lab.config().sandbox.allow_unsandboxed:
        say("Allowed by [sandbox] allow_unsandboxed in autoresearch.toml; nothing more needs to be accepted.")
        return True
    if advice := raising_here(isolation):
        say(f"For a stronger level: {advice}")
    if not ask(f"Let experiments run in {lab.root} all the same?"):
        say("Not accepted; no experiment runs here.")
        return False
    record_acceptance(lab.ledger, isolation)
    say("Accepted and recorded. Every result will say so.")
    return True


def _ask_on_terminal(question: str) -> bool:
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: run it in one, or pass --yes")
    return typer.confirm(question, err=True)
