"""The Stop hook: an agent that researches goes on, and nobody else is held."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from autoresearch_mcp.lab import experiments, rules
from autoresearch_mcp.lab.calibration import record
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.errors import DiskError, LedgerError, NotReadyError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import Ledger
from autoresearch_mcp.lab.ledger_schema import SCHEMA_VERSION
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.scaffold import create_lab
from autoresearch_mcp.server.attendance import Attending, hold_path
from autoresearch_mcp.server.hooks import MOST_HOLDS, MOST_INPUT_BYTES, Client, answer_stop
from autoresearch_mcp.tools.read_program import read_program

from ..conftest import QUICK_TRAIN_PY
from ..quick.adopt import adopt_quick_runner
from .stdio_server import StdioServer

MakeLab = Callable[..., Lab]
STOP = {"session_id": "one", "hook_event_name": "Stop", "stop_hook_active": False}


def stop(client: Client = "claude-code", *, lab: Path | None = None, **event: Any) -> dict[str, str]:
    """Answer a client of this process: what a hook that it starts would."""
    return dict(answer_stop(client, json.dumps({**STOP, **event}).encode(), lab))


def hook(*arguments: str, given: bytes = json.dumps(STOP).encode()) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a client does."""
    command = [sys.executable, "-P", "-m", "autoresearch_mcp.server.cli", "hook", "stop", *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=False, cwd="/")


def try_idea(lab: Lab, description: str, val_bpb: float) -> Experiment:
    source = re.sub(r"# quick:.*", f"# quick: val_bpb={val_bpb}", lab.workspace.train.read_text())
    lab.workspace.train.write_text(source)
    experiment, _ = experiments.propose(lab, description=description, hypothesis="")
    return wait(lab, experiment.id, 20.0)


@pytest.fixture(scope="module")
def researched(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: str) -> Iterator[Lab]:
    """A lab with a session and a baseline of 2.0, for all tests of this file; each decides what it tries."""
    folder = tmp_path_factory.mktemp("hooks") / "lab"
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "train.py").write_text(QUICK_TRAIN_PY)
    (folder / "autoresearch.toml").write_text(f'[budget]\nseconds = 5.0\n[corpus]\nname = "{tiny_corpus}"\n')
    create_lab(folder)
    lab = Lab.open(folder, pinned=False)
    record(lab.ledger, background_share=0.0, threshold=1.0)
    adopt_quick_runner(lab)
    lab.start_session(None, "tester")
    try_idea(lab, "baseline", 2.0)
    yield lab
    lab.close()


@pytest.fixture
def attending() -> Iterator[Attending]:
    """The note of a server that this process's parent has started."""
    attending = Attending()
    yield attending
    attending.close()


@pytest.fixture
def lab(researched: Lab, attending: Attending) -> Lab:
    """The lab, in which the agent of this client has begun to research."""
    attending.note(researched, "start_session")
    return researched


def note_of(lab: Lab) -> Path:
    return lab.state.attending / f"{os.getpid()}.json"


@pytest.mark.parametrize("client", ["claude-code", "codex", "gemini", "cursor"])
def test_each_client_is_answered_in_its_own_form(lab: Lab, client: Client) -> None:
    answer = hook("--client", client)
    assert (answer.returncode, answer.stderr) == (0, b"")
    said = json.loads(answer.stdout)
    if client == "cursor":
        assert list(said) == ["followup_message"]
    else:
        assert list(said) == ["decision", "reason"]
        assert said["decision"] == "block"
    assert "Research goes on" in "".join(said.values())


def test_the_text_alone_lets_an_agent_that_forgot_everything_go_on(lab: Lab, attending: Attending) -> None:
    worse = try_idea(lab, "a wider model", 2.5)
    experiments.revert(lab, worse.id, "width does not pay at this budget")
    better = try_idea(lab, "a smaller step", 1.9)
    attending.note(lab, "run_experiment")
    text = stop()["reason"]
    assert len(text.encode()) < 3000
    for word in ("val_bpb", "trainer/train.py", str(lab.root), "session", "e0001 with val_bpb 2.0000", "read_program"):
        assert word in text
    assert "a wider model" in text
    assert "width does not pay at this budget" in text
    steps = read_program(lab).next
    assert steps[0].startswith(f"keep('{better.id}'")
    assert all(f"- {step}\n" in text for step in steps)
    assert f"autoresearch pause --lab {lab.root}" in text
    experiments.revert(lab, better.id, "a chance find")


def test_long_notes_of_many_experiments_leave_the_text_short(lab: Lab, attending: Attending) -> None:
    for number in range(3):
        experiment = try_idea(lab, f"idea {number} " + "é" * 300, 3.5 + number / 10)
        experiments.revert(lab, experiment.id, "a lesson " * 100)
    attending.note(lab, "revert")
    assert len(stop()["reason"].encode()) < 3000


def test_nobody_is_held_before_a_session_call_of_this_client(researched: Lab, attending: Attending) -> None:
    for tool in ("read_program", "status", "history", "report", "wait_experiment", "keep", "revert"):
        attending.note(researched, tool)
    assert stop() == {}
    attending.note(researched, "run_experiment")
    assert stop() != {}


def test_a_developer_in_another_window_is_not_held(lab: Lab) -> None:
    note = json.loads(note_of(lab).read_text())
    with subprocess.Popen(["sleep", "60"]) as other:  # a window whose server this would be
        note["client"] = {"pid": other.pid, "started_at": time.time()}
        note_of(lab).write_text(json.dumps(note))
        assert stop() == {}
        other.kill()


def test_another_conversation_of_the_same_client_is_not_held(lab: Lab, attending: Attending) -> None:
    assert stop() != {}
    attending.note(lab, "wait_experiment")
    assert stop(session_id="two") == {}
    assert stop() != {}
    attending.note(lab, "start_session")  # by the other one
    assert stop(session_id="two") != {}
    assert stop() == {}


def test_a_dead_server_and_an_old_note_hold_nobody(lab: Lab) -> None:
    fresh = json.loads(note_of(lab).read_text())
    note_of(lab).write_text(json.dumps({**fresh, "server": {"pid": fresh["server"]["pid"], "started_at": 1.0}}))
    assert stop() == {}
    note_of(lab).write_text(json.dumps({**fresh, "at": time.time() - 86_400}))
    assert stop() == {}
    note_of(lab).write_text("{")
    assert stop() == {}
    note_of(lab).write_text(json.dumps(fresh))
    assert stop() != {}


def test_only_the_lab_that_is_asked_for_counts(lab: Lab, tmp_path: Path) -> None:
    assert stop(lab=tmp_path) == {}
    assert stop(lab=lab.root / "trainer") != {}
    note = json.loads(note_of(lab).read_text())
    note_of(lab).write_text(json.dumps({**note, "folder": str(lab.root / ".autoresearch" / "worktrees" / "two")}))
    assert stop(lab=lab.root / "elsewhere") == {}


def test_a_paused_lab_holds_nobody(lab: Lab) -> None:
    rules.pause(lab, "good night")
    assert stop() == {}
    rules.resume(lab)
    assert stop() != {}


def test_a_stop_rule_ends_the_loop_once_everything_is_decided(make_quick_lab: MakeLab, attending: Attending) -> None:
    lab = make_quick_lab(extra="[stop]\nexperiments = 2\n")
    try_idea(lab, "baseline", 2.0)
    better = try_idea(lab, "a smaller step", 1.9)
    attending.note(lab, "run_experiment")
    text = stop()["reason"]
    assert "met its stop rule (2 of 2 experiments" in text
    assert f"keep('{better.id}'" in text
    experiments.keep(lab, better.id, "better")
    attending.note(lab, "keep")
    assert stop() == {}


def test_an_agent_that_makes_no_call_is_let_go_and_one_that_does_is_not(lab: Lab, attending: Attending) -> None:
    for number in range(1, MOST_HOLDS + 1):
        assert f"hold {number} of {MOST_HOLDS}" in stop(stop_hook_active=number > 1)["reason"]
    assert stop(stop_hook_active=True) == {}
    attending.note(lab, "read_program")  # looks, and moves nothing
    assert stop() == {}
    attending.note(lab, "wait_experiment")
    for _ in range(MOST_HOLDS):
        assert stop() != {}
    assert stop() == {}


@pytest.mark.parametrize(
    "given",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": "' + b"x" * MOST_INPUT_BYTES + b'"}'],
    ids=["empty", "broken", "list", "null", "no text", "too long"],
)
def test_input_that_is_not_what_a_client_writes_holds_nobody(lab: Lab, given: bytes) -> None:
    assert answer_stop("codex", given) == {}


@pytest.mark.parametrize("given", [b"", b"{", b"[" * 100_000], ids=["empty", "broken", "deep"])
def test_the_command_answers_such_input_too(lab: Lab, given: bytes) -> None:
    answer = hook("--client", "codex", given=given)
    assert (answer.returncode, answer.stdout) == (0, b"{}\n")


@pytest.mark.parametrize(
    "event",
    [{"hook_event_name": "SubagentStop"}, {"hook_event_name": "stop", "status": "aborted"}, {"status": "error"}],
    ids=["a subagent", "an interrupted agent", "a failed agent"],
)
def test_only_an_agent_that_ends_its_own_turn_is_held(lab: Lab, event: dict[str, str]) -> None:
    assert stop("cursor", **event) == {}


def test_an_input_with_a_byte_order_mark_is_read(lab: Lab) -> None:
    assert answer_stop("cursor", b"\xef\xbb\xbf" + json.dumps(STOP).encode()) != {}


@pytest.mark.parametrize(
    "arguments", [("--client",), ("--client", "emacs"), ("--client", "codex", "--new-option")], ids=" ".join
)
def test_a_wrong_use_of_the_command_is_told_and_holds_nobody(arguments: tuple[str, ...]) -> None:
    answer = hook(*arguments)
    assert (answer.returncode, answer.stdout) == (0, b"{}\n")  # 2 would hold the agent
    assert answer.stderr.startswith(b"autoresearch: the hook lets the agent stop: ")
    assert answer.stderr.count(b"\n") == 1


def test_a_client_that_does_not_end_its_input_gets_an_answer(lab: Lab) -> None:
    code = "from autoresearch_mcp.server.cli import hook_command as h; h._MOST_SECONDS = 0.1; h.stop('codex', None)"
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"{}\n"
        assert process.wait() == 0


def test_a_record_that_cannot_be_read_holds_nobody(lab: Lab) -> None:
    with closing(sqlite3.connect(lab.state.ledger, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 99")
        answer = hook("--client", "codex")
        assert (answer.returncode, answer.stdout) == (0, b"{}\n")
        assert b"update autoresearch-mcp" in answer.stderr
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def test_a_record_that_somebody_has_locked_is_not_waited_for(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db").close()
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("CREATE TABLE mine (number)")
        began = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="locked"):  # for which the command lets the agent stop
            Ledger(tmp_path / "ledger.db", for_reading=True)
        assert time.monotonic() - began < 10


def test_a_count_that_cannot_be_written_holds_nobody(lab: Lab) -> None:
    hold_path(note_of(lab)).mkdir()
    answer = hook("--client", "codex")
    hold_path(note_of(lab)).rmdir()
    assert (answer.returncode, answer.stdout) == (0, b"{}\n")


def test_holding_an_agent_changes_nothing_but_the_count(lab: Lab) -> None:
    def files() -> dict[Path, bytes]:
        shared = (lab.state.ledger.with_name("ledger.db-wal"), lab.state.ledger.with_name("ledger.db-shm"))
        found = [path for root in (lab.root, lab.state.root) for path in root.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in found if path not in shared}

    head, before = lab.ledger.head(), files()
    assert hook("--client", "codex").stdout != b"{}\n"
    after = files()
    assert after.pop(hold_path(note_of(lab)))
    assert after == before
    assert lab.ledger.head() == head


def test_a_lab_that_is_only_looked_at_can_be_read_and_not_written(lab: Lab, tmp_path: Path) -> None:
    looked = Lab.look(lab.root)
    try:
        assert read_program(lab).next
        assert looked.ledger.head() == lab.ledger.head()
        with pytest.raises(DiskError, match="for reading only"):
            looked.ledger.append("lab_resumed", {})
    finally:
        looked.close()
    with pytest.raises(NotReadyError):
        Lab.look(tmp_path)
    with closing(sqlite3.connect(lab.state.ledger)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
        with pytest.raises(LedgerError, match=f"format {SCHEMA_VERSION - 1}"):
            Lab.look(lab.root)
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION - 1,)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def test_a_note_of_a_killed_server_is_removed_by_the_next(lab: Lab, attending: Attending) -> None:
    left = lab.state.attending / "1.json"
    left.write_text(json.dumps({**json.loads(note_of(lab).read_text()), "server": {"pid": 1, "started_at": 1.0}}))
    hold_path(left).write_text("{}")
    again = Attending()
    again.note(lab, "start_session")
    assert not left.exists()
    assert not hold_path(left).exists()
    again.close()
    assert list(lab.state.attending.iterdir()) == []


@pytest.mark.slow
def test_an_agent_of_a_real_server_is_held_until_the_server_ends(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    server = StdioServer(lab.root)
    try:
        server.connect().call("read_program")
        assert json.loads(hook("--client", "codex").stdout) == {}
        server.call("start_session")
        assert "run_experiment(description='baseline')" in json.loads(hook("--client", "codex").stdout)["reason"]
        note = next(lab.state.attending.glob("*.json"))
        server.kill()
        assert json.loads(hook("--client", "codex").stdout) == {}
        assert note.exists()
    finally:
        server.kill()
    server = StdioServer(lab.root)
    try:
        server.connect().call("start_session")
        assert json.loads(hook("--client", "codex").stdout) != {}
        server.hang_up()
        assert list(lab.state.attending.iterdir()) == []
    finally:
        server.kill()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sh replaces itself elsewhere")
def test_a_launcher_between_client_and_server_is_not_taken_for_the_client(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    command = f"{sys.executable} -P -m autoresearch_mcp.server.cli serve --lab {lab.root}; true"
    info = {"name": "test", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
    messages: list[dict[str, Any]] = [
        {"method": "initialize", "id": 1, "params": hello},
        {"method": "notifications/initialized"},
        {"method": "tools/call", "id": 2, "params": {"name": "start_session", "arguments": {}}},
    ]
    with subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        for message in messages:
            launcher.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        launcher.stdin.flush()
        while json.loads(launcher.stdout.readline()).get("id") != 2:
            pass
        client = json.loads(next(lab.state.attending.glob("*.json")).read_text())["client"]
        assert client["pid"] == os.getpid()
        launcher.stdin.close()
