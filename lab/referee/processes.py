"""The processes of a run: who belongs to it, what they use, and how they are ended.

The runner is a child subreaper on Linux, so a daemon that detaches itself becomes the runner's own child and stays in the
tree; nothing escapes. Elsewhere a `tracing.Trace` finds what it can. CPU time is counted from what was seen of every process
that ever belonged, so it never goes down. A process whose first thread has ended looks like a zombie while its other threads
go on: it counts as living. Not counted: the CPU time of a child that lives and ends between two samples, of a parent that
told the kernel to forget its children.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
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
_HAS_TASKS = Path("/proc/self/task").exists()
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
        self._reaped_before = _reaped_cpu_seconds()
        self.peak_memory_bytes = 0
        self.threads = 0  # of the whole tree, as of the last sample

    def members(self, *, recent: bool = False) -> list[psutil.Process]:
        """Return the living processes of the tree; ``recent`` accepts what a trace found half a second ago."""
        return [process for process in self._candidates(recent) if is_living(process)]

    def sample(self) -> tuple[float, int, int]:
        """Return (CPU seconds ever used, memory in bytes now, number of processes) of the whole tree."""
        memory_bytes, existing_cpu_seconds, processes, threads = 0, 0.0, 0, 0
        for process in self._candidates(recent=True):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    own = times.user + times.system
                    self._seen_cpu_seconds[process] = own
                    reaped = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
                    existing_cpu_seconds += own + reaped  # of zombies, too: nobody has collected theirs yet
                    if is_living(process):
                        processes += 1
                        memory_bytes += _resident_bytes(process)
                        threads += process.num_threads()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.threads = threads
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory_bytes)
        # Two lower bounds: all that was ever seen misses what lived between two samples; those that exist, with the children
        # they have waited for and those that this process has, misses children that nobody waits for.
        existing_cpu_seconds += _reaped_cpu_seconds() - self._reaped_before
        self._cpu_seconds = max(self._cpu_seconds, existing_cpu_seconds, sum(self._seen_cpu_seconds.values()))
        return self._cpu_seconds, memory_bytes, processes

    def proportional_memory_bytes(self) -> int:
        """Return the memory with shared pages counted once (PSS), where the platform tells; slower than `sample`."""
        total = 0
        for process in self.members():
            try:
                try:
                    full = process.memory_full_info()
                    proportional = getattr(full, "pss", full.rss) + getattr(full, "swap", 0)
                except psutil.AccessDenied:  # macOS tells it only to root: an upper bound then
                    proportional = 0
                total += proportional or _resident_bytes(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return total

    def deleted_bytes(self) -> int:
        """Return what the files take that the tree holds open without a name, on disk or in memory (Linux)."""
        taken: dict[tuple[int, int], int] = {}
        for process in self.members(recent=True):
            try:
                descriptors = list(Path(f"/proc/{process.pid}/fd").iterdir())
            except OSError:
                continue
            for descriptor in descriptors:
                with suppress(OSError):
                    status = descriptor.stat()
                    if status.st_nlink == 0 and stat.S_ISREG(status.st_mode):
                        taken[status.st_dev, status.st_ino] = status.st_blocks * 512
        return sum(taken.values())

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
    if not _HAS_TASKS:
        return _children_portable(pid)
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                found += [int(child) for child in (task / "children").read_bytes().split()]
            except ProcessLookupError:
                continue
    except ProcessLookupError:
        return found
    except FileNotFoundError:  # it is gone, or this kernel does not list children
        return _children_portable(pid) if psutil.pid_exists(pid) else found
    return found


def _children_portable(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def is_living(process: psutil.Process) -> bool:
    """Say whether any thread of a process goes on; its first one may have ended, which looks like a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.Error:
        return False


def _resident_bytes(process: psutil.Process) -> int:
    """Return what a living process has in memory; one whose first thread has ended shows it through the others only."""
    if resident := process.memory_info().rss:
        return resident
    try:
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            with suppress(OSError):
                if pages := int((task / "statm").read_bytes().split()[1]):
                    return pages * resource.getpagesize()
    except OSError:
        pass
    return 0


def _reaped_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
