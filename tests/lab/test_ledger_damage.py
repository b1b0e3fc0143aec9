"""A record that was edited, cut, torn by a crash or written by several processes: what is wrong is found and named."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from autoresearch_mcp.lab.errors import LedgerError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.files import sha256_hex
from autoresearch_mcp.lab.ledger import Ledger, result_to_json
from autoresearch_mcp.lab.ledger_schema import TABLES
from autoresearch_mcp.lab.states import Outcome

CANDIDATE, PROGRAM = b"a train.py", b"a program.md"
FILES = {"candidate_sha256": sha256_hex(CANDIDATE), "program_sha256": sha256_hex(PROGRAM)}
SESSION = {
    "tag": "t",
    "researcher": "r",
    "base_commit": "c",
    "base_sha256": FILES["candidate_sha256"],
    "group": "g",
    "config": "{}",
    "harness": "h",
    "program_sha256": FILES["program_sha256"],
}


def record_experiment(ledger: Ledger, number: int, *, parent: str | None = "e0001", version: int = 1) -> None:
    """One experiment as the lab records it: proposed, queued, run, judged."""
    name = f"e{number:04d}"
    fields = {"id": name, "session": "t", "researcher": "r", "parent": parent, "parent_version": version, **FILES}
    texts = {"description": f"idea {number}", "hypothesis": "because", "commit": "c", "lines": 40, "lines_delta": 0}
    ledger.append("experiment_recorded", {**fields, **texts}, blobs=(CANDIDATE,))
    ledger.append("run_queued", {"id": f"{name}.1", "experiment": name, "seed": number, "device": "cpu"})
    ledger.append("run_started", {"id": f"{name}.1", "attempt": 1, "device": "cpu"})
    result = RunResult(outcome=Outcome.SCORED, reason="scored", val_bpb=2.0 - number / 1000, standard_error=0.01)
    ledger.append("run_finished", {"id": f"{name}.1", "result": result_to_json(result)})
    number_fields = {"val_bpb": result.val_bpb, "standard_error": 0.01, "delta": -0.1, "z": -1.5, "confidence": 0.9}
    verdict = {"verdict": "improved", "reason": "lower", "keepable": True}
    ledger.append("experiment_judged", {"id": name, **number_fields, **verdict})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A short record in which every table has rows and every column a value somewhere."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append("session_started", SESSION, blobs=(CANDIDATE, PROGRAM))
    joined = {"session": "t", "researcher": "second", "workspace": "w", "base": None, "base_version": 0}
    ledger.append("researcher_joined", joined)
    for number in (1, 2, 3):
        record_experiment(ledger, number, parent=None if number == 1 else "e0001", version=min(1, number - 1))
        if number == 1:
            ledger.append("experiment_kept", {"id": "e0001", "session": "t", "version": 0, "reason": "first"})
    ledger.append("experiment_reverted", {"id": "e0002", "lesson": "no"})
    yield ledger
    ledger.close()


def edit(path: Path, statement: str, *values: Any) -> None:
    """Change the record as somebody with the `sqlite3` program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement, values)


def another(value: Any) -> Any:
    if value is None:
        return "edited"
    if isinstance(value, bytes):
        return value + b"!"
    return value + (1 if isinstance(value, int | float) else "!")


@pytest.mark.parametrize("table", [*TABLES, "events", "blobs"])
def test_a_hand_edit_in_any_column_of_any_row_is_named(ledger: Ledger, tmp_path: Path, table: str) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        cursor = db.execute(f"SELECT rowid, * FROM {table}")
        columns = [column[0] for column in cursor.description][1:]
        rows = cursor.fetchall()
    assert rows, "there is something to edit"
    keys = {"events": ["number"], "blobs": ["sha256"]}.get(table) or [name.strip() for name in TABLES[table].split(",")]
    for rowid, *values in rows:
        key = [value for name, value in zip(columns, values, strict=True) if name in keys][-1]
        for column, value in zip(columns, values, strict=True):
            if column == "number":
                continue  # it is the rowid: see below
            statement = f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?'
            edit(path, statement, another(value), rowid)
            problems = ledger.verify()
            assert problems, f"{column} of {key} was edited"
            named = {"events": f"event {key} ", "blobs": f"stored file {str(key)[:12]}"}.get(table, str(key))
            assert named in " ".join(problems), (column, problems)
            if table in TABLES and column not in keys:
                assert f"{column} is " in problems[0]
            edit(path, statement, value, rowid)
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM events WHERE number > 15", "events after number 15 were removed"),
        ("DELETE FROM events WHERE number = 4", "event 5 "),
        ("UPDATE events SET number = 1000 WHERE number = 4", "event 5 "),
        ("UPDATE events SET number = 1000 WHERE number = 19", "event 1000 "),
        ("DELETE FROM experiments WHERE id = 'e0002'", "the row 'e0002' is missing"),
        ("INSERT INTO runs (id, experiment, attempt, seed, device, state, created_at) VALUES ('x', 'e0001', 1, 1, 'cpu', "
         "'finished', 1.0)", "the row 'x' of runs does not follow from the events: none makes it"),
        ("UPDATE experiments SET rowid = 50 WHERE id = 'e0001'", "the rows of experiments are not in the order"),
        ("DELETE FROM blobs WHERE length(data) = 10", "the first train.py of session t, was removed"),
        ("CREATE TRIGGER planted AFTER INSERT ON events BEGIN UPDATE experiments SET keepable = 1; END", "trigger 'planted'"),
        ("CREATE VIEW planted AS SELECT 1", "view 'planted'"),
    ],
)  # fmt: skip
def test_what_was_removed_added_or_reordered_is_named(ledger: Ledger, tmp_path: Path, statement: str, expected: str) -> None:
    assert ledger.verify() == []
    edit(tmp_path / "ledger.db", statement)
    assert expected in ledger.verify()[0]


def test_pages_that_were_overwritten_are_told_as_damage(ledger: Ledger, tmp_path: Path) -> None:
    ledger.close()
    path = tmp_path / "ledger.db"
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"ledger\.db is damaged .*backup"):
        Ledger(path).newest_session()
    with closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.DatabaseError):
        db.execute("SELECT * FROM events").fetchall()


def test_an_event_that_cannot_be_applied_stops_a_migration_and_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    ledger.close()
    path = tmp_path / "ledger.db"
    edit(path, "UPDATE events SET kind = 'unheard_of' WHERE number = 3")
    edit(path, "PRAGMA user_version = 2")
    with pytest.raises(LedgerError, match=r"event 3 \(unheard_of\).*Nothing was changed"):
        Ledger(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT COUNT(*) FROM experiments").fetchone() == (3,)


def test_a_journal_torn_at_any_place_leaves_a_whole_chain_that_goes_on(ledger: Ledger, tmp_path: Path) -> None:
    heads = [row["sha256"] for row in ledger.events_after(0)]
    source, journal = (tmp_path / "ledger.db").read_bytes(), (tmp_path / "ledger.db-wal").read_bytes()
    assert len(journal) > 30 * 4096, "everything is still in the journal, as after a power cut"
    chance, seen = random.Random(5), set[int]()
    for number in range(30):
        folder = tmp_path / str(number)
        folder.mkdir()
        cut = chance.randrange(len(journal))
        torn = journal[:cut] + (chance.randbytes(4096) if number % 3 == 0 else b"")
        (folder / "ledger.db").write_bytes(source)
        (folder / "ledger.db-wal").write_bytes(torn)
        with closing(Ledger(folder / "ledger.db")) as survivor:
            assert survivor.verify() == []
            events = survivor.events_after(0)
            assert [row["sha256"] for row in events] == heads[: len(events)]
            seen.add(len(events))
            survivor.append("lab_paused", {"reason": "after the crash"})
            assert survivor.verify() == []
        shutil.rmtree(folder)
    assert len(seen) > 8, "the cuts fell into many different events"


WRITER = """
import sys
from pathlib import Path
from autoresearch_mcp.lab.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    with ledger.transaction():
        ledger.append("lab_paused", {"reason": f"{sys.argv[2]} {number}"})
        head = ledger.append("lab_resumed", {})
    print(head, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_append_one_chain(ledger: Ledger, tmp_path: Path) -> None:
    before = len(ledger.events_after(0))
    writers = [writer(tmp_path / "ledger.db", name, 50) for name in ("one", "two")]
    heads = [process.communicate(timeout=60)[0].split() for process in writers]
    assert [process.returncode for process in writers] == [0, 0]
    assert len(ledger.events_after(0)) == before + 200
    assert ledger.verify() == []
    assert {head for each in heads for head in each} <= {row["sha256"] for row in ledger.events_after(0)}


def test_what_a_killed_process_had_been_told_is_recorded(ledger: Ledger, tmp_path: Path) -> None:
    told: list[str] = []
    for stop in (1, 7, 23):
        process = writer(tmp_path / "ledger.db", "killed", 10_000)
        assert process.stdout is not None
        told += [process.stdout.readline().strip() for _ in range(stop)]
        process.kill()
        told += process.stdout.read().split()
        process.wait()
        process.stdout.close()
    events = ledger.events_after(0, limit=100_000)
    assert set(told) <= {row["sha256"] for row in events}
    kinds = [row["kind"] for row in events if row["kind"].startswith("lab_")]
    assert kinds == ["lab_paused", "lab_resumed"] * (len(kinds) // 2), "a transaction is whole or absent"
    assert ledger.verify() == []


def test_nobody_waits_for_a_check_and_it_sees_one_state(ledger: Ledger) -> None:
    with ledger.transaction():
        for number in range(4, 400):
            record_experiment(ledger, number)
    problems: list[list[str]] = []
    checking = threading.Thread(target=lambda: problems.append(ledger.verify()))
    checking.start()
    written = 0
    while checking.is_alive():
        ledger.append("lab_paused", {"reason": "meanwhile"})
        written += 1
    checking.join()
    assert problems == [[]]
    assert written > 3


def test_a_clock_that_jumps_back_does_not_change_the_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    ledger.append("session_started", {**SESSION, "tag": "later"})
    record_experiment(ledger, 4)
    newest = ledger.newest_session()
    assert newest is not None
    assert (newest.tag, newest.created_at) == ("later", 1000.0)
    assert [session.tag for session in ledger.sessions()] == ["later", "t"]
    assert [experiment.id for experiment in ledger.experiments()][-1] == "e0004"
    ledger.append("lab_paused", {"reason": ""})
    latest = ledger.latest("lab_paused", "run_started")
    assert latest is not None
    assert latest.kind == "lab_paused"
    assert ledger.verify() == []
