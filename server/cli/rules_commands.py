"""Commands that only the human uses: accept changed rules, pause and resume research, put back what was deleted.

They are no tools, so a client's agent has no call for them; one with a shell can run them, and the record shows it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from .opened import opened
from .options import HERE, JsonOption, LabOption


def accept_config(lab: LabOption = HERE, as_json: JsonOption = False) -> None:
    """Accept autoresearch.toml and program.md as they are now; until then, changes of them do not count.

    A change of what numbers mean (budget, clock, corpus, profile, trainer) opens a new comparability group: the session keeps
    its rules, and the next one begins under the new ones.
    """
    from ...lab.rules import accept_rules

    with opened(lab) as this:
        accepted = accept_rules(this)
    if as_json:
        typer.echo(json.dumps(asdict(accepted)))
        return
    if accepted.is_empty:
        typer.echo("Nothing has changed since the rules were accepted.")
        return
    for change in accepted.changes:
        typer.echo(change)
    if accepted.program_diff:
        typer.echo(accepted.program_diff, nl=False)
    if accepted.session is not None:
        typer.echo(f"Accepted. Session {accepted.session} goes on under these rules.")
    elif accepted.opens_group:
        typer.echo("Accepted. Numbers under these rules are not comparable with earlier ones: the next session begins anew.")
    else:
        typer.echo("Accepted.")


def pause(
    reason: Annotated[str, typer.Option(help="Why; the agent is told.")] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Let no further experiment start; what trains now, ends with its result."""
    from ...lab.rules import pause as pause_lab

    with opened(lab) as this:
        changed = pause_lab(this, reason)
    if as_json:
        typer.echo(json.dumps({"paused": True, "changed": changed}))
    else:
        typer.echo("Paused; `autoresearch resume` lets research go on." if changed else "It is paused already.")


def resume(lab: LabOption = HERE, as_json: JsonOption = False) -> None:
    """Let research go on after a pause, or after too many crashes in a row."""
    from ...lab.rules import resume as resume_lab

    with opened(lab) as this:
        changed = resume_lab(this)
    if as_json:
        typer.echo(json.dumps({"paused": False, "changed": changed}))
    else:
        typer.echo("Research may go on." if changed else "It was not paused; crashes in a row are counted anew.")


def repair(
    lab: LabOption = HERE,
    state: Annotated[
        str, typer.Option(metavar="ID", help="The lab whose clone was deleted, as its state folder is named.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Put back deleted refs, commits and files from the record; a new clone takes the place of a deleted one.

    Exits 1 when the record itself was changed: `autoresearch verify` names the place.
    """
    from ...lab.repair import reopen
    from ...lab.repair import repair as repair_lab

    this = reopen(lab.resolve(), state or None)
    try:
        done = repair_lab(this)
    finally:
        this.close()
    if as_json:
        typer.echo(json.dumps({"done": done}))
    else:
        typer.echo("\n".join(done) or "Nothing is missing.")
