"""Levels of isolation: what this machine has, what needs the human's acceptance, and that a result says both."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import dispatch, wait
from autoresearch_mcp.lab.errors import NotReadyError
from autoresearch_mcp.lab.isolation import LEVELS, NONE, PROCESS, Isolation, IsolationLevel, accept, acceptance, label, probe
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Decision, Outcome, RunState, Verdict
from autoresearch_mcp.server.cli.isolation_command import accept as accept_in_words
from autoresearch_mcp.tools.status import isolation_text

MakeLab = Callable[..., Lab]

# It leaves a daemon in a session of its own, whose parents are gone, and ends before it needs a library.
DAEMON = """
import os, pathlib, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        pathlib.Path({pid_file!r}).write_text(str(os.getpid()))
        os.write(writer, b"x")
        time.sleep(600)
    os._exit(0)
os.read(reader, 1)
raise SystemExit(1)
from prepare import evaluate_bpb, make_dataloader
make_dataloader(None, 1, 1, "train")
evaluate_bpb(None, None, 1)
"""


@contextmanager
def opened(lab: Lab, isolation: Isolation) -> Iterator[Lab]:
    """Open a lab a second time, as on a machine with this isolation."""
    other = Lab.open(lab.root, isolation=isolation)
    try:
        yield other
    finally:
        other.close()


def test_this_machine_has_a_level_and_linux_has_no_less_than_process() -> None:
    assert probe() in LEVELS.values()
    if sys.platform.startswith("linux"):
        assert probe() is PROCESS


def test_every_level_is_described_and_only_none_needs_the_human() -> None:
    assert set(LEVELS) == {str(level) for level in IsolationLevel}
    for level in LEVELS.values():
        assert level.mechanism
        assert level.can
        assert level.needs_acceptance == (level.level is IsolationLevel.NONE)
    assert "own session" in label(PROCESS, None)
    assert label(NONE, "2026-01-02").endswith("accepted by the human on 2026-01-02")


def test_without_isolation_nothing_starts_and_the_refusal_names_the_humans_command(lab: Lab) -> None:
    with opened(lab, NONE) as bare:
        for refused in (
            lambda: bare.start_session("other", "tester"),
            lambda: experiments.propose(bare, description="baseline", hypothesis=""),
        ):
            started = time.monotonic()
            with pytest.raises(NotReadyError, match=f"accept-isolation --lab {lab.root}"):
                refused()
            assert time.monotonic() - started < 2.0
        assert bare.ledger.session("other") is None
        assert bare.ledger.count_experiments() == 0


def test_a_queued_run_waits_until_the_human_has_accepted(lab: Lab) -> None:
    with opened(lab, NONE) as bare:
        lab.ledger.append("run_queued", {"id": "e0001.1", "experiment": "e0001", "seed": 1, "device": "cpu"})
        dispatch(bare)
        assert [run.state for run in bare.ledger.runs("e0001")] == [RunState.QUEUED]


def test_the_acceptance_is_asked_for_once_recorded_once_and_holds_for_its_level(lab: Lab) -> None:
    said: list[str] = []
    with opened(lab, NONE) as bare:
        assert not accept_in_words(bare, lambda question: False, said.append)
        assert acceptance(bare.ledger, NONE) is None
        assert any("leave processes running" in line for line in said)
        assert "no experiment runs until" in isolation_text(bare)
        assert accept_in_words(bare, lambda question: str(lab.root) in question, said.append)
        given = acceptance(bare.ledger, NONE)
        assert given is not None
        assert given.machine
        assert not accept(bare.ledger, NONE)
        assert accept_in_words(bare, lambda question: pytest.fail("asked again"), said.append)
        assert given.date in isolation_text(bare)
        assert bare.start_session("other", "tester")[1]
    assert len(lab.ledger.events_of("isolation_accepted")) == 1
    assert lab.ledger.verify() == []


def test_where_nothing_needs_to_be_accepted_nothing_is_asked_or_recorded(lab: Lab) -> None:
    with opened(lab, PROCESS) as isolated:
        assert accept_in_words(isolated, lambda question: pytest.fail("asked"), lambda line: None)
        assert not accept(isolated.ledger, PROCESS)
        assert "outlive its run" in isolation_text(isolated)
    assert lab.ledger.events_of("isolation_accepted") == []


@pytest.mark.slow
@pytest.mark.parametrize("isolation", [NONE, PROCESS], ids=lambda isolation: isolation.level)
def test_a_daemon_does_not_outlive_its_run_and_the_result_says_how_it_was_found(
    make_lab: MakeLab, tmp_path: Path, isolation: Isolation
) -> None:
    pid_file = tmp_path / "daemon"
    lab = make_lab(train=DAEMON.format(pid_file=str(pid_file)))
    with opened(lab, isolation) as this:
        accept(this.ledger, isolation)
        this.start_session("daemon", "tester")
        experiment, _ = experiments.propose(this, description="baseline", hypothesis="")
        assert wait(this, experiment.id, 60.0).verdict is Verdict.CRASHED
        result = this.ledger.runs(experiment.id)[0].result
    assert result is not None
    guarantee = (result.guarantees or {})["isolation"]
    assert guarantee.startswith(f"{isolation.level}: ")
    assert ("accepted by the human on" in guarantee) == isolation.needs_acceptance
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid_file.read_text())).wait(timeout=10)  # it was killed; init may still have to reap it


@pytest.mark.slow
def test_a_runner_refuses_a_promise_that_it_cannot_keep(make_lab: MakeLab) -> None:
    lab = make_lab()
    stronger = Isolation(level="vault", mechanism="a vault", can=("nothing",), needs_acceptance=False)  # type: ignore[arg-type]
    with opened(lab, stronger) as this:
        this.start_session("vault", "tester")
        experiment, _ = experiments.propose(this, description="baseline", hypothesis="")
        judged = wait(this, experiment.id, 60.0)
        result = this.ledger.runs(experiment.id)[0].result
    assert judged.verdict is Verdict.LOST
    assert result is not None
    assert result.outcome is Outcome.LOST
    assert "'vault'" in judged.reason
    assert result.exit_code is None


@pytest.mark.slow
def test_what_a_killed_runner_leaves_behind_is_found_by_its_mark(make_lab: MakeLab, tmp_path: Path) -> None:
    pid_file = tmp_path / "daemon"
    source = DAEMON.format(pid_file=str(pid_file)).replace("time.sleep(600)", 'os.chdir("/")\n        time.sleep(600)')
    lab = make_lab(train=source.replace("raise SystemExit(1)", "os.kill(os.getppid(), 9)\ntime.sleep(600)"))
    lab.start_session("killed", "tester")
    experiment, _ = experiments.propose(lab, description="baseline", hypothesis="")
    assert wait(lab, experiment.id, 60.0).verdict is Verdict.LOST
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid_file.read_text())).wait(timeout=10)


@pytest.mark.slow
def test_an_honest_run_is_scored_by_the_portable_way(make_lab: MakeLab) -> None:
    """No subreaper, traced processes, and scoring processes that are started one by one: as on macOS."""
    with opened(make_lab(), NONE) as this:
        accept(this.ledger, NONE)
        this.start_session("portable", "tester")
        experiment, _ = experiments.propose(this, description="baseline", hypothesis="")
        judged = wait(this, experiment.id, 90.0)
    assert (judged.verdict, judged.decision) == (Verdict.IMPROVED, Decision.KEPT), judged.reason
