"""`export`: the record as files: results.tsv for what reads karpathy/autoresearch's, JSON lines and CSV for the rest."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .opened import opened
from .options import HERE, JsonOption, LabOption

if TYPE_CHECKING:
    from ...lab.export import Results
    from ...lab.lab import Lab

_ALL = "all"
_STDOUT = "-"
_LARGEST_BYTES = 64 << 20


class FormatChoice(StrEnum):
    """What can be written, as a choice on the command line."""

    TSV = "tsv"
    JSONL = "jsonl"
    CSV = "csv"


def export(
    form: Annotated[
        FormatChoice,
        typer.Option("--format", help="tsv: upstream's five columns; jsonl: everything, with runs; csv: a spreadsheet."),
    ] = FormatChoice.TSV,
    session: Annotated[str, typer.Option(metavar="TAG", help="A session, or 'all'.", show_default="the newest")] = "",
    output: Annotated[
        str, typer.Option(metavar="FILE", help="The file to write; - prints it.", show_default="results.FORMAT of the lab")
    ] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write results.tsv with karpathy/autoresearch's five columns: commit, val_bpb, memory_gb, status, description.

    There, runs without a number are crashes with zeros, and what is undecided, cancelled or lost has no row; the other formats
    have every experiment. A file whose rows are no experiments of this lab is not replaced.
    """
    from ...lab.export import csv_text, export_results, jsonl_text

    with opened(lab) as this:
        chosen = ("1",) if session == _ALL else ("session = ?", this.session(session).tag)
        experiments, runs = this.ledger.experiments(*chosen), this.ledger.runs_by_experiment(*chosen)
        results = export_results(experiments, runs) if form is FormatChoice.TSV else None
        if results is not None:
            text = results.tsv()
        else:
            text = jsonl_text(experiments, runs) if form is FormatChoice.JSONL else csv_text(experiments, runs)
        written = None if output == _STDOUT else _write(this, output, text, form)
    if as_json:
        typer.echo(json.dumps({"file": None if written is None else str(written), **_facts(results, len(experiments))}))
        return
    typer.echo(text if written is None else str(written), nl=written is not None)
    if results is not None and results.left_out:
        listed = ", ".join(f"{count} {reason}" for reason, count in results.left_out.items())
        typer.echo(f"left out, because upstream has no status for them: {listed}", err=True)


def _facts(results: Results | None, experiments: int) -> dict[str, object]:
    """What `--json` says of the file: for results.tsv its rows, else how many there are."""
    if results is None:
        return {"experiments": experiments}
    counts = {status: results.count(status) for status in ("keep", "discard", "crash")}
    return {**counts, "left_out": dict(results.left_out), "rows": [asdict(row) for row in results.rows]}


def _write(lab: Lab, output: str, text: str, form: FormatChoice) -> Path:
    """Write the file, whole, unless it holds somebody else's record: a clone of upstream may have one from before."""
    from ...lab.disk import is_about_disk
    from ...lab.export import foreign_commits
    from ...lab.files import read_regular_file, write_atomically

    own = lab.workspace.results.with_suffix(f".{form}")
    path = Path(output).resolve() if output else own  # a link that the human names is followed, one in the lab is not
    plain = path.is_file() or not path.exists()  # not a pipe, or /dev/null
    if output:
        there = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    else:  # the lab is an agent's: a link there must not lead anywhere else
        there = read_regular_file(lab.root, own.name, _LARGEST_BYTES).decode(errors="replace") if own.exists() else ""
    if foreign := foreign_commits(there, lab.ledger.experiments(), form.value):
        raise typer.BadParameter(
            f"{path} holds {len(foreign)} rows that are no experiments of this lab (the first: {foreign[0][:40]!r}), so it "
            "is not replaced: move it away, or pass another --output FILE"
        )
    try:
        if not plain:
            path.write_text(text, encoding="utf-8")
        else:
            write_atomically(path, text.encode(), beneath=None if output else lab.root)
    except OSError as error:
        if is_about_disk(error):
            raise
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror or error}") from error
    return path
