"""The report of a session as one HTML page that needs nothing else: one function for each section.

Guarantees: under about a megabyte at 500 experiments, since what people wrote and the diffs share a fixed number of bytes for
each section, and what is cut says how to see it whole; what strangers wrote is escaped (`markup`). Does not: put facts into
words or compute any; `report_contents` has them, in the same words as the Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.records import Experiment
from ..lab.states import Decision
from ..tools.describe import shorten
from ..tools.report_contents import (
    EXPERIMENT_COLUMNS,
    LESSONS,
    MISSES,
    PROGRAM_COLUMNS,
    QUOTED,
    Night,
    experiment_row,
    failure_counts,
    guarantee_words,
    kept_words,
    luck_words,
    miss_words,
    noise_rows,
    plateau_words,
    program_row,
    record_commands,
    record_rows,
    record_words,
    result_words,
    summary_rows,
    test_rows,
    verdict_words,
)
from ..tools.report_rivals import RIVAL_COLUMNS, budget_chart, rival_hint, rival_rows, rival_words
from ..tools.results import cut_bytes
from .markup import Markup, bullets, diff, element, facts, page, picture, table, together
from .plot import progress_png
from .plot_budget import budget_png
from .report_style import STYLE

GENERATOR = "autoresearch report"

# Bytes of a whole section, before escaping, that its items share; and the most that one of them gets.
_TABLE_BYTES, _TABLE_MOST = 100_000, 500
_WORDS_BYTES, _WORDS_MOST = 120_000, 2_000
_DIFF_BYTES, _DIFF_MOST = 250_000, 60_000
_NAMED = 12  # experiments of a cause


def report_page(night: Night) -> str:
    """Return the page. Needs the libraries that draw charts."""
    sections = (
        *(_headline, _progress, _rivals, _kept, _experiments, _failures, _near_misses, _lessons, _noise, _test),
        *(_programs, _conditions, _record),
    )
    title = f"autoresearch: session {night.session.tag}"
    return page(title, GENERATOR, STYLE, *(part for section in sections if (part := section(night))))


def _headline(night: Night) -> Markup:
    result, rest = result_words(night)
    champion = night.digest.champion
    paragraphs = [element("p", element("strong", result), rest, class_="result")]
    if night.digest.overall is not None and champion is not None:
        paragraphs.append(element("p", f"Champion {champion.id}: {champion.description}"))
    if luck := luck_words(night):
        paragraphs.append(element("p", luck))
    if night.ending is not None:
        paragraphs.append(element("p", f"Research does not go on now: {night.ending}."))
    return together(
        element("h1", f"autoresearch: session {night.session.tag}"),
        element("p", f"Written {night.written}. Lab: {night.lab}", class_="quiet"),
        *paragraphs,
        facts(summary_rows(night)),
    )


def _progress(night: Night) -> Markup:
    if night.digest.baseline is None:
        return Markup()
    drawn = progress_png(night.experiments, f"session {night.session.tag}")
    best = night.digest.running_best
    words = f"val_bpb by experiment; the best so far: {', '.join(f'{e.id} {e.val_bpb:.4f}' for e in best[-_NAMED:])}."
    plateau = plateau_words(night)
    return _section("The best so far", picture(drawn, words), *([element("p", plateau)] if plateau else []))


def _rivals(night: Night) -> Markup:
    chart = budget_chart(night)
    if chart is None:
        if not night.steps:
            return Markup()
        words, commands = rival_hint(night)
        return _section("Against the autopilot", element("p", words), element("pre", "\n".join(commands)))
    said = [rival_words(rival) for rival in night.rivals]
    return _section(
        "Against the autopilot",
        bullets(said),
        picture(budget_png(chart), "The best kept val_bpb of each search against experiments and against device time."),
        table(RIVAL_COLUMNS, rival_rows(night), words=(0, 1, 6)),
    )


def _kept(night: Night) -> Markup:
    kept = [e for e in night.digest.kept if not e.is_baseline]
    if not kept:
        return Markup()
    words, lines = _share(_WORDS_BYTES, _WORDS_MOST, 2 * len(kept)), _share(_DIFF_BYTES, _DIFF_MOST, len(kept))
    return _section("Kept, in order", *(_change(night, e, words, lines) for e in kept))


def _change(night: Night, e: Experiment, words_bytes: int, diff_bytes: int) -> Markup:
    said = [("Hypothesis", e.hypothesis), ("Kept because", e.note)]
    items = [f"{what}: {shorten(text, words_bytes)}" for what, text in said if text]
    return element(
        "article",
        element("h3", f"{e.id}: {e.description}"),
        element("p", kept_words(night, e), class_="quiet"),
        *([bullets(items)] if items else []),
        _diff(night.diffs.get(e.id, ""), diff_bytes, e.id),
        id=e.id,
    )


def _diff(text: str, limit_bytes: int, experiment_id: str) -> Markup:
    if len(text.encode()) <= limit_bytes:
        return diff(text) if text else Markup()
    shown = cut_bytes(text, limit_bytes).rpartition("\n")[0]
    missing = text.count("\n") - shown.count("\n") - 1
    return together(diff(shown), element("p", f"{missing} more lines: autoresearch show {experiment_id} --part diff"))


def _experiments(night: Night) -> Markup:
    if not night.experiments:
        return Markup()
    limit = _share(_TABLE_BYTES, _TABLE_MOST, len(night.experiments))
    return _section(
        "Experiments", table(EXPERIMENT_COLUMNS, (_row(night, e, limit) for e in night.experiments), words=(0, 1, 6, 7, 8))
    )


def _row(night: Night, e: Experiment, limit_bytes: int) -> Sequence[str]:
    """Return a line of the table; a kept change leads to its diff."""
    first, *rest, decision, description = experiment_row(night, e)
    if e.decision is Decision.KEPT:
        decision = element("span", decision, class_="kept")
        first = first if e.is_baseline else element("a", first, href=f"#{e.id}")
    return (first, *rest, decision, shorten(description, limit_bytes))


def _failures(night: Night) -> Markup:
    if not night.failures:
        return Markup()
    parts = [element("p", QUOTED)]
    for kind, count in failure_counts(night.failures).items():
        members = [(e, failure) for e, failure in night.failures if failure.kind == kind]
        latest = members[-1][1]
        ids = ", ".join(e.id for e, _ in members[-_NAMED:])
        more = "..., " if len(members) > _NAMED else ""
        head = together(element("strong", kind), f", {count}: {more}{ids}. The latest:")
        parts.append(element("p", head) if latest.is_quoted else element("p", head, " ", latest.detail))
        if latest.is_quoted:
            parts.append(element("pre", latest.detail))
    return _section("Without a number, by cause", *parts)


def _near_misses(night: Night) -> Markup:
    return _listed("Near misses", MISSES, [(miss_words(e), e.description) for e in night.digest.near_misses])


def _lessons(night: Night) -> Markup:
    return _listed("Lessons", LESSONS, [(f"{e.id} ({verdict_words(e)})", e.note) for e in night.digest.lessons[::-1]])


def _noise(night: Night) -> Markup:
    return _section("Noise", facts(noise_rows(night))) if night.digest.baseline is not None else Markup()


def _test(night: Night) -> Markup:
    """What the test split says of the gain, once the human has opened it."""
    if night.test is None:
        return Markup()
    return _section("Validation against test", element("p", night.test.sentence), facts(test_rows(night.test)))


def _programs(night: Night) -> Markup:
    if not night.programs:
        return Markup()
    rows = table(PROGRAM_COLUMNS, map(program_row, night.programs), words=(0, 1, 2, 3, 11))
    return _section("Programs", rows, *([element("p", night.programs_note)] if night.programs_note else []))


def _conditions(night: Night) -> Markup:
    guarantees = guarantee_words(night)
    in_force = [element("h3", "In force during the runs"), facts(guarantees)] if guarantees else []
    return _section("Conditions", facts(night.conditions), *in_force)


def _record(night: Night) -> Markup:
    commands = element("pre", "\n".join(record_commands(night)))
    return _section("How to reproduce", facts(record_rows(night)), element("p", record_words(night)), commands)


def _section(heading: str, *parts: str) -> Markup:
    return element("section", element("h2", heading), *(together("\n", part) for part in parts))


def _listed(heading: str, about: str, items: Sequence[tuple[str, str]]) -> Markup:
    if not items:
        return Markup()
    limit = _share(_WORDS_BYTES, _WORDS_MOST, len(items))
    return _section(heading, element("p", about), bullets(f"{head}: {shorten(words, limit)}" for head, words in items))


def _share(total_bytes: int, most_bytes: int, count: int) -> int:
    return min(most_bytes, total_bytes // max(1, count))
