"""history: what was tried, filtered, sorted, in pages."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from ..lab.dispatch import dispatch
from ..lab.errors import NotReadyError
from ..lab.lab import Lab, neighbour_hint
from .describe import next_without_experiment, summarise
from .results import HistoryAnswer

MAX_PER_PAGE = 25
_ROWS_BYTES = 8_000
_ROW_BYTES = 210  # of a row with empty texts, as JSON

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
    sort: Annotated[Literal["newest", "oldest", "best", "gain"], Field(description="The order.")] = "newest",
    page: Annotated[int, Field(ge=1, description="From 1.")] = 1,
    per_page: Annotated[int, Field(ge=1, le=MAX_PER_PAGE, description="Rows on a page.")] = 20,
) -> HistoryAnswer:
    """List experiments with their certified val_bpb, verdict, decision and lesson. Answers questions about what was tried."""
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
    where = " AND ".join(conditions)
    total = lab.ledger.count_experiments(where, *values)
    rows = lab.ledger.experiments(where, *values, order=_ORDERS[sort], limit=per_page, offset=(page - 1) * per_page)
    room = min(200, (_ROWS_BYTES // max(len(rows), 1) - _ROW_BYTES) // 2)
    hint = ""
    if not rows:
        anything = lab.ledger.count_experiments()
        hint = (
            f"No experiment matches; the lab has {anything}. Try session='all', or fewer filters."
            if anything
            else f"No experiment yet in {lab.root}.{neighbour_hint(lab.id)}"
        )
    return HistoryAnswer(
        total=total,
        page=page,
        pages=max(1, math.ceil(total / per_page)),
        experiments=[summarise(row, text_bytes=room) for row in rows],
        hint=hint,
        next=next_without_experiment(lab, current),
        ledger_head=lab.ledger.head(),
    )
