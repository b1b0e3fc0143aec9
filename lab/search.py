"""Search over what was tried: words, changed constants and changed lines, by an index that stands beside the ledger.

The index is one SQLite file with an FTS5 table, derived from the ledger and never a part of it: whoever searches first brings
it up to date, and a missing, damaged or foreign one is made anew. Words are stemmed, names are found by their parts
(`WARMDOWN_FRACTION` by "warmdown"), and the best fit comes first, the newest of equals.

Guarantees: any text is a question, and none is an error; several processes may search and bring it up to date at once. Where
the index cannot be used (no FTS5, a disk that takes nothing), the ledger's own texts are searched, and a note says so.
Does not: understand a question, or look into lines that an idea left alone.
"""

from __future__ import annotations

import functools
import json
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .ledger import Ledger
from .records import Experiment
from .themes import changed_lines

_FORMAT = 1  # of the index; another one is made anew
_BUSY_SECONDS = 2.0
_EVENTS = 400  # read and indexed at once
_CATCH_UP_SECONDS = 2.0  # for one question; whoever asks next goes on with a long record
_LINES_CHARACTERS = 20_000  # of the changed lines of one experiment
_MOST_WORDS = 32  # of a question
_LEAST_PREFIX = 3  # letters from which on a word also finds longer ones
_KINDS = frozenset(
    {"experiment_recorded", "experiment_judged", "experiment_reopened", "experiment_kept", "experiment_reverted"}
)
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_SCHEMA")  # SQLITE_ERROR: tables are not as expected

_UNUSABLE = (sqlite3.Error, OSError, ValueError)  # ValueError: an event that somebody wrote by hand

# Columns of the index -> how much a word found there weighs.
_COLUMNS = {"description": 4.0, "hypothesis": 2.0, "note": 3.0, "reason": 0.5, "theme": 3.0, "constants": 3.0, "lines": 1.0}
_SCHEMA = f"""
CREATE VIRTUAL TABLE experiments USING fts5({", ".join(_COLUMNS)}, tokenize = "porter unicode61 remove_diacritics 2");
CREATE TABLE position (number INTEGER NOT NULL, sha256 TEXT NOT NULL);
INSERT INTO position VALUES (0, '');
PRAGMA user_version = {_FORMAT};
"""

_WORD = re.compile(r"[^\W_]+")
_COMMON = (
    "a about all an and any are as at be by can did do does for from had has have how i if in is it its my no not of on or "
    "our should so that the their them there these they this to tried try us was we were what when where which why with you"
)
_STOP_WORDS = frozenset(_COMMON.split())  # of a question; they are in every text
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # where a name such as RMSNorm has a new word
_WILD = re.compile("[%_!]")  # what LIKE does not take as it stands
_PLAIN = ("description", "hypothesis", "note", "reason", "theme", "changes")  # columns of the ledger, without the index


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The experiments that a text fits.

    Attributes:
        where, values: SQL over the ledger's experiments, as `Ledger.experiments` takes it.
        ranked: their ids, the best fit first; None: they have no order of their own.
        note: how they were found, where that was not by all words in the index.
    """

    where: str
    values: tuple[str, ...] = ()
    ranked: Sequence[str] | None = None
    note: str = ""


def find(ledger: Ledger, index: Path, text: str) -> Matches:
    """Return which experiments of all sessions have all words of ``text``; where none has, those that have some.

    Args:
        index: the file of the index, made when missing.
        text: what somebody asks; punctuation only joins the words of a name or a number.
    """
    text = text.encode(errors="replace").decode()  # half of a surrogate pair is no text
    plain, words = _without_index(text), _phrases(text)
    if not words:
        return plain
    try:
        ranked = _ranked(ledger, index, " AND ".join(words))
        if not ranked and not ledger.count_experiments(plain.where, *plain.values):
            ranked = _ranked(ledger, index, " OR ".join(words))
            if ranked:
                some = "No experiment has all of these words; these have some of them, the best fit first."
                return _matches(ranked, some)
    except _UNUSABLE as error:
        return Matches(where=plain.where, values=plain.values, note=f"Searched without the index of words and lines: {error}.")
    return _matches(ranked) if ranked else plain


def similar_texts(ledger: Ledger, index: Path, text: str, *, limit: int) -> list[str]:
    """Return the ids of experiments that share words with ``text``, the best fit first; none where there is no index."""
    words = _phrases(text.encode(errors="replace").decode())
    try:
        return _ranked(ledger, index, " OR ".join(words))[:limit] if words else []
    except _UNUSABLE:
        return []


@functools.cache
def has_full_text_search() -> bool:
    """True where this Python's SQLite has FTS5."""
    with closing(sqlite3.connect(":memory:")) as db:
        try:
            db.execute("CREATE VIRTUAL TABLE t USING fts5(a)")
        except sqlite3.OperationalError:
            return False
    return True


def _matches(ranked: Sequence[str], note: str = "") -> Matches:
    ids = ", ".join(f"'{each}'" for each in ranked)  # made from numbers, in `_id`
    return Matches(where=f"id IN ({ids})", ranked=ranked, note=note)


def _without_index(text: str) -> Matches:
    """Return the experiments whose own texts hold each part of ``text`` as it stands."""
    parts = text.split()[:_MOST_WORDS]
    anywhere = " || ' ' || ".join(_PLAIN)
    where = " AND ".join([f"({anywhere}) LIKE ? ESCAPE '!'"] * len(parts))
    return Matches(where=where or "1", values=tuple("%" + _WILD.sub(r"!\g<0>", part) + "%" for part in parts))


def _phrases(text: str) -> list[str]:
    """Return the parts of a question as FTS5 takes them: quoted, so that nothing in them is an operator."""
    parts = [words for part in text.split() if (words := _WORD.findall(part))]
    telling = [words for words in parts if len(words) > 1 or words[0].lower() not in _STOP_WORDS] or parts
    phrases = []
    for words in telling[:_MOST_WORDS]:
        begins = words[-1].isalpha() and len(words[-1]) >= _LEAST_PREFIX
        phrases.append(f'"{" ".join(words)}"' + (" *" if begins else ""))
    return phrases


def _ranked(ledger: Ledger, index: Path, question: str) -> list[str]:
    """Return the ids of all experiments that an FTS5 question matches, the best first."""
    weights = ", ".join(map(str, _COLUMNS.values()))
    query = f"SELECT rowid FROM experiments WHERE experiments MATCH ? ORDER BY bm25(experiments, {weights}), rowid DESC"

    def ask() -> list[str]:
        with _opened(index) as db:
            _catch_up(db, ledger)
            return [_id(number) for (number,) in db.execute(query, (question,))]

    if not has_full_text_search():
        raise sqlite3.OperationalError("this Python's SQLite has no FTS5")
    try:
        return ask()
    except sqlite3.DatabaseError as error:
        if not (getattr(error, "sqlite_errorname", None) or "").startswith(_DAMAGED):
            raise
    _remove(index)
    return ask()


@contextmanager
def _opened(index: Path) -> Iterator[sqlite3.Connection]:
    """Open the index for a moment, made where it is missing or of another format.

    Nobody holds it open for long, so that a damaged one can be replaced.
    """
    db = sqlite3.connect(index, isolation_level=None, timeout=_BUSY_SECONDS)
    with closing(db):
        db.execute("PRAGMA synchronous = NORMAL")
        if db.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
            with _writing(db):
                if db.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:  # another process may have made it
                    _make(db)
        yield db


def _make(db: sqlite3.Connection) -> None:
    for table in ("experiments", "position"):
        db.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in _SCHEMA.strip().rstrip(";").split(";"):
        db.execute(statement)


def _remove(index: Path) -> None:
    """Remove a damaged index; its journal first, which would be worked into the next one."""
    for path in (index.with_name(f"{index.name}-journal"), index):
        path.unlink(missing_ok=True)


@contextmanager
def _writing(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _catch_up(db: sqlite3.Connection, ledger: Ledger) -> None:
    """Index what the ledger recorded after the index's position.

    The ledger is read before the index is locked, so that no thread waits for one while it holds the other; who was overtaken
    meanwhile reads again. Raises `TimeoutError` where a long record is not indexed to its end yet.
    """
    deadline = time.monotonic() + _CATCH_UP_SECONDS
    while True:
        number, sha256 = db.execute("SELECT number, sha256 FROM position").fetchone() or (-1, "")
        rows = ledger.events_after(max(0, number - 1), _EVENTS)
        if number and (not rows or (rows[0]["number"], rows[0]["sha256"]) != (number, sha256)):
            with _writing(db):  # the record is another one now, such as a backup, or the position is gone
                _make(db)
            continue
        new = [row for row in rows if row["number"] > number]
        if not new:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"it is being made, and has {number} events so far: ask again")
        ids = dict.fromkeys(json.loads(row["body"])["id"] for row in new if row["kind"] in _KINDS)
        entries = list(_entries(ledger, list(ids)))
        with _writing(db):
            if db.execute("SELECT number FROM position").fetchone()[0] == number:
                marks = ", ".join("?" for _ in range(1 + len(_COLUMNS)))
                db.executemany(f"INSERT OR REPLACE INTO experiments (rowid, {', '.join(_COLUMNS)}) VALUES ({marks})", entries)
                db.execute("UPDATE position SET number = ?, sha256 = ?", (new[-1]["number"], new[-1]["sha256"]))


def _entries(ledger: Ledger, ids: Sequence[str]) -> Iterator[tuple[int | str, ...]]:
    """Yield the rows of the index for experiments, as the ledger has them now."""
    if not ids:
        return
    sources: dict[str, bytes | None] = {}  # of parents: most ideas of a night have one of a few
    for experiment in ledger.experiments(f"id IN ({', '.join('?' for _ in ids)})", *ids):
        yield (
            int(experiment.id[1:]),
            experiment.description,
            experiment.hypothesis,
            experiment.note,
            experiment.reason,
            experiment.theme,
            _with_parts(f"{name} {old or ''} {new or ''}" for name, (old, new) in experiment.changes.items()),
            _with_parts(_lines(ledger, experiment, sources)),
        )


def _lines(ledger: Ledger, experiment: Experiment, sources: dict[str, bytes | None]) -> list[str]:
    """Return the lines that an experiment adds to its parent, and those that it removes; a baseline changes nothing."""
    if experiment.parent is None:
        return []
    if experiment.parent not in sources:
        sources[experiment.parent] = ledger.blob(ledger.experiment(experiment.parent).candidate_sha256)
    before, after = sources[experiment.parent], ledger.blob(experiment.candidate_sha256)
    if before is None or after is None:  # `verify` names what is gone
        return []
    added, removed = changed_lines(before, after)
    return [*added, *removed]


def _with_parts(lines: Iterable[str]) -> str:
    """Return text whose names such as RMSNorm are also there in parts."""
    text = "\n".join(lines)[:_LINES_CHARACTERS]
    parts = _HUMP.sub(" ", text)
    return text if parts == text else f"{text}\n{parts}"


def _id(number: int) -> str:
    return f"e{number:04d}"
