"""The processes of a run: who belongs to it, what they use, and how they are ended.

The runner is a child subreaper on Linux, so a daemon that detaches itself becomes the runner's own child and stays in the
tree; nothing escapes. Elsewhere a `tracing.Trace` finds what it can. CPU time is counted from what was seen of every process
that ever belonged, so it never goes down.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from .tracing import Trace

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_KILL_ROUNDS = 200
_EMPTY_LOOKS = 2  # a look may miss a process while its siblings exit
_ROUND_SECONDS = 0.02
END_SECONDS = 5.0  # for a killed process to be gone; a driver can hold one for ever


def adopt_orphans() -> bool:
    """Make this process the parent of every orphan below it; False where the platform cannot."""
    if not sys.platform.startswith("linux"):
        return False
    return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def can_adopt_orphans() -> bool:
    """Say whether `adopt_orphans` would succeed, changing nothing; some kernels that call themselves Linux cannot."""
    if not sys.platform.startswith("linux"):
        return False
    answer = ctypes.c_int()
    return ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) == 0


def exit_descriptor(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the process exits, where the platform has one."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def signal_name(number: int) -> str:
    """Return "SIGKILL" for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class ProcessTree:
    """Every process below this one except the ``spared`` ones (the scoring workers) and what they start.

    ``root_pid`` leads the process group of the tree, which can be killed in one step; None: there is no such group.
    ``trace`` finds the members where this process is no subreaper; None: it is one.
    """

    def __init__(self, root_pid: int | None, spared: set[int], trace: Trace | None = None) -> None:
        self._root_pid = root_pid
        self._spared = spared
        self._trace = trace
        # By process, not by (pid, start): a clock that is set, as after a laptop's sleep, moves the start.
        self._seen_cpu_seconds: dict[psutil.Process, float] = {}
        self._cpu_seconds = 0.0
        self.peak_memory_bytes = 0

    def members(self, *, recent: bool = False) -> list[psutil.Process]:
        """Return the living processes of the tree; ``recent`` accepts what a trace found half a second ago."""
        found = []
        for process in self._candidates(recent):
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def sample(self) -> tuple[float, int, int]:
        """Return (CPU seconds ever used, memory in bytes now, number of processes) of the whole tree."""
        memory_bytes, living_cpu_seconds, members = 0, 0.0, self.members(recent=True)
        for process in members:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    own = times.user + times.system
                    self._seen_cpu_seconds[process] = own
                    reaped = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
                    living_cpu_seconds += own + reaped
                    memory_bytes += process.memory_info().rss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory_bytes)
        # Two lower bounds: all that was ever seen misses what lived between two samples; the living, with the children
        # they have waited for, misses those whose parent is gone.
        self._cpu_seconds = max(self._cpu_seconds, living_cpu_seconds, sum(self._seen_cpu_seconds.values()))
        return self._cpu_seconds, memory_bytes, len(members)

    def proportional_memory_bytes(self) -> int:
        """Return the memory with shared pages counted once (PSS), where the platform tells; slower than `sample`."""
        total = 0
        for process in self.members():
            try:
                try:
                    full = process.memory_full_info()
                    total += getattr(full, "pss", full.rss)
                except psutil.AccessDenied:  # macOS tells it only to root: an upper bound then
                    total += process.memory_info().rss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return total

    def kill(self) -> int:
        """Kill every member until none is left; return how many survived (0, or something is badly wrong)."""
        empty_looks = 0
        for _ in range(_KILL_ROUNDS):
            if self._root_pid is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._root_pid, signal.SIGKILL)
            members = self.members()
            for process in members:
                with suppress(psutil.Error):
                    process.kill()
            self._reap()
            empty_looks = 0 if members else empty_looks + 1
            if empty_looks == _EMPTY_LOOKS:
                return 0
            time.sleep(_ROUND_SECONDS)
        return len(self.members())

    def _candidates(self, recent: bool) -> list[psutil.Process]:
        if self._trace is not None:
            return self._trace.recent(self._spared) if recent else self._trace.look(self._spared)
        found = []
        for pid in _descendants(os.getpid(), self._spared):
            with suppress(psutil.Error):
                found.append(psutil.Process(pid))
        return found

    def _reap(self) -> None:
        """Collect adopted orphans; the root and the spared workers are waited for by who started them."""
        for pid in _children(os.getpid()):
            if pid != self._root_pid and pid not in self._spared:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue


def _descendants(pid: int, spared: set[int]) -> list[int]:
    found, queue = [], [pid]
    while queue:
        for child in _children(queue.pop()):
            if child not in spared:
                found.append(child)
                queue.append(child)
    return found


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        return _children_portable(pid)
    found = []
    try:
        for task in tasks.iterdir():
            try:
                found += [int(child) for child in (task / "children").read_bytes().split()]
            except ProcessLookupError:
                continue
    except FileNotFoundError:
        return found if not Path(f"/proc/{pid}").exists() else _children_portable(pid)
    return found


def _children_portable(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []
