"""The report of a session as Markdown: one function for each section, and how much each may say.

Whatever a researcher or a candidate wrote stands in it escaped or in a code block. Guarantees: what `Limits` leaves out is
named where it is missing. Does not: read anything, or put facts into words; `report_contents` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..lab.records import Experiment
from .describe import shorten
from .markdown import bars, fenced, plain, table
from .report_contents import (
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
from .report_rivals import RIVAL_COLUMNS, rival_hint, rival_rows, rival_words
from .results import cut_bytes

_HEAD_BYTES = 200  # the most of our words before a stranger's


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a report says; None: everything."""

    kept: int | None = None  # kept experiments in full; those with the largest gains go first
    diff_bytes: int | None = None  # of each diff; 0: none
    rows: int | None = None  # of each list
    text_bytes: int = 2_000  # of a description, a hypothesis, a reason or a lesson
    for_file: bool = True  # also what an agent has elsewhere: the table of experiments, how to make a control group


def write_report(night: Night, limits: Limits) -> str:
    """Return the whole report."""
    sections = (
        *(_headline, _curve, _rivals, _kept, _experiments, _failures, _near_misses, _lessons, _noise, _test),
        *(_programs, _conditions, _record),
    )
    return "\n\n".join(text for section in sections if (text := section(night, limits))) + "\n"


def _headline(night: Night, limits: Limits) -> str:
    lines = [f"# autoresearch: session {night.session.tag}", "", f"Written {night.written}. Lab: {plain(night.lab)}", ""]
    result, rest = result_words(night)
    lines.append(f"**{result}**{rest}")
    if night.digest.overall is not None and (champion := night.digest.champion) is not None:
        lines += ["", f"Champion {champion.id}: {plain(champion.description, limits.text_bytes)}"]
    if luck := luck_words(night):
        lines += ["", luck]
    if night.ending is not None:
        lines += ["", f"Research does not go on now: {plain(night.ending)}."]
    return "\n".join([*lines, "", _facts(summary_rows(night))])


def _curve(night: Night, limits: Limits) -> str:
    best = night.digest.running_best
    if not best:
        return ""
    shown = _ends(best, limits.rows)
    rows = [(e.id, e.val_bpb or 0.0, "baseline" if e.is_baseline else "") for e in shown]
    left_out = [f"{len(best) - len(shown)} steps in the middle are left out."] if len(shown) < len(best) else []
    plateau = [words] if (words := plateau_words(night)) else []
    return "\n\n".join(["## The best so far", fenced(bars(rows), "text"), *left_out, *plateau])


def _rivals(night: Night, limits: Limits) -> str:
    if not night.rivals:
        if not limits.for_file or not night.steps:
            return ""
        words, commands = rival_hint(night)
        return "\n\n".join(["## Against the autopilot", words, fenced("\n".join(commands), "sh")])
    said = [f"- {plain(rival_words(rival), limits.text_bytes)}" for rival in night.rivals[: limits.rows]]
    rows = [(tag, plain(who), *numbers) for tag, who, *numbers in rival_rows(night)]
    compared = [table(RIVAL_COLUMNS, rows)] if limits.for_file else []
    left_out = _left_out(len(night.rivals), limits.rows, "sessions of it")
    return "\n\n".join(["## Against the autopilot", "\n".join(said), *compared, *left_out])


def _kept(night: Night, limits: Limits) -> str:
    kept = [e for e in night.digest.kept if not e.is_baseline]
    if not kept:
        return ""
    largest = {e.id for e in sorted(kept, key=lambda e: e.delta or 0.0)[: limits.kept]}
    shown = [e for e in kept if e.id in largest]
    parts = ["## Kept, in order"]
    for e in shown:
        lines = [f"### {e.id}: {plain(e.description, limits.text_bytes)}", "", kept_words(night, e)]
        words = [("Hypothesis", e.hypothesis), ("Kept because", e.note)]
        said = [_bullet(what, text, limits) for what, text in words if text]
        lines += ["", *said] if said else []
        if diff := _diff(night.diffs.get(e.id, ""), limits.diff_bytes, e.id):
            lines += ["", diff]
        parts.append("\n".join(lines))
    if len(shown) < len(kept):
        parts.append(
            f"{len(kept) - len(shown)} more with smaller gains are left out: {_ids([e for e in kept if e.id not in largest])}."
        )
    return "\n\n".join(parts)


def _experiments(night: Night, limits: Limits) -> str:
    if not limits.for_file or not night.experiments:
        return ""
    rows = [(*numbers, plain(words)) for e in night.experiments for *numbers, words in [experiment_row(night, e)]]
    return "\n\n".join(["## Experiments", table(EXPERIMENT_COLUMNS, rows)])


def _failures(night: Night, limits: Limits) -> str:
    if not night.failures:
        return ""
    parts = ["## Without a number, by cause", QUOTED]
    counts = failure_counts(night.failures)
    for kind, count in list(counts.items())[: limits.rows]:
        members = [(e, failure) for e, failure in night.failures if failure.kind == kind]
        latest = members[-1][1]
        head = f"- **{plain(kind, 120)}**, {count}: {_ids([e for e, _ in members])}. The latest:"
        detail = cut_bytes(latest.detail, limits.text_bytes)
        parts.append(f"{head}\n\n{_indented(fenced(detail, 'text'))}" if latest.is_quoted else f"{head} {plain(detail)}")
    return "\n\n".join([*parts, *_left_out(len(counts), limits.rows, "causes")])


def _near_misses(night: Night, limits: Limits) -> str:
    return _listed(
        "## Near misses",
        MISSES,
        night.digest.near_misses,
        lambda e: _bullet(miss_words(e), e.description, limits),
        limits.rows,
    )


def _lessons(night: Night, limits: Limits) -> str:
    return _listed(
        "## Lessons",
        LESSONS,
        night.digest.lessons[::-1],
        lambda e: _bullet(f"{e.id} ({verdict_words(e)})", e.note, limits),
        limits.rows,
    )


def _noise(night: Night, limits: Limits) -> str:
    return "\n\n".join(["## Noise", _facts(noise_rows(night))]) if night.digest.baseline is not None else ""


def _test(night: Night, limits: Limits) -> str:
    """What the test split says of the gain, once the human has opened it."""
    if night.test is None:
        return ""
    return "\n\n".join(["## Validation against test", plain(night.test.sentence), _facts(test_rows(night.test))])


def _programs(night: Night, limits: Limits) -> str:
    if not night.programs:
        return ""
    shown = night.programs if limits.rows is None else night.programs[-limits.rows :]
    rows = [(*numbers, plain(title)) for program in shown for *numbers, title in [program_row(program)]]
    note = [night.programs_note] if night.programs_note else []
    left_out = _left_out(len(night.programs), limits.rows, "older ones")
    return "\n\n".join(["## Programs", table(PROGRAM_COLUMNS, rows), *note, *left_out])


def _conditions(night: Night, limits: Limits) -> str:
    lines = ["## Conditions", "", _facts(night.conditions)]
    if guarantees := guarantee_words(night):
        lines += ["", "In force during the runs:", "", *(f"- {plain(name)}: {plain(how)}" for name, how in guarantees)]
    return "\n".join(lines)


def _record(night: Night, limits: Limits) -> str:
    commands = fenced("\n".join(record_commands(night)), "sh")
    return "\n\n".join(["## How to reproduce", _facts(record_rows(night)), record_words(night), commands])


def _facts(rows: Sequence[tuple[str, ...]]) -> str:
    return table(("", ""), [(name, plain(value)) for name, value in rows])


def _diff(diff: str, limit: int | None, experiment_id: str) -> str:
    if not diff or limit == 0:
        return ""
    if limit is None or len(diff.encode()) <= limit:
        return fenced(diff, "diff")
    kept = cut_bytes(diff, limit).rpartition("\n")[0]
    missing = diff.count("\n") - kept.count("\n") - 1
    whole = f"{missing} more lines: `show_experiment('{experiment_id}', part='diff')`."
    return f"{fenced(kept, 'diff')}\n\n{whole}" if kept else whole


def _listed(heading: str, about: str, items: Sequence[Experiment], line: Callable[[Experiment], str], limit: int | None) -> str:
    if not items:
        return ""
    return "\n\n".join([heading, about, "\n".join(map(line, items[:limit])), *_left_out(len(items), limit, "rows")])


def _bullet(head: str, text: str, limits: Limits) -> str:
    """Return a line of a list: our words, then a stranger's, which alone are cut."""
    return f"- {plain(f'{head}: {shorten(text, limits.text_bytes)}', limits.text_bytes + _HEAD_BYTES)}"


def _left_out(count: int, limit: int | None, what: str) -> list[str]:
    return [] if limit is None or count <= limit else [f"{count - limit} more {what} are left out."]


def _ends(items: Sequence[Experiment], limit: int | None) -> Sequence[Experiment]:
    """Return the first and the last of a list that is too long."""
    if limit is None or len(items) <= limit:
        return items
    return [*items[: limit - limit // 2], *items[len(items) - limit // 2 :]]


def _ids(experiments: Sequence[Experiment]) -> str:
    shown = [e.id for e in experiments[-12:]]
    return ("..., " if len(experiments) > len(shown) else "") + ", ".join(shown)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
