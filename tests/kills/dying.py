"""Starting what is to die, and telling what the record held then and what was added afterwards."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from .labs import Place
from .scenarios import LONG_SECONDS, Scenario

DRIVER = Path(__file__).parent / "driver.py"
_SHORT = {
    "lab_created": "lab created",
    "harness_pinned": "harness pinned",
    "rules_accepted": "rules accepted",
    "session_started": "session started",
    "researcher_joined": "researcher joined",
    "experiment_recorded": "recorded",
    "run_queued": "queued",
    "run_started": "started",
    "run_retried": "retried",
    "run_finished": "finished",
    "experiment_judged": "judged",
    "experiment_reopened": "reopened",
    "experiment_kept": "kept",
    "experiment_reverted": "reverted",
    "test_opened": "test split opened",
    "test_compared": "gains compared",
    "train_file_restored": "train.py restored",
    "machine_calibrated": "calibrated",
}


def start(place: Place, scenario: Scenario) -> subprocess.Popen[bytes]:
    """Start a process that asks for what the scenario says."""
    command = [sys.executable, "-B", str(DRIVER), str(place.lab), json.dumps(scenario.calls)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/")


def die(place: Place, scenario: Scenario) -> None:
    """Let a process be killed on its way."""
    process = start(place, scenario)
    try:
        code = process.wait(timeout=LONG_SECONDS)
    finally:
        process.kill()
    assert code == -signal.SIGKILL, f"the process was not killed, it ended with {code}"


def recorded(place: Place, after: int = 0) -> list[str]:
    """Return the kinds of the events that are in the record, read without changing anything."""
    (path, *_) = [*place.root.glob("state/labs/*/ledger.db"), Path()]
    if not path.is_file():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT kind FROM events WHERE number > ? ORDER BY number", (after,)).fetchall()
    except sqlite3.OperationalError:  # no table yet
        return []
    finally:
        connection.close()
    return [kind for (kind,) in rows]


def short(kinds: list[str]) -> str:
    """Return events in a few words, those that follow one another as one."""
    counted = ((_SHORT.get(kind, kind), len(list(group))) for kind, group in itertools.groupby(kinds))
    return ", ".join(words if count == 1 else f"{words} {count} times" for words, count in counted) or "nothing"
