"""What a session's experiments came to, summed up where they lie: a session may have thousands, and `known` wants few.

Guarantees: one query's answer is a function of the record alone. Does not: conclude anything; `known` does.
"""

from __future__ import annotations

import sqlite3

from .known import Record, Trial, Tried
from .ledger import Ledger, changes_from_json
from .near_misses import NEAR_MISS, ORDER
from .states import NO_ANSWER, Decision

_IDEAS = "FROM experiments WHERE session = ? AND parent IS NOT NULL"
_IS_GAIN = f"(decision = '{Decision.KEPT}' AND delta < 0)"
_ANSWERED = f"(verdict IS NOT NULL AND verdict NOT IN {tuple(sorted(map(str, NO_ANSWER)))})"


def tried(ledger: Ledger, session: str) -> Record:
    """Return what a session's experiments came to, those summed up that change the same constants the same way."""
    rows = ledger.select(  # of each group SQLite returns the id, delta and z that its minimum belongs to
        f"""SELECT theme, changes, COUNT(*) AS experiments, SUM({_ANSWERED}) AS finished, SUM(decision = 'kept') AS kept,
                SUM({_ANSWERED} AND delta IS NULL) AS without_number, -TOTAL(delta) FILTER (WHERE {_IS_GAIN}) AS gain,
                MIN(delta - 1e6 * {_IS_GAIN}) AS lowest, id, delta, z, {_IS_GAIN} AS is_gain
            {_IDEAS} GROUP BY theme, changes""",
        session,
    )
    missed = ledger.select(
        f"SELECT id, changes, delta, z, 0 AS is_gain {_IDEAS} AND {NEAR_MISS} ORDER BY {ORDER}",
        session,
    )
    (last,) = ledger.select(f"SELECT MAX(rowid) AS number, id {_IDEAS} AND {_IS_GAIN}", session)
    (after,) = ledger.select(f"SELECT TOTAL({_ANSWERED}) AS n {_IDEAS} AND rowid > ?", session, last["number"] or 0)
    return Record(
        tried=tuple(map(_tried, rows)),
        near_misses=tuple(map(_trial, missed)),
        last_gain=last["id"],
        since_gain=int(after["n"]),
    )


def _tried(row: sqlite3.Row) -> Tried:
    return Tried(
        theme=row["theme"],
        changes=changes_from_json(row["changes"]),
        experiments=row["experiments"],
        finished=row["finished"],
        kept=row["kept"],
        without_number=row["without_number"],
        gain=row["gain"] + 0.0,
        best=None if row["lowest"] is None else _trial(row),
    )


def _trial(row: sqlite3.Row) -> Trial:
    values = {name: row[name] for name in ("id", "delta", "z")}
    return Trial(**values, changes=changes_from_json(row["changes"]), is_gain=bool(row["is_gain"]))
