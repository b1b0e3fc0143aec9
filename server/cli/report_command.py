"""`report`: what a session came to, as Markdown on the screen, or as one file for people: a page or Markdown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .opened import opened
from .options import HERE, JsonOption, LabOption

if TYPE_CHECKING:
    from ...tools.report_contents import Night

_PAGES = (".html", ".htm")
_TEXTS = (".md", ".markdown", ".txt")
_HEAD_BYTES = 1_024  # in which a report of ours says that it is one


def report(
    session: Annotated[str, typer.Option(metavar="TAG", help="A session.", show_default="the newest")] = "",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it there: FILE.html is one page with charts, FILE.md is Markdown."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write FILE also where it holds something else.")] = False,
    open_test: Annotated[
        bool,
        typer.Option("--open-test", help="First measure the gain on the test split; recorded, and later experiments say so."),
    ] = False,
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a session: what was gained, kept and learned, how sure that is, and what failed.

    Nothing is left out. A file that holds anything but a report is not replaced.
    """
    from ...lab.test_split import comparison
    from ...tools.report import gather, whole_report
    from .open_test import open_test_split

    page = output is not None and _is_page(output)
    if output is not None and not force:
        _require_ours(output)
    with opened(lab) as this:
        if open_test:
            open_test_split(this, session)
        night = gather(this, session)
        night = replace(night, test=comparison(this, night.session))
        answer = whole_report(this, night)
    if output is not None:
        _write(output, _page(night) if page else answer.markdown)
    if as_json:
        typer.echo(answer.model_dump_json())
    else:
        typer.echo(answer.markdown if output is None else str(output), nl=output is not None)


def _page(night: Night) -> str:
    from ..report_page import report_page

    return report_page(night)


def _is_page(output: Path) -> bool:
    ending = output.suffix.lower()
    if ending not in (*_PAGES, *_TEXTS) and (output.is_file() or not output.exists()):  # a pipe takes Markdown
        raise typer.BadParameter(f"{output} says no format: call it FILE.html for a page, or FILE.md for Markdown")
    return ending in _PAGES


def _require_ours(output: Path) -> None:
    """Refuse to replace a file that is not a report, or cannot be read."""
    from ..report_page import GENERATOR

    if not output.is_file():
        return
    try:
        with output.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode(errors="replace")
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be read: {error.strerror or error}") from error
    if (
        head
        and not head.startswith("# autoresearch: session ")
        and f'<meta name="generator" content="{GENERATOR}">' not in head
    ):
        raise typer.BadParameter(
            f"{output} holds something that is no report of ours, so it was left alone: pass --force, or another FILE"
        )


def _write(output: Path, text: str) -> None:
    from ...lab.disk import is_about_disk
    from ...lab.files import write_atomically

    try:
        if output.is_file() or not output.exists():
            write_atomically(output.resolve(), text.encode(errors="replace"))
        else:  # a pipe, or /dev/null
            output.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        if is_about_disk(error):
            raise
        raise typer.BadParameter(f"{output} cannot be written: {error.strerror or error}") from error
