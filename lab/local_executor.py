"""Runs on this machine: one slot for each device, one detached runner process for each run, state on disk.

There is no daemon and nothing in memory that matters: the run folders say which runs exist, a runner's lock says whether it
lives, and result.json is its last act. Any number of these executors may look at the same folder. Runs that have ended are
never looked at again: a mark for each of the others says where to look.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from .devices import Devices
from .errors import NotReadyError
from .executor import Event, Progress, RunLostError, RunResult, RunSpec
from .jsonfiles import read_json
from .locks import locked_if_free, open_lock, try_lock
from .paths import RunPaths, StatePaths, device_lock_path
from .referee.processes import is_living
from .referee.scratch import remove_folder
from .referee.specfile import read_result, write_spec
from .referee.tracing import MARK_VARIABLE, environment_of
from .run_events import RunEvents
from .states import Outcome, RunState

_POLL_SECONDS = 0.1
_SUBMIT_POLL_SECONDS = 0.01
_ORPHAN_ROUNDS = 50
_LAUNCH_LIMIT_SECONDS = 30.0
_LAST_WORDS_BYTES = 500


class LocalExecutor:
    """The embedded executor; implements `lab.executor.Executor`."""

    def __init__(self, state: StatePaths, *, devices: Devices) -> None:
        self._state = state
        self._devices = devices
        self._events = RunEvents(state, self._outcome)
        for folder in (state.runs, state.unfinished):
            folder.mkdir(parents=True, exist_ok=True)

    def capacity(self) -> Mapping[str, tuple[int, int]]:
        busy = {_device_of(paths) for paths in self._unfinished()}
        # The lock is held by runs of this user's other labs, too.
        return {device: (int(device not in busy and _is_free(device_lock_path(device))), 1) for device in self._devices.all()}

    def submit(self, spec: RunSpec) -> str:
        paths = self._state.run(spec.run_id)
        paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + _LAUNCH_LIMIT_SECONDS
        while (lock_fd := try_lock(paths.runner_lock)) is None:
            if (device := _device_of(paths)) is not None:
                return device
            if time.monotonic() > deadline:
                raise NotReadyError(
                    f"Another process has been submitting {spec.run_id} for {_LAUNCH_LIMIT_SECONDS:.0f} s and does not go on. "
                    "If one is stopped (as by Ctrl-Z), the human continues or ends it. Then call again."
                )
            time.sleep(_SUBMIT_POLL_SECONDS)  # somebody else is submitting it, or looking at it
        try:
            # Without a runner's log nothing was started: who submitted it died before.
            if (device := _device_of(paths)) is not None and paths.runner_log.exists():
                return device
            (self._state.unfinished / spec.run_id).touch()
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
            found = self._events.since(since)
            if found or time.monotonic() >= deadline:
                return found
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
            for left in (paths.scratch, paths.scoring, paths.python, *paths.root.glob("tmp*")):  # copies of the model, too
                remove_folder(left)
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
        if Path(artifact).name != artifact or artifact in ("", ".."):
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
                with suppress(KeyError):  # deleted meanwhile
                    self.cancel(run_id)

    def _paths(self, run_id: str) -> RunPaths:
        paths = self._state.run(run_id)
        if not paths.root.is_dir():
            raise KeyError(f"no run {run_id!r} in {self._state.runs}")
        return paths

    def _unfinished(self) -> Iterator[RunPaths]:
        """Yield the runs that have not ended, and remove the marks of those that have."""
        for mark in self._state.unfinished.iterdir():
            paths = self._state.run(mark.name)
            if paths.root.is_dir() and not paths.result.exists():
                with locked_if_free(paths.runner_lock) as dead:
                    if dead:  # inside of the lock: nobody submits it meanwhile
                        _unmark(mark)
                if not dead:
                    yield paths
            else:
                _unmark(mark)

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

    def _outcome(self, paths: RunPaths) -> Outcome | None:
        """Return how a run ended, None while it has not."""
        try:
            result = self.result(paths.root.name)
        except RunLostError:
            return Outcome.LOST
        return None if result is None else result.outcome


def _device_of(paths: RunPaths) -> str | None:
    """Return the device of a run that was submitted, whatever is asked for now; None: it was not."""
    spec = read_json(paths.spec)
    return None if spec is None else spec["device"]


def _is_free(lock: Path) -> bool:
    """Say whether nobody holds a lock, without being in the way of others who ask at the same time."""
    fd = open_lock(lock)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _end_orphans(paths: RunPaths) -> None:
    """End what a killed runner left behind: the sessions that it started, what works in its folders or has its mark.

    Each session's first process group is killed in one step, because what forks all the time is not found by looking; on the
    levels with a system call filter nothing leaves that group.
    """
    known = read_json(paths.processes) or {}
    sessions, marks = set(known.get("sessions", [])), set(known.get("marks", []))
    # Not the run's folder itself, in which a person may have a shell.
    folders = [folder.resolve() for folder in (paths.code, paths.scratch, paths.scoring, paths.python)]
    for session in sessions:
        _kill_group(session, known_since=paths.processes.stat().st_mtime)
    for _ in range(_ORPHAN_ROUNDS):
        ended = 0
        for process in psutil.process_iter():
            # Each sign by itself: a system may hide one and show another.
            belongs = environment_of(process).get(MARK_VARIABLE) in marks
            with suppress(psutil.Error, OSError):
                belongs = belongs or any(Path(process.cwd()).is_relative_to(folder) for folder in folders)
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


def _unmark(mark: Path) -> None:
    with suppress(OSError):  # gone already, or the disk is read-only: it is looked at once more
        mark.unlink()


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
