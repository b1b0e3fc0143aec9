"""The rungs are tried by starting something on each; what works keeps its promises, what does not says what is missing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.isolation import BUBBLEWRAP, LADDER, Isolation
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.referee.sandbox import LADDER as RUNGS
from autoresearch_mcp.lab.referee.sandbox import (
    Confinement,
    Limits,
    SandboxError,
    environment,
    filters,
    make_interpreter,
    problem_of,
    start,
    trial_of,
    try_program,
    view_for,
)
from autoresearch_mcp.lab.states import Verdict

# Each answer is True where the candidate got what it should not have.
REACHES = """
import json, os, socket
def got(action):
    try:
        return bool(action())
    except OSError:
        return False
def connected():
    with socket.create_connection(("127.0.0.1", PORT), timeout=5):
        return True
print(json.dumps({
    "files": got(lambda: open(SECRET).read()),
    "secrets": got(lambda: open("/etc/passwd").read()),
    "network": got(connected),
    "other processes": got(lambda: os.kill(PARENT, 0) is None),
    "its own": got(lambda: open("mine", "w").write("x")) and got(lambda: os.listdir(".")),
    "environment": sorted(os.environ),
}))
"""


def works(isolation: Isolation) -> Isolation:
    if (problem := problem_of(isolation.level)) is not None:
        pytest.skip(f"{isolation.level}: {problem}")
    return isolation


every_level = pytest.mark.parametrize("isolation", LADDER, ids=lambda isolation: isolation.level)


@every_level
def test_a_level_works_or_says_in_one_line_what_it_lacks(isolation: Isolation) -> None:
    problem = problem_of(isolation.level)
    assert problem is None or (problem and "\n" not in problem)
    assert problem_of(isolation.level) is problem  # asked once
    if problem is None:
        assert trial_of(isolation.level).status["limits"]


def test_on_linux_the_levels_without_namespaces_and_filters_always_work() -> None:
    assert problem_of(LADDER[-1].level) is None
    if sys.platform.startswith("linux"):
        assert problem_of(LADDER[-2].level) is None


@every_level
def test_what_a_level_guarantees_a_process_on_it_meets_and_the_mechanism_is_named(isolation: Isolation, tmp_path: Path) -> None:
    rung = RUNGS[works(isolation).level]
    guarantees = rung.guarantees(trial_of(isolation.level).status)
    assert all(mechanism and len(mechanism) < 120 for mechanism in guarantees.values())
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = f"PORT, SECRET, PARENT = {server.getsockname()[1]}, {str(secret)!r}, {os.getpid()}\n"
        trial = try_program(rung, told + REACHES)
    assert trial.problem is None
    reached = json.loads(trial.output)
    assert reached.pop("its own")
    assert {"HOME", "TMPDIR", "PATH"} <= set(reached.pop("environment"))
    for name, got in reached.items():
        assert not (got and name in guarantees), name
        if not isolation.prevents:
            assert got, name  # where nothing is promised it gets through, or this test would prove nothing


@every_level
def test_the_exit_code_is_the_programs_own(isolation: Isolation) -> None:
    rung = RUNGS[works(isolation).level]
    assert "ended with 7" in (try_program(rung, "raise SystemExit(7)").problem or "")
    assert "ended with -9" in (try_program(rung, "import os; os.kill(os.getpid(), 9)").problem or "")
    said = try_program(rung, "print('last words', flush=True); raise SystemExit(3)")
    assert said.problem == "a trial process ended with 3: last words\n"


@pytest.mark.skipif(not filters.is_available(), reason="bubblewrap is looked for where there is libseccomp")
def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    trial_of.cache_clear()
    try:
        assert problem_of(BUBBLEWRAP.level) == "bubblewrap (bwrap) is not installed"
    finally:
        trial_of.cache_clear()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "pyseccomp", None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("autoresearch_mcp.prepare.landlock.abi", lambda: 7)
    for isolation in LADDER[:3]:
        assert RUNGS[isolation.level].missing() == "libseccomp is not installed"


@every_level
def test_a_program_that_is_not_there_is_a_sandbox_error_with_the_reason(isolation: Isolation, tmp_path: Path) -> None:
    rung = RUNGS[works(isolation).level]
    (tmp_path / "tmp").mkdir()
    interpreter = make_interpreter(None, tmp_path / "python")
    confinement = Confinement(
        argv=(str(tmp_path / "nothing"),),
        environment=environment(scratch=tmp_path, cores=1, extra={}),
        view=view_for(interpreter.view, "cpu"),
        writable=(tmp_path,),
        folder=tmp_path,
        limits=Limits(memory_mb=None, file_mb=16, processes=16),
        descriptors=(),
        device="cpu",
    )
    with (tmp_path / "output").open("wb") as output:
        started = start(rung, confinement, python=interpreter.program, output=output)
    with pytest.raises(SandboxError, match=f"{isolation.level}.*there is no program"):
        started.wait_until_confined()
    assert rung.exit_code(started.process.wait(timeout=10)) == 98


@pytest.mark.slow
@pytest.mark.skipif(not filters.is_available(), reason="bubblewrap is promised where there is libseccomp")
def test_a_sandbox_that_cannot_be_made_loses_the_run_and_says_why(
    make_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    forbidden = programs / "bwrap"
    forbidden.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    forbidden.chmod(0o755)
    lab = make_lab()
    promised = Lab.open(lab.root, isolation=BUBBLEWRAP)
    try:
        promised.start_session(None, "tester")
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")  # as after a change of the kernel's settings
        experiment, _ = experiments.propose(promised, description="baseline", hypothesis="")
        experiment = wait(promised, experiment.id, 60.0)
        result = promised.ledger.runs(experiment.id)[0].result
        log = promised.executor.log(f"{experiment.id}.1").decode()
    finally:
        promised.close()
    assert experiment.verdict is Verdict.LOST
    assert "'bubblewrap', which the run was promised, cannot be had" in experiment.reason
    assert "could not be made" in experiment.reason
    assert "No permissions to create a new namespace" in log
    assert result is not None
    assert result.steps is None
