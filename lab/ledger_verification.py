"""What shows that a record was changed by hand: the chain, the replay of its events, the stored files, the database itself.

Guarantees: reads one consistent state (the caller's transaction) and writes nothing but a copy in memory; every sentence names
the event, the row and column, or the file. Does not: know a record that was rewritten from its first event on, or cut at its
end with `sqlite_sequence` set back; the heads in git do (`lab.evidence`).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from .ledger_schema import APPLY, SCHEMA, TABLES, StaleChampionError

GENESIS = "0" * 64

# What applying an event that does not follow from those before it raises.
REPLAY_ERRORS = (KeyError, ValueError, TypeError, AttributeError, sqlite3.Error, StaleChampionError)

_ROWS = 1000  # read at once
_VALUE_CHARACTERS = 60
# What the record keeps the bytes of: where its SHA-256 stands, and what it is.
_FILES = (
    ("sessions", "base_sha256", "tag", "the first train.py of session"),
    ("sessions", "program_sha256", "tag", "the program.md of session"),
    ("experiments", "candidate_sha256", "id", "the train.py of"),
    ("experiments", "program_sha256", "id", "the program.md of"),
)


def chain_sha256(previous: str, kind: str, at: float, body: str) -> str:
    """Return the SHA-256 of an event, which the next one names as its ``previous``."""
    return hashlib.sha256(f"{previous}\n{kind}\n{at!r}\n{body}".encode()).hexdigest()


def problems_of(record: sqlite3.Connection) -> list[str]:
    """Return what is wrong with a record, in plain sentences (empty: nothing); ``record`` is inside a transaction."""
    replay = sqlite3.connect(":memory:", isolation_level=None)
    try:
        replay.executescript(SCHEMA)
        replay.execute("BEGIN")
        try:
            if problems := [*_foreign_objects(record, replay), *_chain_problems(record, replay)]:
                return problems
            return [*_table_problems(record, replay), *_file_problems(record)]
        except sqlite3.DatabaseError as error:  # pages that are no longer what SQLite wrote
            return [f"the database is damaged: {error}"]
    finally:
        replay.close()


def _foreign_objects(record: sqlite3.Connection, replay: sqlite3.Connection) -> list[str]:
    """What lies in the database besides our tables could change them behind our back: a trigger, for example."""
    query = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ours = {tuple(row) for row in replay.execute(query)}
    return [
        f"the database has a {kind} {name!r} that is not ours"
        for kind, name in map(tuple, record.execute(query))
        if (kind, name) not in ours
    ]


def _chain_problems(record: sqlite3.Connection, replay: sqlite3.Connection) -> list[str]:
    """Recompute the chain and apply every event to ``replay``; ends at the first that is wrong."""
    previous, last = GENESIS, 0
    for number, kind, at, body, named, sha256 in _stream(
        record, "SELECT number, kind, at, body, previous, sha256 FROM events ORDER BY number"
    ):
        if named != previous or sha256 != chain_sha256(named, kind, at, body) or number != last + 1:
            return [f"event {number} ({kind}) was changed, or one before it was removed"]
        previous, last = sha256, number
        try:
            APPLY[kind](replay, json.loads(body), at)
        except REPLAY_ERRORS as error:
            return [f"event {number} ({kind}) cannot follow from those before it: {error!r}"]
    written = record.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    if (0 if written is None else written[0]) != last:
        return [f"events after number {last} were removed: {0 if written is None else written[0]} were written"]
    return []


def _table_problems(record: sqlite3.Connection, replay: sqlite3.Connection) -> list[str]:
    problems: list[str] = []
    for table, key in TABLES.items():
        query = f"SELECT * FROM {table} ORDER BY rowid"
        if all(there == made for there, made in zip_longest(_stream(record, query), _stream(replay, query))):
            continue
        keys = tuple(name.strip() for name in key.split(","))
        problems.append(_difference(table, *(_rows(db, query, keys) for db in (record, replay))))
    return problems


def _rows(db: sqlite3.Connection, query: str, keys: tuple[str, ...]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the rows by their key, in the order in which they were made."""
    cursor = db.execute(query)
    names = [column[0] for column in cursor.description]
    rows = (dict(zip(names, row, strict=True)) for row in cursor)
    return {tuple(row[key] for key in keys): row for row in rows}


def _difference(table: str, stored: dict[tuple[Any, ...], dict[str, Any]], made: dict[tuple[Any, ...], dict[str, Any]]) -> str:
    """Return what is wrong with the first row that does not follow from the events."""
    for key in [*made, *stored]:
        name = ", ".join(map(_shown, key))
        if key not in stored:
            return f"{table} has {len(stored)} rows, the events make {len(made)}: the row {name} is missing"
        if key not in made:
            return f"the row {name} of {table} does not follow from the events: none makes it"
        for column, value in made[key].items():
            if (there := stored[key][column]) != value:
                made_of = f"{column} is {_shown(there)}, the events make {_shown(value)}"
                return f"the row {name} of {table} does not follow from the events: {made_of}"
    return f"the rows of {table} are not in the order of the events"


def _file_problems(record: sqlite3.Connection) -> Iterator[str]:
    there: set[str] = set()
    for name, data in _stream(record, "SELECT sha256, data FROM blobs"):
        there.add(name)
        if hashlib.sha256(data if isinstance(data, bytes) else str(data).encode()).hexdigest() != name:
            yield f"the stored file {name[:12]} was changed"
    for table, column, key, what in _FILES:
        for sha256, name in record.execute(f"SELECT {column}, {key} FROM {table} ORDER BY rowid"):
            if sha256 not in there:
                there.add(sha256)  # said once
                yield f"the stored file {sha256[:12]}, {what} {name}, was removed"


def _stream(db: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield rows without holding all of them: a long record has hundreds of megabytes."""
    cursor = db.execute(query)
    while rows := cursor.fetchmany(_ROWS):
        yield from map(tuple, rows)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[: _VALUE_CHARACTERS - 3]}..."
