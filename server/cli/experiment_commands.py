"""Commands of a person who researches by hand: run the train.py of the workspace, and decide about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .opened import opened, print_answer
from .options import HERE, JsonOption, LabOption

if TYPE_CHECKING:
    from ...lab.lab import Lab
    from ...tools.results import ExperimentAnswer

_POLL_SECONDS = 1.0
_RESEARCHER = "person"

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="An experiment, such as e0017.")]


def run(
    description: Annotated[str, typer.Option("--description", "-d", help="What changed, in one line.")],
    hypothesis: Annotated[str, typer.Option(help="Why it should lower val_bpb.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Also where the session has tried the same idea.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the verdict; without it the run goes on by itself.")] = True,
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Train trainer/train.py as it is now and certify its val_bpb.

    The first run of a session is the unchanged file. Exits 0 with any verdict; the verdict is in the answer.
    """
    from ...tools.run_experiment import run_experiment

    with opened(lab) as this:
        _ensure_session(this)
        answer = run_experiment(this, description, hypothesis, again=again, wait_seconds=0.0)
        print_answer(_wait(this, answer) if wait else answer, as_json=as_json)


def keep(
    experiment_id: IdArgument,
    reason: Annotated[str, typer.Option(help="Why it is worth keeping.")] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Keep an experiment: it becomes the champion. Refused where the gate says no."""
    from ...tools.keep import keep as keep_tool

    with opened(lab) as this:
        print_answer(keep_tool(this, experiment_id, reason), as_json=as_json)


def revert(
    experiment_id: Annotated[str, typer.Argument(metavar="ID", help="An experiment, or 'workspace' for unrun edits.")],
    lesson: Annotated[str, typer.Option(help="What was learned; it stays in the history.")] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Decide against an experiment and restore train.py to the champion's. Nothing is lost."""
    from ...tools.revert import revert as revert_tool

    with opened(lab) as this:
        print_answer(revert_tool(this, experiment_id, lesson), as_json=as_json)


def cancel(experiment_id: IdArgument, lab: LabOption = HERE, as_json: JsonOption = False) -> None:
    """End a queued or running experiment; it gets no number."""
    from ...tools.cancel_experiment import cancel_experiment

    with opened(lab) as this:
        print_answer(cancel_experiment(this, experiment_id), as_json=as_json)


def confirm(
    experiment_id: IdArgument,
    seeds: Annotated[int, typer.Option(min=1, max=8, help="Fresh seeds that it is to have in all.")] = 2,
    wait: Annotated[bool, typer.Option(help="Wait for what they say; without it the runs go on by themselves.")] = True,
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Run a finished experiment again with fresh seeds: is its gain real? Undecided, it is judged on those alone."""
    from ...tools.confirm_experiment import confirm_experiment

    with opened(lab) as this:
        answer = confirm_experiment(this, experiment_id, seeds)
        print_answer(_wait(this, answer) if wait else answer, as_json=as_json)


def _ensure_session(lab: Lab) -> None:
    """Go on in the newest session; begin the first one of a lab."""
    if not lab.ledger.sessions():
        session, _ = lab.start_session(None, _RESEARCHER)
        typer.echo(f"Began session {session.tag}.", err=True)


def _wait(lab: Lab, answer: ExperimentAnswer) -> ExperimentAnswer:
    from ...tools.wait_experiment import wait_experiment

    line = _ProgressLine()
    try:
        while answer.state != "finished":
            line.show(answer)
            after = answer.elapsed_seconds or 0.0
            answer = wait_experiment(lab, answer.experiment.id, after=after, wait_seconds=_POLL_SECONDS)
    except KeyboardInterrupt:
        line.close()
        typer.echo(f"{answer.experiment.id} goes on; autoresearch cancel {answer.experiment.id} ends it.", err=True)
        raise
    line.close()
    return answer


class _ProgressLine:
    """One line on stderr that is written over in a terminal, and a new line for each phase elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._state = ""

    def show(self, answer: ExperimentAnswer) -> None:
        if not self._terminal:
            if answer.state != self._state:
                typer.echo(f"{answer.experiment.id} {answer.state}", err=True)
            self._state = answer.state
            return
        parts = [f"{answer.experiment.id} {answer.state}"]
        if answer.seconds_left is not None:
            parts.append(f"{answer.seconds_left:.0f} s left")
        if answer.step is not None:
            parts.append(f"step {answer.step}")
        parts += [f"{name} {value:.4g}" for name, value in answer.metrics.items() if name == "loss"]
        typer.echo(f"\r\x1b[K{', '.join(parts)}", err=True, nl=False)

    def close(self) -> None:
        if self._terminal:
            typer.echo("\r\x1b[K", err=True, nl=False)
