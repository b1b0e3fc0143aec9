"""The contract of `lab.executor.Executor`, as test classes that run over every executor.

An executor's own test file subclasses `ExecutorContract` with a fixture ``bench`` that returns a `Bench` for a lab of its own.
`BudgetContract` is a part of it that also runs alone, over a runner that really trains: what it asks takes that runner's time.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest
from autoresearch_mcp.lab.executor import Event, Executor, RunLostError, RunResult, RunSpec
from autoresearch_mcp.lab.states import Outcome, RunState

from ..polling import until

_DEADLINE_SECONDS = 30.0
LONG = 60.0  # seconds that no test waits for


class Bench(Protocol):
    """One lab of one executor, for the tests: what they need besides the executor itself.

    Attributes:
        devices: two devices with a slot each (a bench that only `BudgetContract` uses may have one).
        log: what the candidate of a run without wishes prints.
    """

    devices: Sequence[str]
    log: bytes

    def executor(self) -> Executor:
        """Return another executor object for the lab."""
        ...

    def spec(
        self, run_id: str, *, device: int = 0, seconds: float = 0.0, budget_seconds: float = LONG, crashes: bool = False
    ) -> RunSpec:
        """Return a run on one of the devices that takes ``seconds`` beyond the least."""
        ...

    def elsewhere(self, code: str, *specs: RunSpec) -> subprocess.Popen[bytes]:
        """Start Python code in another process, where ``executor`` is one for this lab and ``specs`` are these."""
        ...

    def occupied(self, device: int) -> AbstractContextManager[None]:
        """Use a device as a run of another lab of this user would."""
        ...

    def kill_runner(self, run_id: str) -> None:
        """Kill what runs a run, with a signal that cannot be caught."""
        ...

    def delete(self, run_id: str) -> None:
        """Delete everything that is stored about a run."""
        ...


def kinds(executor: Executor, run_id: str) -> list[str]:
    return [event.kind for event in executor.events() if event.run_id == run_id]


def started(executor: Executor, run_id: str) -> None:
    until(lambda: "training" in kinds(executor, run_id))


def ended(executor: Executor, run_id: str) -> RunResult:
    return until(lambda: executor.result(run_id))


def ends(events: Sequence[Event], run_id: str) -> list[Event]:
    return [event for event in events if event.run_id == run_id and event.kind == "terminal"]


class BudgetContract:
    """The budget is kept where the run is."""

    def test_the_budget_ends_a_run_that_nobody_watches(self, bench: Bench) -> None:
        spec = bench.spec("long.1", seconds=LONG, budget_seconds=0.5)
        submitter = bench.elsewhere("executor.submit(specs[0])\nos.kill(os.getpid(), signal.SIGKILL)", spec)
        assert submitter.wait(_DEADLINE_SECONDS) == -9
        began = time.monotonic()
        result = ended(bench.executor(), "long.1")
        assert result.outcome is Outcome.TIMED_OUT, result.reason
        assert time.monotonic() - began < LONG / 2


class ExecutorContract(BudgetContract):
    """What `lab.executor.Executor` says, point by point."""

    # -- at most one run ----------------------------------------------------------------------------------------------------

    def test_submitting_again_runs_nothing_and_answers_with_the_first_device(self, bench: Bench) -> None:
        executor, again = bench.executor(), bench.spec("a.1", device=1)
        assert executor.submit(bench.spec("a.1", device=0)) == bench.devices[0]
        assert executor.submit(again) == bench.devices[0]
        result = ended(executor, "a.1")
        assert bench.executor().submit(again) == bench.devices[0]
        assert kinds(executor, "a.1") == ["queued", "started", "training", "scoring", "terminal"]
        assert executor.result("a.1") == bench.executor().result("a.1") == result

    def test_processes_that_submit_one_run_at_the_same_time_start_it_once(self, bench: Bench) -> None:
        code = "print('ready', flush=True); sys.stdin.readline(); print(executor.submit(specs[0]), flush=True)"
        processes = [bench.elsewhere(code, bench.spec("a.1", device=number % 2, seconds=0.3)) for number in range(4)]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        answers = {process.communicate(b"go\n", _DEADLINE_SECONDS)[0].strip().decode() for process in processes}
        executor = bench.executor()
        ended(executor, "a.1")
        assert len(answers) == 1
        assert answers < set(bench.devices)
        assert kinds(executor, "a.1").count("started") == 1

    def test_a_device_has_one_run_at_a_time_and_the_others_wait_for_it(self, bench: Bench) -> None:
        executor = bench.executor()
        names = [f"r{number}.1" for number in range(4)]
        for name in names:
            executor.submit(bench.spec(name, device=1, seconds=0.05))
        for name in names:
            ended(executor, name)
        spans = sorted(
            tuple(event.at for event in executor.events() if event.run_id == name and event.kind in ("started", "scoring"))
            for name in names
        )
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))

    # -- events -------------------------------------------------------------------------------------------------------------

    def test_events_are_dense_in_order_and_replayable_from_any_point(self, bench: Bench) -> None:
        executor = bench.executor()
        seen: list[Event] = []
        executor.submit(bench.spec("a.1", device=0, seconds=0.05))
        executor.submit(bench.spec("b.1", device=1, crashes=True))
        while len([event for event in seen if event.kind == "terminal"]) < 2:
            seen += executor.events(since=len(seen), wait_seconds=1.0)
        everything = executor.events()
        assert [event.sequence for event in everything] == list(range(len(everything)))
        assert everything == seen
        assert executor.events(since=3) == everything[3:]
        assert kinds(executor, "a.1") == ["queued", "started", "training", "scoring", "terminal"]
        assert kinds(executor, "b.1") == ["queued", "started", "training", "terminal"]
        for run_id in ("a.1", "b.1"):
            own = [event for event in everything if event.run_id == run_id]
            assert [event.at for event in own] == sorted(event.at for event in own)
            replayed = [event for event in bench.executor().events() if event.run_id == run_id]
            assert [(event.kind, event.at, event.data) for event in replayed] == [
                (event.kind, event.at, event.data) for event in own
            ]
        assert [ends(everything, run_id)[0].data["outcome"] for run_id in ("a.1", "b.1")] == [Outcome.SCORED, Outcome.CRASHED]

    def test_a_wait_for_events_ends_with_the_first_or_with_nothing_in_its_time(self, bench: Bench) -> None:
        executor = bench.executor()
        assert list(executor.events(wait_seconds=0.2)) == []
        executor.submit(bench.spec("a.1"))
        began = time.monotonic()
        assert executor.events(wait_seconds=_DEADLINE_SECONDS)
        assert time.monotonic() - began < _DEADLINE_SECONDS / 2

    def test_the_result_is_there_when_the_terminal_event_is(self, bench: Bench) -> None:
        executor = bench.executor()
        executor.submit(bench.spec("a.1"))
        until(lambda: ends(executor.events(), "a.1"))
        assert executor.result("a.1") is not None

    # -- what a run leaves --------------------------------------------------------------------------------------------------

    def test_the_log_is_read_from_any_offset(self, bench: Bench) -> None:
        executor = bench.executor()
        executor.submit(bench.spec("a.1"))
        ended(executor, "a.1")
        assert executor.log("a.1") == bench.log
        assert executor.log("a.1", offset=4) == bench.log[4:]
        assert executor.log("a.1", offset=2, limit=5) == bench.log[2:7]
        assert executor.log("a.1", offset=10**6) == b""

    def test_a_file_of_the_run_is_fetched_by_its_plain_name_only(self, bench: Bench, tmp_path: Path) -> None:
        executor = bench.executor()
        executor.submit(bench.spec("a.1"))
        ended(executor, "a.1")
        executor.fetch("a.1", "curve.jsonl", tmp_path / "curve")
        assert (tmp_path / "curve").is_file()
        for name in ("../a.1/curve.jsonl", "/etc/hostname", "code/train.py", "", ".", ".."):
            with pytest.raises(ValueError):
                executor.fetch("a.1", name, tmp_path / "no")
        with pytest.raises(FileNotFoundError):
            executor.fetch("a.1", "nothing.bin", tmp_path / "no")
        assert not (tmp_path / "no").exists()

    def test_an_unknown_run_has_no_result_progress_or_log_and_cannot_be_cancelled(self, bench: Bench, tmp_path: Path) -> None:
        executor = bench.executor()
        with pytest.raises(RunLostError):
            executor.result("nobody.1")
        assert executor.progress("nobody.1") is None
        assert executor.log("nobody.1") == b""
        with pytest.raises(KeyError):
            executor.cancel("nobody.1")
        with pytest.raises(KeyError):
            executor.fetch("nobody.1", "curve.jsonl", tmp_path / "no")
        assert "nobody.1" not in executor.attach()
        assert list(executor.events()) == []

    # -- cancel -------------------------------------------------------------------------------------------------------------

    def test_a_queued_run_that_is_cancelled_never_starts_and_the_running_one_goes_on(self, bench: Bench) -> None:
        executor = bench.executor()
        executor.submit(bench.spec("a.1", seconds=LONG))
        started(executor, "a.1")
        executor.submit(bench.spec("b.1"))
        executor.cancel("b.1")
        executor.cancel("b.1")
        assert ended(executor, "b.1").outcome is Outcome.CANCELLED
        assert executor.result("a.1") is None
        until(lambda: ends(executor.events(), "b.1"))
        assert kinds(executor, "b.1") == ["queued", "terminal"]

    def test_a_cancel_that_came_with_the_submission_survives_the_server(self, bench: Bench) -> None:
        with bench.occupied(0):
            code = "executor.submit(specs[0]); executor.cancel(specs[0].run_id)\nos.kill(os.getpid(), signal.SIGKILL)"
            assert bench.elsewhere(code, bench.spec("a.1", seconds=LONG)).wait(_DEADLINE_SECONDS) == -9
            assert ended(bench.executor(), "a.1").outcome is Outcome.CANCELLED

    def test_a_running_run_can_be_cancelled_again_and_again(self, bench: Bench) -> None:
        executor = bench.executor()
        executor.submit(bench.spec("a.1", seconds=LONG))
        started(executor, "a.1")
        executor.cancel("a.1")
        bench.executor().cancel("a.1")
        result = ended(executor, "a.1")
        assert result.outcome is Outcome.CANCELLED
        executor.cancel("a.1")
        assert executor.result("a.1") == result
        assert len(ends(executor.events(), "a.1")) == 1

    def test_a_run_that_has_ended_is_not_changed_by_a_cancel(self, bench: Bench) -> None:
        executor = bench.executor()
        executor.submit(bench.spec("a.1"))
        result = ended(executor, "a.1")
        executor.cancel("a.1")
        assert executor.result("a.1") == bench.executor().result("a.1") == result

    # -- capacity -----------------------------------------------------------------------------------------------------------

    def test_capacity_counts_slots_that_run_or_are_waited_for_or_that_another_lab_uses_as_taken(self, bench: Bench) -> None:
        executor, (first, second) = bench.executor(), bench.devices[:2]
        before = dict(executor.capacity())
        assert before[first] == before[second] == (1, 1)
        executor.submit(bench.spec("a.1", seconds=LONG))
        for looking in (executor, bench.executor()):
            assert dict(looking.capacity()) == {**before, first: (0, 1)}
        with bench.occupied(1):
            assert dict(executor.capacity()) == {**before, first: (0, 1), second: (0, 1)}
        executor.submit(bench.spec("b.1", seconds=LONG))
        executor.cancel("a.1")
        ended(executor, "a.1")
        assert executor.capacity()[first] == (0, 1)
        executor.cancel("b.1")
        ended(executor, "b.1")
        until(lambda: dict(executor.capacity()) == before)

    # -- whoever dies -------------------------------------------------------------------------------------------------------

    def test_another_object_finds_every_run_and_where_it_stands(self, bench: Bench) -> None:
        executor = bench.executor()
        executor.submit(bench.spec("a.1"))
        ended(executor, "a.1")
        executor.submit(bench.spec("b.1", seconds=LONG))
        started(executor, "b.1")
        executor.submit(bench.spec("c.1"))
        executor.close()
        found = bench.executor()
        assert found.attach() == {"a.1": RunState.FINISHED, "b.1": RunState.RUNNING, "c.1": RunState.QUEUED}
        for run_id, phase in (("b.1", "training"), ("c.1", "queued")):
            progress = found.progress(run_id)
            assert progress is not None
            assert progress.phase == phase
        found.cancel("b.1")
        assert ended(found, "c.1").outcome is Outcome.SCORED

    def test_a_run_outlives_the_killed_process_that_submitted_it(self, bench: Bench) -> None:
        spec = bench.spec("a.1", seconds=0.5)
        code = "executor.submit(specs[0])\nos.kill(os.getpid(), signal.SIGKILL)"
        assert bench.elsewhere(code, spec).wait(_DEADLINE_SECONDS) == -9
        executor = bench.executor()
        assert executor.attach().keys() == {"a.1"}
        assert executor.submit(spec) == spec.device
        assert ended(executor, "a.1").outcome is Outcome.SCORED
        assert kinds(executor, "a.1") == ["queued", "started", "training", "scoring", "terminal"]

    def test_a_killed_runner_is_lost_exactly_once_and_never_started_again(self, bench: Bench) -> None:
        executor, spec = bench.executor(), bench.spec("a.1", seconds=LONG)
        executor.submit(spec)
        started(executor, "a.1")
        bench.kill_runner("a.1")
        until(lambda: ends(executor.events(), "a.1"))
        for looking in (executor, bench.executor()):
            with pytest.raises(RunLostError):
                looking.result("a.1")
            assert looking.submit(spec) == spec.device
            (end,) = ends(looking.events(), "a.1")
            assert end.data["outcome"] is Outcome.LOST
            assert looking.attach() == {"a.1": RunState.FINISHED}
            assert looking.capacity()[bench.devices[0]] == (1, 1)
        assert kinds(executor, "a.1") == ["queued", "started", "training", "terminal"]

    def test_a_cancelled_run_whose_runner_is_killed_is_cancelled(self, bench: Bench) -> None:
        executor = bench.executor()
        with bench.occupied(0):
            executor.submit(bench.spec("a.1"))
            bench.kill_runner("a.1")
            executor.cancel("a.1")
            assert ended(executor, "a.1").outcome is Outcome.CANCELLED
            assert [end.data["outcome"] for end in ends(executor.events(), "a.1")] == [Outcome.CANCELLED]

    def test_a_run_whose_files_are_deleted_is_lost_and_frees_its_device(self, bench: Bench) -> None:
        executor = bench.executor()
        executor.submit(bench.spec("a.1", seconds=LONG))
        started(executor, "a.1")
        bench.kill_runner("a.1")
        bench.delete("a.1")
        with pytest.raises(RunLostError, match="gone"):
            executor.result("a.1")
        assert executor.progress("a.1") is None
        assert executor.log("a.1") == b""
        with pytest.raises(KeyError):
            executor.cancel("a.1")
        assert [end.data["outcome"] for end in ends(executor.events(), "a.1")] == [Outcome.LOST]
        assert executor.capacity()[bench.devices[0]] == (1, 1)
        assert executor.attach() == {}

    def test_closing_lets_runs_go_on_unless_they_are_to_be_killed(self, bench: Bench) -> None:
        executor = bench.executor()
        executor.submit(bench.spec("a.1", seconds=0.2))
        executor.close()
        again = bench.executor()
        assert ended(again, "a.1").outcome is Outcome.SCORED
        again.submit(bench.spec("b.1", seconds=LONG))
        again.submit(bench.spec("c.1", seconds=LONG))
        again.submit(bench.spec("d.1", device=1, seconds=LONG))
        again.close(kill=True)
        last = bench.executor()
        assert {ended(last, run_id).outcome for run_id in ("b.1", "c.1", "d.1")} == {Outcome.CANCELLED}
