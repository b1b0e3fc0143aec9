"""`autoresearch calibrate`: measure how much seeds differ, now."""

from __future__ import annotations

import time

import typer

from .opened import opened
from .options import HERE, LabOption

_POLL_SECONDS = 1.0


def calibrate(lab: LabOption = HERE) -> None:
    """Measure the noise between seeds now: the baseline and the champion, three numbers each.

    While no experiment waits a server does that by itself; here it is not put off. Ctrl-C leaves the runs going on.
    """
    from ...lab.dispatch import dispatch
    from ...lab.idle import queue_seeds, seeds_wanted

    with opened(lab) as this:
        session = this.session()
        runs = queue_seeds(this, session)
        typer.echo(f"{len(runs)} runs: {', '.join(runs)}." if runs else "Baseline and champion have their seeds.", err=True)
        told: set[str] = set()
        while len(told) < len(runs):
            dispatch(this)
            for run_id in runs:
                run = this.ledger.run(run_id)
                if run.result is not None and run_id not in told:
                    told.add(run_id)
                    number = "no number" if run.result.val_bpb is None else f"val_bpb {run.result.val_bpb:.4f}"
                    typer.echo(f"{run_id} seed {run.seed}: {run.result.outcome}, {number}", err=True)
            if len(told) < len(runs):
                time.sleep(_POLL_SECONDS)
        lacking = sum(count for _, count in seeds_wanted(this, session))
        if runs and lacking:
            typer.echo(f"{lacking} numbers are still missing: run this again, while nothing else uses the device.", err=True)
        noise = this.noise(session)
        typer.echo(f"Noise between seeds: {noise.sigma:.4g} bpb ({noise.words}).")
