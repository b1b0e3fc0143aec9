"""Tables for people: of one budget, as rows of cells, for a terminal and for docs/BENCHMARKS.md.

The document is sections between markers, one for each machine, profile, corpus and budget. Writing replaces the sections of
the report and keeps the others and all that stands around them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .benchmark import Report
from .contenders import NAMES
from .summary import FIGURES, Compared, Figure, Spread, Summary, summarise

_SECTION = re.compile(r"<!-- bench: (?P<key>.*?) -->\n.*?<!-- end of bench -->\n", re.DOTALL)
_NOT_MEASURED = "not measured"

_PROSE = """\
# Benchmarks

Our `trainer/train.py` against a port of karpathy/autoresearch's recipe, on equal budgets, through the referee that every
experiment goes through: same corpus, same clock, a val_bpb that is certified from the handed-over model. Anyone can run it:

    make bench                                     # the tables below, for this machine: 60 s and 300 s, three repetitions
    autoresearch bench                             # 60 s, three repetitions, a JSON file in the current folder
    autoresearch bench --profile gpu --corpus wheels --seconds 300

It uses a temporary folder and touches no lab. The contenders:

- **ours**: `trainer/train.py` as it lies in the package.
- **port**: [our port of upstream's recipe](../server/bench/upstream_recipe.py), with upstream's sizes on a GPU, and on a CPU
  those that its README recommends for small machines. Its docstring says where it differs, and whom that favours: mostly
  the port.
- **same model**: the port's way of training (its loader, loop, loss and micro-batches) with our model, vocabulary, context
  and batch. It compares speed; its rates were made for another batch, so its val_bpb is no judgement on upstream.

How to read the tables. Contenders alternate within a repetition, which is their seed; a cell is the median over the
repetitions, with the lowest and the highest in brackets. What stands *against the port* is taken within each repetition.
Tokens/s are of training, on the clock of the budget: on a CPU, seconds of CPU time on every core. Start-up is what passes from
the process's start to the data, compilation included; it does not count against the budget here, as it does not upstream.
Scoring is done as for an experiment that may be kept, every row audited, which is the slowest kind. *Call to verdict, less
training* is all that an experiment costs beside training; what a lab's record adds, tenths of a second, is not in it. Muon's
share is measured in the warm-up, on synthetic tokens; our loader's by itself, the port's while it trains. A run whose cores
others used for more than 15 % is *contended* and counted so; it is repeated once at the end where that is cheap.
"""


def section_key(report: Report, budget_seconds: float) -> str:
    """Return what a section is about; one with the same key is the same measurement, taken again."""
    return f"{report.plan.profile} | {report.machine.device} | {report.plan.corpus} | {budget_seconds:g} s"


def table(summaries: Sequence[Summary]) -> list[list[str]]:
    """Return rows of cells for one budget: a head, then a row for each figure that anybody has."""
    rows = [["", *(summary.contender for summary in summaries)]]
    for figure in FIGURES:
        if any(figure.name in summary.spreads for summary in summaries):
            rows.append([figure.title, *(_cell(summary.spreads.get(figure.name), figure.text) for summary in summaries)])
        if any(figure.name in summary.against_port for summary in summaries):
            cells = [_against(summary, figure) for summary in summaries]
            rows.append([f"{figure.title}, against the port", *cells])
        if figure.name == "val_bpb" and any(summary.val_bpb_std is not None for summary in summaries):
            stds = ["–" if each.val_bpb_std is None else f"{each.val_bpb_std:.4f}" for each in summaries]
            rows.append(["standard deviation between seeds", *stds])
    rows.append(["runs", *(_runs(summary) for summary in summaries)])
    return rows


def markdown_section(report: Report, budget_seconds: float) -> str:
    """Return the section of one budget, with its markers."""
    summaries = [summary for summary in summarise(report.runs) if summary.budget_seconds == budget_seconds]
    machine = report.machine
    lines = [
        f"<!-- bench: {section_key(report, budget_seconds)} -->",
        f"## Profile {report.plan.profile}, {budget_seconds:g} s, corpus {report.plan.corpus}",
        "",
        f"{machine.device}, {machine.memory_mb / 1024:.0f} GB of memory, {machine.system}; Python {machine.python}, torch "
        f"{machine.torch}; {machine.code}; {report.date}.",
        "",
    ]
    head, *rows = table(summaries)
    lines += [_line(head), _line(["---", *["--:"] * (len(head) - 1)]), *map(_line, rows), "<!-- end of bench -->"]
    return "\n".join(lines) + "\n"


def updated_document(document: str | None, report: Report) -> str:
    """Return docs/BENCHMARKS.md with the sections of a report; None: there is no document yet."""
    document = empty_document() if document is None else document
    for budget in dict.fromkeys(run.budget_seconds for run in report.runs):
        key, section = section_key(report, budget), markdown_section(report, budget)
        blank = f"{report.plan.profile} | {_NOT_MEASURED}"
        found = {match["key"]: match for match in _SECTION.finditer(document)}
        place = found.get(key) or found.get(blank)
        if place is not None:
            document = document[: place.start()] + section + document[place.end() :]
            continue
        same_profile = [match for name, match in found.items() if name.startswith(f"{report.plan.profile} | ")]
        end = same_profile[-1].end() if same_profile else len(document)
        document = document[:end] + "\n" + section + document[end:]
    return document


def empty_document() -> str:
    """Return the document before anything was measured: its prose, and what is to be measured."""
    return _PROSE + "\n" + "\n".join(_blank(profile) for profile in ("cpu", "gpu"))


def _blank(profile: str) -> str:
    """Return the section that stands for a profile of which nothing was measured."""
    why = "no GPU was at hand" if profile == "gpu" else "run `make bench`"
    figures = [figure.title for figure in FIGURES if profile == "gpu" or "GPU" not in figure.title]
    head = ["", *NAMES]
    lines = [
        f"<!-- bench: {profile} | {_NOT_MEASURED} -->",
        f"## Profile {profile}",
        "",
        f"Not measured: {why}.",
        "",
        _line(head),
        _line(["---", *["--:"] * (len(head) - 1)]),
        *(_line([title, "", "", ""]) for title in figures),
        "<!-- end of bench -->",
    ]
    return "\n".join(lines) + "\n"


def _cell(taken: Spread | None, text: Callable[[float], str]) -> str:
    if taken is None:
        return "–"
    low, median, high = text(taken.low), text(taken.median), text(taken.high)
    return median if taken.count == 1 or low == high else f"{median} ({low} – {high})"


def _against(summary: Summary, figure: Figure) -> str:
    return _cell(summary.against_port.get(figure.name), _COMPARED[figure.compared])


_COMPARED: dict[Compared, Callable[[float], str]] = {
    "ratio": lambda value: f"{value:.2f}×",
    "difference": lambda value: f"{value:+.4f}",
}


def _runs(summary: Summary) -> str:
    said = [str(summary.repetitions)]
    said += [f"{summary.contended} contended"] if summary.contended else []
    said += [f"{summary.failed} without a number"] if summary.failed else []
    return ", ".join(said)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
