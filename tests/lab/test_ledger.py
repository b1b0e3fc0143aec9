"""The record: chained from the first event, replayable, and a hand edit anywhere is found and named."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

import pytest
from autoresearch_mcp.lab.errors import LedgerError, UnknownExperimentError
from autoresearch_mcp.lab.files import sha256_hex
from autoresearch_mcp.lab.ledger import GENESIS, Ledger, StaleChampionError
from autoresearch_mcp.lab.ledger_schema import MIGRATIONS, SCHEMA_VERSION
from autoresearch_mcp.lab.states import Decision, RunState

CANDIDATE, PROGRAM = b"a train.py", b"a program.md"
SESSION = {
    "tag": "t",
    "researcher": "r",
    "base_commit": "c",
    "base_sha256": sha256_hex(CANDIDATE),
    "group": "g",
    "config": "{}",
    "harness": "h",
    "program_sha256": sha256_hex(PROGRAM),
}


def experiment(number: int, **changes: object) -> dict[str, object]:
    return {
        "id": f"e{number:04d}",
        "session": "t",
        "researcher": "r",
        "parent": None,
        "parent_version": 0,
        "description": "an idea",
        "hypothesis": "",
        "candidate_sha256": sha256_hex(CANDIDATE),
        "commit": "c",
        "program_sha256": sha256_hex(PROGRAM),
        "lines": 1,
        "lines_delta": 0,
        **changes,
    }


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append("session_started", SESSION, blobs=(CANDIDATE, PROGRAM))
    return ledger


def test_the_first_event_follows_genesis(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.head() == GENESIS
    ledger.append("session_started", SESSION)
    (first,) = ledger.events_after(0)
    assert first["previous"] == GENESIS
    assert first["sha256"] == ledger.head()


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ("UPDATE events SET body = replace(body, 'an idea', 'a better idea') WHERE number = 2", "event 2"),
        ("DELETE FROM events WHERE number = 1", "event 2"),
        ("UPDATE experiments SET val_bpb = 0.1", "e0001"),
        ("UPDATE sessions SET champion = 'e0001'", "sessions"),
        ("DELETE FROM experiments", "experiments has 0 rows"),
        ("UPDATE blobs SET data = x'00'", "stored file"),
    ],
)
def test_verify_names_what_was_edited_by_hand(ledger: Ledger, tmp_path: Path, edit: str, expected: str) -> None:
    ledger.append("experiment_recorded", experiment(1), blobs=(b"candidate",))
    ledger.append("run_queued", {"id": "e0001.1", "experiment": "e0001", "seed": 1, "device": "cpu"})
    assert ledger.verify() == []
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute(edit)
    other.close()
    assert expected in ledger.verify()[0]


def test_a_failed_transaction_leaves_no_event_and_no_row(ledger: Ledger) -> None:
    head = ledger.head()

    def record_twice() -> None:
        with ledger.transaction():
            ledger.append("experiment_recorded", experiment(1))
            ledger.append("experiment_recorded", experiment(1))

    with pytest.raises(sqlite3.IntegrityError):
        record_twice()
    assert ledger.head() == head
    assert ledger.count_experiments() == 0


def test_keep_is_a_compare_and_swap_on_the_champion(ledger: Ledger) -> None:
    ledger.append("experiment_recorded", experiment(1))
    ledger.append("experiment_recorded", experiment(2))
    ledger.append("experiment_kept", {"id": "e0001", "session": "t", "version": 0, "reason": "first"})
    with pytest.raises(StaleChampionError):
        ledger.append("experiment_kept", {"id": "e0002", "session": "t", "version": 0, "reason": "late"})
    session = ledger.session("t")
    assert session is not None
    assert (session.champion, session.version) == ("e0001", 1)
    assert ledger.experiment("e0002").decision is Decision.PENDING
    assert ledger.verify() == []


def test_two_processes_append_one_chain(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "ledger.db")

    def write(book: Ledger, first: int) -> None:
        for number in range(first, first + 20):
            book.append("experiment_recorded", experiment(number))

    threads = [threading.Thread(target=write, args=(book, first)) for book, first in ((ledger, 1), (other, 101))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.count_experiments() == 40
    assert ledger.verify() == []


def test_a_run_moves_only_along_legal_states(ledger: Ledger) -> None:
    ledger.append("experiment_recorded", experiment(1))
    ledger.append("run_queued", {"id": "e0001.1", "experiment": "e0001", "seed": 1, "device": "cpu"})
    ledger.append("run_started", {"id": "e0001.1", "attempt": 1})
    ledger.append("run_retried", {"id": "e0001.1", "reason": "killed"})
    run = ledger.run("e0001.1")
    assert (run.state, run.attempt, run.attempt_id) == (RunState.QUEUED, 2, "e0001.1-2")
    with pytest.raises(ValueError, match="queued run cannot become queued"):
        ledger.append("run_retried", {"id": "e0001.1", "reason": "again"})


def test_an_unknown_experiment_names_the_latest(ledger: Ledger) -> None:
    with pytest.raises(UnknownExperimentError, match="run_experiment"):
        ledger.experiment("e0001")
    ledger.append("experiment_recorded", experiment(1))
    with pytest.raises(UnknownExperimentError, match="e0001"):
        ledger.experiment("e0002")
    with pytest.raises(UnknownExperimentError) as error:
        ledger.experiment("e" * 5_000)
    assert len(str(error.value)) < 300


def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(LedgerError, match="99"):
        Ledger(tmp_path / "ledger.db")


# The tables as the first two versions made them, shortened to what a statement below needs.
OLD_TABLES = """
DROP INDEX events_by_kind; DROP TABLE researchers; DROP TABLE experiments; DROP TABLE runs;
CREATE TABLE experiments (id TEXT PRIMARY KEY, session TEXT NOT NULL);
CREATE TABLE runs (id TEXT PRIMARY KEY, experiment TEXT NOT NULL);
INSERT INTO experiments VALUES ('e0001', 't'); INSERT INTO runs VALUES ('e0001.1', 'e0001');
PRAGMA user_version = 1;
"""


def test_a_ledger_of_the_first_version_is_brought_up_to_date_by_two_processes_at_once(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("experiment_recorded", experiment(1))
    ledger.append("run_queued", {"id": "e0001.1", "experiment": "e0001", "seed": 1, "device": "cpu"})
    ledger.append("run_started", {"id": "e0001.1", "attempt": 1})
    head, run = ledger.head(), ledger.run("e0001.1")
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.db") as older:
        older.executescript(OLD_TABLES)
    older.close()
    opened: list[Ledger] = []
    threads = [threading.Thread(target=lambda: opened.append(Ledger(tmp_path / "ledger.db"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for again in opened:
        assert (again.head(), again.run("e0001.1"), again.verify()) == (head, run, [])
        assert [researcher.name for researcher in again.researchers("t")] == ["r"]
        again.close()
    assert len(opened) == 2
    with sqlite3.connect(tmp_path / "ledger.db") as now:
        assert now.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert now.execute("SELECT 1 FROM sqlite_master WHERE name = 'events_by_kind'").fetchone() == (1,)
    now.close()


def test_every_version_of_the_ledger_has_a_way_to_the_next() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))


def test_the_latest_event_of_some_kinds_is_found(ledger: Ledger) -> None:
    assert ledger.latest("lab_paused", "lab_resumed") is None
    ledger.append("lab_paused", {"reason": "first"})
    ledger.append("lab_resumed", {})
    ledger.append("lab_paused", {"reason": "second"})
    latest = ledger.latest("lab_paused", "lab_resumed")
    assert latest is not None
    assert (latest.kind, latest.body) == ("lab_paused", {"reason": "second"})
    assert [event.body for event in ledger.events_of("lab_paused")] == [{"reason": "first"}, {"reason": "second"}]


def test_half_of_a_surrogate_pair_cannot_wedge_the_record(ledger: Ledger) -> None:
    ledger.append("experiment_recorded", experiment(1, description="broken \ud800 text"))
    assert ledger.experiment("e0001").description == "broken ? text"
    assert ledger.verify() == []


def test_events_hold_json_without_nan(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="JSON"):
        ledger.append("run_retried", {"id": "e0001.1", "reason": float("nan")})
    assert json.loads(ledger.events_after(0)[0]["body"])["tag"] == "t"
