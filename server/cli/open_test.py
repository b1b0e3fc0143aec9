"""What `report --open-test` does before it reports: open the test split, and wait for the runs that the comparison takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ...lab.lab import Lab
    from ...lab.records import Run

_POLL_SECONDS = 0.2
_MOST_FAILURES = 4  # runs without a number that counts; the next try is the human's


def open_test_split(lab: Lab, tag: str = "") -> None:
    """Open a session's test split for its champion and measure on it, telling of each run on stderr; once for each champion.

    Ctrl-C leaves the runs going on, and the next call waits for them. Raises `DecisionError`, `StoppedError` or `NotReadyError`
    where it cannot be opened.
    """
    from ...lab.test_split import comparison, gave_a_number, open_test, queue_runs

    session = lab.session(tag)
    opening = open_test(lab, session)
    failures = 0
    while failures < _MOST_FAILURES and (runs := queue_runs(lab, opening)):
        typer.echo(f"{len(runs)} runs: {', '.join(runs)}.", err=True)
        failures += sum(not gave_a_number(run) and not _gave_way(run) for run in _ended(lab, runs))
    compared = comparison(lab, session)
    assert compared is not None, "it was opened"
    typer.echo(compared.sentence, err=True)
    if compared.times_opened > 1:
        typer.echo(
            f"It was opened {compared.times_opened} times in this session; each look makes the split a little less unseen.",
            err=True,
        )


def _ended(lab: Lab, runs: list[str]) -> Iterator[Run]:
    """Yield runs as they end, moving the lab along."""
    from ...lab.dispatch import dispatch

    left = list(runs)
    while left:
        dispatch(lab)
        for run in map(lab.ledger.run, tuple(left)):
            if run.result is not None:
                left.remove(run.id)
                number = "no number" if run.result.val_bpb is None else f"{run.result.split}_bpb {run.result.val_bpb:.4f}"
                typer.echo(f"{run.id} seed {run.seed}: {run.result.outcome}, {number}", err=True)
                yield run
        if left:
            time.sleep(_POLL_SECONDS)


def _gave_way(run: Run) -> bool:
    """True for a run that was ended because a researcher's wanted the device."""
    from ...lab.states import Outcome

    return run.result is not None and run.result.outcome is Outcome.CANCELLED
