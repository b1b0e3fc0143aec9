"""Levels of isolation: what this machine has, what needs the human's permission, and that a result says both."""

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
from autoresearch_mcp.lab.isolation import (
    BUBBLEWRAP,
    LADDER,
    LANDLOCK,
    LEVELS,
    NONE,
    PROCESS,
    SECCOMP,
    Isolation,
    IsolationLevel,
    accept,
    acceptance,
    guarantees_here,
    guarantees_not_given,
    label,
    landlock_of,
    obstacles,
    probe,
)
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.referee.sandbox import problem_of
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


WITHOUT_BOUNDARY = (SECCOMP, PROCESS, NONE)


def test_this_machine_has_the_strongest_level_that_works_and_linux_has_no_less_than_process() -> None:
    best = probe()
    assert best in LEVELS.values()
    assert problem_of(best.level) is None
    assert list(obstacles(best)) == [above.level for above in LADDER[: LADDER.index(best)]]
    assert all(obstacles(best).values())
    if sys.platform.startswith("linux"):
        assert LADDER.index(best) <= LADDER.index(PROCESS)


def test_every_level_is_described_and_those_without_a_boundary_for_files_need_the_human() -> None:
    assert set(LEVELS) == {str(level) for level in IsolationLevel}
    assert (BUBBLEWRAP, LANDLOCK, *WITHOUT_BOUNDARY) == LADDER
    for level in LADDER:
        assert level.mechanism
        assert level.needs_acceptance == (level in WITHOUT_BOUNDARY)
        assert level.needs_acceptance == any("every file of this user" in ability for ability in level.can)
        assert bool(level.warning) == bool(level.can)
    assert "own session" in label(PROCESS, None)
    assert label(NONE, "2026-01-02").endswith("accepted by the human on 2026-01-02")


def test_what_a_level_says_it_prevents_is_what_its_guarantees_are_about() -> None:
    about = {"file": "files", "network": "network", "another process": "other processes", "outlive": "ends with its run"}
    for isolation in LADDER:
        absent = guarantees_not_given(isolation)
        for word, name in about.items():
            prevented = any(word in sentence for sentence in isolation.prevents)
            # On level "none" processes are looked for, but one that clears its environment escapes.
            assert prevented == (name not in absent and (name, isolation) != ("ends with its run", NONE)), isolation.level
        assert ("validation data" in absent) == isolation.needs_acceptance
        assert ("training data before START" in absent) == isolation.needs_acceptance


def test_an_older_landlock_says_that_it_cannot_hold_signals_back() -> None:
    assert landlock_of(7).can == ()
    assert "reach another process" in landlock_of(6).prevents
    old = landlock_of(5)
    assert "reach another process" not in old.prevents
    assert "signal this user's other processes" in old.warning
    assert not old.needs_acceptance


def test_the_guarantees_of_this_machine_name_mechanisms_and_the_clock_holds_on_every_level() -> None:
    for isolation in LADDER:
        in_force = guarantees_here(isolation)
        assert {"clock", "metric", "environment", "memory", "processes", "disk", "log"} <= set(in_force)
        assert all(in_force.values())
        if problem_of(isolation.level) is None:
            assert set(in_force).isdisjoint(guarantees_not_given(isolation))
            assert "ends with its run" in in_force


@pytest.mark.parametrize("isolation", WITHOUT_BOUNDARY, ids=lambda isolation: isolation.level)
def test_without_a_boundary_nothing_starts_and_the_refusal_names_the_humans_commands(lab: Lab, isolation: Isolation) -> None:
    with opened(lab, isolation) as bare:
        for refused in (
            lambda: bare.start_session("other", "tester"),
            lambda: experiments.propose(bare, description="baseline", hypothesis=""),
        ):
            started = time.monotonic()
            with pytest.raises(NotReadyError, match=f"accept-isolation --lab {lab.root}") as refusal:
                refused()
            assert time.monotonic() - started < 2.0
            assert f"doctor --lab {lab.root}" in str(refusal.value)
            assert "every file of this user" in str(refusal.value)
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


def test_an_acceptance_holds_for_no_other_level(lab: Lab) -> None:
    with opened(lab, PROCESS) as bare:
        assert accept(bare.ledger, PROCESS)
    with opened(lab, NONE) as bare, pytest.raises(NotReadyError, match="level none"):
        bare.start_session("other", "tester")
    with opened(lab, SECCOMP) as bare:
        assert accept_in_words(bare, lambda question: True, lambda line: None)
    assert [event.body["level"] for event in lab.ledger.events_of("isolation_accepted")] == ["process", "seccomp"]


def test_the_humans_rules_allow_it_once_they_are_accepted(make_lab: MakeLab) -> None:
    said: list[str] = []
    lab = make_lab(extra="[sandbox]\nallow_unsandboxed = true\n")
    with opened(lab, PROCESS) as bare:
        assert bare.start_session(None, "tester")[1]
        assert "[sandbox] allow_unsandboxed" in isolation_text(bare)
        assert accept_in_words(bare, lambda question: pytest.fail("asked"), said.append)
    assert any("allow_unsandboxed" in line for line in said)
    assert lab.ledger.events_of("isolation_accepted") == []


def test_an_unaccepted_change_of_the_rules_allows_nothing(lab: Lab) -> None:
    rules = lab.root / "autoresearch.toml"
    rules.write_text(f"{rules.read_text()}[sandbox]\nallow_unsandboxed = true\n")
    with opened(lab, PROCESS) as bare, pytest.raises(NotReadyError, match="accept-isolation"):
        experiments.propose(bare, description="baseline", hypothesis="")


@pytest.mark.parametrize("isolation", [BUBBLEWRAP, LANDLOCK], ids=lambda isolation: isolation.level)
def test_where_nothing_needs_to_be_accepted_nothing_is_asked_or_recorded(lab: Lab, isolation: Isolation) -> None:
    said: list[str] = []
    with opened(lab, isolation) as isolated:
        assert accept_in_words(isolated, lambda question: pytest.fail("asked"), said.append)
        assert not accept(isolated.ledger, isolation)
    assert "nothing needs to be accepted" in said[-1]
    assert lab.ledger.events_of("isolation_accepted") == []


def test_status_says_in_one_short_paragraph_what_is_prevented_and_what_is_only_evident(lab: Lab) -> None:
    for isolation in LADDER:
        with opened(lab, isolation) as this:
            accept(this.ledger, isolation)
            text = isolation_text(this)
        assert text.startswith(f"Isolation level {isolation.level}: ")
        assert all(sentence in text for sentence in (*isolation.prevents, *isolation.can))
        assert "tamper-evident, not tamper-proof" in text
        assert "\n" not in text
        assert len(text) < 800 if isolation.needs_acceptance else len(text) < 700, len(text)


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
    stronger = Isolation(
        level="vault",  # type: ignore[arg-type]
        mechanism="a vault",
        prevents=("be seen",),
        can=(),
        needs_acceptance=False,
    )
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
    with opened(lab, PROCESS) as this:  # where a run reaches its runner
        accept(this.ledger, PROCESS)
        this.start_session("killed", "tester")
        experiment, _ = experiments.propose(this, description="baseline", hypothesis="")
        assert wait(this, experiment.id, 120.0).verdict is Verdict.LOST
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid_file.read_text())).wait(timeout=10)


@pytest.mark.slow
def test_an_honest_run_is_scored_by_the_portable_way(make_lab: MakeLab) -> None:
    """No subreaper, traced processes, and scoring processes that are started one by one: as on macOS."""
    with opened(make_lab(), NONE) as this:
        accept(this.ledger, NONE)
        this.start_session("portable", "tester")
        experiment, _ = experiments.propose(this, description="baseline", hypothesis="")
        judged = wait(this, experiment.id, 240.0)  # torch is imported three times
    assert (judged.verdict, judged.decision) == (Verdict.IMPROVED, Decision.KEPT), judged.reason
