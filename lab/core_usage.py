"""Who uses the cores: two readings of the system's counters, and the share that was not this run's.

Counted over the cores that this process may use: everything that any program did on them, and what a hypervisor took away
(steal, where the system tells it; macOS does not). Guarantees: a share is in [0, 1]; counters that stand still give none.
Does not: see what is shared but not counted, such as caches, memory bandwidth, the other thread of a core on another virtual
machine; nor what a hypervisor would take from a busier guest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

# What counts as use. The time of guests is part of user and nice; waiting for disks (iowait) is idle.
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
_IDLE = ("idle", "iowait")
_MOVING = 0.5  # counters that moved by less than this share of the time stand still


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreReading:
    """What the counters of some cores say at one moment; seconds are summed over the cores, since the system started."""

    at: float  # time.monotonic()
    cores: int
    busy_seconds: float  # of whoever, what was stolen included
    stolen_seconds: float
    idle_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What others used of a run's cores between two readings, each from 0 to 1 of what the cores could do."""

    others: float
    stolen: float  # the part of ``others`` that the hypervisor took


def read_cores() -> CoreReading | None:
    """Read the counters of the cores that this process may use; None where the system has none."""
    try:
        rows = psutil.cpu_times(percpu=True)
    except (psutil.Error, OSError, NotImplementedError):
        return None
    rows = _usable(rows)
    return CoreReading(
        at=time.monotonic(),
        cores=len(rows),
        busy_seconds=_sum(rows, _BUSY),
        stolen_seconds=_sum(rows, ("steal",)),
        idle_seconds=_sum(rows, _IDLE),
    )


def others_share(before: CoreReading, after: CoreReading, *, own_seconds: float, cores: int) -> Share | None:
    """Return what others took of a run's cores between two readings; None: the counters do not say.

    Args:
        own_seconds: CPU seconds that the run and its referee used meanwhile.
        cores: how many of the cores are the run's. What fits onto the remaining ones takes nothing from it.
    """
    seconds = after.at - before.at
    busy, idle = after.busy_seconds - before.busy_seconds, after.idle_seconds - before.idle_seconds
    if seconds <= 0 or after.cores != before.cores or busy + idle < _MOVING * seconds * after.cores:
        return None
    cores = max(1, min(cores, after.cores))
    room = seconds * (after.cores - cores)
    others = max(0.0, busy - own_seconds - room) / (seconds * cores)
    stolen = max(0.0, after.stolen_seconds - before.stolen_seconds) / (seconds * after.cores)
    others = min(1.0, others)
    return Share(others=others, stolen=min(stolen, others))


def _usable(rows: Sequence[object]) -> Sequence[object]:
    """Return the rows of the cores that this process may use; rows are not numbered, so all where they cannot be told."""
    if not hasattr(os, "sched_getaffinity"):
        return rows
    mine = os.sched_getaffinity(0)
    return [rows[core] for core in sorted(mine)] if max(mine) < len(rows) else rows


def _sum(rows: Sequence[object], names: Sequence[str]) -> float:
    return sum(getattr(row, name, 0.0) for row in rows for name in names)
