"""The benchmark: our train.py against a port of upstream's recipe, by turns, through the referee of every experiment."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from ...lab.config import ProfileName
    from ...lab.executor import Progress
    from ...prepare.corpus import Corpus
    from ..bench.benchmark import Plan, Report, Turn
    from ..bench.contenders import Contender
    from ..bench.figures import RunFigures
    from ..bench.referee import Run

_LEAST_SECONDS, _MOST_SECONDS = 1.0, 86_400.0
_LOG_CHARACTERS = 1_500  # of a run that got no number


def bench(
    seconds: Annotated[
        list[float] | None,
        typer.Option("--seconds", metavar="S", help="Training seconds of a run; may be repeated.", show_default="60"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Runs of each contender, each with its own seed.")] = 3,
    profile: Annotated[str, typer.Option(help="Sizes of the task: 'cpu' or 'gpu'.")] = "cpu",
    corpus: Annotated[str | None, typer.Option(metavar="NAME", help="A prepared corpus.", show_default="the profile's")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="'ours', 'port' or 'same model'; may be repeated.", show_default="all"),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Where every figure goes.", show_default="bench-….json in this folder"),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="A document such as docs/BENCHMARKS.md to bring up to date."),
    ] = None,
) -> None:
    """Measure our train.py against a port of karpathy/autoresearch's recipe, on equal budgets.

    Touches no lab: state is temporary. Prints a line for each run and a table for each budget, and writes JSON after every run,
    so that Ctrl-C, which ends the run at work, loses nothing else. Three contenders, three repetitions and 60 seconds take
    about a quarter of an hour.
    """
    from ...lab.isolation import probe
    from ..bench.benchmark import Report, loader_seconds_per_token, run_all
    from ..bench.contenders import OURS, contender
    from ..bench.machine import place_of, this_machine
    from ..bench.referee import Referee
    from ..tables import console

    plan = _plan(profile, seconds, repeats, corpus, only)
    json_file = json_file or Path(f"bench-{profile}-{time.strftime('%Y%m%d-%H%M%S')}.json")
    _require_folders(json_file, markdown)
    place = place_of(plan.profile)
    contenders = tuple(contender(name, plan.profile) for name in plan.contenders)
    opened, screen = _ready_corpus(plan, contenders), console()
    with _signals_interrupt(), _temporary_folder() as folder:
        referee = Referee(folder, profile=plan.profile, corpus=opened, place=place, isolation=probe())
        report = Report(
            plan=plan,
            machine=this_machine(place.gpu),
            corpus_id=opened.corpus_id,
            began_at=time.time(),
            background_share=referee.background_share,
            isolation=referee.isolation.level,
            contenders=contenders,
            loader_seconds_per_token={
                each.name: loader_seconds_per_token(opened, each, referee.context_length)
                for each in contenders
                if each.name == OURS  # the port times its own
            },
        )
        with _View(screen, json_file, report) as view:
            report = run_all(report, referee, planned=view.planned, watch=view.watch, finished=view.finished)
    _finish(screen, report, json_file, markdown)


def _plan(profile: str, seconds: list[float] | None, repeats: int, corpus: str | None, only: list[str] | None) -> Plan:
    """Return what was asked for; a wrong value is a usage error."""
    from ...lab.config import PROFILES
    from ..bench.benchmark import Plan
    from ..bench.contenders import NAMES

    if profile not in PROFILES:
        raise typer.BadParameter(f"no profile {profile!r}; there are: {', '.join(PROFILES)}")
    budgets = tuple(dict.fromkeys(seconds or [60.0]))
    if wrong := [budget for budget in budgets if not _LEAST_SECONDS <= budget <= _MOST_SECONDS]:
        raise typer.BadParameter(f"--seconds {wrong[0]:g} is not from {_LEAST_SECONDS:g} to {_MOST_SECONDS:g}")
    if unknown := [name for name in only or [] if name not in NAMES]:
        raise typer.BadParameter(f"no contender {unknown[0]!r}; there are: {', '.join(map(repr, NAMES))}")
    known: ProfileName = "gpu" if profile == "gpu" else "cpu"
    return Plan(
        profile=known,
        budgets_seconds=budgets,
        repeats=repeats,
        corpus=corpus or PROFILES[known].corpus,
        contenders=tuple(name for name in NAMES if not only or name in only),
    )


def _require_folders(json_file: Path, markdown: Path | None) -> None:
    """Raise a usage error where what is measured could not be written."""
    for file in (json_file, markdown):
        if file is not None and not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"the folder of {file} does not exist: make it, or name another file")


def _ready_corpus(plan: Plan, contenders: tuple[Contender, ...]) -> Corpus:
    """Return the corpus with the token stores that will be trained on, made now where they are missing."""
    from ...lab.config import PROFILES
    from ...lab.errors import NotReadyError
    from ...lab.referee.windows import NoWindowsError, require_windows
    from ...prepare.corpus import open_corpus
    from ...prepare.errors import CorpusMissingError
    from .preparing import prepare_with_progress

    try:
        corpus = open_corpus(plan.corpus)
    except CorpusMissingError:
        corpus = prepare_with_progress(plan.corpus)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        require_windows(corpus.offsets("val"), window_bytes=PROFILES[plan.profile].window_bytes)
    except NoWindowsError as error:
        raise NotReadyError(f"The corpus {plan.corpus} does not fit profile {plan.profile}: {error}.") from error
    for vocab_size in sorted({int(size) for each in contenders if (size := each.sizes.get("VOCAB_SIZE"))}):
        if vocab_size not in corpus.manifest.vocab_sizes:
            known = ", ".join(map(str, corpus.manifest.vocab_sizes))
            raise NotReadyError(f"The corpus {plan.corpus} has no vocabulary of {vocab_size}, only {known}. Name another one.")
        corpus.token_store(vocab_size)
    return corpus


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let a closed terminal and a polite kill end the run at work, too, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _View:
    """What is printed while a benchmark runs; the JSON file is written with each line."""

    def __init__(self, screen: Console, json_file: Path, report: Report) -> None:
        self._screen, self._json_file, self._report = screen, json_file, report
        self._total = len(report.plan.budgets_seconds) * report.plan.repeats * len(report.plan.contenders)
        self._status = screen.status("") if screen.is_terminal else None
        self._turn: Turn | None = None

    def __enter__(self) -> _View:
        from ..bench.contenders import MEANINGS

        report = self._report
        share = "" if report.background_share is None else f", {report.background_share:.0%} of it used by others now"
        self._print(f"{report.machine.device}{share}; torch {report.machine.torch}; {report.machine.code}")
        for each in report.contenders:
            self._print(f"{each.name}: {MEANINGS[each.name]} ({', '.join(f'{k} {v}' for k, v in each.sizes.items())})")
        self._print(f"{self._total} runs on the corpus {report.plan.corpus}; every figure goes to {self._json_file}")
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def planned(self, turn: Turn) -> None:
        self._turn = turn
        if turn.again:
            self._total += 1

    def watch(self, progress: Progress) -> None:
        if self._status is not None and self._turn is not None:
            left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
            waits = ", until the device is free" if progress.phase == "queued" else ""
            seconds, name = self._turn.budget_seconds, self._turn.contender
            self._status.update(f"{seconds:g} s, {name}, seed {self._turn.repetition}: {progress.phase}{left}{waits}")

    def finished(self, figures: RunFigures, run: Run, report: Report) -> None:
        _write(self._json_file, json.dumps(report.to_json(), indent=1) + "\n")
        where = f"{len(report.runs):>3}/{self._total}  {figures.budget_seconds:g} s, {figures.contender}"
        again = ", again" if figures.again else ""
        self._print(f"{where}, seed {figures.repetition}{again}: {_sentence(figures)}")
        if not figures.scored:
            self._print(run.log[-_LOG_CHARACTERS:].rstrip())

    def _print(self, text: str) -> None:
        self._screen.print(text, markup=False, soft_wrap=True)


def _sentence(figures: RunFigures) -> str:
    """Return the line of one run."""
    marks = [text for text in (figures.contended, figures.tainted) if text]
    if not figures.scored:
        return "; ".join([f"{figures.outcome}, {figures.reason}", *marks])
    said = [f"val_bpb {figures.val_bpb:.4f}", f"{figures.steps} steps"]
    said += [] if figures.tokens_per_second is None else [f"{figures.tokens_per_second:,.0f} tokens/s"]
    said += [f"start-up {figures.startup_seconds:.1f} s", f"scoring {figures.scoring_seconds:.1f} s"]
    said += [f"{figures.overhead_seconds:.1f} s beside training"]
    return ", ".join(said) + "".join(f" [{'contended' if text == figures.contended else 'tainted'}: {text}]" for text in marks)


def _finish(screen: Console, report: Report, json_file: Path, markdown: Path | None) -> None:
    """Print the tables and bring the document up to date; exits 1 where no run got a number."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from ..bench.rendering import table, updated_document
    from ..bench.summary import summarise

    summaries = summarise(report.runs)
    for budget in report.plan.budgets_seconds:
        head, *rows = table([summary for summary in summaries if summary.budget_seconds == budget])
        shown = Table(title=f"{budget:g} s, {report.plan.corpus}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for position, name in enumerate(head):
            shown.add_column(name, justify="left" if position == 0 else "right")
        for row in rows:
            shown.add_row(*row)
        screen.print(shown)
    screen.print(f"figures: {json_file}", markup=False, soft_wrap=True)
    if markdown is not None:
        before = markdown.read_text(encoding="utf-8") if markdown.exists() else None
        _write(markdown, updated_document(before, report))
        screen.print(f"document: {markdown}", markup=False, soft_wrap=True)
    if not any(run.scored for run in report.runs):
        typer.echo("autoresearch: no run got a number; the lines above say why", err=True)
        raise typer.Exit(1)


def _write(file: Path, text: str) -> None:
    from ...lab.files import write_atomically

    write_atomically(file.absolute(), text.encode())
