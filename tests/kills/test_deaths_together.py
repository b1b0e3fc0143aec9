"""Deaths that come together or again: the machine, one runner twice, a server that hangs, a folder that somebody deletes."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import dispatch, wait
from autoresearch_mcp.lab.errors import LedgerError
from autoresearch_mcp.lab.states import Decision, RunState, Verdict

from .checks import Users, require_nobody, require_whole
from .conftest import Arm
from .dying import die, recorded, start
from .labs import UNDECIDED, Copy, Place, idea, propose
from .scenarios import SCENARIOS, call

pytestmark = pytest.mark.slow

T = TypeVar("T")
_THIRD, _SECONDS = "e0003", 30.0
_SUBMIT = SCENARIOS["submit"]


@pytest.mark.parametrize("lost", ["nothing", "what was not flushed"])
def test_a_machine_that_stops_in_the_middle_of_training_costs_one_attempt(
    copy: Copy, arm: Arm, disarm: Callable[[], None], lost: str
) -> None:
    place, users = _with_idea(copy, idea(1.8, wishes="seconds=1"))
    arm()
    process = start(place, SCENARIOS["wait"])
    (folder,) = _until(lambda: [path.parent for path in _runs(place).glob(f"{_THIRD}.*/progress.json")])
    place.kill_all()
    assert process.wait(timeout=_SECONDS) == -signal.SIGKILL
    disarm()
    if lost != "nothing":
        for path in folder.iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
    with place.opened() as lab:
        experiment = wait(lab, _THIRD, _SECONDS)
        assert experiment.verdict is Verdict.IMPROVED
        assert [run.attempt for run in lab.ledger.runs(_THIRD)] == [2]
        require_whole(place, lab, users, train=place.train.read_bytes())


def test_a_run_whose_runner_is_killed_twice_is_lost_once_and_may_be_tried_again(
    copy: Copy, arm: Arm, disarm: Callable[[], None]
) -> None:
    place, users = _with_idea(copy, idea(1.8))
    arm(runner="train.training", times=2)
    with place.opened() as lab:
        call(lab, SCENARIOS["wait"].calls)
        assert place.reached("train.training") == 2
        disarm()
        experiment = lab.ledger.experiment(_THIRD)
        assert (experiment.verdict, experiment.keepable) == (Verdict.LOST, False)
        (run,) = lab.ledger.runs(_THIRD)
        assert run.result is not None
        assert run.result.tainted is None
        require_whole(place, lab, users, train=place.train.read_bytes())
        again = wait(lab, propose(lab, "the same bytes"), _SECONDS)
        assert (again.id, again.verdict) == ("e0004", Verdict.IMPROVED)
        require_whole(place, lab, users, train=place.train.read_bytes())


def test_servers_that_die_before_they_start_the_runner_cost_no_attempt(
    copy: Copy, arm: Arm, disarm: Callable[[], None]
) -> None:
    place, users = _with_idea(copy, idea(1.8))
    arm(server="submit.spec", times=3)
    for deaths in (1, 2, 3):
        die(place, _SUBMIT)
        assert place.reached("submit.spec") == deaths
    disarm()
    with place.opened() as lab:
        call(lab, _SUBMIT.again)
        (run,) = lab.ledger.runs(_THIRD)
        assert run.attempt == 1
        require_whole(place, lab, users, train=place.train.read_bytes())


def test_a_result_that_nobody_asks_for_is_recorded_by_whatever_server_comes(
    copy: Copy, arm: Arm, disarm: Callable[[], None]
) -> None:
    place, users = _with_idea(copy, idea(1.8))
    arm(server="submit.ref-before")
    die(place, _SUBMIT)
    disarm()
    with place.opened() as lab:
        dispatch(lab)  # as a server does between calls
        _until(lambda: list(_runs(place).glob(f"{_THIRD}.*/result.json")))
        dispatch(lab)
        assert lab.ledger.experiment(_THIRD).verdict is Verdict.IMPROVED
        require_whole(place, lab, users, train=place.train.read_bytes())


@pytest.mark.parametrize("whose", ["its own", "every"])
def test_a_run_whose_folder_somebody_deletes_is_run_again(copy: Copy, whose: str) -> None:
    place, users = _with_idea(copy, idea(1.8, wishes="seconds=0.5"))
    with place.opened() as lab:
        propose(lab, "an idea")
        (folder,) = _until(lambda: [path.parent for path in _runs(place).glob(f"{_THIRD}.*/progress.json")])
        _delete(folder if whose == "its own" else folder.parent)
        experiment = wait(lab, _THIRD, _SECONDS)
        assert experiment.verdict is Verdict.IMPROVED
        assert [run.attempt for run in lab.ledger.runs(_THIRD)] == [2]
        if whose == "its own":
            require_whole(place, lab, users, train=place.train.read_bytes())
        assert lab.ledger.verify() == []
    require_nobody(place)


def test_a_cancelled_run_whose_folder_is_gone_stays_cancelled(copy: Copy) -> None:
    place, users = _with_idea(copy, idea(1.8, wishes="seconds=0.5"))
    with place.opened() as lab:
        propose(lab, "an idea")
        (folder,) = _until(lambda: [path.parent for path in _runs(place).glob(f"{_THIRD}.*/progress.json")])
        _delete(folder)
        assert experiments.cancel(lab, _THIRD).verdict is Verdict.CANCELLED
        assert experiments.cancel(lab, _THIRD).verdict is Verdict.CANCELLED
        assert not lab.ledger.runs_in_state(RunState.QUEUED)
        require_whole(place, lab, users, train=place.train.read_bytes())


@pytest.mark.parametrize("end", ["goes on", "is killed"])
def test_a_server_that_hangs_in_a_transaction_holds_others_up_and_nothing_is_recorded_twice(
    copy: Copy, arm: Arm, disarm: Callable[[], None], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr("autoresearch_mcp.lab.ledger._BUSY_SECONDS", 0.3)
    place, users = _with_idea(copy, idea(1.8))
    arm(server="ingest.judged", signal="SIGSTOP")
    process = start(place, SCENARIOS["wait"])
    _until(lambda: place.reached("ingest.judged"))
    disarm()
    with place.opened() as lab:
        before = recorded(place)
        assert wait(lab, _THIRD, 0.5).verdict is None
        with pytest.raises(LedgerError, match="busy"):
            experiments.keep(lab, UNDECIDED, "")
        assert recorded(place) == before
        os.kill(process.pid, signal.SIGCONT if end == "goes on" else signal.SIGKILL)
        assert process.wait(timeout=_SECONDS) == (0 if end == "goes on" else -signal.SIGKILL)
        assert wait(lab, _THIRD, _SECONDS).verdict is Verdict.IMPROVED
        experiments.keep(lab, UNDECIDED, "")
        assert lab.ledger.experiment(UNDECIDED).decision is Decision.KEPT
        require_whole(place, lab, users, train=place.train.read_bytes())


@pytest.mark.parametrize("asked", ["keep", "revert"])
def test_two_deaths_in_one_decision_leave_one_decision(copy: Copy, arm: Arm, disarm: Callable[[], None], asked: str) -> None:
    scenario = SCENARIOS[asked]
    place = copy(scenario.stage)
    assert scenario.train is not None
    place.train.write_bytes(scenario.train)
    users = Users.of(place)
    points = {"keep": ("keep.kept", "keep.branch-during"), "revert": ("revert.decided", "revert.unnamed", "revert.replaced")}
    for label in points[asked]:
        arm(server=label)
        die(place, scenario)
    disarm()
    with place.opened() as lab:
        call(lab, scenario.again)
        require_whole(place, lab, users, train=scenario.final_train, backups=scenario.backups)


def _with_idea(copy: Copy, train: bytes) -> tuple[Place, Users]:
    place = copy("scored")
    place.train.write_bytes(train)
    return place, Users.of(place)


def _runs(place: Place) -> Path:
    (folder,) = place.root.glob("state/labs/*/runs")
    return folder


def _delete(folder: Path) -> None:
    """Delete a folder that a living process goes on writing to."""
    _until(lambda: [shutil.rmtree(folder, ignore_errors=True), not folder.exists()][1])


def _until(look: Callable[[], T]) -> T:
    """Return what ``look`` finds, once it finds something."""
    deadline = time.monotonic() + _SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return found
