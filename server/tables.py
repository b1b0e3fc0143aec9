"""What people see in a terminal: rich tables of experiments (`history`, `research`, the live view) and of programs.

Import it only where something is printed: rich takes longer to import than a server may take to start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..lab.states import Decision, Verdict
from ..tools.results import ExperimentSummary, ProgramSummary, number

_PLAIN_WIDTH = 140  # columns where nothing says how wide the reader's window is
_VERDICT_STYLES = {
    Verdict.IMPROVED: "green",
    Verdict.WITHIN_NOISE: "default",
    Verdict.WORSE: "yellow",
    Verdict.CRASHED: "red",
    Verdict.TIMED_OUT: "red",
    Verdict.INVALID: "red",
    Verdict.PRUNED: "yellow",
}
_DECISION_STYLES = {Decision.KEPT: "bold green", Decision.REVERTED: "dim"}


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr; into a pipe or a file it writes plain lines of a fixed width."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _PLAIN_WIDTH)


def experiments_table(
    experiments: Sequence[ExperimentSummary], *, title: str | None = None, notes: bool = True, sessions: bool = False
) -> Table:
    """Return a table of experiments in the given order; the best kept value is marked. ``notes`` adds reasons and lessons."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("id", no_wrap=True)
    if sessions:
        table.add_column("session", no_wrap=True)
    table.add_column("val_bpb", justify="right", no_wrap=True)
    table.add_column("delta", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("decision", no_wrap=True)
    table.add_column("description", overflow="fold", ratio=3 if notes else None)
    if notes:
        table.add_column("note", overflow="fold", ratio=4)
    kept = [e.val_bpb for e in experiments if e.val_bpb is not None and e.decision == Decision.KEPT]
    best = min(kept, default=None)
    for experiment in experiments:
        value = number(experiment.val_bpb, ".4f")
        verdict_style = _VERDICT_STYLES.get(Verdict(experiment.verdict), "default") if experiment.verdict else "cyan"
        cells = [
            experiment.id,
            *([experiment.session] if sessions else []),
            f"[bold green]{value}[/]" if experiment.val_bpb is not None and experiment.val_bpb == best else value,
            "baseline" if experiment.parent is None else number(experiment.delta, "+.4f"),
            f"[{verdict_style}]{experiment.verdict or 'running'}[/]",
            f"[{_DECISION_STYLES.get(Decision(experiment.decision), 'default')}]{experiment.decision}[/]",
            escape(experiment.description),
            *([escape(experiment.note)] if notes else []),
        ]
        table.add_row(*cells)
    return table


def programs_table(programs: Sequence[ProgramSummary]) -> Table:
    """Return a table of what each program.md came to, in the given order."""
    table = Table(
        title="programs", title_justify="left", title_style="bold", header_style="dim", box=SIMPLE_HEAD, pad_edge=False
    )
    for name in ("program", "began", "group", "from", "to"):
        table.add_column(name, no_wrap=True)
    for name in ("experiments", "kept", "no number", "best val_bpb", "mean delta", "median delta", "total gain"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("title", overflow="fold")
    for program in programs:
        table.add_row(
            program.program,
            program.began,
            program.group,
            program.first,
            program.last,
            str(program.experiments),
            str(program.kept),
            str(program.without_number),
            number(program.best_val_bpb, ".4f"),
            number(program.mean_delta, "+.4f"),
            number(program.median_delta, "+.4f"),
            f"{program.total_gain:.4f}",
            escape(program.title),
        )
    return table
