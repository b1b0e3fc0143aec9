"""The tables of the ledger, and for each kind of event what it does to them.

The functions here are the only code that writes the tables, in a live lab and when `verify` replays the events; so they
depend on nothing but the event.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from .states import Decision, RunState

SCHEMA_VERSION = 4

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL,
    previous TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS blobs (sha256 TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
    tag TEXT PRIMARY KEY, researcher TEXT NOT NULL, base_commit TEXT NOT NULL, base_sha256 TEXT NOT NULL,
    "group" TEXT NOT NULL, config TEXT NOT NULL, harness TEXT NOT NULL, program_sha256 TEXT NOT NULL,
    created_at REAL NOT NULL, champion TEXT, version INTEGER NOT NULL DEFAULT 0, test_openings INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS experiments (
    id TEXT PRIMARY KEY, session TEXT NOT NULL, researcher TEXT NOT NULL, parent TEXT, parent_version INTEGER NOT NULL,
    description TEXT NOT NULL, hypothesis TEXT NOT NULL, candidate_sha256 TEXT NOT NULL, "commit" TEXT NOT NULL,
    program_sha256 TEXT NOT NULL, lines INTEGER NOT NULL, lines_delta INTEGER NOT NULL, created_at REAL NOT NULL,
    verdict TEXT, reason TEXT NOT NULL DEFAULT '', val_bpb REAL, standard_error REAL, delta REAL, z REAL,
    confidence REAL, keepable INTEGER NOT NULL DEFAULT 0, decision TEXT NOT NULL, note TEXT NOT NULL DEFAULT '',
    decided_at REAL, rebase_of TEXT, theme TEXT NOT NULL DEFAULT 'other', changes TEXT NOT NULL DEFAULT '{}',
    added INTEGER NOT NULL DEFAULT 0, removed INTEGER NOT NULL DEFAULT 0, after_test INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS experiments_by_session ON experiments (session, candidate_sha256);
CREATE INDEX IF NOT EXISTS experiments_of_session ON experiments (session);
CREATE INDEX IF NOT EXISTS experiments_by_decision ON experiments (session, decision);
CREATE INDEX IF NOT EXISTS experiments_summed ON experiments (
    session, program_sha256, decision, verdict, parent, val_bpb, delta);
CREATE INDEX IF NOT EXISTS experiments_tried ON experiments (
    session, theme, changes, parent, verdict, decision, delta, z, id);
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, experiment TEXT NOT NULL, attempt INTEGER NOT NULL, seed INTEGER NOT NULL,
    device TEXT NOT NULL, state TEXT NOT NULL, result TEXT, window_nats TEXT, created_at REAL NOT NULL,
    finished_at REAL, started_at REAL, purpose TEXT NOT NULL DEFAULT 'proposed');
CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state);
CREATE INDEX IF NOT EXISTS runs_by_experiment ON runs (experiment);
CREATE INDEX IF NOT EXISTS runs_by_start ON runs (started_at);
CREATE INDEX IF NOT EXISTS runs_by_purpose ON runs (purpose, experiment);
CREATE TABLE IF NOT EXISTS researchers (
    session TEXT NOT NULL, name TEXT NOT NULL, workspace TEXT NOT NULL, base TEXT, base_version INTEGER NOT NULL,
    joined_at REAL NOT NULL, holds TEXT, PRIMARY KEY (session, name));
CREATE INDEX IF NOT EXISTS events_by_kind ON events (kind, number);
"""

TABLES: Mapping[str, str] = {"sessions": "tag", "experiments": "id", "runs": "id", "researchers": "session, name"}  # -> its key

REBUILD = "the tables are made again from the events"

# What brings a ledger of this version to the next one.
MIGRATIONS: Mapping[int, str] = {
    1: "CREATE INDEX IF NOT EXISTS events_by_kind ON events (kind, number);",
    2: REBUILD,  # several researchers in a session, experiments merged onto a new champion, when a run started
    3: REBUILD,  # what a run is for, and what an idea changes
}


class StaleChampionError(Exception):
    """The champion moved since this experiment was proposed; nothing was changed."""


def _session_started(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    _insert(db, "sessions", {**event, "created_at": at, "champion": None, "version": 0})
    owner = {"session": event["tag"], "researcher": event["researcher"], "workspace": "", "base": None, "base_version": 0}
    _researcher_joined(db, owner, at)


def _researcher_joined(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    """One who works in a session, and where: the lab's own folder (empty) has one researcher, who may leave it to another."""
    if not event["workspace"]:
        db.execute("DELETE FROM researchers WHERE session = ? AND workspace = ''", (event["session"],))
    values = {name: event[name] for name in ("session", "workspace", "base", "base_version")}
    db.execute("DELETE FROM researchers WHERE session = ? AND name = ?", (event["session"], event["researcher"]))
    _insert(db, "researchers", {**values, "name": event["researcher"], "joined_at": at, "holds": None})


def _rules_accepted(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    """What `autoresearch accept-config` recorded; a session whose numbers stay comparable goes on under the new rules."""
    if event["session"] is not None:
        db.execute(
            "UPDATE sessions SET config = ?, program_sha256 = ? WHERE tag = ?",
            (event["session_config"], event["program_sha256"], event["session"]),
        )


def _session_rebased(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    db.execute("UPDATE sessions SET base_commit = ? WHERE tag = ?", (event["base_commit"], event["tag"]))


def _experiment_recorded(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    fields = {name: value for name, value in event.items() if name != "committed_at"}  # that one is for `repair`
    _insert(db, "experiments", {**fields, "created_at": at, "decision": Decision.PENDING})
    db.execute(
        """UPDATE experiments SET after_test = EXISTS (SELECT 1 FROM sessions WHERE tag = session AND test_openings > 0)
            WHERE id = ?""",
        (event["id"],),
    )
    if event.get("rebase_of") is None:  # a merge is in nobody's train.py
        db.execute(
            "UPDATE researchers SET holds = ? WHERE session = ? AND name = ?",
            (event["id"], event["session"], event["researcher"]),
        )


def _experiment_recommitted(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    db.execute('UPDATE experiments SET "commit" = ? WHERE id = ?', (event["commit"], event["id"]))


def _run_queued(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    _insert(db, "runs", {**event, "attempt": 1, "state": RunState.QUEUED, "created_at": at})


def _run_started(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    _move_run(db, event["id"], RunState.RUNNING)
    db.execute("UPDATE runs SET started_at = ? WHERE id = ?", (at, event["id"]))
    if "device" in event:  # the first versions bound a run to its device when it was queued
        db.execute("UPDATE runs SET device = ? WHERE id = ?", (event["device"], event["id"]))


def _run_retried(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    _move_run(db, event["id"], RunState.QUEUED)
    db.execute("UPDATE runs SET attempt = attempt + 1 WHERE id = ?", (event["id"],))


def _run_finished(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    """A result's windows are kept apart: they are most of its bytes, and only the spec of a child's run reads them."""
    _move_run(db, event["id"], RunState.FINISHED)
    result = dict(event["result"])
    windows = json.dumps(result.pop("window_nats", []))
    db.execute(
        "UPDATE runs SET result = ?, window_nats = ?, finished_at = ? WHERE id = ?",
        (json.dumps(result, sort_keys=True), windows, at, event["id"]),
    )


def _experiment_judged(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    columns = ("verdict", "reason", "val_bpb", "standard_error", "delta", "z", "confidence", "keepable")
    assignments = ", ".join(f"{column} = :{column}" for column in columns)
    db.execute(f"UPDATE experiments SET {assignments} WHERE id = :id", event)


def _experiment_reopened(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    """Further runs are to decide about an undecided experiment."""
    db.execute("UPDATE experiments SET verdict = NULL, reason = '', keepable = 0 WHERE id = ?", (event["id"],))


def _experiment_measured_again(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    """Change the number; the event's reason says so beside the verdict, but those of the first versions have none."""
    assignments = "val_bpb = :val_bpb, standard_error = :standard_error, reason = COALESCE(:reason, reason)"
    db.execute(f"UPDATE experiments SET {assignments} WHERE id = :id", {"reason": None, **event})


def _experiment_kept(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    _decide(db, event["id"], Decision.KEPT, event["reason"], at)
    moved = db.execute(
        "UPDATE sessions SET champion = ?, version = version + 1 WHERE tag = ? AND version = ?",
        (event["id"], event["session"], event["version"]),
    )
    if moved.rowcount != 1:
        raise StaleChampionError(event["id"])
    _build_on_kept(db, event)


def _build_on_kept(db: sqlite3.Connection, event: dict[str, Any]) -> None:
    """Say whose train.py builds on the new champion: the one that was made from it, and not restored since.

    The unchanged baseline is in every workspace of the session.
    """
    db.execute(
        """UPDATE researchers SET base = :id, base_version = :version + 1 WHERE session = :session AND (
            (base IS NULL AND (SELECT candidate_sha256 FROM experiments WHERE id = :id)
                = (SELECT base_sha256 FROM sessions WHERE tag = :session))
            OR holds = :id)""",
        event,
    )


def _experiment_reverted(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    _decide(db, event["id"], Decision.REVERTED, event["lesson"], at)


def _train_file_restored(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    """A workspace has the champion's train.py again; the first versions knew the lab's own workspace only."""
    whose, values = ("name = ?", (event["researcher"],)) if "researcher" in event else ("workspace = ''", ())
    db.execute(
        f"""UPDATE researchers SET holds = NULL,
            (base, base_version) = (SELECT champion, version FROM sessions WHERE tag = session)
            WHERE session = ? AND {whose}""",
        (event["session"], *values),
    )


def _test_opened(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    """A human looked at the test split; what is proposed in the session from now on is marked."""
    db.execute("UPDATE sessions SET test_openings = test_openings + 1 WHERE tag = ?", (event["session"],))


def _only_recorded(db: sqlite3.Connection, event: dict[str, Any], at: float) -> None:
    """An event that stands for itself and changes no table."""


APPLY: Mapping[str, Callable[[sqlite3.Connection, dict[str, Any], float], None]] = {
    "lab_created": _only_recorded,
    "harness_pinned": _only_recorded,
    "pins_made": _only_recorded,
    "session_pinned": _only_recorded,
    "environment_adopted": _only_recorded,
    "lab_paused": _only_recorded,
    "lab_resumed": _only_recorded,
    "isolation_accepted": _only_recorded,
    "machine_calibrated": _only_recorded,
    "rules_accepted": _rules_accepted,
    "session_started": _session_started,
    "session_rebased": _session_rebased,
    "researcher_joined": _researcher_joined,
    "experiment_recorded": _experiment_recorded,
    "experiment_recommitted": _experiment_recommitted,
    "run_queued": _run_queued,
    "run_started": _run_started,
    "run_retried": _run_retried,
    "run_finished": _run_finished,
    "experiment_judged": _experiment_judged,
    "experiment_reopened": _experiment_reopened,
    "experiment_measured_again": _experiment_measured_again,
    "experiment_kept": _experiment_kept,
    "experiment_reverted": _experiment_reverted,
    "train_file_restored": _train_file_restored,
    "test_opened": _test_opened,
    "test_compared": _only_recorded,
}


def _insert(db: sqlite3.Connection, table: str, values: dict[str, Any]) -> None:
    columns = ", ".join(f'"{column}"' for column in values)
    marks = ", ".join("?" for _ in values)
    db.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values()))


def _move_run(db: sqlite3.Connection, run_id: str, new: RunState) -> None:
    (state,) = tuple(db.execute("SELECT state FROM runs WHERE id = ?", (run_id,)).fetchone())
    db.execute("UPDATE runs SET state = ? WHERE id = ?", (RunState(state).move_to(new), run_id))


def _decide(db: sqlite3.Connection, experiment_id: str, decision: Decision, note: str, at: float) -> None:
    (state,) = tuple(db.execute("SELECT decision FROM experiments WHERE id = ?", (experiment_id,)).fetchone())
    new = Decision(state).move_to(decision)
    db.execute("UPDATE experiments SET decision = ?, note = ?, decided_at = ? WHERE id = ?", (new, note, at, experiment_id))
