"""history: what was tried, found by words, filtered, sorted, in pages; or summed up by theme, or by why runs failed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from ..lab.dispatch import dispatch
from ..lab.errors import NotReadyError, UnknownNameError
from ..lab.lab import Lab, neighbour_hint
from ..lab.near_misses import NEAR_MISS, ORDER
from ..lab.records import Experiment
from ..lab.search import Matches, find
from ..lab.themes import BASELINE, THEMES
from .charts import ProgressChart, progress_of
from .describe import next_without_experiment, shorten, summarise
from .programs import find_program, summarise_programs
from .results import MAX_TEXT_BYTES, HistoryAnswer
from .summaries import summarise_causes, summarise_themes

MAX_PER_PAGE = 25
_JSON_BYTES = 9_500  # of the whole answer
_MAX_FILTER = 500  # characters of a text to look for
_PROGRAMS = 5  # of the selection, the newest
_TEXT_BYTES = (200, 120, 80, 55, 40, 25, 12)  # of a description or a note: the longest with which the answer is small enough
_RANKED = 500  # of the best fits, that are looked up at once

_ORDERS = {
    "match": "rowid DESC",  # of what has no better order
    "newest": "rowid DESC",
    "oldest": "rowid",
    "best": "val_bpb IS NULL, val_bpb, rowid",
    "gain": "delta IS NULL, delta, rowid",
    "near_miss": ORDER,
}


_RANKS_NUMBERS = ("best", "gain", "near_miss")
_NEWEST_GROUP_FIRST = (
    '(SELECT max(same.created_at) FROM sessions AS its JOIN sessions AS same ON same."group" = its."group" '
    "WHERE its.tag = experiments.session) DESC"
)


def history(
    lab: Lab,
    session: Annotated[str, Field(description="A session's tag; empty: the current one; 'all': every session.")] = "",
    decision: Annotated[Literal["", "pending", "kept", "reverted"], Field(description="Only these.")] = "",
    verdict: Annotated[
        Literal["", "improved", "within_noise", "worse", "crashed", "timed_out", "invalid", "pruned", "cancelled", "lost"],
        Field(description="Only these."),
    ] = "",
    text: Annotated[
        str,
        Field(description="Words to find in texts, lessons, changed constants and changed lines.", max_length=_MAX_FILTER),
    ] = "",
    theme: Annotated[str, Field(description="Only this theme, such as 'optimizer'.")] = "",
    program: Annotated[
        str, Field(description="Only what ran under this program.md: the first digits of its SHA-256, 4 or more.")
    ] = "",
    sort: Annotated[
        Literal["match", "newest", "oldest", "best", "gain", "near_miss"],
        Field(description="match: as the text fits, else the newest; near_miss: only those, the closest to a gain first."),
    ] = "match",
    summary: Annotated[
        Literal["", "themes", "causes"], Field(description="Instead of rows: gain by theme, or failures by cause.")
    ] = "",
    page: Annotated[int, Field(ge=1, description="From 1.")] = 1,
    per_page: Annotated[int, Field(ge=1, le=MAX_PER_PAGE, description="Rows on a page.")] = 20,
    chart: Annotated[bool, Field(description="Also draw val_bpb by experiment, of all pages, as a PNG.")] = False,
) -> HistoryAnswer:
    """List what was tried, with certified val_bpb, verdict, decision and lesson.

    Use it before a new idea, not to repeat one, and to answer questions. Ends with what each program.md came to; session='all'
    compares those of the lab. Next: show_experiment for a row's diff or log, or go on.
    """
    dispatch(lab)
    conditions, values = ["1"], list[Any]()
    try:
        current = lab.session()
    except NotReadyError:
        current = None
    tag = session or (current.tag if current else "")
    filters = (("session", "" if tag == "all" else tag), ("decision", decision), ("verdict", verdict), ("theme", _theme(theme)))
    for column, value in filters:
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    if program:
        conditions.append("program_sha256 = ?")
        values.append(find_program(lab, program))
    if sort == "near_miss":
        conditions.append(NEAR_MISS)
    matches = find(lab.ledger, lab.state.search_index, text) if text.strip() else Matches(where="1")
    where = " AND ".join([*conditions, matches.where])
    values += matches.values
    shares = lab.ledger.program_shares(where, *values)
    total = sum(share.experiments for share in shares)
    programs, programs_note = summarise_programs(lab, shares, newest=_PROGRAMS)
    rows: list[Experiment] = []
    offset = (page - 1) * per_page
    if not summary and sort == "match" and matches.ranked is not None:
        rows = _best_fits(lab, " AND ".join(conditions), values, matches.ranked, limit=per_page, offset=offset)
    elif not summary:
        order = f"{_NEWEST_GROUP_FIRST}, {_ORDERS[sort]}" if sort in _RANKS_NUMBERS else _ORDERS[sort]
        rows = lab.ledger.experiments(where, *values, order=order, limit=per_page, offset=offset)
    causes, left_out = summarise_causes(lab, where, values) if summary == "causes" else ([], "")
    themes = summarise_themes(lab.ledger.experiments(where, *values)) if summary == "themes" else []
    if summary == "themes" and not themes:
        left_out = "Nothing but baselines, which have no theme."
    groups = len({lab.ledger.session_now(tag).group for tag in {share.session for share in shares}})
    apart = _not_comparable(groups, sort, summary) if groups > 1 else ""
    answer = HistoryAnswer(
        total=total,
        page=page,
        pages=max(1, math.ceil(total / per_page)),
        experiments=[summarise(lab, row, text_bytes=_TEXT_BYTES[0]) for row in rows],
        themes=themes,
        causes=causes,
        programs=programs,
        programs_note=programs_note,
        hint=" ".join(filter(None, (matches.note, left_out, apart))) if total else _hint(lab),
        next=next_without_experiment(lab, current),
        ledger_head=lab.ledger.head(),
    )
    for text_bytes in _TEXT_BYTES:
        for shown, row in zip(answer.experiments, rows, strict=True):
            shown.description, shown.note = shorten(row.description, text_bytes), shorten(row.note, text_bytes)
        if len(answer.body().encode()) <= MAX_TEXT_BYTES and len(answer.model_dump_json().encode()) <= _JSON_BYTES:
            break
    return answer.with_chart(_chart(lab, tag, where, values)) if chart else answer


def _not_comparable(groups: int, sort: str, summary: str) -> str:
    """Return what to know of numbers that were measured under several conditions; empty where nothing ranks or sums them."""
    under = f"under {groups} different conditions (such as budget, device or corpus)"
    if summary == "themes":
        return f"These gains are of sessions {under}: ask for one session to compare them."
    if sort in _RANKS_NUMBERS and not summary:
        return f"Measured {under}, whose numbers are not comparable: the sessions of one stand together, the newest first."
    return ""


def _theme(name: str) -> str:
    """Return a theme as the record spells it; empty: any."""
    theme = name.strip().lower()
    if theme and theme not in (*THEMES, BASELINE):
        raise UnknownNameError(f"No theme {name[:_MAX_FILTER]!r}. The themes are: {', '.join((*THEMES, BASELINE))}.")
    return theme


def _best_fits(
    lab: Lab, where: str, values: Sequence[Any], ranked: Sequence[str], *, limit: int, offset: int
) -> list[Experiment]:
    """Return a page of the experiments that fit a text and the filters, the best fit first; stops where the page is full."""
    found: list[Experiment] = []
    for start in range(0, len(ranked), _RANKED):
        ids = ranked[start : start + _RANKED]
        among = f"{where} AND id IN ({', '.join('?' for _ in ids)})"
        experiments = {experiment.id: experiment for experiment in lab.ledger.experiments(among, *values, *ids)}
        found += [experiments[each] for each in ids if each in experiments]
        if len(found) >= offset + limit:
            break
    return found[offset : offset + limit]


def _hint(lab: Lab) -> str:
    anything = lab.ledger.count_experiments()
    if anything:
        return f"No experiment matches; the lab has {anything}. Try session='all', or fewer filters."
    return f"No experiment yet in {lab.root}.{neighbour_hint(lab.id)}"


def _chart(lab: Lab, tag: str, where: str, values: Sequence[Any]) -> ProgressChart | None:
    experiments = lab.ledger.experiments(where, *values)
    session = lab.ledger.session(experiments[-1].session) if experiments else None
    return None if session is None else progress_of(lab, session, experiments, whole_session=tag != "all")
