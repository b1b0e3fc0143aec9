"""Commands that set up a coding agent: they write into its configuration, and take exactly that out again."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import HERE, LabOption

if TYPE_CHECKING:
    from ..clients.installing import Change, Plan
    from ..clients.table import Client, Setup

ClientArgument = Annotated[str | None, typer.Argument(metavar="[CLIENT]", help="Such as claude; without one, they are listed.")]
UserOption = Annotated[bool, typer.Option("--user", help="Your own files, which count in every folder, not those of the lab.")]
PrintOption = Annotated[bool, typer.Option("--print", help="Show what would change, and write nothing.")]


def install(
    client: ClientArgument = None,
    lab: LabOption = HERE,
    user: UserOption = False,
    only_print: PrintOption = False,
    allow: Annotated[bool, typer.Option(help="Our tools, and editing train.py, without a prompt.")] = True,
    deny: Annotated[
        bool | None,
        typer.Option(help="Forbid editing what research may not change.", show_default="but in a clone of the source"),
    ] = None,
    hook: Annotated[bool, typer.Option(help="The Stop hook, which keeps the loop going during a session.")] = True,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another server called autoresearch.")] = False,
) -> None:
    """Set up a coding agent for a lab: its server, what it may do without asking, and its Stop hook.

    What is in its files stays: a file with comments is not rewritten, another server of our name is told first.
    """
    from ..clients.installing import install as write
    from ..clients.installing import plan_install

    if client is None:
        _list_clients()
        return
    row, setup = _chosen(client, lab, user=user, allow=allow, deny=deny, hook=hook)
    plan = plan_install(row, setup, replace=replace)
    if only_print:
        _print_plan(plan)
        return
    write(row, plan)
    for change in plan.changes:
        typer.echo(f"{'Made' if change.before is None else 'Added to'} {change.file}: {'; '.join(change.purposes)}.")
    _print_notes(plan)
    if not plan.changes:
        typer.echo(f"Nothing to change: {row.title} is set up for {setup.lab}.")
    typer.echo(f"Once: {row.trust}")
    typer.echo(f"For a night: {row.unattended}")
    typer.echo(f"To undo: autoresearch uninstall {row.name}{' --user' if user else ''}")


def uninstall(
    client: ClientArgument = None, lab: LabOption = HERE, user: UserOption = False, only_print: PrintOption = False
) -> None:
    """Take out what `install` wrote into a coding agent's configuration, and nothing else."""
    from ..clients.installing import plan_uninstall
    from ..clients.installing import uninstall as write

    if client is None:
        _list_clients()
        return
    row, setup = _chosen(client, lab, user=user, allow=True, deny=None, hook=True)
    plan = plan_uninstall(row, setup)
    if only_print:
        _print_plan(plan)
        return
    write(row, plan)
    for change in plan.changes:
        if change.changed:
            typer.echo(f"Deleted {change.file}." if change.after is None else f"Took our part out of {change.file}.")
    _print_notes(plan)
    if not any(change.changed for change in plan.changes):
        typer.echo(f"Nothing to change: `autoresearch install {row.name}` wrote nothing here that is still there.")


def _chosen(name: str, lab: Path, *, user: bool, allow: bool, deny: bool | None, hook: bool) -> tuple[Client, Setup]:
    from ...lab.lab import find_lab_root
    from ...lab.machine import command_path
    from ..clients.errors import ClientConfigError
    from ..clients.table import ALIASES, BY_NAME, Setup

    row = BY_NAME.get(ALIASES.get(name, name))
    if row is None:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(BY_NAME)}", param_hint="CLIENT")
    root = find_lab_root(lab)
    command = shutil.which(command_path())
    if command is None:
        raise ClientConfigError(
            f"There is no program {command_path()} that a client could start: install this package with pip."
        )
    try:
        f"{root}{command}".encode()
    except UnicodeEncodeError:
        raise ClientConfigError(
            f"The path {str(root)!r} is not UTF-8, which no client's file can hold: move the lab."
        ) from None
    is_clone = (root / "lab" / "referee").is_dir()
    wanted = Setup(
        command=str(Path(command).absolute()),
        lab=root,
        home=Path.home(),
        user=user,
        allow=allow,
        deny=not is_clone if deny is None else deny,
        hook=hook,
    )
    return row, wanted


def _list_clients() -> None:
    from ..clients.table import CLIENTS

    for row in CLIENTS:
        program = next(filter(None, map(shutil.which, row.programs)), None)
        if program is None and (Path.home() / row.folder).is_dir():
            program = f"~/{row.folder}"
        typer.echo(f"{row.name:<10}{row.title:<13}{f'found: {program}' if program else 'not found here'}")
    typer.echo("Next: autoresearch install CLIENT --lab DIR    (--print shows what would be written)")


def _print_plan(plan: Plan) -> None:
    for change in plan.changes:
        if change.changed:
            typer.echo(_difference(change), nl=False)
    _print_notes(plan)
    if not any(change.changed for change in plan.changes):
        typer.echo("Nothing to change.")


def _difference(change: Change) -> str:
    before, after = ((text or "").splitlines(keepends=True) for text in (change.before, change.after))
    old = "/dev/null" if change.before is None else str(change.file)
    new = "/dev/null" if change.after is None else str(change.file)
    lines = difflib.unified_diff(before, after, old, new)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _print_notes(plan: Plan) -> None:
    for note in plan.notes:
        typer.echo(f"Note: {note}")
