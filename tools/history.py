"""history: what was tried, filtered, sorted, in pages."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from ..lab.dispatch import dispatch
from ..lab.errors import NotReadyError
from ..lab.lab import Lab, neighbour_hint
from .charts import ProgressChart, progress_of
from .describe import next_without_experiment, shorten, summarise
from .programs import find_program, summarise_programs
from .results import MAX_TEXT_BYTES, HistoryAnswer

MAX_PER_PAGE = 25
_JSON_BYTES = 9_500  # of the whole answer
_MAX_FILTER = 500  # characters of a text to look for
_PROGRAMS = 5  # of the selection, the newest
_TEXT_BYTES = (200, 120, 80, 55, 40, 25, 12)  # of a description or a note: the longest with which the answer is small enough

_WILD = re.compile("[%_!]")  # what LIKE does not take as it stands

_ORDERS = {
    "newest": "rowid DESC",
    "oldest": "rowid",
    "best": "val_bpb IS NULL, val_bpb, rowid",
    "gain": "delta IS NULL, delta, rowid",
}


def history(
    lab: Lab,
    session: Annotated[str, Field(description="A session's tag; empty: the current one; 'all': every session.")] = "",
    decision: Annotated[Literal["", "pending", "kept", "reverted"], Field(description="Only these.")] = "",
    verdict: Annotated[
        Literal["", "improved", "within_noise", "worse", "crashed", "timed_out", "invalid", "cancelled", "lost"],
        Field(description="Only these."),
    ] = "",
    text: Annotated[
        str, Field(description="Only where description, hypothesis or note contain this.", max_length=_MAX_FILTER)
    ] = "",
    program: Annotated[
        str, Field(description="Only what ran under this program.md: the first digits of its SHA-256, 4 or more.")
    ] = "",
    sort: Annotated[Literal["newest", "oldest", "best", "gain"], Field(description="The order.")] = "newest",
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
    for column, value in (("session", "" if tag == "all" else tag), ("decision", decision), ("verdict", verdict)):
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    if text:
        conditions.append("(description LIKE ? ESCAPE '!' OR hypothesis LIKE ? ESCAPE '!' OR note LIKE ? ESCAPE '!')")
        values += ["%" + _WILD.sub(r"!\g<0>", text) + "%"] * 3
    if program:
        conditions.append("program_sha256 = ?")
        values.append(find_program(lab, program))
    where = " AND ".join(conditions)
    shares = lab.ledger.program_shares(where, *values)
    total = sum(share.experiments for share in shares)
    programs, programs_note = summarise_programs(lab, shares, newest=_PROGRAMS)
    rows = lab.ledger.experiments(where, *values, order=_ORDERS[sort], limit=per_page, offset=(page - 1) * per_page)
    hint = ""
    if not rows:
        anything = lab.ledger.count_experiments()
        hint = (
            f"No experiment matches; the lab has {anything}. Try session='all', or fewer filters."
            if anything
            else f"No experiment yet in {lab.root}.{neighbour_hint(lab.id)}"
        )
    answer = HistoryAnswer(
        total=total,
        page=page,
        pages=max(1, math.ceil(total / per_page)),
        experiments=[summarise(lab, row, text_bytes=_TEXT_BYTES[0]) for row in rows],
        programs=programs,
        programs_note=programs_note,
        hint=hint,
        next=next_without_experiment(lab, current),
        ledger_head=lab.ledger.head(),
    )
    for text_bytes in _TEXT_BYTES:
        for shown, row in zip(answer.experiments, rows, strict=True):
            shown.description, shown.note = shorten(row.description, text_bytes), shorten(row.note, text_bytes)
        if len(answer.body().encode()) <= MAX_TEXT_BYTES and len(answer.model_dump_json().encode()) <= _JSON_BYTES:
            break
    return answer.with_chart(_chart(lab, tag, where, values)) if chart else answer


def _chart(lab: Lab, tag: str, where: str, values: Sequence[Any]) -> ProgressChart | None:
    experiments = lab.ledger.experiments(where, *values)
    session = lab.ledger.session(experiments[-1].session) if experiments else None
    return None if session is None else progress_of(lab, session, experiments, whole_session=tag != "all")
