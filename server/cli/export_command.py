"""`export`: results.tsv for people and tools that come from karpathy/autoresearch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .opened import opened
from .options import HERE, JsonOption, LabOption

if TYPE_CHECKING:
    from ...lab.lab import Lab
    from ...lab.records import Experiment

_ALL = "all"
_STDOUT = "-"
_LARGEST_BYTES = 64 << 20


def export(
    session: Annotated[str, typer.Option(metavar="TAG", help="A session, or 'all'.", show_default="the newest")] = "",
    output: Annotated[
        str, typer.Option(metavar="FILE", help="The file to write; - prints it.", show_default="results.tsv of the lab")
    ] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write results.tsv with karpathy/autoresearch's five columns: commit, val_bpb, memory_gb, status, description.

    Runs without a number are crashes with zeros; what is undecided, cancelled or lost has no row. A file whose rows are no
    experiments of this lab is not replaced.
    """
    from ...lab.export import export_results

    with opened(lab) as this:
        experiments = _experiments(this, session)
        results = export_results(experiments, {experiment.id: this.ledger.runs(experiment.id) for experiment in experiments})
        written = None if output == _STDOUT else _write(this, output, results.tsv())
    facts = {
        "file": None if written is None else str(written),
        "keep": results.count("keep"),
        "discard": results.count("discard"),
        "crash": results.count("crash"),
        "left_out": dict(results.left_out),
    }
    if as_json:
        typer.echo(json.dumps({**facts, "rows": [asdict(row) for row in results.rows]}))
        return
    typer.echo(results.tsv() if written is None else str(written), nl=written is not None)
    if results.left_out:
        listed = ", ".join(f"{count} {reason}" for reason, count in results.left_out.items())
        typer.echo(f"left out, because upstream has no status for them: {listed}", err=True)


def _experiments(lab: Lab, session: str) -> list[Experiment]:
    from ...lab.errors import UnknownNameError

    if session == _ALL:
        return lab.ledger.experiments()
    found = lab.ledger.session(session) if session else lab.session()
    if found is None:
        known = ", ".join(known.tag for known in lab.ledger.sessions()[:20])
        raise UnknownNameError(f"No session {session!r} in {lab.root}. The sessions are: {known or 'none yet'}.")
    return lab.ledger.experiments("session = ?", found.tag)


def _write(lab: Lab, output: str, text: str) -> Path:
    """Write the file, unless it holds somebody else's record: a clone of upstream may have one from before."""
    from ...lab.export import foreign_commits
    from ...lab.files import read_regular_file, write_atomically

    own = lab.workspace.results
    path = Path(output) if output else own
    try:
        if output:
            there = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        else:  # the lab is an agent's: a link there must not lead anywhere else
            there = read_regular_file(lab.root, own.name, _LARGEST_BYTES).decode(errors="replace") if own.exists() else ""
        if foreign := foreign_commits(there, lab.ledger.experiments()):
            raise typer.BadParameter(
                f"{path} holds {len(foreign)} rows that are no experiments of this lab (the first: {foreign[0][:40]!r}), so it "
                "is not replaced: move it away, or pass another --output FILE"
            )
        if output:
            path.write_text(text, encoding="utf-8")
        else:
            write_atomically(path, text.encode(), beneath=lab.root)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror or error}") from error
    return path
