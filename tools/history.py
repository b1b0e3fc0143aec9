"""history: what was tried, filtered, sorted, in pages."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from ..lab.dispatch import dispatch
from ..lab.errors import NotReadyError
from ..lab.lab import Lab, neighbour_hint
from .describe import next_without_experiment, summarise
from .programs import find_program, summarise_programs
from .results import MAX_TEXT_BYTES, HistoryAnswer

MAX_PER_PAGE = 25
_JSON_BYTES = 9_500  # of the whole answer
_PROGRAMS = 5  # of the selection, the newest
_TEXT_BYTES = (200, 120, 80, 55, 40, 25, 12)  # of a description or a note: the longest with which the answer is small enough

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
    text: Annotated[str, Field(description="Only where description, hypothesis or note contain this.")] = "",
    program: Annotated[
        str, Field(description="Only what ran under this program.md: the first digits of its SHA-256, 4 or more.")
    ] = "",
    sort: Annotated[Literal["newest", "oldest", "best", "gain"], Field(description="The order.")] = "newest",
    page: Annotated[int, Field(ge=1, description="From 1.")] = 1,
    per_page: Annotated[int, Field(ge=1, le=MAX_PER_PAGE, description="Rows on a page.")] = 20,
) -> HistoryAnswer:
    """List experiments with their certified val_bpb, verdict, decision and lesson. Answers questions about what was tried.

    Ends with what each program.md came to, over everything that matches: session='all' compares the programs of the lab.
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
        conditions.append("instr(lower(description || ' ' || hypothesis || ' ' || note), lower(?)) > 0")
        values.append(text)
    if program:
        conditions.append("program_sha256 = ?")
        values.append(find_program(lab, program))
    where = " AND ".join(conditions)
    matching = lab.ledger.experiments(where, *values)
    programs, programs_note = summarise_programs(lab, matching)
    older = max(0, len(programs) - _PROGRAMS)
    left_out = f"{older} older rows are left out: filter by session or program." if older else ""
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
        total=len(matching),
        page=page,
        pages=max(1, math.ceil(len(matching) / per_page)),
        experiments=[],
        programs=programs[-_PROGRAMS:],
        programs_note=f"{programs_note} {left_out}".strip(),
        hint=hint,
        next=next_without_experiment(lab, current),
        ledger_head=lab.ledger.head(),
    )
    for text_bytes in _TEXT_BYTES:
        answer.experiments = [summarise(lab, row, text_bytes=text_bytes) for row in rows]
        if len(answer.body().encode()) <= MAX_TEXT_BYTES and len(answer.model_dump_json().encode()) <= _JSON_BYTES:
            break
    return answer
