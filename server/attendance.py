"""Which client researches in which lab: what a server over stdio notes of its calls, and the hook of that client reads.

A client starts its server itself and also the commands of its hooks, so the process of the client says whose hook a hook is.
Guarantees: a client is noted only once it has begun to research (`start_session`, `run_experiment`) by a call that succeeded; a
client that only looks, another window of it, and every client over HTTP, whose process nobody knows, are not. A note is a small
file in the lab's state; where it cannot be written nothing else fails, and the hook lets its agent stop. Does not: write the
ledger, or know conversations: of several in one client the hook tells them apart.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ..lab.errors import LabError
from ..lab.jsonfiles import read_json, write_json
from ..lab.paths import StatePaths, state_root

if TYPE_CHECKING:
    from ..lab.lab import Lab

_BEGINS = frozenset({"start_session", "run_experiment"})
_GOES_ON = frozenset({"wait_experiment", "keep", "revert", "cancel_experiment", "edit_train"})
_SAME_START_SECONDS = 120.0  # a process's start as psutil tells it moves when the clock is set, as after a laptop's sleep
# What may stand between a client and the server that it starts, such as `uv run autoresearch serve`.
_LAUNCHERS = ("sh", "bash", "dash", "zsh", "fish", "ash", "uv", "uvx", "pipx", "env", "timeout", "nice", "python")
_SHARED = "cursor"  # an editor whose servers and hooks are started by different processes below the same one


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessName:
    """A process, told from a later one with its number by when it started."""

    pid: int
    started_at: float

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessName:
        return cls(pid=process.pid, started_at=process.create_time())

    def is_same(self, other: ProcessName) -> bool:
        return self.pid == other.pid and abs(self.started_at - other.started_at) < _SAME_START_SECONDS

    def lives(self) -> bool:
        try:
            return self.is_same(ProcessName.of(psutil.Process(self.pid)))
        except psutil.Error:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """A client that researches.

    Attributes:
        folder: that its server was started in: the lab's, or a researcher's worktree.
        researchers: whom the server works for, in the order of their first calls.
        starts, calls: how often it began a session, and how many of its calls moved research along.
        at: the newest of them, seconds since the epoch.
    """

    server: ProcessName
    client: ProcessName
    folder: str
    session: str
    researchers: tuple[str, ...]
    starts: int
    calls: int
    at: float


class Attending:
    """One server's note about the client that started it. `note` is called after each call that succeeded."""

    def __init__(self) -> None:
        self._guard = threading.Lock()  # calls come in threads
        self._starts = self._calls = 0
        self._path: Path | None = None
        self._client: ProcessName | None = None
        with suppress(psutil.Error):  # looked up at once: the parent of an orphan is another process
            process = client_process()
            self._client = None if process is None else ProcessName.of(process)

    def note(self, lab: Lab, tool: str) -> None:
        """Write down that the client researches, if ``tool`` shows it; where it cannot be written, nothing else fails."""
        if tool not in _BEGINS | _GOES_ON:
            return
        with self._guard, suppress(OSError, LabError, sqlite3.Error, psutil.Error):
            if self._client is None or (not self._calls and tool not in _BEGINS):
                return
            self._starts += tool == "start_session"
            self._calls += 1
            if self._path is None:
                _forget_the_dead(lab.state.attending)
            self._path = lab.state.attending / f"{os.getpid()}.json"
            attendance = Attendance(
                server=ProcessName.of(psutil.Process()),
                client=self._client,
                folder=str(lab.root / lab.presence.worktree),
                session=lab.session().tag,
                researchers=tuple(lab.presence.names),
                starts=self._starts,
                calls=self._calls,
                at=time.time(),
            )
            self._path.parent.mkdir(exist_ok=True)
            write_json(self._path, asdict(attendance))

    def close(self) -> None:
        if self._path is not None:
            _remove(self._path)


def client_process() -> psutil.Process | None:
    """Return the process that started this server, without launchers in between; None: it is gone, or was never there."""
    above = psutil.Process().parents()
    while above and _is_launcher(above[0]):
        above.pop(0)
    while len(above) > 1 and all(_SHARED in process.name().lower() for process in above[:2]):
        above.pop(0)
    return above[0] if above else None


def attendances() -> Iterator[tuple[Path, Attendance]]:
    """Yield the notes of every lab of this user with the files they stand in; what cannot be read is left out."""
    for path in sorted((state_root() / "labs").glob(f"*/{StatePaths(Path()).attending}/*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            yield path, _attendance(read_json(path))


def _attendance(value: dict[str, Any]) -> Attendance:
    server, client = (ProcessName(**value[name]) for name in ("server", "client"))
    return Attendance(**{**value, "server": server, "client": client, "researchers": tuple(value["researchers"])})


def hold_path(note: Path) -> Path:
    """Return where the hook keeps count beside a server's note."""
    return note.with_suffix(".hold")


def _forget_the_dead(folder: Path) -> None:
    """Remove the notes of servers that were killed."""
    for path in folder.glob("*.json"):
        try:
            lives = _attendance(read_json(path)).server.lives()
        except (ValueError, TypeError, KeyError):
            lives = False
        if not lives:
            _remove(path)


def _remove(note: Path) -> None:
    with suppress(OSError):
        note.unlink(missing_ok=True)
        hold_path(note).unlink(missing_ok=True)


def _is_launcher(process: psutil.Process) -> bool:
    """True for a program that only starts others, and was told to start this server."""
    name = process.name().lower()
    if not any(name == launcher or (launcher == "python" and name.startswith(launcher)) for launcher in _LAUNCHERS):
        return False
    command = " ".join(process.cmdline())
    return re.search(r"autoresearch\S*(\s.*)?\sserve(?![\w/-])", command) is not None
