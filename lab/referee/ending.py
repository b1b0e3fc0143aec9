"""How a run ends without a score, and what ends it that concerns training and scoring alike: no room, and survivors."""

from __future__ import annotations

from pathlib import Path

from ..disk import is_full
from ..executor import RunSpec
from ..states import Outcome
from . import sandbox
from .processes import ProcessTree
from .sandbox import IsolationLevel
from .scratch import folder_bytes, is_disk_full
from .tracing import Trace

REASON_CHARACTERS = 2000
_BLAMED_BYTES = 64 << 20  # with less a run is not why a disk is full, and ending it would not help


class RunEndedError(Exception):
    """The run ended without a score; carries the outcome and the reason."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason[:REASON_CHARACTERS]


def tree_of(spec: RunSpec, root_pid: int | None, spared: set[int], *marks: str) -> ProcessTree:
    """Return the processes of a run, found in the way that its isolation level has."""
    trace = Trace(marks) if spec.isolation == IsolationLevel.NONE else None
    return ProcessTree(root_pid, spared, trace)


def require_room(spec: RunSpec, tree: ProcessTree, memory_bytes: int, processes: int, folder: Path) -> None:
    """End the run when its processes have more memory, siblings or disk than they may; memory is confirmed by PSS."""
    limit_bytes = spec.memory_mb << 20
    if memory_bytes > limit_bytes and tree.proportional_memory_bytes() > limit_bytes:
        raise RunEndedError(Outcome.CRASHED, f"used more than {spec.memory_mb} MB of memory ([limits] memory_mb)")
    if processes > spec.processes or tree.threads > sandbox.thread_limit(spec.processes):
        raise RunEndedError(Outcome.CRASHED, f"started more than {spec.processes} processes ([limits] processes)")
    own_bytes = folder_bytes(folder, limit_bytes=spec.disk_mb << 20) + tree.deleted_bytes()
    if own_bytes > spec.disk_mb << 20:
        raise RunEndedError(
            Outcome.CRASHED,
            f"wrote more than {spec.disk_mb} MB to disk ([limits] disk_mb), or into folders that cannot be measured",
        )
    if own_bytes >= _BLAMED_BYTES and is_disk_full(folder):
        raise RunEndedError(Outcome.CRASHED, f"the disk is full, and {own_bytes >> 20} MB of it are the run's own")


def end_on_full_disk(spec: RunSpec, folder: Path, how: str) -> RunEndedError | None:
    """Return how a candidate ended that failed on a full disk: by its own bytes, or by others', which says nothing about it."""
    if not is_full(folder):
        return None
    own_bytes = folder_bytes(folder, limit_bytes=spec.disk_mb << 20)
    if own_bytes >= _BLAMED_BYTES:
        return RunEndedError(Outcome.CRASHED, f"train.py {how}: the disk is full, and {own_bytes >> 20} MB are the run's own")
    return RunEndedError(
        Outcome.LOST, f"train.py {how}: the disk is full of other things than the run's; it may be tried again"
    )


def require_no_survivor(survivors: int) -> None:
    """Nothing of a run lives on into the next one: a run that something survives has no number."""
    if survivors:
        raise RunEndedError(Outcome.INVALID, f"{survivors} processes of the run could not be ended")


def broken_promise(spec: RunSpec, why: str) -> RunEndedError:
    """Return the end of a run that cannot have the isolation that it was promised: it is lost, and none of its code began."""
    reason = f"the isolation {spec.isolation!r}, which the run was promised, cannot be had: {why}"
    return RunEndedError(Outcome.LOST, reason)
