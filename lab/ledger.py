"""The record: an append-only, hash-chained list of events in SQLite, and the tables that follow from it.

Every write is one transaction that applies an event to the tables and appends the event, chained by SHA-256 to the one
before. The tables are a function of the events, so `verify` can replay them: a hand edit of an event, a row or a stored file
shows, and is named. Durable (WAL, synchronous=FULL); several processes may write. A disk that takes nothing is a `DiskError`:
nothing changes, what is there can be read, and writing goes on once it takes more. It does not judge: see `policy`.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .disk import record_errors_told
from .errors import DiskError, LedgerError, UnknownExperimentError
from .executor import RunResult
from .ledger_schema import APPLY, MIGRATIONS, REBUILD, SCHEMA, SCHEMA_VERSION, TABLES, StaleChampionError
from .ledger_verification import GENESIS, REPLAY_ERRORS, chain_sha256, problems_of
from .programs import ProgramShare
from .records import Changes, Experiment, Researcher, Run, Session
from .referee.specfile import result_from_json
from .states import Decision, Purpose, RunState, Verdict

_BUSY_SECONDS = 30.0
_TURN_SECONDS = 1.0  # for another process's write to end, where nobody needs ours now
_BUSY_POLL_SECONDS = 0.02
_VERDICTS = 50  # read at once
_REOPEN_SECONDS = 1.0  # between two attempts to write a record that was opened for reading only

_EXPERIMENT, _PROGRAM_SHARE, _RESULT, _RUN = (
    tuple(field.name for field in fields(kind)) for kind in (Experiment, ProgramShare, RunResult, Run)
)

__all__ = ["GENESIS", "Ledger", "StaleChampionError"]

_NAMED_CHARACTERS = 80  # of an id that is none, in an error
_ON_VALIDATION = f"purpose != '{Purpose.TEST}'"  # SQL: the runs that anybody may know of


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of the record."""

    kind: str
    at: float  # seconds since the epoch
    body: dict[str, Any]
    previous: str  # SHA-256 of the event before


class Ledger:
    """One lab's record. Safe to share between threads; each call is short."""

    def __init__(self, path: Path, *, for_reading: bool = False) -> None:
        """Open the record at ``path``, made when missing; ``for_reading``: nothing is made, brought up to date or written."""
        self._path = path
        self._lock = threading.RLock()
        self._db, self._unwritable = _open_for_reading(path) if for_reading else _open(path)
        self._reopen_at = math.inf if for_reading else 0.0
        self._create_or_check_schema(for_reading)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # -- writing ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group several appends into one: all of them happen, or none. Waits for its turn, in which others may read."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            with self._lock:
                if self._db.in_transaction:  # nested: the outer one decides
                    yield
                    return
                with record_errors_told(self._path):
                    db = self._connection()
                    if self._unwritable is not None:
                        raise self._unwritable
                    if _begins(db):
                        try:
                            yield
                            db.execute("COMMIT")
                        except BaseException:
                            if db.in_transaction:  # a full disk has rolled back already
                                db.execute("ROLLBACK")
                            raise
                        return
            if time.monotonic() >= deadline:
                raise LedgerError(
                    f"{self._path} is busy: another process has been writing it for {_BUSY_SECONDS:.0f} s. If one is stopped "
                    "(as by Ctrl-Z), the human continues or ends it; nothing is lost. Then call again."
                )
            time.sleep(_BUSY_POLL_SECONDS)

    def may_write(self) -> bool:
        """Say whether no other process is writing, or has ended it within a second; False: try again later."""
        deadline = time.monotonic() + _TURN_SECONDS
        while True:
            with self._lock, record_errors_told(self._path):
                db = self._connection()
                if db.in_transaction or self._unwritable is not None:
                    return True  # an append says why it cannot
                if _begins(db):
                    db.execute("ROLLBACK")
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_BUSY_POLL_SECONDS)

    def append(self, kind: str, payload: Mapping[str, Any], *, blobs: tuple[bytes, ...] = ()) -> str:
        """Apply one event to the tables and chain it; return the new head. ``blobs`` are stored by their SHA-256."""
        body = _canonical(payload)
        with self.transaction():
            for blob in blobs:
                self._db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (hashlib.sha256(blob).hexdigest(), blob))
            previous, at = self.head(), round(time.time(), 3)
            digest = chain_sha256(previous, kind, at, body)
            APPLY[kind](self._db, json.loads(body), at)
            self._db.execute(
                "INSERT INTO events (kind, at, body, previous, sha256) VALUES (?, ?, ?, ?, ?)",
                (kind, at, body, previous, digest),
            )
        return digest

    # -- reading ----------------------------------------------------------------------------------------------------------

    def head(self) -> str:
        """Return the SHA-256 of the last event; it is echoed in every answer, so a rewritten record shows."""
        row = self._one("SELECT sha256 FROM events ORDER BY number DESC LIMIT 1")
        return GENESIS if row is None else row["sha256"]

    def last_event_at(self) -> float:
        """Return when the last event was recorded, in seconds since the epoch; 0.0 in an empty record."""
        row = self._one("SELECT at FROM events ORDER BY number DESC LIMIT 1")
        return 0.0 if row is None else row["at"]

    def events_after(self, number: int, limit: int = 1000) -> list[sqlite3.Row]:
        return self.select("SELECT * FROM events WHERE number > ? ORDER BY number LIMIT ?", number, limit)

    def stored(self, sha256: str) -> bytes:
        """Return a file that the record names; it is stored in the transaction that names it."""
        data = self.blob(sha256)
        if data is None:
            raise LedgerError(f"The stored file {sha256[:12]} is gone from {self._path}. Run `autoresearch verify`.")
        return data

    def blob(self, sha256: str) -> bytes | None:
        row = self._one("SELECT data FROM blobs WHERE sha256 = ?", sha256)
        return None if row is None else row["data"]

    def session(self, tag: str) -> Session | None:
        row = self._one("SELECT * FROM sessions WHERE tag = ?", tag)
        return None if row is None else Session(**dict(row))

    def session_now(self, tag: str) -> Session:
        """Return a session that was begun, as it stands now: another process may have kept something meanwhile."""
        session = self.session(tag)
        assert session is not None, "a session is never removed"
        return session

    def sessions(self) -> list[Session]:
        """Return the sessions, the newest first."""
        return [Session(**dict(row)) for row in self.select("SELECT * FROM sessions ORDER BY rowid DESC")]

    def newest_session(self) -> Session | None:
        """Return the session that was begun last; None before the first."""
        row = self._one("SELECT * FROM sessions ORDER BY rowid DESC LIMIT 1")
        return None if row is None else Session(**dict(row))

    def researchers(self, session: str) -> list[Researcher]:
        """Return who works in a session, in the order in which they joined."""
        rows = self.select("SELECT * FROM researchers WHERE session = ? ORDER BY rowid", session)
        return [Researcher(**dict(row)) for row in rows]

    def latest(self, *kinds: str) -> Event | None:
        """Return the last event of these kinds."""
        marks = ", ".join("?" for _ in kinds)
        row = self._one(f"SELECT * FROM events WHERE kind IN ({marks}) ORDER BY number DESC LIMIT 1", *kinds)
        return None if row is None else _event(row)

    def events_of(self, kind: str) -> list[Event]:
        """Return every event of a kind, the oldest first."""
        return [_event(row) for row in self.select("SELECT * FROM events WHERE kind = ? ORDER BY number", kind)]

    def latest_harness(self) -> str | None:
        event = self.latest("harness_pinned")
        return None if event is None else event.body["sha256"]

    def experiment(self, experiment_id: str) -> Experiment:
        """Return one experiment; raises `UnknownExperimentError` that names the latest ones."""
        row = self._one("SELECT * FROM experiments WHERE id = ?", experiment_id)
        if row is None:
            known = [r["id"] for r in self.select("SELECT id FROM experiments ORDER BY rowid DESC LIMIT 5")]
            there = f"The latest are {', '.join(known)}." if known else "This lab has none yet: call run_experiment first."
            named = experiment_id[:_NAMED_CHARACTERS]
            raise UnknownExperimentError(f"No experiment {named!r}. {there} Call history to see them all.")
        return _experiment(row)

    def experiments(
        self, where: str = "1", *values: Any, order: str = "rowid", limit: int = -1, offset: int = 0
    ) -> list[Experiment]:
        """Return experiments; ``where`` and ``order`` are SQL written by the caller's code, ``values`` its parameters."""
        page = f"SELECT rowid FROM experiments WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"  # sorts numbers, not rows
        rows = self.select(f"SELECT * FROM experiments WHERE rowid IN ({page}) ORDER BY {order}", *values, limit, offset)
        return [_experiment(row) for row in rows]

    def latest_verdicts(self, session: str, *, recorded_after: float = 0.0) -> Iterator[Verdict | None]:
        """Yield the verdicts of a session's experiments that were recorded after a moment, the newest first.

        They are read a page at a time: whoever has seen enough stops.
        """
        last: int | None = None
        query = """SELECT rowid, verdict FROM experiments
            WHERE session = ? AND rowid < COALESCE(?, 9223372036854775807) AND created_at > ? ORDER BY rowid DESC LIMIT ?"""
        while rows := self.select(query, session, last, recorded_after, _VERDICTS):
            for row in rows:
                yield None if row["verdict"] is None else Verdict(row["verdict"])
            last = rows[-1]["rowid"]

    def program_shares(self, where: str = "1", *values: Any) -> list[ProgramShare]:
        """Return what the experiments of each program came to in each session, the oldest first.

        ``where`` is SQL as in `experiments`. SQLite sums up, since a long record has tens of thousands of rows; the single
        differences come as it writes numbers, with 15 digits.
        """
        rows = self.select(
            f"""SELECT summed.*, oldest.id AS first, newest.id AS last, oldest.created_at AS began_at FROM (
                SELECT session, program_sha256, MIN(rowid) AS first_row, MAX(rowid) AS last_row, COUNT(*) AS experiments,
                    COUNT(verdict) - COUNT(val_bpb) AS without_number, MIN(val_bpb) AS best_val_bpb,
                    COUNT(*) FILTER (WHERE decision = 'kept' AND parent IS NOT NULL) AS kept,
                    -TOTAL(delta) FILTER (WHERE decision = 'kept' AND parent IS NOT NULL) AS total_gain,
                    group_concat(delta) AS deltas
                FROM experiments WHERE {where} GROUP BY session, program_sha256) AS summed
            JOIN experiments AS oldest ON oldest.rowid = first_row JOIN experiments AS newest ON newest.rowid = last_row
            ORDER BY first_row""",
            *values,
        )
        return [_program_share(row) for row in rows]

    def select(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a SELECT that was written by the caller's code; ``values`` are its parameters."""
        with self._lock, record_errors_told(self._path):
            return self._connection().execute(query, values).fetchall()

    def count_experiments(self, where: str = "1", *values: Any) -> int:
        row = self._one(f"SELECT COUNT(*) AS n FROM experiments WHERE {where}", *values)
        assert row is not None
        return row["n"]

    def count_by_researcher(self, session: str) -> dict[str, int]:
        """Return how many experiments each researcher of a session has, in the order of their first ones."""
        query = "SELECT researcher, COUNT(*) AS n FROM experiments WHERE session = ? GROUP BY researcher ORDER BY MIN(rowid)"
        return {row["researcher"]: row["n"] for row in self.select(query, session)}

    def next_experiment_id(self) -> str:
        return f"e{self.count_experiments() + 1:04d}"

    def run(self, run_id: str) -> Run:
        row = self._one("SELECT * FROM runs WHERE id = ?", run_id)
        if row is None:
            raise LedgerError(f"no run {run_id!r} in {self._path}")
        return _run(row)

    def runs(self, experiment_id: str) -> list[Run]:
        """Return an experiment's runs, the oldest first, without those on the test split, which are no evidence for anybody."""
        query = f"SELECT * FROM runs WHERE experiment = ? AND {_ON_VALIDATION} ORDER BY rowid"
        return [_run(row) for row in self.select(query, experiment_id)]

    def test_runs(self, experiment_id: str) -> list[Run]:
        """Return an experiment's runs on the test split; what came of them is for no researcher (`test_split`)."""
        query = "SELECT * FROM runs WHERE experiment = ? AND purpose = ? ORDER BY rowid"
        return [_run(row) for row in self.select(query, experiment_id, Purpose.TEST)]

    def runs_by_experiment(self, where: str, *values: Any) -> dict[str, list[Run]]:
        """Return what `runs` does of many experiments, by their ids; ``where`` is SQL as in `experiments`."""
        runs: dict[str, list[Run]] = {}
        chosen = f"experiment IN (SELECT id FROM experiments WHERE {where})"
        query = f"SELECT * FROM runs WHERE {chosen} AND {_ON_VALIDATION} ORDER BY rowid"
        for row in self.select(query, *values):
            runs.setdefault(row["experiment"], []).append(_run(row))
        return runs

    def runs_in_state(self, state: RunState) -> list[Run]:
        """Return runs, on whichever split, the oldest first."""
        return [_run(row) for row in self.select("SELECT * FROM runs WHERE state = ? ORDER BY rowid", state)]

    def window_nats(self, run_id: str) -> tuple[float, ...]:
        """Return what a finished run's model claimed for each validation window; `run` leaves that out of the result."""
        row = self._one("SELECT window_nats FROM runs WHERE id = ?", run_id)
        return () if row is None or row["window_nats"] is None else tuple(json.loads(row["window_nats"]))

    def served(self, limit: int = 200) -> dict[str, int]:
        """Return researcher -> its place in the order in which the last ``limit`` runs started; a larger one is later."""
        rows = self.select(
            """SELECT e.researcher AS name FROM
               (SELECT * FROM runs WHERE started_at IS NOT NULL AND purpose != ? ORDER BY started_at DESC LIMIT ?) AS r
               JOIN experiments e ON e.id = r.experiment ORDER BY r.started_at""",
            Purpose.TEST,
            limit,
        )
        return {row["name"]: place for place, row in enumerate(rows)}

    # -- checking ---------------------------------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """Recompute the chain, replay the events, compare; return what is wrong, in plain sentences (empty: nothing).

        Reads the record as it stands at the start, by a connection of its own: nobody waits for it, however long it takes.
        """
        with record_errors_told(self._path), closing(_open(self._path)[0]) as snapshot:
            snapshot.execute("BEGIN")
            return problems_of(snapshot)

    # -- private ----------------------------------------------------------------------------------------------------------

    def _create_or_check_schema(self, for_reading: bool) -> None:
        if self._version() > SCHEMA_VERSION:
            raise LedgerError(
                f"{self._path} has format {self._version()}, this version of autoresearch reads {SCHEMA_VERSION}: "
                "update autoresearch-mcp"
            )
        if self._version() == SCHEMA_VERSION:
            return
        if for_reading:
            raise LedgerError(f"{self._path} has format {self._version()}: `autoresearch status` brings it up to date")
        with self.transaction():  # another process may open it at the same time, and then it has been brought up to date
            steps = [SCHEMA] if (version := self._version()) == 0 else [MIGRATIONS[n] for n in range(version, SCHEMA_VERSION)]
            for step in steps:
                if step == REBUILD:
                    self._rebuild_tables()
                else:
                    self._execute_each(step)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _version(self) -> int:
        return self._db.execute("PRAGMA user_version").fetchone()[0]

    def _rebuild_tables(self) -> None:
        """Make the tables again from the events, as they are defined now."""
        for table in TABLES:
            self._db.execute(f"DROP TABLE IF EXISTS {table}")
        self._execute_each(SCHEMA)
        for row in self._db.execute("SELECT * FROM events ORDER BY number").fetchall():
            try:
                APPLY[row["kind"]](self._db, json.loads(row["body"]), row["at"])
            except REPLAY_ERRORS as error:
                raise LedgerError(
                    f"{self._path} cannot be brought up to date, because event {row['number']} ({row['kind']}) does not follow "
                    f"from those before it: {error!r}. Nothing was changed; restore the file from a backup."
                ) from error

    def _execute_each(self, statements: str) -> None:
        """Execute statements inside the open transaction, which `executescript` would commit."""
        for statement in statements.split(";"):
            self._db.execute(statement)

    def _connection(self) -> sqlite3.Connection:
        """Return the open record; one that could only be read is opened anew now and then: the disk may have room again."""
        if self._unwritable is not None and time.monotonic() >= self._reopen_at and not self._db.in_transaction:
            self._reopen_at = time.monotonic() + _REOPEN_SECONDS
            self._db.close()
            self._db, self._unwritable = _open(self._path)
        return self._db

    def _one(self, query: str, *values: Any) -> sqlite3.Row | None:
        with self._lock, record_errors_told(self._path):
            return self._connection().execute(query, values).fetchone()


def _begins(db: sqlite3.Connection) -> bool:
    """Begin a transaction that writes; False, at once, while another process does."""
    db.execute("PRAGMA busy_timeout = 0")
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith("SQLITE_BUSY"):
            return False
        raise
    finally:
        db.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")
    return True


def _open(path: Path) -> tuple[sqlite3.Connection, DiskError | None]:
    """Open the record; where the disk takes nothing, for reading only, and then also return why it cannot be written.

    Raises `DiskError` where it cannot be read either: it does not exist, or a journal must be worked in first.
    """
    try:
        with record_errors_told(path):
            return _connected(path, "mode=rwc"), None
    except DiskError as error:
        # A record whose journal is empty and whose disk is full is not changing: SQLite may read it without its shared memory.
        journal = path.with_name(f"{path.name}-wal")
        ways = ["mode=ro", *(["mode=ro&immutable=1"] if not journal.exists() or journal.stat().st_size == 0 else [])]
        for way in ways if path.exists() else ():
            try:
                return _connected(path, way), error
            except sqlite3.OperationalError:
                continue
        raise


def _open_for_reading(path: Path) -> tuple[sqlite3.Connection, DiskError]:
    """Open the record for reading only, and return what writing to it raises; a busy one is not waited for long."""
    with record_errors_told(path):
        db = _connected(path, "mode=ro", busy_seconds=_TURN_SECONDS)
    return db, DiskError(f"{path} was opened for reading only. Nothing was changed; open the lab and call again.")


def _connected(path: Path, way: str, *, busy_seconds: float = _BUSY_SECONDS) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?{way}"
    db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=busy_seconds, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        if way == "mode=rwc":
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA fullfsync=ON")  # macOS: its fsync alone leaves the data in the drive's cache
            db.execute("PRAGMA foreign_keys=ON")
        db.execute("SELECT COUNT(*) FROM sqlite_master")  # also opens the journal, which needs room for its shared memory
    except BaseException:
        db.close()
        raise
    return db


def result_to_json(result: RunResult) -> dict[str, Any]:
    """The JSON object of a result, as it stands in an event; nothing is copied, for it may have thousands of windows."""
    return {name: getattr(result, name) for name in _RESULT}


def _canonical(payload: Mapping[str, Any]) -> str:
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be stored


def _event(row: sqlite3.Row) -> Event:
    return Event(kind=row["kind"], at=row["at"], body=json.loads(row["body"]), previous=row["previous"])


def _experiment(row: sqlite3.Row) -> Experiment:
    values = {name: row[name] for name in _EXPERIMENT}
    values["verdict"] = None if row["verdict"] is None else Verdict(row["verdict"])
    values["decision"] = Decision(row["decision"])
    values["keepable"], values["after_test"] = bool(row["keepable"]), bool(row["after_test"])
    values["changes"] = changes_from_json(row["changes"])
    return Experiment(**values)


def changes_from_json(text: str) -> Changes:
    """Read the changed constants; a session may have thousands of experiments that change none."""
    return {} if text == "{}" else {name: (old, new) for name, (old, new) in json.loads(text).items()}


def _program_share(row: sqlite3.Row) -> ProgramShare:
    values = {name: row[name] for name in _PROGRAM_SHARE}
    deltas = row["deltas"]
    values["deltas"] = () if deltas is None else tuple(map(float, deltas.split(",")))
    return ProgramShare(**values)


def _run(row: sqlite3.Row) -> Run:
    values = {name: row[name] for name in _RUN}
    values["state"], values["purpose"] = RunState(row["state"]), Purpose(row["purpose"])
    values["result"] = None if row["result"] is None else result_from_json(json.loads(row["result"]))
    return Run(**values)
