"""Who else computes on the GPU of one run, and what slows it down, from samples while the candidate trains.

Guarantees: a driver that does not answer costs the facts, never the run. Does not: weigh how much a neighbour does (a process
that holds the GPU counts as one that uses it), count programs that only draw, or see what runs under MPS. In a container, where
the driver's process numbers mean nothing, only those that were there before the run are known to be others.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from ..devices import GpuDriver, GpuDriverError

_PID_NAMESPACE = Path("/proc/self/ns/pid")
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # the inode of the one that the driver counts in (PROC_PID_INIT_INO)


class GpuNeighbours:
    """Make it before anything of the run is on the GPU; `sample` it from START to the candidate's exit."""

    def __init__(self, device: str, driver: GpuDriver, *, numbers_are_ours: bool | None = None) -> None:
        """``numbers_are_ours``: whether the driver's process numbers are those of this process; None: ask the kernel."""
        self._driver = driver
        self._uuid = device.partition(":")[2]
        self._numbers_are_ours = _in_first_namespace() if numbers_are_ours is None else numbers_are_ours
        self._before: frozenset[int] | None = None
        self._samples = 0
        self._shared_samples = 0
        self._slow_samples = 0
        self.processes: frozenset[int] = frozenset()  # that were seen beside the run
        self.slowdowns: frozenset[str] = frozenset()
        try:
            self._before = driver.compute_processes(self._uuid)
        except GpuDriverError:
            return

    @property
    def shared(self) -> float | None:
        """The share of the samples in which others computed on the GPU; None: the driver does not say."""
        return self._shared_samples / self._samples if self._samples else None

    @property
    def slow(self) -> float | None:
        """The share of the samples in which the GPU was slower than it could be; None: the driver does not say."""
        return self._slow_samples / self._samples if self._samples else None

    def sample(self) -> None:
        if self._before is None:
            return
        try:
            others = self._others(self._driver.compute_processes(self._uuid), self._before)
            slowdowns = self._driver.slowdowns(self._uuid)
        except GpuDriverError:
            return
        self._samples += 1
        self._shared_samples += bool(others)
        self._slow_samples += bool(slowdowns)
        self.processes |= others
        self.slowdowns |= slowdowns

    def _others(self, now: frozenset[int], before: frozenset[int]) -> frozenset[int]:
        known = now & (before | self.processes)
        if not self._numbers_are_ours or now == known:
            return known
        me = psutil.Process()
        return now - {me.pid, *(child.pid for child in me.children(recursive=True))}


def _in_first_namespace() -> bool:
    try:
        return _PID_NAMESPACE.stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False
