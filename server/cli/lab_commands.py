"""Commands about the lab itself: make it, check its record, say where everything lies."""

from __future__ import annotations

import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .opened import opened
from .options import HERE, BudgetOption, JsonOption, LabOption


class ProfileChoice(StrEnum):
    """The profiles, as a choice on the command line."""

    CPU = "cpu"
    GPU = "gpu"


def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder.", show_default="the current one")] = HERE,
    lab: Annotated[Path | None, typer.Option("--lab", metavar="DIR", help="The same, as other commands name it.")] = None,
    budget_seconds: BudgetOption = None,
    profile: Annotated[ProfileChoice, typer.Option(help="Sizes of model, context and corpus.")] = ProfileChoice.CPU,
    new_identity: Annotated[bool, typer.Option("--new-identity", help="Make a copied lab a lab of its own.")] = False,
) -> None:
    """Make a folder a lab, or bring one up to date. Nothing that exists is overwritten."""
    from ...lab.calibration import calibrate
    from ...lab.errors import NotReadyError
    from ...lab.lab import Lab
    from ...lab.machine import command_path
    from ...lab.pins import renew_pins
    from ...lab.scaffold import create_lab
    from ...prepare.corpus import open_corpus
    from ...prepare.errors import PrepareError
    from ..clients.shipped import lab_files

    directory = directory if lab is None else lab
    folder = directory.resolve()
    also = lab_files(folder, command_path())
    made = create_lab(folder, budget_seconds=budget_seconds, profile=profile.value, also=also)
    opened_lab = Lab.open(folder, renew_identity=new_identity)
    try:
        adopted = opened_lab.adopt_harness()
        corpus = opened_lab.config().corpus_name
        try:
            renewed = renew_pins(opened_lab)
        except NotReadyError as error:
            renewed = f"What is there now was not pinned: {error}"
        calibrated = calibrate(opened_lab)
    finally:
        opened_lab.close()
    typer.echo(f"Made {', '.join(made)} in {folder}." if made else f"{folder} is a lab already; no file was changed.")
    if adopted:
        typer.echo("Adopted the installed harness; numbers measured with the one before are not comparable.")
    if renewed:
        typer.echo(renewed)
    if calibrated is None:
        typer.echo("Not calibrated, since an experiment is running or the system does not count: run this again later.")
    else:
        typer.echo(
            f"Calibrated: others use {calibrated.background_share:.0%} of the {calibrated.cores} cores now. A run beside which "
            f"they use more than {calibrated.threshold:.0%} counts as contended, and its number needs a confirmation."
        )
    typer.echo("Next:")
    try:
        open_corpus(corpus)
    except PrepareError:
        typer.echo(f"- autoresearch prepare --corpus {corpus}    (once on this machine)")
    place = shlex.quote(str(directory))
    typer.echo(f"- autoresearch research --lab {place}    to watch the built-in researcher work")
    typer.echo(f"- autoresearch install --lab {place}    to set up a coding agent (Claude Code, Codex, Cursor, ...)")
    if ".mcp.json" in made:
        typer.echo(f'- or open {folder} in Claude Code and say "start": .mcp.json names this server')


def verify(lab: LabOption = HERE, as_json: JsonOption = False) -> None:
    """Check the whole record: the chain of events, what follows from it, and the heads that git names; then every pinned file.

    Exits 1, naming what is wrong, when something was changed.
    """
    from ...lab.evidence import problems_in_git
    from ...lab.pins import verify_pins

    pins = ""
    with opened(lab) as this:
        problems, head = [*this.ledger.verify(), *problems_in_git(this)], this.ledger.head()
        if not problems:  # else it does not say which pins there are
            problems, pins = verify_pins(this)
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "problems": problems, "pins": pins, "ledger_head": head}))
    else:
        for problem in problems:
            typer.echo(problem, err=True)
        if not problems:
            typer.echo(f"The record is whole. Head: {head}")
            typer.echo(pins)
    if problems:
        raise typer.Exit(1)


def where(lab: LabOption = HERE, as_json: JsonOption = False) -> None:
    """Say where everything lies: the lab, its state outside of it, and the corpora."""
    from ...lab.errors import NotReadyError
    from ...lab.lab import find_lab_root
    from ...lab.paths import state_root
    from ...prepare.corpus import cache_root

    places = {"state root": str(state_root()), "cache": str(cache_root())}
    try:
        find_lab_root(lab)
    except NotReadyError as error:
        missing = str(error)
    else:
        missing = ""
        with opened(lab) as this:
            places |= {
                "lab": str(this.root),
                "config": str(this.workspace.config),
                "program": str(this.workspace.program),
                "state": str(this.state.root),
                "ledger": str(this.state.ledger),
                "runs": str(this.state.runs),
            }
    if as_json:
        typer.echo(json.dumps({name.replace(" ", "_"): path for name, path in places.items()}))
        return
    for name, path in places.items():
        typer.echo(f"{name:<12}{path}")
    if missing:
        typer.echo(missing, err=True)
