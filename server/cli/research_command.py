"""The main job: a lab, a corpus, and the built-in researcher at work, with one line of JSON at the end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .opened import opened

if TYPE_CHECKING:
    from rich.console import Console

    from ..autopilot.researcher import Report
    from ..autopilot.strategy import Strategy

_DEMO_LAB = Path("labs/demo")
_DEMO_BUDGET_SECONDS = 20.0
_RESEARCHER_CHARACTERS = 64  # what start_session takes


def research(
    experiments: Annotated[int, typer.Option(min=0, metavar="N", help="Ideas to try after the baseline.")] = 5,
    budget_seconds: Annotated[
        float | None,
        typer.Option(metavar="S", help="Training seconds of each experiment.", show_default="the lab's; 20 in a new lab"),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            help="Where ideas come from: 'ladder', a fixed order of changes, or a control group: 'random', or 'tpe', "
            "which learns from the record (Optuna)."
        ),
    ] = "ladder",
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Of the strategies random and tpe.", show_default="drawn, and printed"),
    ] = None,
    lab: Annotated[Path, typer.Option("--lab", metavar="DIR", help="The lab; made when it is missing.")] = _DEMO_LAB,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the JSON line to stdout.")] = False,
) -> None:
    """Let the built-in researcher work on a lab, which is made when missing.

    Begins a new session, runs the baseline, then ideas that are trained, scored, kept or reverted. Prints a table of the
    session, writes progress.png into the lab, and ends with one line of JSON.
    """
    from ...lab.errors import NotReadyError
    from ...lab.locks import locked_if_free
    from ..autopilot.strategies import SEEDED, STRATEGIES, draw_seed, make_strategy, require_installed
    from ..plot import progress_chart
    from ..tables import console, experiments_table

    if strategy not in STRATEGIES:
        raise typer.BadParameter(f"no strategy {strategy!r}; the built-in ones are: {', '.join(STRATEGIES)}")
    if seed is not None and strategy not in SEEDED:
        raise typer.BadParameter(f"the strategy {strategy} draws nothing: --seed is for {', '.join(SEEDED)}")
    require_installed(strategy)
    started = time.monotonic()
    screen = console(stderr=as_json)
    folder, lock, vocab_sizes = _ready_lab(lab.resolve(), budget_seconds)
    name = strategy
    if strategy in SEEDED:
        seed = draw_seed() if seed is None else seed
        name = f"{strategy}, seed {seed}"
        screen.print(f"strategy {name} (the same again: --strategy {strategy} --seed {seed})", markup=False, soft_wrap=True)
    with locked_if_free(lock) as ours:
        if not ours:
            raise NotReadyError(
                f"Another autopilot is at work in {folder}, and two would edit one train.py. "
                "Wait until it is done, or pass another --lab."
            )
        source = make_strategy(strategy, seed=seed, vocab_sizes=vocab_sizes)
        report = _work(folder, screen, source, name, experiments, budget_seconds)
    title = f"session {report.session.tag} of {folder}"
    screen.print(experiments_table(report.experiments, title=title))
    chart: Path | None = folder / "progress.png"
    try:
        progress_chart(
            report.experiments, chart, f"{folder.name}, session {report.session.tag}, {report.session.budget_seconds:g} s each"
        )
        screen.print(f"chart: {chart}", markup=False, soft_wrap=True)
    except OSError as error:
        screen.print(f"no chart: {error}", markup=False, soft_wrap=True)
        chart = None
    if report.ended_early is not None:
        screen.print(f"ended early: {report.ended_early}", markup=False, soft_wrap=True)
    facts = summary(report, folder, chart, time.monotonic() - started)
    typer.echo(json.dumps({"strategy": strategy, "seed": seed, **facts}))


def summary(report: Report, folder: Path, chart: Path | None, seconds: float) -> dict[str, object]:
    """Return the facts of a session; counts include the baseline."""
    experiments = report.experiments
    kept = [(e.val_bpb, e.id) for e in experiments if e.decision == "kept" and e.val_bpb is not None]
    best_val_bpb, best_experiment = min(kept, default=(None, None))
    baseline = next((e.val_bpb for e in experiments if e.parent is None), None)
    return {
        "lab": str(folder),
        "session": report.session.tag,
        "baseline_val_bpb": baseline,
        "best_val_bpb": best_val_bpb,
        "best_experiment": best_experiment,
        "experiments": len(experiments),
        "kept": len(kept),
        "reverted": sum(e.decision == "reverted" for e in experiments),
        "without_number": sum(e.val_bpb is None for e in experiments),
        "ended_early": report.ended_early,
        "seconds": round(seconds, 1),
        "chart": None if chart is None else str(chart),
        "ledger_head": report.ledger_head,
    }


def _ready_lab(folder: Path, budget_seconds: float | None) -> tuple[Path, Path, tuple[int, ...]]:
    """Make what is missing of the lab and its corpus; return its folder, the lock of its autopilot, its vocabulary sizes."""
    from ...lab.config import CONFIG_NAME
    from ...lab.errors import StoppedError
    from ...lab.machine import command_path
    from ...lab.scaffold import create_lab
    from ...prepare.corpus import open_corpus
    from ...prepare.errors import PrepareError
    from ..clients.shipped import lab_files
    from .preparing import prepare_with_progress

    if not (folder / CONFIG_NAME).exists():
        seconds = _DEMO_BUDGET_SECONDS if budget_seconds is None else budget_seconds
        create_lab(folder, budget_seconds=seconds, also=lab_files(folder.resolve(), command_path()))
        typer.echo(f"Made the lab {folder}.", err=True)
    with opened(folder) as lab:
        if lab.adopt_harness():
            typer.echo("Adopted the installed harness; earlier numbers of this lab are not comparable.", err=True)
        if (paused := lab.paused()) is not None:
            raise StoppedError(f"The lab {lab.root} is paused: {paused}. Research goes on after `autoresearch resume`.")
        folder, corpus, lock = lab.root, lab.config().corpus_name, lab.state.root / "autopilot.lock"
    try:
        vocab_sizes = open_corpus(corpus).manifest.vocab_sizes
    except PrepareError:
        prepare_with_progress(corpus)
        vocab_sizes = open_corpus(corpus).manifest.vocab_sizes
    return folder, lock, vocab_sizes


def _work(
    folder: Path, screen: Console, strategy: Strategy, name: str, experiments: int, budget_seconds: float | None
) -> Report:
    """Run the autopilot against a server of its own, with a view of it on ``screen``; the record gets the strategy's name."""
    import anyio

    from ...lab.control_group import AUTOPILOT
    from ..autopilot.client import LabClient, with_server
    from ..autopilot.researcher import Autopilot
    from ..autopilot.view import watching

    with watching(screen, experiments=experiments) as view:

        async def work(client: LabClient) -> Report:
            autopilot = Autopilot(client, folder, strategy, view, researcher=f"{AUTOPILOT} ({name})"[:_RESEARCHER_CHARACTERS])
            return await autopilot.research(experiments)

        async def main() -> Report:
            return await with_server(folder, work, budget_seconds=budget_seconds)

        return anyio.run(main)
