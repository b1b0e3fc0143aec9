"""What `test_disk_full` runs in a mount namespace of its own: labs whose state and repository lie on disks that fill up.

Not collected by itself, since it needs the namespace. A disk is filled by making it as small as what lies on it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from autoresearch_mcp.lab.disk import disk_errors_told
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.errors import DiskError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.paths import RunPaths
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.referee.log import CappedLog
from autoresearch_mcp.lab.referee.reports import Reports
from autoresearch_mcp.lab.referee.room import when_there_is_room
from autoresearch_mcp.lab.referee.specfile import read_result, write_result
from autoresearch_mcp.lab.states import Decision, Outcome, RunState, Verdict
from autoresearch_mcp.server.cli.application import app
from autoresearch_mcp.tools.cancel_experiment import cancel_experiment
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.keep import keep
from autoresearch_mcp.tools.report import report
from autoresearch_mcp.tools.revert import revert
from autoresearch_mcp.tools.run_experiment import run_experiment
from autoresearch_mcp.tools.show_experiment import show_experiment
from autoresearch_mcp.tools.status import status
from typer.testing import CliRunner

_KB = 1024
_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system in memory that can be filled without being written."""

    root: Path

    def mount(self) -> None:
        self.root.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", self.root], check=True)

    def fill(self, *, leave_kb: int = 0) -> None:
        """Leave nothing free, or that much."""

        def size() -> str:
            facts = os.statvfs(self.root)
            used_kb = (facts.f_blocks - facts.f_bfree) * facts.f_frsize // _KB
            return f"size={max(4, used_kb + leave_kb)}k"

        self._remount(size)

    def free(self) -> None:
        self._remount(lambda: "size=1g")

    @contextmanager
    def kept_full(self) -> Iterator[None]:
        """Keep it full for a block, also while what lies there is removed; it has room again afterwards."""
        ballast, over = self.root / "ballast", threading.Event()

        def fill_up() -> None:
            with ballast.open("ab", buffering=0) as file:
                while not over.wait(0.001):
                    with suppress(OSError):
                        while file.write(b"x" * 4096):
                            pass

        self.fill(leave_kb=4)
        filling = threading.Thread(target=fill_up)
        filling.start()
        try:
            yield
        finally:
            over.set()
            filling.join()
            ballast.unlink()
            self.free()

    def freeze(self) -> None:
        self._remount(lambda: "ro")

    def thaw(self) -> None:
        self._remount(lambda: "rw")

    def _remount(self, option: Callable[[], str]) -> None:
        for _ in range(50):  # refused where what lies there has grown meanwhile, so it is asked anew each time
            command = ["mount", "-o", f"remount,{(wanted := option())}", str(self.root)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return
        raise AssertionError(f"{self.root} cannot be remounted with {wanted}")


@dataclass(frozen=True, slots=True)
class Disks:
    state: SmallDisk
    repository: SmallDisk


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_corpus: str) -> Iterator[Disks]:
    found = Disks(SmallDisk(tmp_path / "state"), SmallDisk(tmp_path / "lab"))
    for disk in (found.state, found.repository):
        disk.mount()
    monkeypatch.setenv("AUTORESEARCH_STATE", str(found.state.root))
    yield found
    for disk in (found.state, found.repository):
        subprocess.run(["umount", "-l", disk.root], check=True)


@pytest.fixture
def quick(disks: Disks, make_quick_lab: Callable[..., Lab]) -> Lab:
    """A lab with a champion, a better experiment e0002 and a worse one e0003, both undecided, and an idea in train.py."""
    lab = make_quick_lab()
    finished(lab, "baseline")
    for number, val_bpb in ((2, "1.5"), (3, "2.5")):
        edit(lab, val_bpb)
        assert finished(lab, f"idea {number}").decision is Decision.PENDING
    edit(lab, "1.2")
    return lab


def edit(lab: Lab, wish: str) -> None:
    text = re.sub(r"# quick: .*", f"# quick: {wish if '=' in wish else 'val_bpb=' + wish}", lab.workspace.train.read_text())
    lab.workspace.train.write_text(text)


def finished(lab: Lab, description: str) -> Experiment:
    run_experiment(lab, description, wait_seconds=0.0)
    newest = lab.ledger.experiments(order="rowid DESC", limit=1)[0]
    experiment = wait(lab, newest.id, _SECONDS)
    assert experiment.verdict is not None
    return experiment


def told(call: Callable[[], Any]) -> DiskError | None:
    """Make a call as the server does; it works, or says that the disk is full. Everything else fails the test."""
    try:
        with disk_errors_told():
            call()
        return None
    except DiskError as error:
        refused = error
    assert re.search(r"the disk is (full|read-only)|it cannot be (written|opened)", str(refused))
    assert "Nothing was lost" in str(refused)
    assert "call again" in str(refused)
    return refused


def assert_whole(lab: Lab) -> None:
    assert lab.ledger.verify() == []
    with closing(sqlite3.connect(f"file:{lab.state.ledger}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check = subprocess.run(["git", "fsck", "--full"], cwd=lab.root, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


def leftovers(*folders: Path) -> list[Path]:
    """Temporary files that we began and nobody finished; git's own (tmp_obj_*, empty) are `git gc`'s to remove."""
    pattern = re.compile(r"\.tmp$|/\.(progress|processes|result|spec|lab|autoresearch)\.json\.|/\.secret|/refs/.*\.lock$")
    found = [Path(top, name) for folder in folders for top, _, names in os.walk(folder) for name in names]
    return [path for path in found if pattern.search(str(path))]


@pytest.mark.parametrize("which", ["state", "repository"])
def test_every_tool_works_or_says_that_the_disk_is_full_and_works_once_there_is_room(
    disks: Disks, quick: Lab, which: str
) -> None:
    disk: SmallDisk = getattr(disks, which)
    calls: dict[str, Callable[[], Any]] = {
        "status": lambda: status(quick),
        "history": lambda: history(quick),
        "show": lambda: show_experiment(quick, "e0002"),
        "report": lambda: report(quick),
        "run": lambda: run_experiment(quick, "idea 4", wait_seconds=0.0),
        "keep": lambda: keep(quick, "e0002", "better"),
        "revert": lambda: revert(quick, "e0003", "worse"),
        "cancel": lambda: cancel_experiment(quick, "e0002"),
    }
    source = quick.train_file()
    disk.fill()
    before = quick.ledger.head()
    refused = {name: told(call) for name, call in calls.items()}
    assert [name for name in ("status", "history", "show", "report") if refused[name] is not None] == []
    assert any(error is not None for error in refused.values())
    assert all(str(disk.root) in str(error) for error in refused.values() if error is not None)
    if which == "state" and all(refused[name] for name in ("run", "keep", "revert")):
        assert quick.ledger.head() == before
    assert any(str(disk.root) in warning for warning in status(quick).warnings)
    assert quick.train_file() in (source, quick.champion_source(quick.session()))
    assert_whole(quick)

    disk.free()
    for name in ("keep", "revert"):
        calls[name]()
    quick.workspace.train.write_bytes(source)
    newest = finished(quick, "idea 4")
    assert (newest.id, newest.verdict) == ("e0004", Verdict.IMPROVED if newest.parent == "e0002" else newest.verdict)
    assert quick.ledger.count_experiments() == 4
    assert (quick.ledger.experiment("e0002").decision, quick.ledger.experiment("e0003").decision) == ("kept", "reverted")
    champion = quick.champion(quick.session())
    assert champion is not None
    assert quick.git.ref(quick.session().branch) == champion.commit
    assert_whole(quick)
    assert leftovers(disks.state.root, disks.repository.root) == []


def test_keep_and_revert_that_a_full_repository_stopped_half_way_are_finished_by_the_same_call(
    disks: Disks, quick: Lab
) -> None:
    disks.repository.fill()
    kept, reverted = told(lambda: keep(quick, "e0002", "better")), told(lambda: revert(quick, "e0003", "worse"))
    disks.repository.free()
    assert kept is not None or reverted is not None
    keep(quick, "e0002", "better")
    revert(quick, "e0003", "worse")
    keep(quick, "e0002", "better")
    champion = quick.ledger.experiment("e0002")
    assert quick.git.ref(quick.session().branch) == champion.commit
    assert quick.train_file() == quick.champion_source(quick.session())
    assert len([e for e in quick.ledger.events_of("experiment_kept") if e.body["id"] == "e0002"]) == 1
    assert len(quick.ledger.events_of("experiment_reverted")) == 1
    assert_whole(quick)


def test_no_run_starts_on_a_full_disk_and_it_starts_by_itself_once_there_is_room(disks: Disks, quick: Lab) -> None:
    disks.state.fill(leave_kb=8 * 1024)
    answer = run_experiment(quick, "idea 4", wait_seconds=0.3)
    assert answer.experiment.verdict is None
    assert quick.ledger.runs("e0004")[0].state is RunState.QUEUED
    assert any("MB left" in warning for warning in status(quick).warnings)
    disks.state.free()
    assert wait(quick, "e0004", _SECONDS).val_bpb == 1.2
    assert quick.ledger.runs("e0004")[0].attempt == 1


def test_a_lab_is_opened_and_read_on_a_full_disk_and_written_again_by_the_same_process(disks: Disks, quick: Lab) -> None:
    quick.close()
    disks.state.fill()
    disks.repository.fill()
    with closing(Lab.open(quick.root, pinned=False)) as lab:
        assert status(lab).champion is not None
        assert history(lab).total == 3
        assert "e0002" in report(lab).markdown
        assert told(lambda: run_experiment(lab, "idea 4", wait_seconds=0.0)) is not None
        for command in (["status"], ["history"], ["report"], ["export", "--output", "-"], ["verify"]):
            result = CliRunner().invoke(app, [*command, "--lab", str(quick.root)])
            assert result.exit_code == 0, (command, result.output)
        refused = CliRunner().invoke(app, ["pause", "--lab", str(quick.root)])
        assert refused.exit_code == 1
        assert "autoresearch: " in refused.stderr
        assert "the disk" in refused.stderr
        disks.state.free()
        disks.repository.free()
        deadline = time.monotonic() + _SECONDS
        while told(lambda: run_experiment(lab, "idea 4", wait_seconds=0.0)) is not None:
            assert time.monotonic() < deadline
        assert wait(lab, "e0004", _SECONDS).val_bpb == 1.2
        assert_whole(lab)


def test_a_lab_on_a_read_only_disk_can_be_read_checked_and_exported(disks: Disks, quick: Lab, tmp_path: Path) -> None:
    quick.close()
    disks.state.freeze()
    disks.repository.freeze()
    with closing(Lab.open(quick.root, pinned=False)) as lab:
        assert status(lab).champion is not None
        assert history(lab).total == 3
        assert lab.ledger.verify() == []
        error = told(lambda: run_experiment(lab, "idea 4", wait_seconds=0.0))
        assert error is not None
        assert "Make it writable" in str(error)
        written = tmp_path / "elsewhere.tsv"
        result = CliRunner().invoke(app, ["export", "--output", str(written), "--lab", str(quick.root)])
        assert result.exit_code == 0, result.output
        assert written.read_text().startswith("commit\tval_bpb")
        assert CliRunner().invoke(app, ["export", "--lab", str(quick.root)]).exit_code != 0
    disks.state.thaw()
    disks.repository.thaw()
    with closing(Lab.open(quick.root, pinned=False)) as lab:
        assert finished(lab, "idea 4").val_bpb == 1.2


@pytest.mark.parametrize("which", ["state", "repository"])
def test_a_first_opening_that_a_full_disk_stopped_is_done_again_from_the_start(
    disks: Disks, quick: Lab, which: str, tmp_path: Path, train_py: str
) -> None:
    disk = SmallDisk(tmp_path / "second") if which == "repository" else disks.state
    folder = tmp_path / "second"
    if which == "repository":
        disk.mount()
    shutil.copytree(quick.root, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("autoresearch.json"))
    disk.fill()
    error = told(lambda: Lab.open(folder, pinned=False).close())
    disk.free()
    assert error is not None
    with closing(Lab.open(folder, pinned=False)) as lab:
        assert lab.id != quick.id
        assert lab.ledger.verify() == []
        assert lab.harness()
    assert leftovers(disks.state.root, folder) == []
    if which == "repository":
        subprocess.run(["umount", "-l", disk.root], check=True)


# -- real runs ------------------------------------------------------------------------------------------------------------


def begin(lab: Lab) -> RunPaths:
    run_experiment(lab, "baseline", wait_seconds=0.0)
    return lab.state.run("e0001.1")


def phase_of(lab: Lab) -> str:
    progress = lab.executor.progress("e0001.1")
    return "" if progress is None else progress.phase


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_trained_model_is_scored_once_there_is_room(disks: Disks, make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(seconds=1.0)
    lab.start_session(None, "tester")
    begin(lab)
    until(lambda: phase_of(lab) == "scoring")
    with disks.state.kept_full():
        until(lambda: told(lambda: lab.ledger.append("lab_resumed", {})) is not None)
        assert lab.executor.result("e0001.1") is None, "its runner lives"
        assert any("waits to write its result" in warning for warning in status(lab).warnings)
    experiment = wait(lab, "e0001", _SECONDS)
    assert experiment.verdict is Verdict.IMPROVED, experiment.reason
    assert lab.ledger.runs("e0001")[0].attempt == 1
    assert leftovers(disks.state.root) == []


def test_a_candidate_that_a_disk_full_of_other_things_ends_is_lost_told_once_there_is_room_and_may_be_tried_again(
    disks: Disks, make_lab: Callable[..., Lab], train_py: str
) -> None:
    noisy = train_py.replace("    step += 1\n", "    step += 1\n    print('x' * 500)\n")
    lab = make_lab(train=noisy.replace("seconds_left() > 0.3", "seconds_left() > 3"), seconds=5.0)  # for a busy machine
    lab.start_session(None, "tester")
    paths = begin(lab)
    until(lambda: phase_of(lab) == "training")
    with disks.state.kept_full():
        until(lambda: not paths.scratch.exists() and not paths.python.exists())
    experiment = wait(lab, "e0001", _SECONDS)
    assert (experiment.verdict, "the disk is full" in experiment.reason) == (Verdict.LOST, True), experiment.reason
    assert lab.ledger.runs("e0001")[0].attempt == 1
    assert all(line.startswith("{") and line.endswith("}") for line in paths.curve.read_text().splitlines())
    again = run_experiment(lab, "baseline again", wait_seconds=0.0)
    assert again.experiment.id == "e0002"
    cancel_experiment(lab, "e0002")


def test_a_candidate_that_fills_the_disk_crashes_and_is_told_so(
    disks: Disks, make_lab: Callable[..., Lab], train_py: str
) -> None:
    writing = (
        "import os\nfrom pathlib import Path\n"
        "with Path(os.environ['HOME'], 'big').open('wb') as file:\n"
        "    for _ in range(300):\n        file.write(bytes(1 << 20))\n"
    )
    lab = make_lab(train=train_py.replace("tokenizer = Tokenizer", f"{writing}tokenizer = Tokenizer"), seconds=1.0)
    lab.start_session(None, "tester")
    disks.state.fill(leave_kb=200 * 1024)
    begin(lab)
    experiment = wait(lab, "e0001", _SECONDS)
    assert experiment.verdict is Verdict.CRASHED, experiment.reason
    assert "the disk is full" in experiment.reason
    assert "the run's own" in experiment.reason


# -- what a run tells while it lasts --------------------------------------------------------------------------------------


def test_a_result_waits_for_room_and_leaves_no_part_of_itself_meanwhile(disks: Disks) -> None:
    paths = RunPaths(disks.state.root / "run")
    paths.root.mkdir()
    result, over = RunResult(outcome=Outcome.SCORED, reason="scored", val_bpb=1.5), threading.Event()
    attempts: list[int] = []

    def write() -> None:
        attempts.append(1)
        write_result(paths, result)

    def leave() -> None:
        when_there_is_room(paths, write)
        over.set()

    (disks.state.root / "others").write_bytes(bytes(1 << 16))  # an empty disk cannot be made full
    disks.state.fill()
    waiting = threading.Thread(target=leave)
    waiting.start()
    until(lambda: len(attempts) > 1)
    assert list(paths.root.iterdir()) == []
    assert not over.is_set()
    disks.state.free()
    waiting.join(_SECONDS)
    assert read_result(paths) == result
    assert list(paths.root.iterdir()) == [paths.result]


def test_a_curve_an_event_or_a_log_that_the_disk_does_not_take_leaves_no_part_of_itself(disks: Disks) -> None:
    paths = RunPaths(disks.state.root / "run")
    paths.root.mkdir()
    reports, (reading, writing) = Reports(paths), os.pipe()
    os.set_blocking(reading, False)
    log = CappedLog(paths.log, limit_bytes=1 << 20)

    def live(first: int, said: bytes) -> None:
        for step in range(first, first + 500):
            reports.point({"step": step, "metrics": {"loss": 1.0}}, 1.0)
        for _ in range(12):
            os.write(writing, said * 1000)
            log.read_from(reading)

    reports.phase("starting")
    live(0, b"first\n")
    disks.state.fill()
    reports.phase("training")
    live(1000, b"while it was full\n")
    disks.state.free()
    live(2000, b"last\n")
    log.close()
    reports.end()
    os.close(reading)
    os.close(writing)
    steps = [json.loads(line)["step"] for line in paths.curve.read_text().splitlines()]
    assert steps[:500] == list(range(500))
    assert steps[-500:] == list(range(2000, 2500))
    missing = 1500 - len(steps)
    assert missing > 0
    assert re.fullmatch(rf"the disk was full: ({missing}|{missing + 1}) points .*", reports.notes[0])
    assert all(json.loads(line) for line in paths.events.read_text().splitlines())
    text = paths.log.read_bytes()
    assert text.startswith(b"first\n" * 12_000)
    assert text.endswith(b"last\n" * 3000)
    assert b" bytes left out ..." in text
    assert json.loads(paths.progress.read_text())["phase"] == "starting"
    assert leftovers(paths.root) == []
