"""How much of this machine others use while nobody runs an experiment, and the share from which a run counts as contended.

Measured by `autoresearch init`, for about two seconds, and quickly before the first run where that is missing; recorded once as
``machine_calibrated`` and in force on that machine with that many cores until `init` measures again. Guarantees: nothing is
recorded while a run of this user's labs uses a device, and measuring keeps no core busy. Does not: foresee a machine that
becomes busier, which then marks its runs until a human measures again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .core_usage import others_share, read_cores
from .ledger import Ledger
from .machine import cores, machine_name
from .states import RunState

if TYPE_CHECKING:
    from .lab import Lab

# A run is contended where others use more than what is usual here and this much: of two cores, three tenths of one.
MARGIN_SHARE = 0.15
HIGHEST_THRESHOLD = 0.9

INIT_SECONDS, QUICK_SECONDS = 2.0, 0.5
_SLICES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured on one machine; shares are of all its cores, from 0 to 1."""

    machine: str
    cores: int
    background_share: float
    threshold: float
    at: float  # seconds since the epoch


def threshold_of(background_share: float) -> float:
    """Return the share of others from which a run is contended: what is usual plus a margin, 0.15 to 0.9."""
    return round(min(HIGHEST_THRESHOLD, background_share + MARGIN_SHARE), 4)


def calibration(ledger: Ledger) -> Calibration | None:
    """Return the calibration in force here; None: there is none for this machine with this many cores."""
    for event in reversed(ledger.events_of("machine_calibrated")):
        body = event.body
        if (body["machine"], body["cores"]) == (machine_name(), cores()):
            return Calibration(
                machine=body["machine"],
                cores=body["cores"],
                background_share=body["background_share"],
                threshold=body["threshold"],
                at=event.at,
            )
    return None


def calibrate(lab: Lab, seconds: float = INIT_SECONDS) -> Calibration | None:
    """Measure and record; None, recording nothing, while a device is in use, or where the system does not count."""
    if not _is_quiet(lab):
        return None
    share = measure_background(seconds)
    if share is None or not _is_quiet(lab):
        return None
    record(lab.ledger, background_share=share, threshold=threshold_of(share))
    return calibration(lab.ledger)


def calibrate_once(lab: Lab) -> None:
    """Measure quickly what `autoresearch init` has not measured here."""
    if calibration(lab.ledger) is None:
        calibrate(lab, QUICK_SECONDS)


def record(ledger: Ledger, *, background_share: float, threshold: float) -> None:
    """Record a calibration of this machine."""
    event = {
        "machine": machine_name(),
        "cores": cores(),
        "background_share": round(background_share, 4),
        "threshold": threshold,
    }
    ledger.append("machine_calibrated", event)


def measure_background(seconds: float) -> float | None:
    """Return the median share of the cores that others use over some slices of time; None: the system does not count."""
    shares = []
    for _ in range(_SLICES):
        before, own = read_cores(), time.process_time()
        if before is None:
            return None
        time.sleep(seconds / _SLICES)
        after = read_cores()
        if after is None:
            return None
        share = others_share(before, after, own_seconds=time.process_time() - own, cores=before.cores)
        if share is not None:
            shares.append(share.others)
    return sorted(shares)[len(shares) // 2] if shares else None


def _is_quiet(lab: Lab) -> bool:
    """True while no run of this user's labs uses a device of this machine."""
    if lab.ledger.runs_in_state(RunState.RUNNING):
        return False
    return all(free == slots for free, slots in lab.executor.capacity().values())
