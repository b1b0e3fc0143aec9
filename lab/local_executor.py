"""Runs on this machine: one slot for each device, one detached runner process for each run, state on disk.

There is no daemon and nothing in memory that matters: the run folders say which runs exist, a runner's lock says whether it
lives, and result.json is its last act. Any number of these executors may look at the same folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from .devices import Devices
from .executor import Event, Progress, RunLostError, RunResult, RunSpec
from .jsonfiles import read_json
from .locks import locked_if_free, try_lock
from .paths import RunPaths, StatePaths, device_lock_path
from .referee.processes import is_living
from .referee.specfile import read_result, write_spec
from .referee.tracing import MARK_VARIABLE, environment_of
from .states import Outcome, RunState

_POLL_SECONDS = 0.1
_ORPHAN_ROUNDS = 50
_LAUNCH_LIMIT_SECONDS = 30.0
_LAST_WORDS_BYTES = 500


class LocalExecutor:
    """The embedded executor; implements `lab.executor.Executor`."""

    def __init__(self, state: StatePaths, *, devices: Devices) -> None:
        self._state = state
        self._devices = devices
        self._events: list[Event] = []
        self._read_bytes: dict[str, int] = {}
        self._ended: set[str] = set()
        state.runs.mkdir(parents=True, exist_ok=True)

    def capacity(self) -> Mapping[str, tuple[int, int]]:
        busy = {
            read_json(self._state.run(run_id).spec)["device"]
            for run_id, state in self.attach().items()
            if state is not RunState.FINISHED
        }
        slots = {}
        for device in self._devices.all():
            with locked_if_free(device_lock_path(device)) as free:  # held by runs of this user's other labs, too
                slots[device] = (int(free and device not in busy), 1)
        return slots

    def submit(self, spec: RunSpec) -> str:
        paths = self._state.run(spec.run_id)
        paths.root.mkdir(mode=0o700, exist_ok=True)
        lock_fd = try_lock(paths.runner_lock)
        if lock_fd is None:
            return self._device_of(paths, spec)
        try:
            if paths.spec.exists():
                return self._device_of(paths, spec)
            write_spec(paths, spec)
            self._launch(spec, paths, lock_fd)
        finally:
            os.close(lock_fd)
        return spec.device

    def cancel(self, run_id: str) -> None:
        self._paths(run_id).cancel.touch()

    def events(self, since: int = 0, wait_seconds: float = 0.0) -> Sequence[Event]:
        deadline = time.monotonic() + wait_seconds
        while True:
            self._collect_events()
            if len(self._events) > since or time.monotonic() >= deadline:
                return self._events[since:]
            time.sleep(_POLL_SECONDS)

    def result(self, run_id: str) -> RunResult | None:
        """Return the result; raises `RunLostError` when there is none and the runner is dead."""
        paths = self._state.run(run_id)
        if not paths.root.is_dir():
            raise RunLostError("its run folder is gone")
        if (result := read_result(paths)) is not None:
            return result
        with locked_if_free(paths.runner_lock) as dead:
            if not dead:
                return None
            if (result := read_result(paths)) is not None:  # written between the two looks
                return result
            _end_orphans(paths)
            if paths.cancel.exists():
                return RunResult(outcome=Outcome.CANCELLED, reason="cancelled; its runner died")
            raise RunLostError(_last_words(paths))

    def progress(self, run_id: str) -> Progress | None:
        paths = self._state.run(run_id)
        if not paths.root.is_dir():
            return None  # somebody deleted it; `result` says that it is lost
        fields = read_json(paths.progress)
        return Progress(phase="queued") if fields is None else Progress(**fields)

    def log(self, run_id: str, offset: int = 0, limit: int = 65_536) -> bytes:
        try:
            with self._state.run(run_id).log.open("rb") as file:
                file.seek(offset)
                return file.read(limit)
        except FileNotFoundError:
            return b""

    def fetch(self, run_id: str, artifact: str, destination: Path) -> None:
        if Path(artifact).name != artifact:
            raise ValueError(f"{artifact!r} is not a file of the run folder")
        shutil.copyfile(self._paths(run_id).root / artifact, destination)

    def attach(self) -> Mapping[str, RunState]:
        found = {}
        for folder in sorted(self._state.runs.iterdir()):
            paths = RunPaths(folder)
            if not paths.spec.exists():
                continue
            if paths.result.exists():
                found[folder.name] = RunState.FINISHED
                continue
            with locked_if_free(paths.runner_lock) as dead:
                if dead:
                    found[folder.name] = RunState.FINISHED  # without a result: `result` says that it is lost
                else:
                    started = paths.progress.exists()
                    found[folder.name] = RunState.RUNNING if started else RunState.QUEUED
        return found

    def close(self, *, kill: bool = False) -> None:
        if not kill:
            return
        for run_id, state in self.attach().items():
            if state is not RunState.FINISHED:
                self.cancel(run_id)

    def _paths(self, run_id: str) -> RunPaths:
        paths = self._state.run(run_id)
        if not paths.root.is_dir():
            raise KeyError(f"no run {run_id!r} in {self._state.runs}")
        return paths

    def _device_of(self, paths: RunPaths, spec: RunSpec) -> str:
        """Return the device of a run that was submitted before, whatever this second spec says."""
        return (read_json(paths.spec) or {}).get("device", spec.device)

    def _launch(self, spec: RunSpec, paths: RunPaths, lock_fd: int) -> None:
        """Start the runner from the pinned harness. It inherits the lock, so there is no moment when nobody holds it."""
        starter = Path(spec.harness) / "lab" / "referee" / "__main__.py"
        with paths.runner_log.open("ab") as output, suppress(subprocess.SubprocessError):
            # A start that fails frees the lock without a result, which is how a dead runner looks: tried again, then lost.
            subprocess.run(
                [sys.executable, "-s", "-B", str(starter), str(paths.root), str(lock_fd)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                pass_fds=(lock_fd,),
                start_new_session=True,
                timeout=_LAUNCH_LIMIT_SECONDS,
                check=True,
            )

    def _collect_events(self) -> None:
        """Append what the run folders say beyond what was read, oldest first."""
        fresh: list[tuple[float, str, str, dict]] = []
        for folder in sorted(self._state.runs.iterdir()):
            paths, run_id = RunPaths(folder), folder.name
            if run_id in self._ended or not paths.spec.exists():
                continue
            if run_id not in self._read_bytes:
                self._read_bytes[run_id] = 0
                fresh.append((paths.spec.stat().st_mtime, run_id, "queued", {}))
            finished = paths.result.exists()
            if paths.events.exists():
                with paths.events.open("rb") as file:
                    file.seek(self._read_bytes[run_id])
                    data = file.read()
                whole = data[: data.rfind(b"\n") + 1]
                self._read_bytes[run_id] += len(whole)
                for line in whole.splitlines():
                    entry = json.loads(line)
                    fresh.append((entry["at"], run_id, entry["kind"], {}))
            if finished:
                self._ended.add(run_id)
                result = read_result(paths)
                assert result is not None
                fresh.append((paths.result.stat().st_mtime, run_id, "terminal", {"outcome": result.outcome}))
        for at, run_id, kind, data in sorted(fresh, key=lambda entry: (entry[0], entry[2] == "terminal")):
            self._events.append(Event(sequence=len(self._events), run_id=run_id, kind=kind, at=at, data=data))  # type: ignore[arg-type]


def _end_orphans(paths: RunPaths) -> None:
    """End what a killed runner left behind: the sessions that it started, what works in the run's folder or has its mark.

    Each session's first process group is killed in one step, because what forks all the time is not found by looking; on the
    levels with a system call filter nothing leaves that group.
    """
    known = read_json(paths.processes) or {}
    root, sessions, marks = paths.root.resolve(), set(known.get("sessions", [])), set(known.get("marks", []))
    for session in sessions:
        _kill_group(session, known_since=paths.processes.stat().st_mtime)
    for _ in range(_ORPHAN_ROUNDS):
        ended = 0
        for process in psutil.process_iter():
            # Each sign by itself: a system may hide one and show another.
            belongs = environment_of(process).get(MARK_VARIABLE) in marks
            with suppress(psutil.Error, OSError):
                belongs = belongs or Path(process.cwd()).is_relative_to(root)
            with suppress(psutil.Error, OSError):
                belongs = belongs or (
                    os.getsid(process.pid) in sessions
                    and is_living(process)
                    and process.create_time() >= paths.spec.stat().st_mtime - 1.0
                )
            if belongs:
                ended += 1
                with suppress(psutil.Error):
                    process.kill()
        if not ended:
            return


def _kill_group(leader: int, *, known_since: float) -> None:
    """Kill a process group, unless its number now belongs to a process that is younger than what is known of it."""
    with suppress(psutil.Error):
        if psutil.Process(leader).create_time() > known_since + 1.0:
            return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _last_words(paths: RunPaths) -> str:
    """Return the end of what the runner itself said."""
    try:
        with paths.runner_log.open("rb") as file:
            file.seek(max(0, paths.runner_log.stat().st_size - _LAST_WORDS_BYTES))
            return file.read().decode(errors="replace").strip() or "the runner was killed"
    except FileNotFoundError:
        return "the runner was killed"


def lost_result(reason: str) -> RunResult:
    """The result of a run whose runners died."""
    return RunResult(outcome=Outcome.LOST, reason=f"the referee's process died: {reason}")
