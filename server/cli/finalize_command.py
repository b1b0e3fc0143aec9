"""`finalize`: what a session kept as a branch for review, one commit for each change."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from .opened import opened
from .options import HERE, JsonOption, LabOption

if TYPE_CHECKING:
    from ...lab.finalize import ReviewBranch
    from ...lab.lab import Lab


def finalize(
    branch: Annotated[
        str, typer.Option(metavar="NAME", help="The branch, below autoresearch/.", show_default="the session's tag and -final")
    ] = "",
    session: Annotated[str, typer.Option(metavar="TAG", help="A session.", show_default="the newest")] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make a clean branch for review: one commit for each kept change, in order, with its numbers in the message.

    It begins at the session's first commit, and each commit changes trainer/train.py alone. What is checked out stays as it is.
    The same record gives the same commits; a branch that exists with others is left alone.
    """
    from ...lab.finalize import finalize as make_branch

    with opened(lab) as this:
        made = make_branch(this, this.session(session), branch)
        typer.echo(json.dumps(_facts(made)) if as_json else _text(this, made))


def _facts(made: ReviewBranch) -> dict[str, object]:
    return {
        "branch": made.name,
        "base_commit": made.base_commit,
        "commits": [
            {"commit": each.commit, "experiment": each.experiment.id, "subject": each.subject} for each in made.commits
        ],
        "is_new": made.is_new,
    }


def _text(lab: Lab, made: ReviewBranch) -> str:
    count = len(made.commits)
    was = "" if made.is_new else " It was there already, with the same commits."
    lines = [f"{made.name}: {count} {'commit' if count == 1 else 'commits'} on {made.base_commit[:12]}.{was}", ""]
    lines += [f"  {each.commit[:12]}  {each.subject}" for each in made.commits]
    look = f"git -C {shlex.quote(str(lab.root))} log --patch --reverse {made.base_commit[:12]}..{made.name}"
    return "\n".join([*lines, "", f"Review it: {look}"])
