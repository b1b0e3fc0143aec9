"""The local executor under the contract of every executor, and what only it does with its run folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.devices import Devices, FakeGpuDriver, Gpu
from autoresearch_mcp.lab.dispatch import current_progress
from autoresearch_mcp.lab.executor import RunLostError, RunSpec
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.local_executor import LocalExecutor
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.paths import RunPaths, StatePaths, device_lock_path
from autoresearch_mcp.lab.referee.harness import pin_harness, pinned_package
from autoresearch_mcp.lab.referee.specfile import result_from_json, write_spec
from autoresearch_mcp.lab.states import Outcome, RunState

from ..quick import adopt
from .executor_contract import LONG, BudgetContract, ExecutorContract, ended, started, until

MakeLab = Callable[..., Lab]

GPUS = tuple(Gpu(index=index, uuid=f"GPU-{index}", name="NVIDIA L4", memory_mb=23_034) for index in range(2))

ELSEWHERE = """
import os, signal, sys
from pathlib import Path
from autoresearch_mcp.lab.devices import Devices, FakeGpuDriver, Gpu
from autoresearch_mcp.lab.local_executor import LocalExecutor
from autoresearch_mcp.lab.paths import RunPaths, StatePaths
from autoresearch_mcp.lab.referee.specfile import read_spec
gpu = Gpu(index=9, uuid="GPU-unused", name="NVIDIA L4", memory_mb=23_034)
executor = LocalExecutor(StatePaths(Path(sys.argv[1])), devices=Devices(FakeGpuDriver(found=[gpu])))
specs = [read_spec(RunPaths(Path(folder))) for folder in sys.argv[2:]]
"""


@dataclass(kw_only=True)
class LocalBench:
    """Runs of one lab's state on fake GPUs; ``template`` is a run, but for what a test asks of it."""

    state: StatePaths
    template: RunSpec
    devices: Sequence[str] = tuple(gpu.device for gpu in GPUS)
    candidate: Callable[[float, bool], str] = lambda seconds, crashes: (
        f"# quick: seconds={seconds} outcome={'crashed' if crashes else 'scored'}\n"
    )
    log: bytes = f"a quick run on {GPUS[0].device}\n".encode()
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def executor(self) -> LocalExecutor:
        return LocalExecutor(self.state, devices=Devices(FakeGpuDriver(found=GPUS)))

    def spec(
        self, run_id: str, *, device: int = 0, seconds: float = 0.0, budget_seconds: float = LONG, crashes: bool = False
    ) -> RunSpec:
        source = self.candidate(seconds, crashes)
        return replace(
            self.template,
            run_id=run_id,
            device=self.devices[device],
            candidate=source.encode(),
            budget_seconds=budget_seconds,
        )

    def elsewhere(self, code: str, *specs: RunSpec) -> subprocess.Popen[bytes]:
        folders = []
        for spec in specs:
            folders.append(self.state.root / "specs" / f"{spec.run_id}-{len(self._started)}")
            write_spec(RunPaths(folders[-1]), spec)
        argv = [sys.executable, "-c", ELSEWHERE + code, str(self.state.root), *map(str, folders)]
        self._started.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return self._started[-1]

    @contextmanager
    def occupied(self, device: int) -> Iterator[None]:
        hold = try_lock(device_lock_path(self.devices[device]))
        assert hold is not None
        try:
            yield
        finally:
            os.close(hold)

    def kill_runner(self, run_id: str) -> None:
        (runner,) = self.runners(run_id)
        kill(runner)

    def delete(self, run_id: str) -> None:
        shutil.rmtree(self.state.run(run_id).root)

    def runners(self, *run_ids: str) -> list[psutil.Process]:
        """Return the runners of some runs, or of all."""
        folders = {str(self.state.run(run_id).root) for run_id in run_ids}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command = process.cmdline()
                if any(part in folders if run_ids else part.startswith(f"{self.state.runs}/") for part in command):
                    found.append(process)
        return found

    def clean(self) -> None:
        """End everything that was started; its devices are free then, which the next test may count on."""
        for process in self.runners():
            kill(process)
        for started_here in self._started:
            started_here.kill()
            started_here.communicate()


def kill(process: psutil.Process) -> None:
    """End a process and wait until it holds nothing any more."""
    with suppress(psutil.NoSuchProcess):
        process.kill()
        until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def template(harness: Path, state: StatePaths) -> RunSpec:
    return RunSpec(
        run_id="",
        candidate=b"",
        harness=str(harness),
        corpus="none",
        profile="cpu",
        device="cpu",
        cores=1,
        seed=1,
        clock="wall",
        budget_seconds=1.0,
        startup_seconds=20.0,
        scoring_seconds=20.0,
        context_length=256,
        memory_mb=4000,
        processes=200,
        disk_mb=100,
        log_kb=100,
        validation_secret=str(state.validation_secret),
        validation_bytes=280_000,
        window_bytes=2048,
        audits=200,
    )


@pytest.fixture(scope="session")
def quick_harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pinned harness whose runner trains nothing."""
    folder = tmp_path_factory.mktemp("harness")
    package = pinned_package(folder, pin_harness(folder))
    runner = Path(adopt.__file__).with_name("runner.py")
    (package / "lab" / "referee" / "__main__.py").write_bytes(runner.read_bytes())
    return package


@pytest.fixture
def quick_bench(tmp_path: Path, quick_harness: Path) -> Iterator[LocalBench]:
    state = StatePaths(tmp_path / "state")
    bench = LocalBench(state=state, template=template(quick_harness, state))
    yield bench
    bench.clean()


class TestTheLocalExecutorOnTwoGpus(ExecutorContract):
    @pytest.fixture
    def bench(self, quick_bench: LocalBench) -> LocalBench:
        return quick_bench


# Opens the training data, which starts the clock, and goes on for a while; no torch is needed for that.
REAL = """
import json, os, socket, struct, time
channel = socket.socket(fileno=json.loads(os.environ["AUTORESEARCH_SETTINGS"])["channel_fd"])
data = json.dumps({"type": "open_train", "vocab_size": 257}).encode()
channel.sendall(struct.pack("!II", len(data), 0) + data)
channel.recv(1)
"""


@pytest.mark.slow
class TestTheLocalExecutorOnTheCpu(BudgetContract):
    """With the runner that really trains."""

    @pytest.fixture
    def bench(self, make_lab: MakeLab, tiny_corpus: str) -> Iterator[LocalBench]:
        lab = make_lab()
        real = replace(
            template(pinned_package(lab.state.harness, lab.harness()), lab.state),
            corpus=tiny_corpus,
            isolation=lab.isolation.level,
        )
        bench = LocalBench(
            state=lab.state,
            template=real,
            devices=("cpu",),
            candidate=lambda seconds, crashes: f"{REAL}\ntime.sleep({seconds})\n",
        )
        yield bench
        bench.clean()


# -- what only this executor does -------------------------------------------------------------------------------------------


def test_a_run_whose_folder_is_gone_has_no_progress_and_is_lost(still: Lab) -> None:
    experiment, _ = experiments.propose(still, description="baseline", hypothesis="")
    (run,) = still.ledger.runs(experiment.id)
    paths = still.state.run(run.attempt_id)
    paths.root.mkdir(mode=0o700)
    assert still.executor.progress(run.attempt_id) is not None
    still.ledger.append("run_started", {"id": run.id, "attempt": run.attempt, "device": "cpu"})
    shutil.rmtree(paths.root)
    assert still.executor.progress(run.attempt_id) is None
    assert still.ledger.runs_in_state(RunState.RUNNING)
    assert current_progress(still, experiment.id).phase == "queued"
    assert still.executor.log(run.attempt_id) == b""
    with pytest.raises(RunLostError, match="gone"):
        still.executor.result(run.attempt_id)


def test_a_result_that_says_scored_and_has_no_number_is_invalid() -> None:
    assert result_from_json({"outcome": "scored", "reason": "scored"}).outcome is Outcome.INVALID
    assert result_from_json({"outcome": "scored", "reason": "scored", "val_bpb": 2.0}).outcome is Outcome.SCORED


def test_runs_that_have_ended_are_not_looked_at_again(quick_bench: LocalBench) -> None:
    """However many there are: what capacity looks at is what has not ended."""
    executor = quick_bench.executor()
    executor.submit(quick_bench.spec("a.1"))
    ended(executor, "a.1")
    executor.submit(quick_bench.spec("b.1", seconds=LONG))
    executor.submit(quick_bench.spec("c.1", device=1, seconds=LONG))
    started(executor, "c.1")
    quick_bench.kill_runner("c.1")
    assert executor.capacity()[quick_bench.devices[1]] == (1, 1)
    assert [mark.name for mark in quick_bench.state.unfinished.iterdir()] == ["b.1"]


def test_a_submission_that_died_before_the_run_was_written_can_be_made_again(quick_bench: LocalBench) -> None:
    executor, paths = quick_bench.executor(), quick_bench.state.run("a.1")
    paths.root.mkdir(parents=True)
    (quick_bench.state.unfinished / "a.1").touch()
    assert executor.attach() == {}
    assert list(executor.events()) == []
    assert executor.capacity()[quick_bench.devices[0]] == (1, 1)
    executor.submit(quick_bench.spec("a.1", seconds=LONG))
    assert executor.capacity()[quick_bench.devices[0]] == (0, 1)


def test_a_start_that_fails_is_a_lost_run(quick_bench: LocalBench, tmp_path: Path) -> None:
    executor = quick_bench.executor()
    executor.submit(replace(quick_bench.spec("a.1"), harness=str(tmp_path / "no harness")))
    with pytest.raises(RunLostError, match="can't open file"):
        executor.result("a.1")


def test_servers_that_ask_at_the_same_time_are_not_in_each_others_way(quick_bench: LocalBench) -> None:
    """A look at a lock must not seem to be a run."""
    code = "print(set(executor.capacity()['cuda:GPU-unused'] for _ in range(1000)))"
    looking = [quick_bench.elsewhere(code) for _ in range(3)]
    assert [process.communicate()[0] for process in looking] == [b"{(1, 1)}\n"] * 3
