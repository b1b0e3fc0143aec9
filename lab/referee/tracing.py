"""Finding the processes of a run where the kernel does not keep them together: everywhere but on Linux.

A process belongs when it descends from the runner, shares a session or process group with one that belongs, was seen
belonging before, or carries the run's mark in its environment. So a daemon that forks twice and begins a session of its own
is found by its mark, and one that clears its environment by having been seen before. Not found: a process that did both
between two looks. That is why the isolation level of such a machine is "none".
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection

import psutil

MARK_VARIABLE = "AUTORESEARCH_RUN_MARK"
_RECENT_SECONDS = 0.5


class Trace:
    """The memory of who belonged, between one look and the next."""

    def __init__(self, marks: Collection[str]) -> None:
        self._marks = frozenset(marks)
        self._known: set[psutil.Process] = set()
        self._strangers: set[psutil.Process] = set()  # whose environment was read, and has no mark of ours
        self._unread: set[psutil.Process] = set()  # whose environment was empty or hidden when it was first read
        self._looked = -_RECENT_SECONDS

    def recent(self, spared: Collection[int]) -> list[psutil.Process]:
        """Return what the last look found, or a new look's when that was too long ago: each costs 0.1 ms per process here."""
        return list(self._known) if time.monotonic() - self._looked < _RECENT_SECONDS else self.look(spared)

    def look(self, spared: Collection[int]) -> list[psutil.Process]:
        """Return the living processes that belong, without the ``spared`` ones and what only they started."""
        own = os.getpid()
        living = {process for process in psutil.process_iter() if process.pid != own and process.pid not in spared}
        self._strangers &= living
        self._unread &= living
        ours = os.getsid(0), os.getpgid(0)  # the runner's own, which its children left
        identities = {process: _identity(process) for process in living}
        found = {process for process in living if process in self._known or self._is_marked(process)}
        while True:
            pids = {own, *(process.pid for process in found)}
            groups = {group for process in found for group in identities[process][1:]} - {*ours, -1}
            more = {
                process
                for process in living - found
                if identities[process][0] in pids or not groups.isdisjoint(identities[process][1:])
            }
            if not more:
                break
            found |= more
        self._known, self._looked = found, time.monotonic()
        return list(found)

    def _is_marked(self, process: psutil.Process) -> bool:
        if process in self._strangers:
            return False
        environment = environment_of(process)
        if environment.get(MARK_VARIABLE) in self._marks:
            return True
        # A process that is becoming another program has none for a moment: it is read twice.
        (self._strangers if environment or process in self._unread else self._unread).add(process)
        return False


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Return the environment that a process was started with; empty where this user may not see it."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _identity(process: psutil.Process) -> tuple[int, int, int]:
    """Return (parent, session, process group); -1 for what is gone or hidden."""
    try:
        return process.ppid(), os.getsid(process.pid), os.getpgid(process.pid)
    except (psutil.Error, OSError):
        return -1, -1, -1
