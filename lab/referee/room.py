"""Waiting for room on a disk that is full, so that a night's work is not lost because somebody else's download filled it.

Guarantees: what is asked for is done as soon as the disk takes it; a cancelled run ends the waiting, and so does an hour.
Does not: free anything, or judge whose bytes fill the disk (`ending` does).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ..disk import LEAST_FREE_BYTES, free_bytes, is_about_disk
from ..paths import RunPaths

WAIT_SECONDS = 3600.0
_POLL_SECONDS = 0.5

T = TypeVar("T")


def when_there_is_room(paths: RunPaths, write: Callable[[], T], *, limit_seconds: float = WAIT_SECONDS) -> T:
    """Do ``write``, again and again while the disk takes nothing.

    Raises the `OSError` of the last attempt once the run is cancelled or ``limit_seconds`` are over; others at once. What
    ``write`` raises must have left nothing behind.
    """
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            return write()
        except OSError as error:
            if not is_about_disk(error) or paths.cancel.exists() or time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_SECONDS)


def wait_for_room(paths: RunPaths, *, limit_seconds: float = WAIT_SECONDS) -> bool:
    """Wait until a run may begin on the disk of its folder; False where it was cancelled, or the time is over."""
    deadline = time.monotonic() + limit_seconds
    while free_bytes(paths.root) < LEAST_FREE_BYTES:
        if paths.cancel.exists() or time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
