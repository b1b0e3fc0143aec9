"""What a person sees while the autopilot works: a live screen in a terminal, one line for each event anywhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...lab.states import Decision
from ...tools.results import ExperimentAnswer, ExperimentSummary, SessionAnswer, number
from ..tables import experiments_table
from .researcher import Observer
from .strategy import Proposal

_ROWS = 12
_BAR_COLUMNS = 40
_WHICH_RUN = re.compile(r"run \d+ of (?:at most )?\d+")


class View(Observer, Protocol):
    """An observer that draws."""


@contextmanager
def watching(console: Console, *, experiments: int) -> Iterator[View]:
    """Yield the view that suits ``console``; ``experiments`` is how many ideas will be tried after the baseline."""
    if not console.is_terminal:
        yield LineView(console, experiments)
        return
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        yield LiveView(live, experiments)


class LineView:
    """Prints what happened, in the order it happened."""

    def __init__(self, console: Console, experiments: int) -> None:
        self._console = console
        self._planned = experiments
        self._best: ExperimentSummary | None = None
        self._last: tuple[str, str, str] | None = None

    def session_started(self, session: SessionAnswer) -> None:
        self._say(
            f"session {session.tag}: the baseline and {self._planned} experiments of {session.budget_seconds:g} s "
            f"({session.clock} clock, profile {session.profile})"
        )
        for warning in session.warnings:
            self._say(f"warning: {warning}")

    def progressed(self, answer: ExperimentAnswer) -> None:
        match = _WHICH_RUN.match(answer.confirming)
        which = match[0] if match else ""
        now = (answer.experiment.id, answer.state, which)
        if now != self._last:
            is_new = self._last is None or self._last[0] != now[0]
            why = answer.confirming if answer.state == "queued" else which
            about = answer.experiment.description if is_new else why
            self._last = now
            self._say(f"{answer.experiment.id} {answer.state}{f': {about}' if about else ''}")

    def finished(self, answer: ExperimentAnswer) -> None:
        experiment = answer.experiment
        self._best = better(self._best, experiment)
        best = f"; best so far {self._best.val_bpb:.4f} ({self._best.id})" if self._best else ""
        delta = "" if experiment.delta is None else f" ({experiment.delta:+.4f})"
        what = "no number" if experiment.val_bpb is None else f"val_bpb {experiment.val_bpb:.4f}{delta}"
        self._say(f"{experiment.id} {experiment.verdict}, {experiment.decision}: {what}{best}")

    def refused(self, proposal: Proposal, reason: str) -> None:
        self._say(f"refused: {proposal.description}: {reason}")

    def saved(self, ref: str) -> None:
        self._say(_saved(ref))

    def _say(self, text: str) -> None:
        self._console.print(f"{datetime.now():%H:%M:%S} {text}", markup=False, soft_wrap=True)


class LiveView:
    """Redraws one screen: what runs, how far it is, and every experiment so far."""

    def __init__(self, live: Live, experiments: int) -> None:
        self._live = live
        self._planned = experiments
        self._session: SessionAnswer | None = None
        self._current: ExperimentAnswer | None = None
        self._done: list[ExperimentSummary] = []
        self._note = ""

    def session_started(self, session: SessionAnswer) -> None:
        self._session = session
        self._draw()

    def progressed(self, answer: ExperimentAnswer) -> None:
        self._current = answer
        self._draw()

    def finished(self, answer: ExperimentAnswer) -> None:
        self._current, self._note = None, ""
        self._done.append(answer.experiment)
        self._draw()

    def refused(self, proposal: Proposal, reason: str) -> None:
        self._note = f"refused: {proposal.description}: {reason}"
        self._draw()

    def saved(self, ref: str) -> None:
        self._note = _saved(ref)
        self._draw()

    def _draw(self) -> None:
        parts: list[RenderableType] = [self._head()]
        if self._current is not None:
            parts.append(self._now(self._current))
        if self._done:
            parts.append(experiments_table(self._done[-_ROWS:], notes=False))
        if self._session is not None:
            parts += [Text(f"warning: {warning}", style="yellow") for warning in self._session.warnings]
        if self._note:
            parts.append(Text(self._note, style="yellow"))
        self._live.update(Group(*parts), refresh=True)

    def _head(self) -> Text:
        if self._session is None:
            return Text("starting")
        best: ExperimentSummary | None = None
        for experiment in self._done:
            best = better(best, experiment)
        done = max(0, len(self._done) - 1)
        return Text.from_markup(
            f"[bold]session {escape(self._session.tag)}[/]  {done} of {self._planned} ideas tried, "
            f"{self._session.budget_seconds:g} s each"
            + (f"  [bold green]best {best.val_bpb:.4f}[/] ({best.id})" if best else "")
        )

    def _now(self, answer: ExperimentAnswer) -> Panel:
        elapsed, left = answer.elapsed_seconds or 0.0, answer.seconds_left
        facts = Table.grid(padding=(0, 2))
        facts.add_row("phase", f"[cyan]{answer.state}[/]")
        if answer.confirming:
            facts.add_row("again", Text(answer.confirming, style="yellow"))
        if answer.state == "training" and left is not None:
            bar = Table.grid(padding=(0, 2))
            bar.add_row(
                ProgressBar(total=max(elapsed + left, 1e-9), completed=elapsed, width=_BAR_COLUMNS), f"{left:.0f} s left"
            )
            facts.add_row("time", bar)
        if answer.step is not None:
            loss = answer.metrics.get("loss")
            facts.add_row("step", f"{answer.step}" + (f"   loss {number(loss, '.4f')}" if loss is not None else ""))
        if answer.hypothesis:
            facts.add_row("why", Text(answer.hypothesis, style="dim"))
        title = f"[bold]{answer.experiment.id}[/] {escape(answer.experiment.description)}"
        return Panel(facts, title=title, title_align="left", expand=False)


def _saved(ref: str) -> str:
    return f"train.py held something else, which is saved: git cat-file blob {ref}"


def better(best: ExperimentSummary | None, other: ExperimentSummary) -> ExperimentSummary | None:
    """Return the kept experiment with the lower certified value."""
    if other.val_bpb is None or other.decision != Decision.KEPT:
        return best
    return other if best is None or best.val_bpb is None or other.val_bpb < best.val_bpb else best
