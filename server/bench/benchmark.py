"""The benchmark itself: who runs when, and everything that was measured as one JSON object.

Contenders alternate: each repetition runs all of them once, with the repetition's number as the seed, beginning with another
one each time. Runs that had to share their device are marked, and, where they are at most a third, repeated once at the end.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ...lab.config import ProfileName
from ...lab.executor import Progress
from .contenders import Contender
from .figures import RunFigures, run_figures
from .machine import Machine
from .summary import is_marked, summarise

if TYPE_CHECKING:
    from ...prepare.corpus import Corpus
    from .referee import Referee, Run

FORMAT = 1
_REPEATED_SHARE = 1 / 3  # more contended runs than that say that the machine is busy, and then repeating is not cheap
_LOADER_BATCHES = 40
_LOADER_ROWS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for."""

    profile: ProfileName
    budgets_seconds: tuple[float, ...]
    repeats: int
    corpus: str
    contenders: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One run of the plan."""

    contender: str
    budget_seconds: float
    repetition: int  # from 1; the seed, too
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is known so far."""

    plan: Plan
    machine: Machine
    corpus_id: str
    began_at: float  # seconds since the epoch
    background_share: float | None  # of the cores that others used before the first run
    isolation: str
    contenders: tuple[Contender, ...]
    loader_seconds_per_token: dict[str, float | None]
    runs: tuple[RunFigures, ...] = ()

    @property
    def date(self) -> str:
        return time.strftime("%Y-%m-%d", time.localtime(self.began_at))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, with the summary that the tables show."""
        return {
            "format": FORMAT,
            "date": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.began_at)),
            "machine": asdict(self.machine),
            "options": asdict(self.plan),
            "corpus_id": self.corpus_id,
            "background_share": self.background_share,
            "isolation": self.isolation,
            "contenders": {each.name: {"sha256": each.sha256, "sizes": each.sizes} for each in self.contenders},
            "loader_seconds_per_token": self.loader_seconds_per_token,
            "runs": [asdict(run) for run in self.runs],
            "summary": [asdict(summary) for summary in summarise(self.runs)],
        }


def turns(plan: Plan) -> Iterator[Turn]:
    """Yield the runs of a plan in their order."""
    for budget in plan.budgets_seconds:
        for repetition in range(1, plan.repeats + 1):
            first = (repetition - 1) % len(plan.contenders)
            for name in (*plan.contenders[first:], *plan.contenders[:first]):
                yield Turn(contender=name, budget_seconds=budget, repetition=repetition)


def turns_again(runs: Sequence[RunFigures]) -> list[Turn]:
    """Return the contended runs of a plan that ran, to be run once more; none where they are too many."""
    marked = [run for run in runs if is_marked(run)]
    if len(marked) > _REPEATED_SHARE * len(runs):
        return []
    return [
        Turn(contender=run.contender, budget_seconds=run.budget_seconds, repetition=run.repetition, again=True)
        for run in marked
    ]


def loader_seconds_per_token(corpus: Corpus, contender: Contender, context_length: int) -> float | None:
    """Time our loader by itself on the contender's token store; None where its sizes are not known."""
    from ...prepare.loader import token_batches
    from ...prepare.store import open_tokens

    vocab_size, batch_tokens = contender.sizes.get("VOCAB_SIZE"), contender.sizes.get("TOTAL_BATCH_TOKENS")
    if vocab_size is None or batch_tokens is None:
        return None
    tokens = open_tokens(corpus.token_store(int(vocab_size)))
    rows = max(1, min(_LOADER_ROWS, int(batch_tokens) // context_length, len(tokens) // context_length - 1))
    batches = token_batches(tokens, rows, context_length, corpus.tokenizer(int(vocab_size)).bos_token_id, seed=1)
    next(batches)  # draws the order of an epoch
    seconds = []
    for _ in range(_LOADER_BATCHES):
        began = time.perf_counter()
        next(batches)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) / (rows * context_length)


def run_all(
    report: Report,
    referee: Referee,
    *,
    planned: Callable[[Turn], None],
    watch: Callable[[Progress], None],
    finished: Callable[[RunFigures, Run, Report], None],
) -> Report:
    """Run a plan; ``planned`` is told before each run, ``watch`` during it, ``finished`` after it with all that is known."""
    waiting = list(turns(report.plan))
    while waiting:
        for turn in waiting:
            planned(turn)
            figures, run = _take(turn, report, referee, watch)
            report = replace(report, runs=(*report.runs, figures))
            finished(figures, run, report)
        waiting = [] if waiting[0].again else turns_again(report.runs)
    return report


def _take(turn: Turn, report: Report, referee: Referee, watch: Callable[[Progress], None]) -> tuple[RunFigures, Run]:
    contender = next(each for each in report.contenders if each.name == turn.contender)
    name = f"{turn.contender.replace(' ', '-')}-{turn.budget_seconds:g}s-{turn.repetition}{'-again' if turn.again else ''}"
    run = referee.run(name, contender.source, seed=turn.repetition, budget_seconds=turn.budget_seconds, watch=watch)
    figures = run_figures(
        run.result,
        run.curve,
        contender=turn.contender,
        budget_seconds=turn.budget_seconds,
        repetition=turn.repetition,
        again=turn.again,
        call_seconds=run.call_seconds,
        loader_seconds_per_token=report.loader_seconds_per_token.get(turn.contender),
    )
    return figures, run
